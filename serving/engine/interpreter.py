"""How the threads of a serving process share Python's interpreter."""

import sys

# A thread that comes back from the GPU or from a queue asks for the interpreter's lock, and the one
# that has it lets go only after this long: by default 5 ms, a whole deadline.
SWITCH_INTERVAL_S = 1e-4


def share_interpreter(interval_s: float = SWITCH_INTERVAL_S) -> None:
    """Sets it for the whole process. For programs: a library must not decide this."""
    sys.setswitchinterval(interval_s)
