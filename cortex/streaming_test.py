"""A stream's outputs equal the offline forward over the whole session."""

import numpy as np
import pytest
import torch

from cortex.event_batch import collate
from cortex.events import Events
from cortex.model import Model
from cortex.model_config import ModelConfig
from cortex.streaming import StreamCache
from cortex.time_grid import TimeGrid
from kernels.event_attention import Weighting

GRID = TimeGrid(window_steps=6)
ALL_BINS = torch.arange(GRID.bins_per_step)
TWO_HOURS = 2 * 3600 * 50 + 17


def _model(weighting: Weighting = "sigmoid", grid: TimeGrid = GRID, movements: int = 1) -> Model:
    torch.manual_seed(3)
    config = ModelConfig(
        n_units=20,
        grid=grid,
        dim=32,
        blocks=3,
        heads=2,
        event_steps=3,
        weighting=weighting,
        movements=movements,
    )
    return Model(config).eval()


def _spikes(n_steps: int, seed: int, rate: float = 0.08, bins: int = 4) -> Events:
    """Poisson spikes with silent gaps, as between trials, and one very busy step."""
    rng = np.random.default_rng(seed)
    counts = rng.poisson(rate, (n_steps * bins, 20))
    counts[n_steps // 3 * bins : n_steps // 2 * bins] = 0
    counts[n_steps // 4 * bins : n_steps // 4 * bins + bins] += 3
    return Events.from_counts(counts)


def _offline(model: Model, events: Events, n_steps: int) -> torch.Tensor:
    grid = model.config.grid
    batch = collate([events], n_steps=n_steps, bins_per_step=grid.bins_per_step)
    velocity: torch.Tensor = model(batch, torch.arange(grid.bins_per_step))
    return velocity[0]


def _begin(cache: StreamCache, slot: int, first_step: int = 0) -> None:
    cache.reset(torch.tensor([slot]), torch.tensor([first_step]))


def _frame(events: Events, step: int, bins: int) -> Events:
    return events.between(step * bins, (step + 1) * bins).shifted(-step * bins)


def _relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


@torch.inference_mode()
def _stream(cache: StreamCache, slot: int, events: Events, n_steps: int) -> torch.Tensor:
    bins = cache.model.config.grid.bins_per_step
    answers = []
    for step in range(n_steps):
        batch = collate([_frame(events, step, bins)], n_steps=1, bins_per_step=bins)
        answers.append(cache.step(torch.tensor([slot]), batch)[0])
    return torch.stack(answers)


@pytest.mark.parametrize("weighting", ["sigmoid", "softmax"])
@pytest.mark.parametrize("first_step", [0, TWO_HOURS])
@pytest.mark.parametrize("n_steps", [1, 6, 7, 50])
@torch.inference_mode()
def test_equals_offline_from_an_empty_start(
    weighting: Weighting, first_step: int, n_steps: int
) -> None:
    model = _model(weighting)
    events = _spikes(n_steps, seed=n_steps)
    cache = StreamCache(model, 3, ALL_BINS)
    _begin(cache, 1, first_step)
    offline = _offline(model, events, n_steps)
    assert _relative(_stream(cache, 1, events, n_steps), offline) < 1e-4


@pytest.mark.parametrize("bins_per_step", [1, 10])
@torch.inference_mode()
def test_other_grids(bins_per_step: int) -> None:
    model = _model(grid=TimeGrid(bin_us=50_000, bins_per_step=bins_per_step, window_steps=5))
    events = _spikes(24, seed=2, bins=bins_per_step)
    cache = StreamCache(model, 1, torch.arange(bins_per_step))
    _begin(cache, 0)
    assert _relative(_stream(cache, 0, events, 24), _offline(model, events, 24)) < 1e-4


@torch.inference_mode()
def test_a_mixture_of_movements_streams_alike() -> None:
    model, events = _model(movements=5), _spikes(24, seed=3)
    cache = StreamCache(model, 1, ALL_BINS)
    _begin(cache, 0)
    assert _relative(_stream(cache, 0, events, 24), _offline(model, events, 24)) < 1e-4


@torch.inference_mode()
def test_the_start_matters_until_it_leaves_the_window() -> None:
    model, events = _model(), _spikes(60, seed=5)
    usual = _offline(model, events, 60)
    model.start_LD.data += 1.0
    other = _offline(model, events, 60)
    assert _relative(other[:3], usual[:3]) > 1e-3
    # Three blocks and the readout pass it on for that many windows at most.
    reach = 3 * GRID.window_steps + model.config.readout_steps
    assert _relative(other[reach:], usual[reach:]) < 1e-6


@torch.inference_mode()
def test_any_company_gives_each_stream_its_own_answer() -> None:
    """Streams of different ages share batches at random, and slots are taken over."""
    model, rng = _model(), np.random.default_rng(0)
    spikes = [_spikes(40, seed=s, rate=0.02 * (1 + 3 * s)) for s in range(5)]
    expected = [_offline(model, e, 40) for e in spikes]
    cache = StreamCache(model, 7, ALL_BINS)
    _begin(cache, 4)
    _stream(cache, 4, _spikes(11, seed=9), 11)  # a former owner of slot 4
    slot_of = [6, 4, 0, 2, 5]
    for slot in slot_of:
        _begin(cache, slot)
    done = [0] * 5
    worst = 0.0
    while min(done) < 40:
        party = [s for s in rng.permutation(5) if done[s] < 40 and rng.random() < 0.6]
        if not party:
            continue
        batch = collate([_frame(spikes[s], done[s], 4) for s in party], n_steps=1, bins_per_step=4)
        answers = cache.step(torch.tensor([slot_of[s] for s in party]), batch)
        for s, answer in zip(party, answers, strict=True):
            worst = max(worst, _relative(answer, expected[s][done[s]]))
            done[s] += 1
    assert worst < 1e-4


@torch.inference_mode()
def test_padding_and_company_do_not_change_an_offline_sample() -> None:
    model = _model()
    events = [_spikes(n, seed=n) for n in (9, 20)]
    alone = _offline(model, events[0], 9)
    together = model(collate(events, n_steps=20, bins_per_step=4), ALL_BINS)
    assert _relative(together[0, :9], alone) < 1e-5


@torch.inference_mode()
def test_no_output_sees_a_later_event() -> None:
    model, events = _model(), _spikes(20, seed=4)
    past = _offline(model, events.between(0, 40), 20)[:10]
    assert _relative(past, _offline(model, events, 20)[:10]) < 1e-6


@torch.inference_mode()
def test_silence_decodes_to_finite_numbers() -> None:
    weightings: tuple[Weighting, ...] = ("sigmoid", "softmax")
    for weighting in weightings:
        model = _model(weighting)
        silent = _offline(model, Events.empty(), 12)
        assert torch.isfinite(silent).all()
        cache = StreamCache(model, 1, ALL_BINS)
        _begin(cache, 0)
        assert _relative(_stream(cache, 0, Events.empty(), 12), silent) < 1e-4
