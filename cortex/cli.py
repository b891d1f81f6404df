"""How every binary starts, and how it ends on bad input."""

import sys
from collections.abc import Callable

from absl import app

from cortex.errors import InputError


def run(main: Callable[[list[str]], None]) -> None:
    """Parses flags and runs `main`; bad input ends in one line on stderr and exit status 2."""

    def guarded(argv: list[str]) -> None:
        try:
            main(argv)
        except InputError as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(2)
        except KeyboardInterrupt:
            sys.exit(130)

    app.run(guarded)


def no_arguments(argv: list[str]) -> None:
    """Raises InputError when words are left after the flags, such as a flag without its dashes."""
    if len(argv) > 1:
        raise InputError(f"unexpected argument {argv[1]!r}, expected flags only (see --help)")
