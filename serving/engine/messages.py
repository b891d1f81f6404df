"""What the engine's threads tell the host's."""

from dataclasses import dataclass
from typing import TypeAlias

from serving.engine.jobs import SwapJob
from serving.engine.model import ModelCard
from serving.engine.outbox import Outbox


@dataclass(frozen=True)
class Serving:
    """A model serves from now on."""

    card: ModelCard


@dataclass(frozen=True)
class Swapped:
    """What came of a swap: the new model's card, or the error after which the old one stays."""

    job: SwapJob
    outcome: ModelCard | Exception


@dataclass(frozen=True)
class Ended:
    """The model thread has ended, of an error unless it was told to."""

    error: BaseException | None


Message: TypeAlias = Serving | Swapped | Outbox | Ended
