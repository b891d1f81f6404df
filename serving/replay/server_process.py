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
def server_process(model: Path, *, device: str = "cpu", port: int = 0) -> Iterator[str]:
    """Serves a checkpoint while the block runs, and stops the server after it.

    Args:
        model: checkpoint directory.
        device: where the model runs.
        port: port of the loopback interface; 0 picks one.

    Yields:
        The server's URL, once it is ready.

    Raises:
        InputError: the server did not come up.
    """
    command = [sys.executable, "-m", "serving.server", f"--model={model}", f"--port={port}"]
    # stderr passes through: what the server says is for whoever runs this.
    server = subprocess.Popen(
        [*command, f"--device={device}", "--notice_s=0"], stdout=subprocess.PIPE, text=True
    )
    try:
        yield _ready_url(server)
    finally:
        server.terminate()
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _ready_url(server: subprocess.Popen[str]) -> str:
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    # Reads on after the address too: a full pipe would block the server.
    threading.Thread(target=lambda: [lines.put(s) for s in server.stdout or ()], daemon=True).start()
    give_up = time.monotonic() + START_TIMEOUT_S
    url = ""
    while time.monotonic() < give_up:
        if server.poll() is not None:
            raise InputError(f"the server ended with status {server.returncode} before it was ready")
        try:
            line = lines.get(timeout=0.1)
            if line.startswith("listening on "):
                url = line.split()[-1]
        except queue.Empty:
            if url and _is_ready(url):
                return url
    raise InputError(f"the server was not ready within {START_TIMEOUT_S:.0f} s")


def _is_ready(url: str) -> bool:
    try:
        return requests.get(f"{url}/ready", timeout=1.0).ok
    except requests.RequestException:
        return False
