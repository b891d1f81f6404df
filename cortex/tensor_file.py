"""Reading a file of tensors strictly: what is wrong with it is said of the tensor at fault."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import safetensors
import torch
from safetensors.torch import load
from torch import Tensor

from cortex.errors import InputError

_LENGTH_BYTES = 8
_SCALE = ".scale"


def digests(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """SHA-256 of each tensor's bytes."""
    return {name: _digest(tensor) for name, tensor in tensors.items()}


def read_tensors(content: bytes, path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file.

    Raises:
        InputError: it is none, or ends before its last tensor does.
    """
    try:
        return load(content)
    except safetensors.SafetensorError as error:
        cut_off = _first_cut_off(content)
        if cut_off:
            raise InputError(f"{path}: {cut_off}") from error
        raise InputError(f"{path}: not a safetensors file: {error}") from error


def check_tensors(
    tensors: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    known_digests: Mapping[str, str] | None,
    path: Path,
) -> None:
    """Whether tensors are what a model needs.

    Args:
        tensors: what was read.
        expected: what the model needs, of any values.
        known_digests: of the tensors as they were written; None where they are not known.
        path: the file, for messages.

    Raises:
        InputError: a tensor is missing, extra, of the wrong type or shape, holds a number that is
            not finite or a scale below zero, or is not what was written. It names the first one.
    """
    for name in sorted(expected.keys() | tensors.keys()):
        at = f"{path}: tensor {name}"
        if name not in tensors:
            raise InputError(f"{at} is missing")
        if name not in expected:
            raise InputError(f"{at} is not part of the model")
        _check_tensor(name, tensors[name], expected[name], at)
        if known_digests is not None and known_digests.get(name) != _digest(tensors[name]):
            raise InputError(f"{at} is damaged: its digest is not the one in config.json")


def _check_tensor(name: str, tensor: Tensor, expected: Tensor, at: str) -> None:
    if tensor.dtype != expected.dtype:
        raise InputError(f"{at} is of {_kind(tensor)}, expected {_kind(expected)}")
    if tensor.shape != expected.shape:
        raise InputError(f"{at} has shape {tuple(tensor.shape)}, expected {tuple(expected.shape)}")
    if not tensor.isfinite().all():
        raise InputError(f"{at} holds numbers that are not finite")
    if name.endswith(_SCALE) and (tensor < 0).any():
        raise InputError(f"{at} holds scales below zero")


def _kind(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _digest(tensor: Tensor) -> str:
    content = tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()
    return hashlib.sha256(content).hexdigest()


def _first_cut_off(content: bytes) -> str:
    """The first tensor that reaches beyond the end of the file; empty if none is known to."""
    length = int.from_bytes(content[:_LENGTH_BYTES], "little")
    start = _LENGTH_BYTES + length
    try:
        header = json.loads(content[_LENGTH_BYTES:start])
        ends = {
            name: start + int(entry["data_offsets"][1])
            for name, entry in header.items()
            if name != "__metadata__"
        }
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        return ""
    beyond = {name: end for name, end in ends.items() if end > len(content)}
    if not beyond:
        return ""
    name = min(beyond, key=lambda name: beyond[name])
    return f"tensor {name} ends at byte {beyond[name]:,}, and the file at byte {len(content):,}"
