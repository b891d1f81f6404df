"""Starts the processes of one machine that train one model together.

torchrun does the same from outside, on many machines too; where its environment is set, it holds.
"""

import logging
import multiprocessing
import os
import sys
from collections.abc import Callable
from multiprocessing.queues import SimpleQueue

import torch.distributed as dist
from absl import flags
from torch.multiprocessing.spawn import (
    ProcessExitedException,
    ProcessRaisedException,
    spawn,
)

from cortex.errors import InputError

Main = Callable[[list[str]], None]


def launch(main: Main, argv: list[str], count: int) -> None:
    """Runs `main(argv)` here, or in each of `count` new processes where that is more than one.

    The first process that fails ends the others, and then this one, with one message and status 1.
    However this one ends, they end too.

    Args:
        main: a function of the program's main file. Each process runs that file anew, as a module
            that is not the main one, and parses the same flags.
        argv: what is left of the command line after the flags.
        count: how many processes.

    Raises:
        InputError: what the first process to refuse its input said; or torchrun has started
            another number of processes.
    """
    started = os.environ.get("WORLD_SIZE")
    if started is not None and count not in (1, int(started)):
        raise InputError(f"torchrun started {started} processes, expected the {count} asked for")
    if started is not None or count == 1:
        main(argv)
        return
    # It meets the processes itself: a port that is only found free may be gone when they come.
    store = dist.TCPStore(  # type: ignore[attr-defined]
        "127.0.0.1", 0, is_master=True, wait_for_workers=False
    )
    _set_environment(count, store.port)
    logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)
    refusals = multiprocessing.get_context("spawn").SimpleQueue()
    try:
        spawn(_process, (main, argv, refusals), nprocs=count, daemon=True)
    except (ProcessExitedException, ProcessRaisedException) as error:
        if not refusals.empty():
            raise InputError(refusals.get()) from None
        # With the traceback of the process that failed, or the signal that ended it.
        sys.exit(f"error: {str(error).strip()}")


def _set_environment(count: int, port: int) -> None:
    """What torchrun tells its processes, apart from their numbers."""
    os.environ.update(
        WORLD_SIZE=str(count),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        TORCHELASTIC_USE_AGENT_STORE="True",
        TORCHELASTIC_RESTART_COUNT="0",
    )
    # This machine's name need not have an address.
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    # Each process has its share of the cores; torch reads this as it is imported.
    cores = len(os.sched_getaffinity(0))
    os.environ.setdefault("OMP_NUM_THREADS", str(max(cores // count, 1)))


def _process(rank: int, main: Main, argv: list[str], refusals: "SimpleQueue[str]") -> None:
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank))
    flags.FLAGS(sys.argv)
    try:
        main(argv)
    except InputError as error:
        refusals.put(str(error))
        sys.exit(2)
