"""The processes that train one model together."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

from cortex.errors import InputError
from cortex.latent_block import LatentBlock
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
    """Joins the processes that torchrun or `launch` started, or stands alone.

    Args:
        device: "cpu" (gloo between processes) or "cuda" (NCCL, one GPU a process).

    Raises:
        InputError: the device, or one for every process of this machine, is not there.
    """
    rank, count, local = (
        int(os.environ.get(name, default))
        for name, default in (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))
    )
    where = torch.device("cuda", local) if device == "cuda" else torch.device(device)
    if where.type == "cuda":
        if local >= torch.cuda.device_count():
            raise InputError(
                f"device '{where}' is not there, expected a GPU for each process of this machine, "
                f"which has {torch.cuda.device_count()}"
            )
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

    Returns:
        Whether there is more than one to spread them over.
    """
    if processes.count == 1:
        return False
    mesh = init_device_mesh(processes.device.type, (processes.count,))
    policy = (
        # Inputs stay as they are: labels and the loss's denominators are no activations.
        MixedPrecisionPolicy(
            param_dtype=torch.bfloat16, reduce_dtype=torch.float32, cast_forward_inputs=False
        )
        if precision == "bf16"
        else MixedPrecisionPolicy()
    )
    for block in getattr(objective.model, "blocks", ()):
        fully_shard(block, mesh=mesh, mp_policy=policy)
        if isinstance(block, LatentBlock):
            # The start goes through it apart from the steps.
            register_fsdp_forward_method(block, "begin")
    fully_shard(objective, mesh=mesh, mp_policy=policy)
    register_fsdp_forward_method(objective, "decode")
    return True
