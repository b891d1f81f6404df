"""A batch in one buffer: the same events, whatever lay there before, and rows that only fill up."""

import numpy as np
import torch

from cortex.event_batch import collate, place_events
from cortex.events import Events
from cortex.model import Model
from cortex.model_config import ModelConfig
from cortex.ragged_events import RaggedEvents
from cortex.staged_batch import BatchShape, StagedBatch, staged_bytes
from cortex.time_grid import TimeGrid

GRID = TimeGrid(window_steps=5)


def _windows(*seeds: int) -> list[Events]:
    return [
        Events.from_counts(np.random.default_rng(seed).poisson(0.3, (GRID.window_bins, 6)))
        for seed in seeds
    ]


def _filled(samples: list[Events], buffer: torch.Tensor | None = None) -> StagedBatch:
    events = RaggedEvents.of(samples)
    places = place_events(events, n_steps=GRID.window_steps, bins_per_step=GRID.bins_per_step)
    shape = BatchShape.holding(len(events), GRID.window_steps, places.fullest)
    if buffer is None:
        buffer = torch.zeros(staged_bytes(shape), dtype=torch.uint8)
    batch = StagedBatch.in_buffer(buffer[: staged_bytes(shape)], shape)
    batch.fill(events, places, np.array([7, 3]), 9)
    return batch


def test_sizes_are_powers_of_two() -> None:
    assert BatchShape.holding(3, 5, 9) == BatchShape(4, 5, 16)
    assert BatchShape.holding(1, 5, 0) == BatchShape(1, 5, 8)
    assert BatchShape.holding(4, 5, 16) == BatchShape(4, 5, 16)


def test_the_fullest_step_is_found() -> None:
    counts = np.zeros((GRID.window_bins, 6), np.int64)
    counts[8:10] = 1
    samples = [Events.empty(), Events.from_counts(counts)]
    for these, expected in ((samples, 12), ([Events.empty()], 0)):
        assert place_events(RaggedEvents.of(these), n_steps=5, bins_per_step=4).fullest == expected


def test_the_model_answers_as_to_a_collated_batch() -> None:
    torch.manual_seed(0)
    model = Model(ModelConfig.of_size("nano", n_units=6, grid=GRID, movements=3)).eval()
    query = model.velocity_query(torch.tensor([3]))
    before = _filled(_windows(5, 6, 7))
    # The next batch in the same memory has fewer events, among what the last one left.
    buffer = before.events.unit_BSE.untyped_storage()
    memory = torch.empty(0, dtype=torch.uint8).set_(buffer)
    samples = [_windows(1)[0], Events.empty(), _windows(2)[0]]
    staged = _filled(samples, memory)
    expected = collate(samples, n_steps=5, bins_per_step=4)
    with torch.inference_mode():
        torch.testing.assert_close(
            model.decode(staged.events, query)[:3], model.decode(expected, query)
        )


def test_rows_that_fill_up_are_silent_and_of_the_spare_slot() -> None:
    staged = _filled(_windows(1, 2, 3))
    assert staged.slot_B.tolist() == [7, 3, 9, 9]
    assert not staged.events.count_BS[3].any() and not staged.events.mask_BSE[3].any()
