"""Fits in which a part of the parameters learns."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cortex.errors import InputError
from cortex.model import Model
from cortex.model_config import ModelConfig
from training.fitting.fit import fit
from training.fitting.fit_config import FitConfig
from training.fitting.processes import Processes
from training.fitting.run_folder import RunFolder
from training.samples.session_for_tests import make_session
from training.samples.trial_samples import trial_samples
from training.samples.trial_tensors import TrialTensors

EMBEDDING = "cross.tokenizer.unit.weight"
CONFIG = FitConfig(steps=4, batch_trials=4, weight_decay=0.5, train_only=(EMBEDDING,))


def _model() -> Model:
    session = make_session()
    torch.manual_seed(0)
    return Model(
        ModelConfig.of_size("nano", n_units=len(session.unit_ids), grid=session.grid, dropout=0.2)
    )


def _fit(model: Model, config: FitConfig, folder: Path | None = None) -> dict[str, Tensor]:
    trials = TrialTensors(
        trial_samples(make_session(), range(8)), bins_per_step=4, crop_steps=99, device="cpu"
    )
    run = None
    if folder:
        run = RunFolder(folder, every=2, identity={}, processes=Processes())
    return fit(model, trials, config, run=run).weights


def _moved(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_others_stay_bit_for_bit(precision: str) -> None:
    before = {name: w.clone() for name, w in _model().state_dict().items()}
    config = replace(CONFIG, precision=precision)  # type: ignore[arg-type]
    scale = {"velocity_mean", "velocity_scale"}
    assert _moved(before, _fit(_model(), config)) == {EMBEDDING} | scale
    assert _moved(before, _fit(_model(), replace(config, keep_scale=True))) == {EMBEDDING}


def test_a_later_fit_of_all_is_as_if_none_had_been_left_out() -> None:
    every = replace(CONFIG, train_only=())
    model = _model()
    model.load_state_dict(_fit(model, CONFIG))
    fresh = _model()
    fresh.load_state_dict(model.state_dict())
    after, expected = _fit(model, every), _fit(fresh, every)
    assert not _moved(expected, after)
    assert "cross.kv.weight" in _moved(_model().state_dict(), after)


def test_it_resumes(tmp_path: Path) -> None:
    whole = _fit(_model(), CONFIG, tmp_path / "whole")
    _fit(_model(), CONFIG, tmp_path / "killed")
    for file in (tmp_path / "killed" / "step_00000004").iterdir():
        file.unlink()
    resumed = _fit(_model(), CONFIG, tmp_path / "killed")
    assert not _moved(whole, resumed)


def test_a_name_that_no_parameter_has_is_refused() -> None:
    with pytest.raises(InputError, match="begins with one of nothing, other"):
        _fit(_model(), replace(CONFIG, train_only=("nothing", "other")))
