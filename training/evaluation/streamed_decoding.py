"""Decodes a recording's trials one step at a time, as a server does.

What comes out equals `offline_decoding.decode_trials` to rounding.
"""

from collections.abc import Sequence

import numpy as np

from cortex.checkpoint import Checkpoint
from cortex.decoder import Decoder
from cortex.precision import Precision
from cortex.session import FloatArray, Session
from training.evaluation.model_trials import model_trials
from training.samples.trial_samples import TrialSample

STREAMS_AT_ONCE = 64


def stream_trials(
    checkpoint: Checkpoint,
    session: Session,
    trials: Sequence[int],
    device: str = "cpu",
    precision: Precision = "fp32",
) -> list[FloatArray]:
    """Velocity (n, 2) at each trial's target steps, every trial a stream that begins empty.

    Args:
        checkpoint: the decoder; its model is moved to the device.
        session: the recording.
        trials: which trials.
        device: where to decode.
        precision: of the decoder, as in Decoder.

    Raises:
        InputError: the session does not fit the model, or the device is not there.
    """
    samples = model_trials(checkpoint, session, trials)
    decoder = Decoder(checkpoint, device=device, max_streams=STREAMS_AT_ONCE, precision=precision)
    decoded: list[FloatArray] = []
    for first in range(0, len(samples), STREAMS_AT_ONCE):
        decoded += _stream(decoder, samples[first : first + STREAMS_AT_ONCE])
    return decoded


def _stream(decoder: Decoder, samples: Sequence[TrialSample]) -> list[FloatArray]:
    """Streams side by side: each step, all trials that last as long advance together."""
    bins = decoder.grid.bins_per_step
    slots = [decoder.open() for _ in samples]
    velocity = [np.empty((sample.n_steps, 2), np.float32) for sample in samples]
    for step in range(max(sample.n_steps for sample in samples)):
        live = [i for i, sample in enumerate(samples) if step < sample.n_steps]
        first = step * bins
        events = [samples[i].events.between(first, first + bins).shifted(-first) for i in live]
        answers = decoder.step([slots[i] for i in live], events)
        for i, answer in zip(live, answers, strict=True):
            velocity[i][step] = answer
    for slot in slots:
        decoder.close(slot)
    return [v[s.labelled[:, -1]] for v, s in zip(velocity, samples, strict=True)]
