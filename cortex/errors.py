"""The one exception that bad input raises."""


class InputError(ValueError):
    """Input that cannot be used.

    The message is one line for the person who gave the input: what was wrong, what was expected,
    and where. Binaries print it and exit with 2; the server answers 400 with it.
    """
