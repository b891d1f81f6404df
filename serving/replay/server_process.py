"""The real server as a child process."""

import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests

from cortex.errors import InputError

START_TIMEOUT_S = 90.0


@contextmanager
def server_process(model: Path, *, log: Path, device: str = "cpu", port: int = 0) -> Iterator[str]:
    """Serves a checkpoint while the block runs, and stops the server after it.

    Args:
        model: checkpoint directory.
        log: file for the server's log.
        device: where the model runs.
        port: port of the loopback interface; 0 picks one.

    Yields:
        The server's URL, once it is ready.

    Raises:
        InputError: the server did not come up.
    """
    command = [sys.executable, "-m", "serving.server", f"--model={model}", f"--port={port}"]
    with log.open("w") as log_file:
        server = subprocess.Popen(
            [*command, f"--device={device}", "--notice_s=0"],
            stdout=subprocess.PIPE,
            stderr=log_file,
            text=True,
        )
    try:
        yield _ready_url(server, log)
    finally:
        server.terminate()
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _ready_url(server: subprocess.Popen[str], log: Path) -> str:
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_read_lines, args=(server, lines), daemon=True).start()
    give_up = time.monotonic() + START_TIMEOUT_S
    url = ""
    while time.monotonic() < give_up:
        if server.poll() is not None:
            raise InputError(
                f"the server ended with status {server.returncode} before it was ready; see {log}"
            )
        try:
            line = lines.get(timeout=0.1)
            if line.startswith("listening on "):
                url = line.split()[-1]
        except queue.Empty:
            if url and _is_ready(url):
                return url
    raise InputError(f"the server was not ready within {START_TIMEOUT_S:.0f} s; see {log}")


def _read_lines(server: subprocess.Popen[str], lines: queue.SimpleQueue[str]) -> None:
    """Reads on after the address too: a full pipe would block the server."""
    for line in server.stdout or ():
        lines.put(line)


def _is_ready(url: str) -> bool:
    try:
        return requests.get(f"{url}/ready", timeout=1.0).ok
    except requests.RequestException:
        return False
