import os
import pathlib
import socket

import pytest


def test_only_the_loopback_interface_is_there() -> None:
    assert [name for _, name in socket.if_nameindex()] == ["lo"]


def test_loopback_works() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()),
    ):
        pass


def test_the_host_is_read_only() -> None:
    with pytest.raises(OSError, match=r"Read-only|Permission"):
        pathlib.Path("/etc/cortex").write_text("")


def test_home_is_the_tests_own() -> None:
    assert pathlib.Path.home() == pathlib.Path(os.environ["TEST_TMPDIR"])
    pathlib.Path.home().joinpath("file").write_text("")


def test_env_is_taken_literally() -> None:
    assert os.environ["LITERAL"] == "it's $HOME"
