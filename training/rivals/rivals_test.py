"""The networks on binned counts: causal, of the size they claim, each trial by itself."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cortex.decoder_module import DecoderModule
from cortex.event_batch import EventBatch
from cortex.time_grid import TimeGrid
from training.evaluation.sample_decoding import decode_samples
from training.rivals.gru import Gru, GruConfig
from training.rivals.transformer import Transformer, TransformerConfig
from training.samples.session_for_tests import UNITS, make_session
from training.samples.trial_samples import trial_samples
from training.samples.trial_tensors import TrialTensors

GRID = TimeGrid(window_steps=8)


def _networks() -> list[DecoderModule]:
    torch.manual_seed(0)
    return [
        Gru(GruConfig(n_units=UNITS, grid=GRID, width=16)).eval(),
        Transformer(TransformerConfig(n_units=UNITS, grid=GRID, width=16, layers=2)).eval(),
    ]


def _batch() -> EventBatch:
    samples = trial_samples(make_session(), range(4))
    trials = TrialTensors(samples, bins_per_step=4, crop_steps=99, device="cpu")
    return trials.batch(torch.arange(4), torch.zeros(4, dtype=torch.int64)).events


@pytest.mark.parametrize("network", _networks(), ids=("gru", "transformer"))
@torch.no_grad()
def test_later_spikes_change_no_earlier_velocity(network: DecoderModule) -> None:
    batch, phases = _batch(), torch.arange(4)
    step = torch.arange(batch.unit_BSE.shape[1])
    later = (step >= 9)[None, :, None]
    changed = replace(
        batch, unit_BSE=torch.where(later, UNITS - 1 - batch.unit_BSE, batch.unit_BSE)
    )
    before, after = network(batch, phases), network(changed, phases)
    torch.testing.assert_close(after[:, :9], before[:, :9])
    assert (after[:, 9] - before[:, 9]).abs().max() > 1e-3


@pytest.mark.parametrize("network", _networks(), ids=("gru", "transformer"))
def test_a_trial_is_decoded_by_itself(network: DecoderModule) -> None:
    session = make_session()
    alone = decode_samples(network, trial_samples(session, [2]))[0]
    among = decode_samples(network, trial_samples(session, [1, 2, 3]))[1]
    np.testing.assert_allclose(alone, among, rtol=1e-4, atol=1e-5)
    start, stop = int(session.trials.start_bin[2]), int(session.trials.stop_bin[2])
    without_others = replace(session, events=session.events.between(start, stop))
    again = decode_samples(network, trial_samples(without_others, [2]))[0]
    np.testing.assert_array_equal(alone, again)


@torch.no_grad()
def test_attention_spans_the_window() -> None:
    network = Transformer(TransformerConfig(n_units=UNITS, grid=GRID, width=16, layers=1)).eval()
    batch, phases = _batch(), torch.arange(4)
    silent = torch.arange(batch.unit_BSE.shape[1])[None, :, None] > 0
    without_first = replace(batch, mask_BSE=batch.mask_BSE & silent)
    before, after = network(batch, phases), network(without_first, phases)
    torch.testing.assert_close(after[:, 8:], before[:, 8:])
    assert (after[:, 7] - before[:, 7]).abs().max() > 1e-6


def test_the_transformer_has_about_five_million_parameters() -> None:
    network = Transformer(TransformerConfig(n_units=174, grid=GRID))
    assert 4.5e6 < sum(p.numel() for p in network.parameters()) < 5.5e6
