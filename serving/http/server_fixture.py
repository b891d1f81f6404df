"""Starts a server in a process of its own, for tests."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import requests


class ServerProcess:
    """A running server.

    Attributes:
        url: where it listens; empty if it ended first.
        process: its supervising process.
    """

    def __init__(self, module: str, arguments: Sequence[str]) -> None:
        """Starts `python -m module arguments` and waits until it prints its address."""
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip().removeprefix("listening on ")

    def wait_ready(self, timeout_s: float = 30.0) -> None:
        """Returns once /ready is 200."""
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            try:
                if requests.get(f"{self.url}/ready", timeout=5).ok:
                    return
            except requests.ConnectionError:
                pass
            assert self.process.poll() is None, self.finish()
            time.sleep(0.02)
        raise AssertionError("the server did not become ready")

    def terminate(self) -> None:
        """Sends SIGTERM."""
        self.process.send_signal(signal.SIGTERM)

    def finish(self, timeout_s: float = 20.0) -> tuple[int, str]:
        """Waits for the end. Returns the exit status and what was written to stderr."""
        _, stderr = self.process.communicate(timeout=timeout_s)
        return self.process.returncode, stderr


@contextmanager
def running(module: str, *arguments: str) -> Iterator[ServerProcess]:
    """A server, ready when the block begins and gone when it ends."""
    server = ServerProcess(module, arguments)
    try:
        server.wait_ready()
        yield server
    finally:
        if server.process.poll() is None:
            server.terminate()
            server.finish()
