"""Serves a decoder from its checkpoint directory."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cortex.errors import InputError
from serving.engine.faults import Faults
from serving.engine.model import Model

_FILES = "config.json", "model.safetensors"


@dataclass(frozen=True, kw_only=True)
class ModelDirectory:
    """A ModelSource that loads cortex.decoder.Decoder. It imports torch in the worker only.

    Attributes:
        path: the checkpoint directory.
        device: torch device, such as "cpu" or "cuda".
        max_streams: streams open at once at most.
        precision: "fp32" or "bf16" weights, activations and stream state.
        cpu_threads: threads that one operation on the CPU may use. A step is too small to share:
            waking a second thread costs more than it saves, and at times ten milliseconds.
    """

    path: Path
    device: str
    max_streams: int
    precision: Literal["fp32", "bf16"] = "fp32"
    cpu_threads: int = 1

    def check(self) -> None:
        """Raises InputError when the directory lacks a file. The rest shows when it is loaded."""
        if not self.path.is_dir():
            raise InputError(f"model: {self.path} is not a directory, expected a checkpoint")
        for name in _FILES:
            if not (self.path / name).is_file():
                raise InputError(f"model: {self.path} has no {name}, expected a checkpoint")

    def prepare(self) -> None:
        """Imports torch and the decoder."""
        import cortex.decoder  # noqa: F401

    def build(self) -> Model:
        """Loads the decoder. Raises InputError when it cannot be used."""
        import torch

        from cortex.decoder import Decoder

        torch.set_num_threads(self.cpu_threads)
        return Decoder.load(
            self.path,
            device=self.device,
            max_streams=self.max_streams,
            precision=self.precision,
        )

    def scope(self) -> AbstractContextManager[object]:
        """Inference mode, which torch keeps for each thread."""
        import torch

        return torch.inference_mode()

    def faults(self) -> Faults:
        """A fault of the device is fatal; one for want of memory is survived without the cache."""
        import torch

        def recover(error: Exception) -> None:
            if isinstance(error, torch.OutOfMemoryError):
                torch.cuda.empty_cache()

        return Faults(
            is_fatal=lambda error: isinstance(error, torch.AcceleratorError), recover=recover
        )
