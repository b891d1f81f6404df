"""The behaviour score of the Neural Latents Benchmark, and Cortex at its points.

The benchmark (Pei, Ye et al. 2021, arXiv 2109.04463) pairs the spikes of each 5 ms bin from 250 ms
before to 450 ms after the onset of movement with the velocity `lag` later, 100 ms for MC_Maze. A
ridge regression reads the velocity out of what a model makes of the spikes, usually rates that were
smoothed over the whole trial. Its points here are those of the held-out trials:

- Cortex and the Wiener filter decode the velocity of a moment from the spikes until that moment.
  That is `lag` more of spikes than the bin that the benchmark pairs with it.
- Cortex ahead keeps to that bin: the velocity that Cortex decodes at the end of it goes through the
  benchmark's ridge in place of rates, and so foretells the velocity `lag` later.
- The benchmark's own baseline is its ridge on spikes smoothed with a Gaussian of 50 ms. The
  smoothing looks both ways, so this one is not causal.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d

from cortex.events import IntArray
from cortex.session import FloatArray, Session
from training.evaluation.decoders import Decoders
from training.evaluation.figures import ProtocolResult, make_difference, make_figure
from training.evaluation.held_velocity import first_answer, held_velocity
from training.evaluation.metrics import require_points
from training.evaluation.ridge import fit_ridge
from training.samples.alignment import Aligned, aligned
from training.samples.windows import whole_bins

NAME = "benchmark"
EVENT = "move_onset"
BIN_S = 0.005
SMOOTHING_S = 0.05
SMOOTHING_WIDTH = 4
"""Standard deviations at which the Gaussian is cut off."""

ALPHAS = tuple(np.logspace(-4, 0, 9))


@dataclass(frozen=True, kw_only=True)
class Points:
    """The benchmark's points of N trials, T a trial.

    Attributes:
        trial: (N,) trials.
        spikes: (N, T, units) spikes in each bin.
        velocity: (N, T, 2) velocity `lag` later.
        spikes_until: (N, T) session bin that ends each of the benchmark's bins.
        moment: (N, T) session bin of each velocity; where it is mean over several, the last.
        left_out: trials without the event or without a label, or too early for Cortex.
    """

    trial: IntArray
    spikes: IntArray
    velocity: FloatArray
    spikes_until: IntArray
    moment: IntArray
    left_out: int


def score_benchmark(
    session: Session,
    train: Sequence[int],
    test: Sequence[int],
    decoders: Decoders,
    *,
    lag_s: float = 0.1,
) -> ProtocolResult:
    """The protocol's figures.

    Args:
        session: the recording.
        train: trials that the ridges learn from.
        test: trials to score.
        decoders: Cortex and the Wiener filter.
        lag_s: from a bin's spikes to its velocity. The benchmark has 100 ms for MC_Maze, 120 ms for
            its large, medium and small versions, 140 ms for MC_RTT and -20 ms for Area2_Bump.

    Raises:
        InputError: no onset of movement, a grid that 5 ms do not fit, or too few trials.
    """
    learn = benchmark_points(session, train, lag_s)
    points = benchmark_points(session, test, lag_s)
    true = list(points.velocity)
    require_points(session.session_id, len(test), points.velocity[..., 0].size)
    cortex = list(held_velocity(decoders.streamed, session, points.trial, points.moment))
    wiener = list(held_velocity(decoders.wiener, session, points.trial, points.moment))
    ahead = _ridge(
        learn,
        held_velocity(decoders.offline, session, learn.trial, learn.spikes_until),
        held_velocity(decoders.offline, session, points.trial, points.spikes_until),
    )
    smoothed = _ridge(learn, smooth(learn.spikes), smooth(points.spikes))
    figures = (
        make_figure("cortex", f"{decoders.name}, streamed", true, cortex),
        make_figure("cortex_ahead", f"{decoders.name}, ahead", true, ahead, future_s=-lag_s),
        make_figure("wiener", "Wiener filter", true, wiener),
        make_figure(
            "ridge_smoothed",
            "ridge on smoothed spikes",
            true,
            smoothed,
            future_s=SMOOTHING_WIDTH * SMOOTHING_S - lag_s,
        ),
    )
    return ProtocolResult(
        protocol=NAME,
        figures=figures,
        differences=(make_difference(figures[0], figures[2], true, cortex, wiener),),
        left_out_trials=points.left_out,
    )


def benchmark_points(session: Session, trials: Sequence[int], lag_s: float) -> Points:
    """The benchmark's points of some trials. Errors as in `score_benchmark`."""
    onset = session.event_bin(EVENT)
    data: Aligned = aligned(session, event=EVENT, bin_s=BIN_S, lag_s=lag_s, trials=trials)
    width, lag = whole_bins(session, "bin_s", BIN_S), whole_bins(session, "lag_s", lag_s)
    from_event = np.rint(data.time_s / session.grid.bin_s).astype(np.int64) + width - 1
    spikes_until = onset[data.trial][:, None] + from_event
    earliest = spikes_until[:, 0] + min(lag, 0)
    kept = earliest >= first_answer(session)[data.trial]
    return Points(
        trial=data.trial[kept],
        spikes=data.spikes[kept],
        velocity=data.velocity[kept],
        spikes_until=spikes_until[kept],
        moment=spikes_until[kept] + lag,
        left_out=data.left_out + int((~kept).sum()),
    )


def smooth(spikes: IntArray) -> FloatArray:
    """Rates (N, T, units) a bin, from spikes likewise.

    What the kernel loses at the edges, the rest of it makes up for.
    """

    def filtered(values: FloatArray) -> FloatArray:
        sigma = SMOOTHING_S / BIN_S
        return np.asarray(
            gaussian_filter1d(values, sigma, axis=1, mode="constant", truncate=SMOOTHING_WIDTH)
        )

    inside = np.ones((1, spikes.shape[1], 1), np.float32)
    return filtered(spikes.astype(np.float32)) / filtered(inside)


def _ridge(learn: Points, inputs: FloatArray, held_out_inputs: FloatArray) -> list[FloatArray]:
    """The benchmark's readout (N, T, features) -> each trial's (T, 2)."""
    n_points, features = inputs.shape[1:]
    ridge = fit_ridge(
        inputs.reshape(-1, features),
        learn.velocity.reshape(-1, 2),
        np.repeat(learn.trial, n_points),
        ALPHAS,
    )
    decoded = ridge.predict(held_out_inputs.reshape(-1, features))
    return list(decoded.reshape(-1, n_points, 2))
