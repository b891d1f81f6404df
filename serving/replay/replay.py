"""Replays trials through the server, at the recording's own pace."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cortex.events import Events
from cortex.session import FloatArray, Session
from serving.client.client import Client


@dataclass(frozen=True, kw_only=True)
class ReplayedTrial:
    """What came back for one trial.

    Attributes:
        trial: its number in the session.
        velocity: (steps, 2) decoded velocity, one a step.
        round_trip_ms: (steps,) from sending a step's events to holding its velocity.
        compute_ms: (steps,) the server's own computing time.
    """

    trial: int
    velocity: FloatArray
    round_trip_ms: npt.NDArray[np.float64]
    compute_ms: npt.NDArray[np.float64]


def replay(
    client: Client,
    session: Session,
    events: Events,
    trials: Sequence[int],
    *,
    paced: bool,
    on_trial: Callable[[ReplayedTrial], None] = lambda trial: None,
) -> list[ReplayedTrial]:
    """Streams each trial over a connection of its own.

    Args:
        client: of the server.
        session: the recording.
        events: its spikes, with units numbered as the model numbers them.
        trials: which trials.
        paced: send each step when it would have ended in the experiment, else at once.
        on_trial: called after each trial.

    Raises:
        InputError: the server refused a step.
        ServerError: the server did not answer.
    """
    replayed = []
    for trial in trials:
        replayed.append(_replay_trial(client, session, events, trial, paced))
        on_trial(replayed[-1])
    return replayed


def _replay_trial(
    client: Client, session: Session, events: Events, trial: int, paced: bool
) -> ReplayedTrial:
    bins = session.grid.bins_per_step
    start, stop = int(session.trials.start_bin[trial]), int(session.trials.stop_bin[trial])
    steps = [
        events.between(first, min(first + bins, stop)).shifted(-first)
        for first in range(start, stop, bins)
    ]
    velocity, round_trip_ms, compute_ms = [], [], []
    with client.stream() as stream:
        begin = time.perf_counter()
        for number, step in enumerate(steps, start=1):
            if paced:
                time.sleep(max(0.0, begin + number * session.grid.step_s - time.perf_counter()))
            sent = time.perf_counter()
            answer = stream.step(step)
            round_trip_ms.append(1e3 * (time.perf_counter() - sent))
            compute_ms.append(answer.compute_ms)
            velocity.append(answer.velocity)
    return ReplayedTrial(
        trial=trial,
        velocity=np.array(velocity, np.float32),
        round_trip_ms=np.array(round_trip_ms),
        compute_ms=np.array(compute_ms),
    )
