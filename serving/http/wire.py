"""Every message between server and client, and their limits. Shared by both."""

from typing import Annotated, TypeAlias, TypeVar

import msgspec
import numpy as np
from msgspec import Meta

from cortex.errors import InputError
from cortex.events import Events

MAX_BODY_BYTES = 1 << 20
MAX_EVENTS = 1 << 16
MAX_DEADLINE_MS = 60_000

# What fits in int64; the model's own ranges are checked afterwards, with the event's index.
_Int: TypeAlias = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Column: TypeAlias = Annotated[list[_Int], Meta(max_length=MAX_EVENTS)]


class DecodeRequest(msgspec.Struct, forbid_unknown_fields=True):
    """POST /decode: the events of one window, as columns of one length.

    deadline_ms: milliseconds within which the answer is of use; the server's default if None.
    """

    unit: Column
    time_bin: Column
    value: Column
    deadline_ms: Annotated[float, Meta(gt=0, le=MAX_DEADLINE_MS)] | None = None


class DecodeAnswer(msgspec.Struct):
    """The answer to POST /decode."""

    velocity: tuple[float, float]
    unit: str
    model: str
    context_steps: int
    queue_ms: float
    compute_ms: float


class ErrorAnswer(msgspec.Struct):
    """The answer to a request over HTTP that failed."""

    error: str


class Grid(msgspec.Struct):
    """The model's time grid. Fields as in cortex.time_grid.TimeGrid."""

    bin_us: int
    bins_per_step: int
    window_steps: int


class ModelAnswer(msgspec.Struct):
    """The answer to GET /model."""

    name: str
    digest: str
    grid: Grid
    unit_ids: list[str]
    velocity_unit: str


class Hello(msgspec.Struct, tag="hello"):
    """The first frame of a stream, from the server.

    stream: names the stream, as in GET /stream/NAME/latest.
    units: how many the model has.
    """

    stream: int
    model: str
    grid: Grid
    units: int
    velocity_unit: str


class StepRequest(msgspec.Struct, forbid_unknown_fields=True):
    """A frame from the client: the events of one step, with time bins within the step."""

    step: Annotated[int, Meta(ge=0, le=2**53)]
    unit: Column
    time_bin: Column
    value: Column


class StepAnswer(msgspec.Struct):
    """The answer to a StepRequest.

    filled: missing steps that were run empty before it.
    duplicate: the step had been answered; this is that answer again.
    restarted: the stream's state had been lost, and begins with this step.
    """

    step: int
    velocity: tuple[float, float]
    context_steps: int
    filled: int
    duplicate: bool
    restarted: bool
    model: str
    queue_ms: float
    compute_ms: float


class LatestAnswer(msgspec.Struct):
    """The answer to GET /stream/NAME/latest: a velocity to drive a device with now.

    age_s: seconds since the step that it rests on came; None before the first.
    state: "fresh", or, where the next step is missing: "held", "decaying" to zero, "stale".
    """

    velocity: tuple[float, float]
    age_s: float | None
    state: str


class StepError(msgspec.Struct):
    """A StepRequest that failed; the stream goes on.

    step: its number, None if the frame could not be read that far.
    status: the HTTP status that says the same.
    """

    step: int | None
    error: str
    status: int


MessageT = TypeVar("MessageT", bound=msgspec.Struct)


def parse(data: bytes | str, message: type[MessageT], where: str) -> MessageT:
    """Parses JSON. Raises InputError, with where it failed, on anything but the message."""
    try:
        return msgspec.json.decode(data, type=message)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{where}: {error}".replace("\n", " ")) from error


def events_of(message: DecodeRequest | StepRequest) -> Events:
    """The events of a message, in the order given."""
    return Events(
        unit=np.array(message.unit, np.int64),
        time_bin=np.array(message.time_bin, np.int64),
        value=np.array(message.value, np.int64),
    )


def columns_of(events: Events) -> dict[str, list[int]]:
    """The columns of a message, from events."""
    return {
        "unit": events.unit.tolist(),
        "time_bin": events.time_bin.tolist(),
        "value": events.value.tolist(),
    }
