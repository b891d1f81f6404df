"""A batch in one buffer: the same events, whatever lay there before, and rows that only fill up."""

import numpy as np
import torch

from cortex.event_batch import EventBatch, collate
from cortex.events import Events
from cortex.model import Model
from cortex.model_config import ModelConfig
from cortex.ragged_events import RaggedEvents
from cortex.staged_batch import BatchShape, BatchWriter, StagedBatch, row_counts, staged_bytes
from cortex.time_grid import TimeGrid
from kernels.event_placement import place_events

GRID = TimeGrid(window_steps=5)
SHAPE = BatchShape(4, 64)


def _windows(*seeds: int) -> list[Events]:
    return [
        Events.from_counts(np.random.default_rng(seed).poisson(0.3, (GRID.window_bins, 6)))
        for seed in seeds
    ]


def _placed(batch: StagedBatch) -> EventBatch:
    options = {"steps": 5, "bins_per_step": GRID.bins_per_step, "places": SHAPE.events}
    return EventBatch.of(place_events(batch.events, **options))


def test_shapes_are_few_and_hold_little_more_than_they_must() -> None:
    assert BatchShape.holding(3, 9) == BatchShape(4, 16)
    assert BatchShape.holding(205, 8) == BatchShape(224, 8)
    counts = row_counts(512)
    assert counts[:6] == [1, 2, 4, 8, 10, 12] and counts[-1] == 512
    assert len(counts) == 28
    for rows in range(1, 513):
        held = BatchShape.holding(rows, 1).rows
        assert rows <= held and held in counts
        assert rows <= 8 or held - rows < rows / 4


def test_the_model_answers_as_to_a_collated_batch() -> None:
    torch.manual_seed(0)
    model = Model(ModelConfig.of_size("nano", n_units=6, grid=GRID, movements=3)).eval()
    query = model.velocity_query(torch.tensor([3]))
    batch = StagedBatch.in_buffer(torch.zeros(staged_bytes(SHAPE), dtype=torch.uint8), SHAPE)
    writer = BatchWriter(batch)
    writer.write(RaggedEvents.of(_windows(5, 6, 7, 8)), np.empty(0, np.int64), 9)
    # The next batch in the same memory has fewer events, among what the last one left.
    samples = [_windows(1)[0], Events.empty(), _windows(2)[0]]
    writer.write(RaggedEvents.of(samples), np.empty(0, np.int64), 9)
    expected = collate(samples, n_steps=5, bins_per_step=4)
    with torch.inference_mode():
        torch.testing.assert_close(
            model.decode(_placed(batch), query)[:3], model.decode(expected, query)
        )


def test_rows_that_fill_up_are_silent_and_of_the_spare_slot() -> None:
    batch = StagedBatch.in_buffer(torch.zeros(staged_bytes(SHAPE), dtype=torch.uint8), SHAPE)
    writer = BatchWriter(batch)
    writer.write(RaggedEvents.of(_windows(4, 5, 6, 7)), np.arange(4), 9)
    writer.write(RaggedEvents.of(_windows(1, 2, 3)), np.array([7, 3, 5]), 9)
    assert batch.slot_B.tolist() == [7, 3, 5, 9]
    placed = _placed(batch)
    assert placed.count_BS[:3].any()
    assert not placed.count_BS[3].any() and not placed.mask_BSE[3].any()
