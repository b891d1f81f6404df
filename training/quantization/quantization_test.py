"""Trained decoders in INT8: close to float, calibrated on training trials, layers kept as asked."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cortex.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from cortex.errors import InputError
from cortex.norm_linear import NormLinear
from cortex.quantization import Quantization
from cortex.quantized_model import quantized
from cortex.session import Session
from tools.measured.table import Row
from training.evaluation.evaluation import held_out_split
from training.evaluation.model_trials import model_trials
from training.evaluation.offline_decoding import decode_trials
from training.evaluation.streamed_decoding import stream_trials
from training.fitting.fit_config import FitConfig
from training.fitting.train_config import TrainConfig
from training.fitting.train_decoder import TrainingSession, train_decoder
from training.quantization import quantize_checkpoint as module
from training.quantization.comparison import compare
from training.quantization.drawing import draw_layers, draw_scores
from training.quantization.input_scales import input_scales
from training.quantization.quantize_checkpoint import (
    QuantizeConfig,
    quantize_checkpoint,
    weights_mb,
)
from training.quantization.report import Case, as_text, measured_rows
from training.quantization.sensitivity import (
    LayerError,
    most_sensitive,
)
from training.quantization.summary import summary
from training.samples.session_for_tests import make_session
from training.samples.splits import split_session
from training.samples.trial_samples import TrialSample


@pytest.fixture(scope="module")
def session() -> Session:
    return make_session(120)


@pytest.fixture(scope="module")
def checkpoint(session: Session, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    train, _ = split_session(session, 0)
    trained = train_decoder(
        [TrainingSession(session=session, trials=train)],
        TrainConfig(fit=FitConfig(steps=150, batch_trials=16, learning_rate=3e-3)),
        card={"split_seed": 0},
    )
    folder = tmp_path_factory.mktemp("float")
    save_checkpoint(trained, folder)
    return load_checkpoint(folder)


@pytest.mark.parametrize(("activations", "most_lost"), [("dynamic", 0.002), ("static", 0.005)])
def test_a_trained_decoder_is_as_good_in_int8(
    session: Session, checkpoint: Checkpoint, activations: str, most_lost: float, tmp_path: Path
) -> None:
    config = QuantizeConfig(activations=activations, percentile=99.9)  # type: ignore[arg-type]
    made = quantize_checkpoint(checkpoint, [session], config)
    save_checkpoint(made.checkpoint, tmp_path)
    loaded = load_checkpoint(tmp_path)
    assert loaded.model.quantization.activations == activations  # type: ignore[union-attr]
    assert weights_mb(loaded.model) < 0.28 * weights_mb(checkpoint.model)

    comparison = compare(checkpoint, loaded, session, precision="fp32")
    assert [f.key for f in comparison.figures] == ["fp32", "bf16", "int8_weights", "int8"]
    assert len({f.r2 for f in comparison.figures}) == 4
    assert comparison.figures[0].r2 > 0.7
    assert all(abs(loss.r2) < most_lost for loss in comparison.losses)

    _, test = held_out_split(checkpoint, session)
    offline = np.concatenate(decode_trials(loaded, session, test))
    streamed = np.concatenate(stream_trials(loaded, session, test))
    assert np.abs(streamed - offline).max() < 0.02 * np.abs(offline).max()


def test_only_trials_of_the_training_calibrate(
    session: Session, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[int]] = []

    def recording(*arguments: object) -> object:
        seen.append(list(arguments[2]))  # type: ignore[call-overload]
        return model_trials(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "model_trials", recording)
    config = QuantizeConfig(trials=10)
    card = quantize_checkpoint(checkpoint, [session], config).checkpoint.card["quantization"]
    train, test = held_out_split(checkpoint, session)
    assert [len(trials) for trials in seen] == [5, 5]
    assert seen == list(card["calibration_trials"]["waves"])
    used = {*seen[0], *seen[1]}
    assert len(used) == 10 and used <= set(train) and not used & set(test)


def test_layers_are_kept_and_named(session: Session, checkpoint: Checkpoint) -> None:
    config = QuantizeConfig(
        most_r2_lost=0.0, keep_layers=("velocity.out",), embeddings="bf16", trials=4
    )
    none = quantize_checkpoint(checkpoint, [session], config)
    names = none.checkpoint.model.quantization.kept  # type: ignore[union-attr]
    assert len(names) == 17 and len(none.sensitive) == 13

    generous = replace(config, most_r2_lost=1.0)
    made = quantize_checkpoint(checkpoint, [session], generous)
    kept = [f"cross.tokenizer.{table}" for table in ("unit", "phase", "value")]
    assert made.sensitive == ()
    assert made.checkpoint.card["quantization"]["kept_in_bf16"] == [*kept, "velocity.out"]
    assert "velocity.out" in made.checkpoint.model.quantization.kept  # type: ignore[union-attr]
    assert made.r2_lost != none.r2_lost
    text = summary(checkpoint, made)
    assert text.count("kept in bf16, as asked") == 4
    assert "INT8 0." in text


def test_a_layer_that_minds_is_kept(session: Session, checkpoint: Checkpoint) -> None:
    delicate = replace(checkpoint, model=copy.deepcopy(checkpoint.model))
    model = delicate.model
    with torch.no_grad():
        # Column 0 of the latents is always zero, and its weights take all of the int8 range.
        for latents in (model.start_LD, model.cross.latents_LD):
            latents[:, 0] = 0
        adding = [model.cross.out, *(x for b in model.latent_blocks() for x in (b.out, b.down))]
        for layer in adding:
            layer.weight[0] = 0
        model.velocity.kv.weight[:, 0] = 300
    made = quantize_checkpoint(delicate, [session], QuantizeConfig(trials=8))
    assert made.sensitive == ("velocity.kv",)
    assert isinstance(made.checkpoint.model.velocity.kv, NormLinear)
    assert made.checkpoint.card["quantization"]["kept_in_bf16"] == ["velocity.kv"]
    alone = {error.layer: error.r2_lost for error in made.errors}
    assert alone["velocity.kv"] > 0.1 and made.r2_lost < 1e-3


def _few(checkpoint: Checkpoint, session: Session) -> list[TrialSample]:
    return model_trials(checkpoint, session, [0, 1, 2])


@pytest.mark.parametrize(
    ("most", "kept"), [(1.0, []), (0.6, ["b"]), (0.35, ["b", "d"]), (0.0, ["b", "d", "c", "a"])]
)
def test_the_most_sensitive_are_the_fewest(most: float, kept: list[str]) -> None:
    errors = [
        LayerError(layer=layer, r2_lost=lost)
        for layer, lost in (("a", 0.1), ("b", 0.4), ("c", 0.2), ("d", 0.3))
    ]
    assert most_sensitive(errors, most) == kept


def test_steps_reach_the_percentile_of_all_values(session: Session, checkpoint: Checkpoint) -> None:
    seen: list[torch.Tensor] = []
    down = checkpoint.model.latent_blocks()[1].down
    hook = down.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].abs().flatten()))
    scales = {p: input_scales(checkpoint.model, _few(checkpoint, session), p) for p in (50, 100)}
    hook.remove()
    values = torch.cat(seen[: len(seen) // 2])
    assert scales[50].keys() == scales[100].keys() and len(scales[50]) == 6
    for percentile, quantile in ((50, values.median()), (100, values.max())):
        expected = float(quantile) / 127
        # Values are counted to the three digits of bfloat16.
        assert scales[percentile]["blocks.1.down"] == pytest.approx(expected, rel=5e-3)


def test_one_outlier_does_not_decide(session: Session, checkpoint: Checkpoint) -> None:
    few = _few(checkpoint, session)
    before = input_scales(checkpoint.model, few, 99)["blocks.0.out"]

    def outlier(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        inputs[0].view(-1)[0] = 1e6
        return inputs

    out = checkpoint.model.latent_blocks()[0].out
    hook = out.register_forward_pre_hook(outlier)
    after = input_scales(checkpoint.model, few, 99)["blocks.0.out"]
    hook.remove()
    assert after == pytest.approx(before, rel=0.02)


def test_the_report(session: Session, checkpoint: Checkpoint, tmp_path: Path) -> None:
    made = quantize_checkpoint(checkpoint, [session], QuantizeConfig(keep_layers=("cross.out",)))
    case = Case(
        name="waves",
        source=checkpoint,
        small=made.checkpoint,
        comparison=compare(checkpoint, made.checkpoint, session),
    )
    text = as_text(case)
    assert "kept in bf16: cross.out" in text and text.count("lost") == 3
    rows = {row.name: row for row in measured_rows([case])}
    forms = [f"quant/waves/{key}" for key in ("fp32", "bf16", "int8_weights", "int8", "r2_lost")]
    assert list(rows) == [*forms, "quant/nano/weights_mb"]
    fp32, int8 = rows[forms[0]], rows[forms[3]]
    assert rows[forms[4]].value == pytest.approx(fp32.value - int8.value)
    assert "95 % interval" in int8.note and "dynamic INT8 inputs, bf16 between" in int8.note
    _check_weights(rows["quant/nano/weights_mb"], checkpoint, made.checkpoint)
    draw_scores([case], tmp_path / "scores.png")
    draw_layers([case], tmp_path / "layers.png")
    assert all((tmp_path / f"{name}.png").stat().st_size > 8000 for name in ("scores", "layers"))


def _check_weights(row: Row, source: Checkpoint, small: Checkpoint) -> None:
    assert row.value == weights_mb(small.model)
    assert row.baselines["fp32"] == pytest.approx(
        4e-6 * sum(t.numel() for t in source.model.state_dict().values())
    )
    assert "in bf16: cross.out" in row.note


def _other(checkpoint: Checkpoint) -> Checkpoint:
    return replace(checkpoint, model=quantized(checkpoint.model, Quantization()))


def test_unknown_layers_are_not_kept(session: Session, checkpoint: Checkpoint) -> None:
    with pytest.raises(InputError, match=r"'blocks.0.middle' to keep is unknown, expected one of"):
        quantize_checkpoint(checkpoint, [session], QuantizeConfig(keep_layers=("blocks.0.middle",)))


def test_int8_models_are_not_quantised_again(session: Session, checkpoint: Checkpoint) -> None:
    with pytest.raises(InputError, match="is in int8, expected the float model"):
        quantize_checkpoint(_other(checkpoint), [session], QuantizeConfig())


def test_a_model_is_compared_with_what_it_was_made_from(
    session: Session, checkpoint: Checkpoint
) -> None:
    with pytest.raises(InputError, match="was made from nothing know"):
        compare(checkpoint, _other(checkpoint), session)
    with pytest.raises(InputError, match="not a recording that the model was trained on"):
        quantize_checkpoint(checkpoint, [make_session(120, seed=1)], QuantizeConfig())


def test_trials_without_labels_do_not_calibrate(
    session: Session, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without(*arguments: object) -> Sequence[object]:
        found = model_trials(*arguments)  # type: ignore[arg-type]
        return [replace(s, labelled=np.zeros_like(s.labelled)) for s in found]

    monkeypatch.setattr(module, "model_trials", without)
    with pytest.raises(InputError, match="calibration trials hold 0 velocity labels"):
        quantize_checkpoint(checkpoint, [session], QuantizeConfig())
