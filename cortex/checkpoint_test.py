"""Checkpoints come back whole, or are refused with the reason."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from cortex.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from cortex.errors import InputError
from cortex.model import Model
from cortex.model_config import ModelConfig
from cortex.time_grid import TimeGrid


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    model = Model(ModelConfig.of_size("nano", n_units=3, grid=TimeGrid()))
    checkpoint = Checkpoint(
        model=model, name="nano", unit_ids=("a", "b", "c"), velocity_unit="mm/s", card={"r2": 0.5}
    )
    save_checkpoint(checkpoint, tmp_path / "model")
    return tmp_path / "model"


def test_round_trip(folder: Path) -> None:
    first = load_checkpoint(folder)
    again = save_checkpoint(first, folder.parent / "copy")
    second = load_checkpoint(folder.parent / "copy")
    assert first.digest == second.digest == again
    assert (first.unit_ids, first.velocity_unit, first.card, first.name) == (
        ("a", "b", "c"),
        "mm/s",
        {"r2": 0.5},
        "nano",
    )
    for name, tensor in first.model.state_dict().items():
        assert torch.equal(tensor, second.model.state_dict()[name])


def _edit_tensors(edit: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], object]:
    def apply(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        edit(tensors)
        save_file(tensors, folder / "model.safetensors")

    return apply


def _edit_config(**fields: object) -> Callable[[Path], object]:
    def apply(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, **fields}))

    return apply


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "config.json").unlink(), "config.json: No such file"),
        (lambda f: (f / "model.safetensors").unlink(), "model.safetensors: No such file"),
        (lambda f: (f / "config.json").write_text("{"), "config.json: not JSON"),
        (lambda f: (f / "units.json").write_text('["a"]'), "must list 3 names, has 1"),
        (lambda f: (f / "model.safetensors").write_bytes(b"x" * 99), "not a safetensors file"),
        (_edit_config(format=1), "format is 1, expected 2"),
        (_edit_config(model={"n_units": 3}), "'grid' is missing"),
        (_edit_tensors(lambda t: t.pop("cross.q.weight")), "tensor cross.q.weight is missing"),
        (_edit_tensors(lambda t: t.update(more=torch.ones(1))), "tensor more is not part"),
        (
            _edit_tensors(lambda t: t.update({"velocity_mean": torch.ones(3)})),
            r"velocity_mean has shape \(3,\), expected \(2,\)",
        ),
        (_edit_tensors(lambda t: t["velocity_mean"].fill_(torch.nan)), "not finite"),
    ],
)
def test_damage_is_refused(folder: Path, damage: Callable[[Path], object], message: str) -> None:
    damage(folder)
    with pytest.raises(InputError, match=message) as caught:
        load_checkpoint(folder)
    assert "\n" not in str(caught.value)


def test_missing_directory(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such directory"):
        load_checkpoint(tmp_path / "none")
