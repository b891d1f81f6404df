"""Runs pytest as a Bazel test.

Bazel tells a test in its environment where to write XML (XML_OUTPUT_FILE) and temporary files
(TEST_TMPDIR), which tests to run (TESTBRIDGE_TEST_ONLY) and which share of them (TEST_SHARD_INDEX
of TEST_TOTAL_SHARDS); this turns each into what pytest understands. The arguments are test files.
"""

import os
import pathlib
import sys
from collections.abc import Mapping, Sequence

import pytest


class Shard:
    """A pytest plugin that keeps every `total`-th of the selected tests."""

    def __init__(self, *, index: int, total: int) -> None:
        """Keeps the tests at `index`, `index + total` and so on, with `0 <= index < total`."""
        self._index = index
        self._total = total

    # Last, so that shards divide what -k has left.
    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        """Deselects the tests of other shards."""
        kept = items[self._index :: self._total]
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = kept


def isolate(environ: dict[str, str] | os._Environ[str]) -> None:
    """Points what tests might read or write outside their sandbox into it."""
    # A plugin is loaded by a test's own "-p", never because a dependency of it ships one.
    environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    # Hypothesis then draws the same examples each time and sets no deadline on a slow machine.
    environ["CI"] = "1"
    if "TEST_TMPDIR" in environ:
        environ["HOME"] = environ["TEST_TMPDIR"]
        environ["HYPOTHESIS_STORAGE_DIRECTORY"] = os.path.join(environ["TEST_TMPDIR"], "hypothesis")


def pytest_arguments(environ: Mapping[str, str]) -> list[str]:
    """Returns pytest's options for what Bazel asks in the environment."""
    options = ["-p", "no:cacheprovider", "--import-mode=importlib", "-ra", "--strict-markers"]
    if "XML_OUTPUT_FILE" in environ:
        options.append("--junitxml=" + environ["XML_OUTPUT_FILE"])
    if "TEST_TMPDIR" in environ:
        options.append("--basetemp=" + os.path.join(environ["TEST_TMPDIR"], "pytest"))
    if environ.get("TESTBRIDGE_TEST_ONLY"):
        options += ["-k", environ["TESTBRIDGE_TEST_ONLY"]]
    if environ.get("TESTBRIDGE_TEST_RUNNER_FAIL_FAST") == "1":
        options.append("--exitfirst")
    return options


def main(arguments: Sequence[str]) -> int:
    """Runs pytest and returns the exit status of the test."""
    isolate(os.environ)
    options = pytest_arguments(os.environ)
    plugins = []
    shards = int(os.environ.get("TEST_TOTAL_SHARDS") or 0)
    if shards:
        # Bazel fails a sharded test that does not say that it knows about shards.
        pathlib.Path(os.environ["TEST_SHARD_STATUS_FILE"]).touch()
        plugins.append(Shard(index=int(os.environ["TEST_SHARD_INDEX"]), total=shards))
    status = pytest.main([*options, *arguments], plugins)
    # Without a filter or shards, a file with no test in it is a mistake, and pytest says so.
    may_be_empty = shards or os.environ.get("TESTBRIDGE_TEST_ONLY")
    if status == pytest.ExitCode.NO_TESTS_COLLECTED and may_be_empty:
        return 0
    return int(status)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
