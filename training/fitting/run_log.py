"""The figures of a run over its steps: a JSON line each, and TensorBoard or W&B by choice."""

import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any

from cortex.errors import InputError


class RunLog:
    """Writes figures into a run's folder.

    metrics.jsonl   {"step": 10, "loss": 0.71, ...}; a resumed run overwrites what it repeats
    tensorboard/    event files
    wandb/          an offline run, for `wandb sync`
    """

    def __init__(self, folder: Path | None, *, tensorboard: bool, wandb: bool) -> None:
        """Opens the log; without a folder, nothing is written."""
        self._folder = folder
        self._tensorboard: Any = None
        self._wandb: Any = None
        self._begun = False
        if folder is None:
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{folder}: cannot be written: {error.strerror}") from error
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self._tensorboard = SummaryWriter(str(folder / "tensorboard"))
        if wandb:
            import wandb as client

            os.environ.setdefault("WANDB_SILENT", "true")
            self._wandb = client.init(
                project="cortex", dir=str(folder), mode="offline", name=folder.name
            )

    def __enter__(self) -> "RunLog":
        """Open until the end of the block."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Closes what is open."""
        if self._tensorboard:
            self._tensorboard.close()
        if self._wandb:
            self._wandb.finish(exit_code=0 if kind is None else 1)

    def write(self, step: int, values: dict[str, float]) -> None:
        """Adds one step's figures."""
        if self._folder is None:
            return
        path = self._folder / "metrics.jsonl"
        if not self._begun and path.exists():
            lines = path.read_text().splitlines(keepends=True)
            path.write_text("".join(x for x in lines if json.loads(x)["step"] < step))
        self._begun = True
        with path.open("a") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        if self._tensorboard:
            for name, value in values.items():
                self._tensorboard.add_scalar(name, value, step)
        if self._wandb:
            self._wandb.log(values, step=step)
