import os
import pathlib
import shutil
import subprocess

import pytest

_BAZELW = pathlib.Path(__file__).parents[2] / "bazelw"


class Host:
    """A machine whose programs are scripts that write what they were asked into one log."""

    def __init__(self, folder: pathlib.Path) -> None:
        self._bin = folder / "bin"
        self._bin.mkdir()
        self._log = folder / "log"
        self._log.touch()
        for name in ("sh", "env", "dirname", "cat", "chmod"):
            program = shutil.which(name)
            assert program is not None
            (self._bin / name).symlink_to(program)
        self.add("id", "echo 0")

    def add(self, name: str, script: str) -> None:
        path = self._bin / name
        path.write_text(f'#!/bin/sh\necho "{name} $*" >> {self._log}\n{script}\n')
        path.chmod(0o755)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environ = {"PATH": str(self._bin)}
        return subprocess.run(
            [os.path.abspath(_BAZELW), *arguments], env=environ, capture_output=True, text=True
        )

    def log(self) -> list[str]:
        return self._log.read_text().splitlines()


@pytest.fixture
def host(tmp_path: pathlib.Path) -> Host:
    return Host(tmp_path)


def test_runs_the_bazel_at_hand(host: Host) -> None:
    host.add("python3", "")
    host.add("bazel", "echo bazel no_version")
    assert host.run("test", "//...").returncode == 0
    assert host.log()[-1] == "bazel test //..."


def test_prefers_bazelisk(host: Host) -> None:
    host.add("python3", "")
    host.add("bazel", "")
    host.add("bazelisk", "exit 3")
    assert host.run("build").returncode == 3
    assert host.log()[-1] == "bazelisk build"


def test_turns_modules_off_where_bazel_has_them(host: Host) -> None:
    host.add("python3", "")
    host.add("bazel", "echo bazel 7.4.1")
    host.run("test", "//...")
    folder = pathlib.Path(os.path.abspath(_BAZELW)).parent
    assert host.log()[-1] == f"bazel --bazelrc={folder}/tools/bazel/later.bazelrc test //..."


def test_installs_what_is_missing_and_says_so(host: Host) -> None:
    # The new programs are there once apt-get has run.
    bazel = "printf '#!/bin/sh\\necho ran >&2\\n' > ${0%/*}/bazel; chmod +x ${0%/*}/bazel"
    host.add("apt-get", f'case "$*" in *install*) {bazel};; esac')
    host.add("python3", "exit 1")
    result = host.run("test", "//...")
    assert result.returncode == 0
    assert "bazelw: installing bazel-bootstrap python3-pip" in result.stderr
    assert result.stderr.endswith("ran\n")
    assert result.stdout == ""
    install = "apt-get -q install -y --no-install-recommends bazel-bootstrap python3-pip"
    assert install in host.log()


def test_says_what_to_install_without_apt(host: Host) -> None:
    host.add("python3", "")
    result = host.run("test", "//...")
    assert result.returncode == 2
    assert result.stderr.startswith("bazelw: missing: bazel-bootstrap")
