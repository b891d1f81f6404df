"""The figures of a replay: accuracy, latency, and whether streaming was exact."""

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cortex.checkpoint import Checkpoint
from cortex.session import FloatArray, Session
from serving.replay.replay import ReplayedTrial
from training.evaluation.metrics import velocity_r2
from training.samples.targets import trial_targets


@dataclass(frozen=True, kw_only=True)
class Report:
    """Figures of one replay; the fields of the JSON report.

    Attributes:
        session: name of the recording.
        model: name of the model.
        model_digest: digest of its weights.
        parameters: numbers in the model.
        machine: what it ran on.
        trials: trials replayed.
        frames: steps sent.
        paced: whether steps were sent at the recording's own pace.
        r2: velocity R2 of the streamed velocities at the labelled steps.
        r2_wiener: the Wiener filter's R2 at the same steps.
        streaming_error: largest difference from the offline forward, over its largest velocity.
        p50_ms: median time from sending a step to holding its velocity.
        p90_ms: its 90th percentile.
        p99_ms: its 99th percentile.
        max_ms: its maximum.
        compute_p50_ms: median of the server's computing time.
        compute_p99_ms: its 99th percentile.
    """

    session: str
    model: str
    model_digest: str
    parameters: int
    machine: str
    trials: int
    frames: int
    paced: bool
    r2: float
    r2_wiener: float
    streaming_error: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float
    compute_p50_ms: float
    compute_p99_ms: float


def make_report(
    session: Session,
    checkpoint: Checkpoint,
    replayed: Sequence[ReplayedTrial],
    offline: Sequence[FloatArray],
    wiener: Sequence[FloatArray],
    *,
    paced: bool,
    device: str,
) -> Report:
    """Scores what was streamed.

    Args:
        session: the recording.
        checkpoint: the decoder that was served.
        replayed: the streamed trials.
        offline: the decoder's offline velocities (n, 2) at each trial's target steps.
        wiener: the Wiener filter's, at the same.
        paced: whether the replay kept the recording's pace.
        device: where the server's model ran.
    """
    targets = [trial_targets(session, t.trial) for t in replayed]
    true = np.concatenate([velocity for _, velocity in targets])
    streamed = np.concatenate(
        [t.velocity[steps] for t, (steps, _) in zip(replayed, targets, strict=True)]
    )
    unbroken = np.concatenate(offline)
    round_trip = np.concatenate([t.round_trip_ms for t in replayed])
    compute = np.concatenate([t.compute_ms for t in replayed])
    p50, p90, p99 = np.percentile(round_trip, (50, 90, 99))
    compute_p50, compute_p99 = np.percentile(compute, (50, 99))
    return Report(
        session=session.session_id,
        model=checkpoint.name,
        model_digest=checkpoint.digest,
        parameters=sum(p.numel() for p in checkpoint.model.parameters()),
        machine=f"{platform.machine()}, {os.cpu_count()} cores, {device}",
        trials=len(replayed),
        frames=len(round_trip),
        paced=paced,
        r2=velocity_r2(true, streamed),
        r2_wiener=velocity_r2(true, np.concatenate(wiener)),
        streaming_error=float(np.abs(streamed - unbroken).max() / np.abs(unbroken).max()),
        p50_ms=float(p50),
        p90_ms=float(p90),
        p99_ms=float(p99),
        max_ms=float(round_trip.max()),
        compute_p50_ms=float(compute_p50),
        compute_p99_ms=float(compute_p99),
    )


def as_text(report: Report) -> str:
    """The report for a terminal."""
    pace = "at the recording's pace" if report.paced else "without waiting"
    return "\n".join(
        (
            f"recording     {report.session}: {report.trials} held-out trials, "
            f"{report.frames} steps, {pace}",
            f"model         {report.model}, {report.parameters / 1e6:.2f} M parameters, "
            f"weights {report.model_digest[:12]}",
            f"machine       {report.machine}",
            "",
            "velocity R2            held-out trials",
            f"  {report.model + ', streamed':<22}{report.r2:>8.3f}",
            f"  {'Wiener filter':<22}{report.r2_wiener:>8.3f}",
            f"streamed - offline     {report.streaming_error:>9.1e} of the largest velocity",
            "",
            "latency (ms)              p50     p90     p99     max",
            f"  spikes to velocity {report.p50_ms:>8.2f}{report.p90_ms:>8.2f}"
            f"{report.p99_ms:>8.2f}{report.max_ms:>8.2f}",
            f"  of it computing    {report.compute_p50_ms:>8.2f}{'':>8}"
            f"{report.compute_p99_ms:>8.2f}",
        )
    )
