"""The decoder: windows are streams that begin empty, and slots are kept apart."""

import numpy as np
import pytest
import torch

from cortex.checkpoint import Checkpoint
from cortex.decoder import Decoder
from cortex.errors import InputError
from cortex.events import Events
from cortex.model import Model
from cortex.model_config import ModelConfig
from cortex.time_grid import TimeGrid

GRID = TimeGrid(window_steps=5)


@pytest.fixture
def decoder() -> Decoder:
    torch.manual_seed(0)
    model = Model(ModelConfig.of_size("nano", n_units=6, grid=GRID))
    checkpoint = Checkpoint(
        model=model, name="nano", unit_ids=tuple("abcdef"), velocity_unit="mm/s"
    )
    return Decoder(checkpoint, max_streams=2)


def _window(seed: int) -> Events:
    return Events.from_counts(np.random.default_rng(seed).poisson(0.2, (GRID.window_bins, 6)))


def test_a_window_is_a_stream_that_begins_empty(decoder: Decoder) -> None:
    windows = [_window(0), Events.empty(), _window(1)]
    decoded = decoder.decode(windows)
    for window, expected in zip(windows, decoded, strict=True):
        slot = decoder.open()
        for step in range(GRID.window_steps):
            part = window.between(4 * step, 4 * step + 4).shifted(-4 * step)
            velocity = decoder.step([slot], [part])
            assert decoder.context_steps(slot) == step + 1
        np.testing.assert_allclose(velocity[0], expected, rtol=1e-4, atol=1e-5)
        decoder.step([slot], [Events.empty()])
        assert decoder.context_steps(slot) == GRID.window_steps
        decoder.close(slot)


def test_slots_run_out_and_come_back(decoder: Decoder) -> None:
    slots = [decoder.open(), decoder.open()]
    with pytest.raises(InputError, match="all 2 streams are open"):
        decoder.open()
    decoder.close(slots[0])
    assert decoder.open() == slots[0]


def test_misused_slots_are_refused(decoder: Decoder) -> None:
    slot = decoder.open()
    with pytest.raises(InputError, match="repeat"):
        decoder.step([slot, slot], [Events.empty()] * 2)
    decoder.close(slot)
    for use in (lambda: decoder.close(slot), lambda: decoder.step([slot], [Events.empty()])):
        with pytest.raises(InputError, match="is not open"):
            use()


def test_missing_device_is_one_line(decoder: Decoder) -> None:
    with pytest.raises(InputError, match="device 'cuda:9' cannot be used") as caught:
        Decoder(decoder.checkpoint, device="cuda:9")
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_answers_as_a_cpu_does(decoder: Decoder) -> None:
    other = Decoder(decoder.checkpoint, device="cuda", max_streams=3)
    three = [_window(0), Events.empty(), _window(1)]
    for _ in range(2):
        decoded = other.decode(three)
    slots = [other.open() for _ in three]
    for step in range(GRID.window_steps):
        parts = [window.between(4 * step, 4 * step + 4).shifted(-4 * step) for window in three]
        streamed = other.step(slots, parts)
    np.testing.assert_allclose(streamed, decoded, rtol=1e-2, atol=1e-2)
