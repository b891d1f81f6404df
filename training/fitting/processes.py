"""The processes that train one model together."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

from training.fitting.objective import Objective


@dataclass(frozen=True, kw_only=True)
class Processes:
    """One process of `count`.

    Attributes:
        rank: this one's number.
        count: how many there are.
        device: where this one computes.
    """

    rank: int = 0
    count: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def first(self) -> bool:
        """Whether this is the one that prints and writes what need be written once."""
        return self.rank == 0


@contextmanager
def joined(device: str) -> Iterator[Processes]:
    """Joins the processes that torchrun started, or stands alone.

    Args:
        device: "cpu" (gloo between processes) or "cuda" (NCCL, one GPU a process).
    """
    rank, count, local = (
        int(os.environ.get(name, default))
        for name, default in (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))
    )
    where = torch.device("cuda", local) if device == "cuda" else torch.device(device)
    if where.type == "cuda":
        torch.cuda.set_device(where)
    backend = "nccl" if where.type == "cuda" else "gloo"
    if "WORLD_SIZE" in os.environ:
        dist.init_process_group(backend)
    try:
        yield Processes(rank=rank, count=count, device=where)
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def shard(objective: Objective, processes: Processes, precision: str) -> bool:
    """Spreads parameters, gradients and optimiser state over the processes (FSDP2).

    A single process shards too where it computes in bfloat16, since that is where the float32
    copies are kept.

    Returns:
        Whether the objective was sharded.
    """
    if processes.count == 1 and precision == "fp32":
        return False
    if not dist.is_initialized():
        backend = "nccl" if processes.device.type == "cuda" else "gloo"
        store = dist.HashStore()  # type: ignore[attr-defined]
        dist.init_process_group(backend, store=store, rank=0, world_size=1)
    mesh = init_device_mesh(processes.device.type, (processes.count,))
    policy = (
        MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
        if precision == "bf16"
        else MixedPrecisionPolicy()
    )
    for block in getattr(objective.model, "blocks", ()):
        fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(objective, mesh=mesh, mp_policy=policy)
    register_fsdp_forward_method(objective, "decode")
    return True
