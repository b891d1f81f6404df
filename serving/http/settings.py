"""How the server runs."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Protocol

from serving.engine.faults import Faults
from serving.engine.model import Model
from serving.engine.settings import EngineSettings


class ModelSource(Protocol):
    """Where the server gets its model from."""

    def prepare(self) -> None:
        """Imports what `build` needs, in the worker and on its main thread, after the fork.

        Imports on a native thread would meet the import locks of a patched standard library.
        """

    def build(self) -> Model:
        """Loads the model, on the thread that will use it. Raises InputError when it cannot."""

    def scope(self) -> AbstractContextManager[object]:
        """Entered on that thread around all use of the model."""

    def faults(self) -> Faults:
        """What to do about errors of the model."""


@dataclass(frozen=True, kw_only=True)
class CallableSource:
    """A model from any function."""

    function: Callable[[], Model]
    fatal: tuple[type[Exception], ...] = ()

    def prepare(self) -> None:
        """Nothing to import."""

    def build(self) -> Model:
        """Calls the function."""
        return self.function()

    def scope(self) -> AbstractContextManager[object]:
        """No scope."""
        return nullcontext()

    def faults(self) -> Faults:
        """The errors given are fatal."""
        return Faults(is_fatal=lambda error: isinstance(error, self.fatal))


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """Everything about a server.

    Attributes:
        source: where the model comes from.
        host: address to listen on.
        port: port to listen on; 0 picks one.
        engine: the engine's limits.
        deadline_s: deadline of a request that gives none, in seconds.
        body_s: seconds that a request's body may take to arrive.
        notice_s: seconds between /ready turning 503 and the listener closing.
        drain_s: seconds that requests in flight then have to finish.
        allow_reload: whether POST /model/reload loads the model from the source again.
        otlp_endpoint: where spans go; None for nowhere.
    """

    source: ModelSource
    host: str = "127.0.0.1"
    port: int = 8080
    engine: EngineSettings = field(default_factory=EngineSettings)
    deadline_s: float = 0.2
    body_s: float = 5.0
    notice_s: float = 1.0
    drain_s: float = 10.0
    allow_reload: bool = False
    otlp_endpoint: str | None = None
