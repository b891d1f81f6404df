"""Writes the locked Python requirements.

    python3 tools/bazel/lock.py

reads third_party/python/requirements.in and writes two locks beside it: requirements_cuda.txt, with
the builds of the default package index, and requirements_cpu.txt, which has the same versions but
the CPU build of torch (local version "+cpu") and none of the CUDA libraries. The host's pip has to
find that build, through its find-links or an extra index in its own configuration.

A line of a lock is

    name==version --hash=sha256:... # needs: other names

It is a line that `pip install --require-hashes -r` reads; `needs` lists the direct requirements,
which tools/bazel/pip.bzl follows.
"""

import collections
import dataclasses
import hashlib
import json
import os
import pathlib
import platform
import re
import subprocess
import sys
import tempfile
import urllib.parse
import urllib.request
from collections.abc import Iterable, Mapping
from typing import Any

from pip._vendor.packaging.requirements import Requirement

_FOLDER = pathlib.Path(__file__).resolve().parents[2] / "third_party" / "python"
_SOURCE = _FOLDER / "requirements.in"
_PYTHON = "3.11"
_MACHINE = ("Linux", "x86_64")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pin:
    """One locked wheel.

    Attributes:
        name: normalised distribution name, `-` between words.
        version: version with its local part, as in `2.13.0+cpu`.
        sha256: digest of the wheel file, in hex.
        needs: sorted names of the pins that this one requires directly.
    """

    name: str
    version: str
    sha256: str
    needs: tuple[str, ...]

    def line(self) -> str:
        """The pin as a line of a lock."""
        spec = f"{self.name}=={self.version} --hash=sha256:{self.sha256}"
        return f"{spec} # needs: {' '.join(self.needs)}" if self.needs else spec


def normalise(name: str) -> str:
    """Returns `name` as package indexes compare it: lower case, `-` between words."""
    return re.sub(r"[-_.]+", "-", name).lower()


def direct_needs(
    requires: Mapping[str, Iterable[str]], extras: Mapping[str, Iterable[str]]
) -> dict[str, tuple[str, ...]]:
    """Finds which of the resolved distributions each one requires on this machine.

    Args:
        requires: `Requires-Dist` lines of each resolved distribution, by normalised name.
        extras: extras asked for directly, by normalised name.

    Returns:
        The sorted direct needs of each distribution. A requirement behind an extra counts once
        something that is itself needed asks for that extra.
    """
    wanted = collections.defaultdict(set, {name: set(names) for name, names in extras.items()})
    needs: dict[str, set[str]] = {name: set() for name in requires}
    # An extra found late can add needs to a distribution seen early, so repeat until nothing moves.
    settled = False
    while not settled:
        settled = True
        for name, lines in requires.items():
            for requirement in map(Requirement, lines):
                need = normalise(requirement.name)
                if need == name or need not in requires:
                    continue
                if requirement.marker and not any(
                    requirement.marker.evaluate({"extra": extra}) for extra in {"", *wanted[name]}
                ):
                    continue
                if need not in needs[name] or not requirement.extras <= wanted[need]:
                    needs[name].add(need)
                    wanted[need] |= requirement.extras
                    settled = False
    return {name: tuple(sorted(names)) for name, names in needs.items()}


def _digest(download: Mapping[str, Any]) -> str:
    hashes = download["archive_info"].get("hashes") or {}
    if "sha256" in hashes:
        return str(hashes["sha256"])
    # pip reports no hash of a file that it found in a local folder.
    with urllib.request.urlopen(download["url"]) as wheel:
        return hashlib.sha256(wheel.read()).hexdigest()


def _resolve(*, constraints: Iterable[str], index_only: bool) -> list[Pin]:
    environment = dict(os.environ)
    if index_only:
        environment["PIP_CONFIG_FILE"] = os.devnull
        environment.pop("PIP_FIND_LINKS", None)
    with tempfile.TemporaryDirectory() as folder:
        report = pathlib.Path(folder, "report.json")
        bounds = pathlib.Path(folder, "constraints.txt")
        bounds.write_text("\n".join(constraints))
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run"]
        command += ["--ignore-installed", "--only-binary=:all:", "--disable-pip-version-check"]
        command += ["-r", str(_SOURCE), "-c", str(bounds), "--report", str(report)]
        subprocess.run(command, check=True, env=environment)
        installs = json.loads(report.read_text())["install"]
    by_name = {normalise(install["metadata"]["name"]): install for install in installs}
    needs = direct_needs(
        {n: i["metadata"].get("requires_dist", []) for n, i in by_name.items()},
        {n: i.get("requested_extras", []) for n, i in by_name.items()},
    )
    return [
        Pin(
            name=name,
            version=install["metadata"]["version"],
            sha256=_digest(install["download_info"]),
            needs=needs[name],
        )
        for name, install in sorted(by_name.items())
    ]


def _write(accelerator: str, pins: Iterable[Pin]) -> None:
    path = _FOLDER / f"requirements_{accelerator}.txt"
    head = f"# Written by tools/bazel/lock.py for Python {_PYTHON} on {' '.join(_MACHINE)}.\n"
    path.write_text(head + "".join(pin.line() + "\n" for pin in pins))
    print(f"wrote {path.relative_to(_FOLDER.parents[1])}")


def main() -> None:
    """Resolves and writes both locks."""
    here = (platform.system(), platform.machine())
    if not sys.version.startswith(_PYTHON + ".") or here != _MACHINE:
        sys.exit(f"lock.py: run it where the locks are for: Python {_PYTHON}, {' '.join(_MACHINE)}")
    cuda = _resolve(constraints=[], index_only=True)
    _write("cuda", cuda)
    bounds = [f"{pin.name}=={pin.version}" for pin in cuda]
    cpu = _resolve(constraints=bounds, index_only=False)
    if not any(pin.name == "torch" and pin.version.endswith("+cpu") for pin in cpu):
        sys.exit("lock.py: pip found no CPU build of torch; requirements_cpu.txt is unchanged")
    # A mirror may hold another wheel of the same version. The index's own is what others can fetch.
    public = {(pin.name, pin.version): pin for pin in cuda}
    _write("cpu", [public.get((pin.name, pin.version), pin) for pin in cpu])


if __name__ == "__main__":
    main()
