"""Work in turns: the same results as one after another, and never more at once than asked."""

from collections.abc import Iterator

import torch

from cortex.model import Model
from cortex.model_config import ModelConfig
from training.fitting.fit import Fitted, fitting
from training.fitting.fit_config import FitConfig
from training.fitting.turns import Work, finished, in_turns
from training.samples.session_for_tests import make_session
from training.samples.trial_samples import trial_samples
from training.samples.trial_tensors import TrialTensors


def _counting(going: list[int], name: int, pauses: int) -> Work[int]:
    going.append(name)
    for _ in range(pauses):
        yield
    going.remove(name)
    return name


def test_results_come_as_they_are_there() -> None:
    going: list[int] = []
    most = 0

    def works() -> Iterator[Work[int]]:
        nonlocal most
        for name, pauses in enumerate((5, 1, 0, 2)):
            most = max(most, len(going))
            yield _counting(going, name, pauses)

    assert list(in_turns(works(), at_once=2)) == [1, 2, 0, 3]
    assert most < 2
    assert list(in_turns([], at_once=2)) == []


def test_fits_in_turns_equal_fits_alone() -> None:
    session = make_session()
    trials = TrialTensors(
        trial_samples(session, range(8)), bins_per_step=4, crop_steps=99, device="cpu"
    )

    def fit(seed: int, losses: dict[tuple[int, int], float]) -> Work[Fitted]:
        torch.manual_seed(seed)
        model = Model(
            ModelConfig.of_size("nano", n_units=12, grid=session.grid, dim=16, dropout=0.2)
        )
        return (
            yield from fitting(
                model,
                trials,
                FitConfig(steps=11 + seed, batch_trials=4, seed=seed),
                on_report=lambda step, values: losses.update({(seed, step): values["loss"]}),
            )
        )

    alone: dict[tuple[int, int], float] = {}
    together: dict[tuple[int, int], float] = {}
    first = [finished(fit(seed, alone)) for seed in range(3)]
    second = list(in_turns((fit(seed, together) for seed in range(3)), at_once=3))
    assert alone == together
    assert len(alone) == 6
    for a, b in zip(first, second, strict=True):
        assert a.steps == b.steps
        assert all(torch.equal(a.weights[name], b.weights[name]) for name in a.weights)
