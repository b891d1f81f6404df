"""Collation keeps every event, in its sample, step and phase."""

import numpy as np

from cortex.event_batch import collate
from cortex.events import Events


def test_every_event_lands_once() -> None:
    rng = np.random.default_rng(0)
    counts = [rng.poisson(0.3, (12, 5)), np.zeros((12, 5), np.int64), rng.poisson(1.0, (12, 5))]
    batch = collate([Events.from_counts(c) for c in counts], n_steps=3, bins_per_step=4)
    rebuilt = np.zeros((3, 3, 4, 5), np.int64)
    sample, step, event = np.nonzero(batch.mask_BSE.numpy())
    at = (sample, step, event)
    np.add.at(
        rebuilt,
        (sample, step, batch.phase_BSE.numpy()[at], batch.unit_BSE.numpy()[at]),
        batch.value_BSE.numpy()[at],
    )
    assert np.array_equal(rebuilt.reshape(3, 12, 5), np.stack(counts))


def test_silence_has_room_for_one_padded_event() -> None:
    batch = collate([Events.empty()], n_steps=2, bins_per_step=4)
    assert batch.unit_BSE.shape == (1, 2, 1)
    assert not batch.mask_BSE.any()
