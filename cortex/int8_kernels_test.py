"""An INT8 model by its kernels, offline and streamed; in the interpreter where there is no GPU."""

import os

import pytest
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

from cortex.event_batch import EventBatch, collate
from cortex.events import Events
from cortex.linear_add import LinearAdd
from cortex.model import Model
from cortex.model_config import ModelConfig
from cortex.quantization import Quantization
from cortex.quantized_model import float_layers, quantized
from cortex.streaming import StreamCache
from cortex.time_grid import TimeGrid
from kernels.dispatch import forced

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
GRID = TimeGrid(window_steps=2)
STEPS = 3


def _batch(first: int, steps: int) -> EventBatch:
    torch.manual_seed(1)
    counts = torch.poisson(torch.full((STEPS * GRID.bins_per_step, 4), 0.3)).long().numpy()
    start, stop = first * GRID.bins_per_step, (first + steps) * GRID.bins_per_step
    events = Events.from_counts(counts).between(start, stop).shifted(-start)
    return collate([events], n_steps=steps, bins_per_step=GRID.bins_per_step).to(DEVICE)


@pytest.mark.parametrize(
    ("static", "kept"), [(False, ()), (True, ()), (True, ("blocks.0.up", "velocity.out"))]
)
@torch.no_grad()
def test_kernels_equal_the_plain_forms(static: bool, kept: tuple[str, ...]) -> None:
    torch.manual_seed(0)
    shape = {"dim": 64, "blocks": 1, "heads": 2, "latents_per_step": 2, "event_steps": 2}
    model = Model(ModelConfig(n_units=4, grid=GRID, readout_steps=2, **shape)).eval()  # type: ignore[arg-type]
    layers = float_layers(model)
    adding = [n for n, m in layers.items() if isinstance(m, LinearAdd) and n not in kept]
    scales = dict.fromkeys(adding, 4 / 127) if static else {}
    small = quantized(model, Quantization(kept=kept, input_scales=scales)).to(DEVICE).prepare()
    last = torch.tensor([GRID.bins_per_step - 1], device=DEVICE)
    with forced("torch"):
        plain = small(_batch(0, STEPS), last)
    with forced("triton"):
        query = small.velocity_query(last, STEPS)
        offline = small.decode(_batch(0, STEPS), query)
        cache = StreamCache(small, 2, last)
        slot = torch.tensor([1], device=DEVICE)
        cache.reset(slot, torch.zeros_like(slot))
        streamed = [cache.step(slot, _batch(step, 1)) for step in range(STEPS)]
    # A sum in another order may round to the next integer.
    tolerance = 1e-2 * float(plain.abs().max())
    torch.testing.assert_close(offline, plain, rtol=0, atol=tolerance)
    torch.testing.assert_close(torch.stack(streamed, 1), plain, rtol=0, atol=tolerance)
