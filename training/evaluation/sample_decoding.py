"""Decodes whole trials with any network."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from cortex.event_batch import EventBatch, collate
from cortex.session import FloatArray
from training.evaluation.metrics import velocity_r2
from training.samples.trial_samples import TrialSample

TRIALS_AT_ONCE = 64

# A network, or anything with the arguments of DecoderModule.forward.
Decode = Callable[[EventBatch, Tensor], Tensor]


@torch.no_grad()
def decode_samples(
    decode: Decode, samples: Sequence[TrialSample], device: torch.device | str = "cpu"
) -> list[FloatArray]:
    """Velocity (n, 2) at each trial's labelled steps, every trial a stream that begins empty.

    A step is labelled if its last bin is; the velocity is decoded at that bin.
    """
    bins = samples[0].labelled.shape[1] if samples else 1
    decoded: list[FloatArray] = []
    for first in range(0, len(samples), TRIALS_AT_ONCE):
        part = samples[first : first + TRIALS_AT_ONCE]
        batch = collate(
            [s.events for s in part], n_steps=max(s.n_steps for s in part), bins_per_step=bins
        ).to(torch.device(device))
        velocity = decode(batch, torch.tensor([bins - 1], device=device))[:, :, 0].cpu().numpy()
        decoded += [
            row[: s.n_steps][s.labelled[:, -1]] for s, row in zip(part, velocity, strict=True)
        ]
    return decoded


def labels(samples: Sequence[TrialSample]) -> list[FloatArray]:
    """Recorded velocity (n, 2) at the same steps."""
    return [s.velocity[s.labelled[:, -1], -1] for s in samples]


def r2_on(samples: Sequence[TrialSample], device: torch.device | str) -> Callable[[Decode], float]:
    """A function that scores a network on the samples: velocity R2 over all of them pooled."""
    true = np.concatenate(labels(samples))

    def score(decode: Decode) -> float:
        return velocity_r2(true, np.concatenate(decode_samples(decode, samples, device)))

    return score
