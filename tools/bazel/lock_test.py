import pathlib
import re

import pytest

from tools.bazel import lock

_FOLDER = pathlib.Path(__file__).parents[2] / "third_party" / "python"
_LINE = re.compile(r"([a-z0-9-]+)==(\S+) --hash=sha256:[0-9a-f]{64}(?: # needs: ([a-z0-9 -]+))?")


def _read(accelerator: str) -> dict[str, tuple[str, list[str]]]:
    lines = (_FOLDER / f"requirements_{accelerator}.txt").read_text().splitlines()[1:]
    matches = [_LINE.fullmatch(line) for line in lines]
    return {m[1]: (m[2], (m[3] or "").split()) for m in matches if m}


@pytest.mark.parametrize("accelerator", ["cpu", "cuda"])
def test_every_line_is_pinned_and_hashed(accelerator: str) -> None:
    text = (_FOLDER / f"requirements_{accelerator}.txt").read_text()
    assert len(_read(accelerator)) == len(text.splitlines()) - 1


@pytest.mark.parametrize("accelerator", ["cpu", "cuda"])
def test_every_need_is_locked(accelerator: str) -> None:
    pins = _read(accelerator)
    assert {need for _, needs in pins.values() for need in needs} <= set(pins)


@pytest.mark.parametrize("accelerator", ["cpu", "cuda"])
def test_every_requirement_is_locked(accelerator: str) -> None:
    lines = (_FOLDER / "requirements.in").read_text().splitlines()
    asked = {re.split(r"[=\s]", line)[0] for line in lines if line and not line.startswith("#")}
    assert asked <= set(_read(accelerator))


def test_every_requirement_has_its_reason() -> None:
    lines = (_FOLDER / "requirements.in").read_text().splitlines()
    assert all("#" in line for line in lines if line)


def test_both_locks_have_the_same_versions() -> None:
    cpu, cuda = _read("cpu"), _read("cuda")
    assert set(cpu) <= set(cuda)
    assert {n for n in cpu if cpu[n][0] != cuda[n][0]} == {"torch"}
    assert cpu["torch"][0] == cuda["torch"][0] + "+cpu"


def test_needs_follow_extras_and_markers() -> None:
    requires = {
        "app": ["Web[fast]>=2", "win; sys_platform == 'win32'", "dev; extra == 'dev'"],
        "web": ["fast-parser; extra == 'fast'", "slow; extra == 'slow'"],
        "fast-parser": [],
        "slow": [],
        "win": [],
        "dev": [],
    }
    assert lock.direct_needs(requires, {}) == {
        "app": ("web",),
        "web": ("fast-parser",),
        "fast-parser": (),
        "slow": (),
        "win": (),
        "dev": (),
    }
    assert lock.direct_needs(requires, {"app": ["dev"]})["app"] == ("dev", "web")


def test_names_are_normalised() -> None:
    assert lock.normalise("Ruamel.YAML__x") == "ruamel-yaml-x"
