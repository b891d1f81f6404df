"""Runs a linter over every Python file of the repository, as a test.

    lint.py MODULE ARGUMENTS...

runs `python -m MODULE ARGUMENTS... FILES...`, where the files are all those in the runfiles.
"""

import os
import pathlib
import subprocess
import sys
from collections.abc import Sequence


def python_files(root: pathlib.Path) -> list[str]:
    """Returns the Python files below `root`, sorted, relative to it."""
    # rglob does not follow links to folders, and files are links here.
    return sorted(str(path.relative_to(root)) for path in root.rglob("*.py"))


def main(arguments: Sequence[str]) -> int:
    """Runs the linter and returns its exit status."""
    files = python_files(pathlib.Path.cwd())
    print(f"{arguments[0]}: {len(files)} files", flush=True)
    # Linters keep caches, which only the test's own folder can hold.
    environ = {**os.environ, "HOME": os.environ["TEST_TMPDIR"]}
    return subprocess.run([sys.executable, "-m", *arguments, *files], env=environ).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
