"""Why the engine did not answer, each with the HTTP status that says the same."""


class EngineError(Exception):
    """A request that got no answer. The message is one line for whoever sent it."""

    status = 500


class BusyError(EngineError):
    """The queue, or every stream slot, is taken. Try again later."""

    status = 429


class InfeasibleError(EngineError):
    """The measured batch time says that the deadline cannot be met, so nothing was queued."""

    status = 429


class ExpiredError(EngineError):
    """The deadline passed while the request waited. It was not computed."""

    status = 504

    @classmethod
    def unbegun(cls) -> "ExpiredError":
        """Of a request whose batch had not begun."""
        return cls("the deadline passed before the decode began")


class NotReadyError(EngineError):
    """The engine is warming up, leaving, or has failed."""

    status = 503


class ModelError(EngineError):
    """The model raised, or answered with something that is no velocity."""

    status = 500
