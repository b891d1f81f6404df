"""Checkpoints come back whole, or are refused with the reason."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from cortex.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from cortex.errors import InputError
from cortex.model import Model
from cortex.model_config import ModelConfig
from cortex.quantization import Quantization
from cortex.quantized_model import quantized
from cortex.time_grid import TimeGrid

KEPT, SCALES = ("blocks.0.up", "cross.tokenizer.unit"), {"cross.out": 0.1, "velocity.out": 0.2}
SCALES |= {f"blocks.{i}.{layer}": 0.05 for i in (0, 1) for layer in ("out", "down")}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    model = Model(ModelConfig.of_size("nano", n_units=3, grid=TimeGrid()))
    checkpoint = Checkpoint(
        model=model, name="nano", unit_ids=("a", "b", "c"), velocity_unit="mm/s", card={"r2": 0.5}
    )
    save_checkpoint(checkpoint, tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def int8_folder(folder: Path) -> Path:
    checkpoint = load_checkpoint(folder)
    model = quantized(checkpoint.model, Quantization(kept=KEPT, input_scales=SCALES))
    save_checkpoint(replace(checkpoint, model=model), folder.parent / "int8")
    return folder.parent / "int8"


@pytest.mark.parametrize("kind", ["folder", "int8_folder"])
def test_round_trip(kind: str, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(kind)
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
    assert first.model.quantization == second.model.quantization
    files = [(f / "model.safetensors").read_bytes() for f in (folder, folder.parent / "copy")]
    assert files[0] == files[1]


def test_an_int8_model_is_the_same_after_loading(folder: Path, int8_folder: Path) -> None:
    loaded = load_checkpoint(int8_folder)
    quantization = Quantization(kept=KEPT, input_scales=SCALES)
    assert loaded.model.quantization == quantization
    made = quantized(load_checkpoint(folder).model, quantization).state_dict()
    assert made.keys() == loaded.model.state_dict().keys()
    for name, tensor in loaded.model.state_dict().items():
        assert torch.equal(tensor, made[name])
    sizes = [(f / "model.safetensors").stat().st_size for f in (folder, int8_folder)]
    assert sizes[1] < 0.35 * sizes[0]
    with pytest.raises(InputError, match="'nano' is in int8, expected the float model"):
        loaded.require_float()


def test_a_float_checkpoint_without_digests_loads(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    del config["tensors"]
    (folder / "config.json").write_text(json.dumps(config))
    assert load_checkpoint(folder).model.quantization is None


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
        (lambda f: (f / "config.json").unlink(), "^[^:]*config.json: No such file"),
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


def _flip(name: str, place: int = 0) -> Callable[[Path], object]:
    """Changes one bit of a tensor."""

    def apply(folder: Path) -> None:
        path = folder / "model.safetensors"
        content = bytearray(path.read_bytes())
        start = 8 + int.from_bytes(content[:8], "little")
        first, _ = json.loads(content[8:start])[name]["data_offsets"]
        content[start + first + place] ^= 1
        path.write_bytes(content)

    return apply


def _edit_quantization(**fields: object) -> Callable[[Path], object]:
    def apply(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        config["quantization"].update(fields)
        (folder / "config.json").write_text(json.dumps(config))

    return apply


def _cut(bytes_left_out: int) -> Callable[[Path], object]:
    def apply(folder: Path) -> None:
        path = folder / "model.safetensors"
        path.write_bytes(path.read_bytes()[:-bytes_left_out])

    return apply


UP, PROJECT = "blocks.0.up.weight", "blocks.0.project"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_edit_tensors(lambda t: t.pop(f"{PROJECT}.q")), "tensor blocks.0.project.q is missing"),
        (
            _edit_tensors(lambda t: t.update({f"{PROJECT}.weight": torch.ones(1)})),
            "tensor blocks.0.project.weight is not part of the model",
        ),
        (
            _edit_tensors(lambda t: t.update({f"{PROJECT}.q": t[f"{PROJECT}.q"].float()})),
            "tensor blocks.0.project.q is of float32, expected int8",
        ),
        (
            _edit_tensors(lambda t: t.update({UP: t[UP].float()})),
            "tensor blocks.0.up.weight is of float32, expected bfloat16",
        ),
        (
            _edit_tensors(lambda t: t.update({f"{PROJECT}.q": t[f"{PROJECT}.q"][1:].clone()})),
            r"tensor blocks.0.project.q has shape \(383, 128\), expected \(384, 128\)",
        ),
        (
            _edit_tensors(lambda t: t[f"{PROJECT}.scale"].fill_(torch.inf)),
            "tensor blocks.0.project.scale holds numbers that are not finite",
        ),
        (
            _edit_tensors(lambda t: t[f"{PROJECT}.scale"].neg_()),
            "tensor blocks.0.project.scale holds scales below zero",
        ),
        (_flip(f"{PROJECT}.q", 1000), "tensor blocks.0.project.q is damaged"),
        (_flip(f"{PROJECT}.scale"), "tensor blocks.0.project.scale is damaged"),
        (_flip(UP), "tensor blocks.0.up.weight is damaged"),
        (_cut(1), r"tensor \S+ ends at byte [\d,]+, and the file at byte [\d,]+"),
        (_cut(150_000), r"tensor \S+ ends at byte"),
        (_edit_config(tensors=None), "config.json: tensors is missing or not a dict"),
        (_edit_config(quantization=None), "config.json: quantization is None, expected kept"),
        (
            _edit_quantization(kept=["blocks.0.middle"]),
            "config.json: quantization: kept names 'blocks.0.middle'",
        ),
        (_edit_quantization(kept=["cross.tokenizer.unit"]), "blocks.0.up.gain is not part of"),
        (
            _edit_quantization(input_scales={**SCALES, "cross.out": -1}),
            "config.json: quantization: input_scales.cross.out is -1, expected a positive number",
        ),
    ],
)
def test_damaged_int8_is_refused(
    int8_folder: Path, damage: Callable[[Path], object], message: str
) -> None:
    damage(int8_folder)
    with pytest.raises(InputError, match=message) as caught:
        load_checkpoint(int8_folder)
    assert "\n" not in str(caught.value)


def test_the_first_tensor_beyond_the_end_is_named(int8_folder: Path) -> None:
    path = int8_folder / "model.safetensors"
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    first, last = header["velocity.kv.q"]["data_offsets"]
    path.write_bytes(content[: start + (first + last) // 2])
    with pytest.raises(InputError, match=f"velocity.kv.q ends at byte {start + last:,}, and"):
        load_checkpoint(int8_folder)


def test_missing_directory(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such directory"):
        load_checkpoint(tmp_path / "none")
