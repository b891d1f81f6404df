"""Runs `./bazelw test //...` and ends with one line that counts test cases.

Bazel counts targets. This counts the cases in the XML that each target leaves, of the targets that
this run names, because bazel-testlogs keeps those of earlier runs too. It needs only the standard
library: it runs before Bazel is there.
"""

import dataclasses
import pathlib
import re
import subprocess
import sys
import xml.etree.ElementTree
from collections.abc import Iterable

_COMMAND = ("./bazelw", "test", "//...")

# As Bazel prints them: "//cortex:events_test   (cached) PASSED in 0.3s".
_TARGET = re.compile(
    r"(?P<label>//\S+)\s+(?:\(cached\) )?"
    r"(?P<status>PASSED|FLAKY|FAILED TO BUILD|FAILED|TIMEOUT|NO STATUS|INCOMPLETE|REMOTE FAILURE)\b"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Counts:
    """How many test cases passed and failed. An error counts as a failure."""

    passed: int = 0
    failed: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        """Sums both counts."""
        return Counts(passed=self.passed + other.passed, failed=self.failed + other.failed)


def statuses(lines: Iterable[str]) -> dict[str, str]:
    """Returns the status of each test target by its label, from Bazel's output."""
    matches = (_TARGET.match(line) for line in lines)
    return {match["label"]: match["status"] for match in matches if match}


def count_xml(path: pathlib.Path) -> Counts:
    """Counts the cases of one JUnit XML file, one a shard; a skipped case counts as neither."""
    counts = Counts()
    for case in xml.etree.ElementTree.parse(path).iter("testcase"):
        outcomes = {child.tag for child in case}
        if outcomes & {"failure", "error"}:
            counts += Counts(failed=1)
        elif "skipped" not in outcomes:
            counts += Counts(passed=1)
    return counts


def count_target(label: str, status: str, logs: pathlib.Path) -> Counts:
    """Counts the cases of one target.

    A target that failed without a failed case, because it did not build or ran out of time, counts
    as one failure.
    """
    folder = logs / label.removeprefix("//").replace(":", "/")
    ok = status in ("PASSED", "FLAKY")
    counts = Counts()
    if status != "FAILED TO BUILD" and status != "NO STATUS":
        for path in sorted({*folder.glob("test.xml"), *folder.glob("shard_*/test.xml")}):
            try:
                counts += count_xml(path)
            except xml.etree.ElementTree.ParseError:
                # A test that was killed may leave half a file.
                continue
    return counts if ok or counts.failed else counts + Counts(failed=1)


def main() -> int:
    """Runs the tests, repeats what Bazel prints and returns its exit status."""
    lines = []
    with subprocess.Popen(
        _COMMAND, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as bazel:
        for line in bazel.stdout or ():
            print(line, end="", flush=True)
            lines.append(line)
    counts = Counts()
    for label, status in statuses(lines).items():
        counts += count_target(label, status, pathlib.Path("bazel-testlogs"))
    if bazel.returncode and not counts.failed:
        # Nothing was tested: Bazel itself did not start, or a BUILD file does not load.
        counts += Counts(failed=1)
    print(f"{counts.passed} passed, {counts.failed} failed")
    return bazel.returncode


if __name__ == "__main__":
    sys.exit(main())
