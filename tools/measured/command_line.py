"""The command line that is quoted beside a figure."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from absl import flags


def command_line(target: str, *, files: Sequence[str] = (), places: Sequence[str] = ()) -> str:
    """What a reader would type to repeat this run, from the flags that were given.

    Args:
        target: label of the binary, as in "//training:baselines".
        files: flags that name inputs; of those the file's name is quoted without its folder.
        places: flags that only place outputs, and are left out.
    """
    words: list[str] = []
    for name in files:
        given = flags.FLAGS[name].value
        paths = given if isinstance(given, list) else [given] if given else []
        words += [f"--{name}={Path(path).name}" for path in paths]
    for name in flags.FLAGS:
        flag = flags.FLAGS[name]
        if flag.present and name not in files and name not in places:
            # A flag that was repeated comes as so many lines.
            words += flag.serialize().splitlines()
    return shlex.join(["./bazelw", "run", target, *(["--", *words] if words else [])])
