"""The checkpoint directory: weights, configuration, unit vocabulary and model card.

    model.safetensors   every tensor, and nothing else
    config.json         name, shape and time grid, the velocity's unit, format version
    units.json          the unit vocabulary: the name of every unit, in index order
    card.json           how the model was made and what it reached

Loading is strict, and nothing in it can run code: there is no pickle.
"""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from cortex.errors import InputError
from cortex.model import Model
from cortex.model_config import ModelConfig

FORMAT = 2


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A model and what is needed to use it.

    Attributes:
        model: the model, in evaluation mode on the CPU.
        name: the model's name, such as "XS".
        unit_ids: the unit vocabulary; an event's unit indexes it.
        velocity_unit: unit of the decoded velocity.
        card: how the model was made: data, flags, scores.
        digest: SHA-256 of model.safetensors; empty before the model is saved.
    """

    model: Model
    name: str
    unit_ids: tuple[str, ...]
    velocity_unit: str
    card: dict[str, Any] = field(default_factory=dict)
    digest: str = ""


def save_checkpoint(checkpoint: Checkpoint, folder: Path) -> str:
    """Writes the directory, the weights last, and returns the weights' digest.

    Raises:
        InputError: the folder cannot be written.
    """
    config = {
        "format": FORMAT,
        "name": checkpoint.name,
        "velocity_unit": checkpoint.velocity_unit,
        "model": checkpoint.model.config.to_dict(),
    }
    tensors = {k: v.detach().cpu().contiguous() for k, v in checkpoint.model.state_dict().items()}
    weights = save_tensors(tensors)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file, value in (
            ("config.json", config),
            ("units.json", list(checkpoint.unit_ids)),
            ("card.json", checkpoint.card),
        ):
            (folder / file).write_text(json.dumps(value, indent=1) + "\n")
        # Under another name first: a directory is either whole or has no weights.
        partial = folder / "model.safetensors.partial"
        partial.write_bytes(weights)
        partial.replace(folder / "model.safetensors")
    except OSError as error:
        raise InputError(f"checkpoint {folder}: cannot be written: {error.strerror}") from error
    return hashlib.sha256(weights).hexdigest()


def load_checkpoint(folder: Path) -> Checkpoint:
    """Reads a checkpoint directory.

    Raises:
        InputError: a file is missing or not what it should be, or a tensor is missing, extra, of
            the wrong shape, or holds a number that is not finite.
    """
    if not folder.is_dir():
        raise InputError(f"checkpoint {folder}: no such directory")
    config = _read_json(folder / "config.json", dict)
    units = _read_json(folder / "units.json", list)
    card = _read_json(folder / "card.json", dict)
    where = f"checkpoint {folder}: config.json"
    if config.get("format") != FORMAT:
        raise InputError(f"{where}: format is {config.get('format')!r}, expected {FORMAT}")
    for key, kind in (("name", str), ("velocity_unit", str), ("model", dict)):
        if not isinstance(config.get(key), kind):
            raise InputError(f"{where}: {key} is missing or not a {kind.__name__}")
    model_config = ModelConfig.from_dict(config["model"])
    n_units = model_config.n_units
    if len(units) != n_units or not all(isinstance(u, str) for u in units):
        raise InputError(
            f"checkpoint {folder}: units.json must list {n_units} names, has {len(units)}"
        )
    weights = _read_bytes(folder / "model.safetensors")
    model = Model(model_config)
    _load_weights(model, weights, folder / "model.safetensors")
    return Checkpoint(
        model=model.eval(),
        name=config["name"],
        unit_ids=tuple(units),
        velocity_unit=config["velocity_unit"],
        card=card,
        digest=hashlib.sha256(weights).hexdigest(),
    )


def _load_weights(model: Model, weights: bytes, path: Path) -> None:
    try:
        tensors = load_tensors(weights)
    except safetensors.SafetensorError as error:
        raise InputError(f"{path}: not a safetensors file: {error}") from error
    expected = model.state_dict()
    for name in sorted(expected.keys() | tensors.keys()):
        if name not in tensors:
            raise InputError(f"{path}: tensor {name} is missing")
        if name not in expected:
            raise InputError(f"{path}: tensor {name} is not part of the model")
        if tensors[name].shape != expected[name].shape:
            raise InputError(
                f"{path}: tensor {name} has shape {tuple(tensors[name].shape)}, "
                f"expected {tuple(expected[name].shape)}"
            )
        if not tensors[name].isfinite().all():
            raise InputError(f"{path}: tensor {name} holds numbers that are not finite")
    model.load_state_dict(tensors)


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error


def _read_json(path: Path, kind: type[Any]) -> Any:
    try:
        value = json.loads(_read_bytes(path))
    except ValueError as error:
        raise InputError(f"{path}: not JSON: {error}") from error
    if not isinstance(value, kind):
        raise InputError(f"{path}: expected a JSON {kind.__name__}, not {type(value).__name__}")
    return value
