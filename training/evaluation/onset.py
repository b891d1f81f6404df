"""The onset protocol: one velocity a trial, at the onset of movement.

Some offline studies score a window of spikes from 100 ms before to 500 ms after the onset of
movement on the velocity at the onset. A ridge regression on each unit's count in that window sees
500 ms of the future, the whole reach. Cortex and the Wiener filter see spikes until the onset: the
figures answer different questions and are not to be ranked.
"""

from collections.abc import Sequence

import numpy as np

from cortex.errors import InputError
from cortex.events import IntArray
from cortex.session import FloatArray, Session
from training.evaluation.decoders import Decoders, DecodeTrials
from training.evaluation.figures import ProtocolResult, make_difference, make_figure
from training.evaluation.held_velocity import first_answer, held_velocity
from training.evaluation.metrics import require_points
from training.evaluation.ridge import fit_ridge
from training.rivals.wiener import WienerConfig
from training.samples.windows import EventWindowConfig, Windows, event_windows

NAME = "onset"
LEAST_SPREAD = 0.01
"""Share of the whole recording's standard deviation that velocities at the onset must have."""


def score_onset(
    session: Session, train: Sequence[int], test: Sequence[int], decoders: Decoders
) -> ProtocolResult:
    """The protocol's figures.

    Args:
        session: the recording.
        train: trials that the ridge learns from.
        test: trials to score.
        decoders: Cortex and the Wiener filter.

    Raises:
        InputError: no onset of movement, a grid that the window does not fit, or too few trials.
    """
    config = EventWindowConfig()
    learn = event_windows(session, config, train)
    windows = event_windows(session, config, test)
    kept = _onset_bin(windows) >= first_answer(session)[windows.trial]
    require_points(session.session_id, len(test), int(kept.sum()))
    _require_movement(windows)
    true = _one_a_trial(windows.velocity[kept])

    def at_onset(decode: DecodeTrials) -> list[FloatArray]:
        onset = _onset_bin(windows)[kept][:, None]
        return list(held_velocity(decode, session, windows.trial[kept], onset))

    ridge = fit_ridge(_counts(learn), learn.velocity, learn.trial, WienerConfig().alphas)
    acausal = _one_a_trial(ridge.predict(_counts(windows)[kept]))
    cortex, wiener = at_onset(decoders.streamed), at_onset(decoders.wiener)
    figures = (
        make_figure("cortex", f"{decoders.name}, streamed", true, cortex),
        make_figure("wiener", "Wiener filter", true, wiener),
        make_figure(
            "ridge_window", "ridge on the whole window", true, acausal, future_s=config.after_s
        ),
    )
    return ProtocolResult(
        protocol=NAME,
        figures=figures,
        differences=(make_difference(figures[0], figures[1], true, cortex, wiener),),
        left_out_trials=windows.left_out + int((~kept).sum()),
    )


def _require_movement(windows: Windows) -> None:
    """Raises InputError where R2 would divide by next to nothing, as in simulated reaches."""
    behavior = windows.session.behavior
    spread, usual = (float(v.std(0).mean()) for v in (windows.velocity, behavior.velocity))
    if spread < LEAST_SPREAD * usual:
        raise InputError(
            f"session {windows.session.session_id!r}: velocity at the onset of movement has a "
            f"standard deviation of {spread:.3g} {behavior.unit}, expected at least "
            f"{100 * LEAST_SPREAD:g} % of the whole recording's {usual:.3g} {behavior.unit}: the "
            "hand is still at rest, and R2 would mean nothing"
        )


def _onset_bin(windows: Windows) -> IntArray:
    return windows.first_bin + windows.label_bin


def _one_a_trial(velocity: FloatArray) -> list[FloatArray]:
    return list(velocity[:, None])


def _counts(windows: Windows) -> FloatArray:
    """(W, units) spikes of each unit in each window."""
    row, events = windows.gather(np.arange(len(windows)))
    counts = np.zeros((len(windows), len(windows.session.unit_ids)), np.float32)
    np.add.at(counts, (row, events.unit), events.value)
    return counts
