"""Fitting: learning, reproducibility, early stopping, resuming, starting from other weights."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cortex.checkpoint import save_checkpoint
from cortex.errors import InputError
from training.evaluation.scoring import score
from training.fitting.fit_config import FitConfig
from training.fitting.provenance import session_digest
from training.fitting.train_config import TrainConfig
from training.fitting.train_decoder import TrainingSession, train_decoder
from training.fitting.trainer import learning_rate
from training.samples.augmentation import AugmentationConfig
from training.samples.session_for_tests import make_session


def _config(**fit: object) -> TrainConfig:
    augmentation = AugmentationConfig(event_dropout=0.0, unit_dropout=0.0)
    base = FitConfig(steps=120, batch_trials=8, augmentation=augmentation)
    return TrainConfig(dropout=0.0, fit=replace(base, **fit))  # type: ignore[arg-type]


def _waves(n_trials: int, trials: range) -> TrainingSession:
    return TrainingSession(session=make_session(n_trials), trials=trials)


def test_learns_what_is_there_to_learn() -> None:
    losses: list[float] = []
    checkpoint = train_decoder(
        [_waves(40, range(32))],
        _config(),
        on_report=lambda step, values: losses.append(values["loss"]),
    )
    assert losses[-1] < 0.5 * losses[0]
    assert score(checkpoint, make_session(40), range(32), range(32, 40)).r2 > 0.5


def test_rate_warms_up_and_falls_to_zero() -> None:
    config = FitConfig(steps=100, learning_rate=1.0, warmup_share=0.1)
    rates = [learning_rate(config, done) for done in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == pytest.approx(1.0)
    assert rates[9:] == sorted(rates[9:], reverse=True)
    assert rates[-1] < 1e-3


def test_a_seed_fixes_the_weights(tmp_path: Path) -> None:
    def digest(name: str, seed: int) -> str:
        augmentation = AugmentationConfig()
        config = replace(_config(steps=3, seed=seed, augmentation=augmentation), dropout=0.3)
        return save_checkpoint(train_decoder([_waves(12, range(8))], config), tmp_path / name)

    assert digest("a", 0) == digest("b", 0) != digest("c", 1)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_resumed_run_repeats_the_unbroken_one(tmp_path: Path, precision: str) -> None:
    class Killed(Exception):
        pass

    fit_config = _config(steps=20, validate_every=5, precision=precision)
    config = replace(fit_config, dropout=0.3, validation_share=0.25)

    def run(folder: Path, kill_at: int | None = None) -> tuple[dict[str, float], str]:
        seen: dict[str, float] = {}

        def on_report(step: int, values: dict[str, float]) -> None:
            seen.update({f"{step} {name}": value for name, value in values.items()})
            if step == kill_at:
                raise Killed

        checkpoint = train_decoder(
            [_waves(12, range(12))], config, run_folder=folder, save_every=5, on_report=on_report
        )
        return seen, save_checkpoint(checkpoint, tmp_path / "decoder")

    whole, digest = run(tmp_path / "whole")
    with pytest.raises(Killed):
        run(tmp_path / "killed", kill_at=10)
    # Killed at step 10 before it was saved: it goes on from 5.
    assert (tmp_path / "killed" / "step_00000005").is_dir()
    resumed, resumed_digest = run(tmp_path / "killed")
    assert resumed == {k: v for k, v in whole.items() if int(k.split()[0]) > 5}
    assert digest == resumed_digest


def test_a_run_folder_is_for_one_run(tmp_path: Path) -> None:
    sessions = [_waves(12, range(8))]
    train_decoder(sessions, _config(steps=2), run_folder=tmp_path, save_every=1)
    with pytest.raises(InputError, match="other data or settings"):
        train_decoder(sessions, _config(steps=3), run_folder=tmp_path, save_every=1)
    (tmp_path / "step_00000002" / "__0_0.distcp").write_bytes(b"rubbish")
    with pytest.raises(InputError, match="step_00000002: cannot be taken up"):
        train_decoder(sessions, _config(steps=2), run_folder=tmp_path, save_every=1)


def test_early_stopping_keeps_the_best_average() -> None:
    # A rate this high ruins the weights again after a good start.
    config = replace(
        _config(steps=200, learning_rate=0.3, validate_every=4, patience=3, average_decay=0.5),
        validation_share=0.25,
    )
    checkpoint = train_decoder([_waves(40, range(40))], config)
    scores = checkpoint.card["validation_r2"]
    assert len(scores) < 50
    assert checkpoint.card["steps"] == max(scores, key=lambda step: scores[step])


def test_one_model_learns_from_many_sessions() -> None:
    first, second = make_session(30), replace(make_session(30, seed=1), session_id="more")
    checkpoint = train_decoder(
        [TrainingSession(session=s, trials=range(24)) for s in (first, second)],
        _config(steps=240),
    )
    assert len(checkpoint.unit_ids) == 24
    assert checkpoint.unit_ids[0].startswith("waves/")
    for session in (first, second):
        assert score(checkpoint, session, range(24), range(24, 30)).r2 > 0.5
    inches = replace(second, behavior=replace(second.behavior, unit="in/s"))
    with pytest.raises(InputError, match="expected one unit"):
        train_decoder(
            [TrainingSession(session=s, trials=range(24)) for s in (first, inches)], _config()
        )


def test_starting_from_other_weights() -> None:
    source = train_decoder([_waves(40, range(32))], _config())
    again = train_decoder(
        [_waves(40, range(32))], _config(steps=1, learning_rate=1e-5), init_from=source
    )
    assert score(again, make_session(40), range(32), range(32, 40)).r2 > 0.5
    assert again.card["init_from"]["known_units"] == 12
    other = replace(make_session(40), session_id="other")
    new = train_decoder(
        [TrainingSession(session=other, trials=range(32))], _config(steps=1), init_from=source
    )
    assert new.card["init_from"]["known_units"] == 0
    with pytest.raises(InputError, match="give the same size"):
        train_decoder(
            [_waves(12, range(8))], replace(_config(), shape={"blocks": 1}), init_from=source
        )


def test_scaling_comes_from_the_training_trials_alone() -> None:
    session = make_session()
    checkpoint = train_decoder([TrainingSession(session=session, trials=[0, 1])], _config(steps=1))
    labels = session.behavior.velocity[:120]
    np.testing.assert_allclose(checkpoint.model.velocity_mean, labels.mean(0), rtol=1e-4)
    np.testing.assert_allclose(checkpoint.model.velocity_scale, labels.std(0), rtol=1e-4)


def test_trials_without_labels_are_refused() -> None:
    session = make_session()
    none = replace(
        session.behavior, time_bin=np.empty(0, np.int64), velocity=np.empty((0, 2), np.float32)
    )
    with pytest.raises(InputError, match="none of 1 trials has a velocity label"):
        train_decoder(
            [TrainingSession(session=replace(session, behavior=none), trials=[0])],
            _config(steps=1),
        )


def test_digest_sees_every_column() -> None:
    session = make_session()
    behavior = session.behavior
    changed = replace(session, behavior=replace(behavior, velocity=behavior.velocity + 1))
    assert session_digest(session) == session_digest(make_session())
    assert session_digest(session) != session_digest(changed)


def test_spikes_alone_can_be_learnt_from() -> None:
    losses: list[float] = []
    train_decoder(
        [_waves(40, range(40))],
        _config(velocity_weight=0.0, masked_weight=1.0),
        on_report=lambda step, values: losses.append(values["loss"]),
    )
    # Better than the entropy of the counts' own distribution, which a constant answer reaches.
    assert losses[-1] < 0.9 * losses[0]
    assert torch.isfinite(torch.tensor(losses)).all()
