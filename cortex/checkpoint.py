"""The checkpoint directory: weights, configuration, unit vocabulary and model card.

    model.safetensors   every tensor, and nothing else
    config.json         name, shape and time grid, the velocity's unit, format version, digests of
                        the tensors; for an INT8 model, which layers are not in int8, and scales
    units.json          the unit vocabulary: the name of every unit, in index order
    card.json           how the model was made and what it reached

Loading is strict, and nothing in it can run code: there is no pickle.
"""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import save as save_tensors

from cortex.errors import InputError
from cortex.model import Model
from cortex.model_config import ModelConfig
from cortex.quantization import Quantization
from cortex.quantized_model import quantize_layers, stored_tensors
from cortex.tensor_file import check_tensors, digests, read_tensors

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

    def require_float(self) -> None:
        """Raises InputError if the model is in int8: such weights cannot learn."""
        if self.model.quantization:
            raise InputError(
                f"model {self.name!r} is in int8, expected the float model that it was made from"
            )


def save_checkpoint(checkpoint: Checkpoint, folder: Path) -> str:
    """Writes the directory, the weights last, and returns the weights' digest.

    Raises:
        InputError: the folder cannot be written.
    """
    model = checkpoint.model
    tensors = {name: t.cpu().contiguous() for name, t in stored_tensors(model).items()}
    config = {
        "format": FORMAT,
        "name": checkpoint.name,
        "velocity_unit": checkpoint.velocity_unit,
        "model": model.config.to_dict(),
        "tensors": digests(tensors),
    }
    if model.quantization:
        config["quantization"] = model.quantization.to_dict()
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
        InputError: a file is missing or not what it should be, or a tensor is missing, cut off,
            extra, damaged, of the wrong type or shape, or holds a number that is not finite.
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
    model = Model(model_config)
    if "quantization" in config:
        _quantize(model, config["quantization"], where)
    weights = _read_bytes(folder / "model.safetensors")
    known_digests = _known_digests(config, where)
    _load_weights(model, weights, known_digests, folder / "model.safetensors")
    return Checkpoint(
        model=model.eval(),
        name=config["name"],
        unit_ids=tuple(units),
        velocity_unit=config["velocity_unit"],
        card=card,
        digest=hashlib.sha256(weights).hexdigest(),
    )


def _quantize(model: Model, values: Any, where: str) -> None:
    try:
        quantize_layers(model, Quantization.from_dict(values))
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _known_digests(config: dict[str, Any], where: str) -> dict[str, str] | None:
    """None for float models of older writers, which noted no digests."""
    if "quantization" not in config and "tensors" not in config:
        return None
    if not isinstance(config.get("tensors"), dict):
        raise InputError(f"{where}: tensors is missing or not a dict")
    known: dict[str, str] = config["tensors"]
    return known


def _load_weights(
    model: Model, weights: bytes, known_digests: dict[str, str] | None, path: Path
) -> None:
    tensors = read_tensors(weights, path)
    check_tensors(tensors, stored_tensors(model), known_digests, path)
    model.load_state_dict(tensors)


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error


def _read_json(path: Path, kind: type[Any]) -> Any:
    data = _read_bytes(path)
    try:
        value = json.loads(data)
    except ValueError as error:
        raise InputError(f"{path}: not JSON: {error}") from error
    if not isinstance(value, kind):
        raise InputError(f"{path}: expected a JSON {kind.__name__}, not {type(value).__name__}")
    return value
