"""The figures of a run over its steps: a JSON line each, and TensorBoard or W&B by choice."""

import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any

from cortex.errors import InputError


class RunLog:
    """Writes figures into a run's folder.

    metrics.jsonl   {"step": 10, "loss": 0.71, ...}; a resumed run replaces what it repeats
    tensorboard/    event files; TensorBoard shows what a resumed run repeats once
    wandb/          offline runs, for `wandb sync`; a resumed run is another one of the same name
    """

    def __init__(self, folder: Path | None, *, tensorboard: bool, wandb: bool) -> None:
        """Opens the log; without a folder, nothing is written.

        Raises:
            InputError: the folder cannot be written.
        """
        self._folder = folder
        self._wants_tensorboard = tensorboard
        self._tensorboard: Any = None
        self._wandb: Any = None
        self._begun = False
        if folder is None:
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{folder}: cannot be written: {error.strerror}") from error
        if wandb:
            self._wandb = _offline_run(folder)

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
        if not self._begun:
            self._begin(self._folder, step)
        with (self._folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        if self._tensorboard:
            for name, value in values.items():
                self._tensorboard.add_scalar(name, value, step)
        if self._wandb:
            self._wandb.log(values, step=step)

    def _begin(self, folder: Path, step: int) -> None:
        """Forgets what an earlier run of the folder wrote from this step on."""
        self._begun = True
        path = folder / "metrics.jsonl"
        if path.exists():
            # A run that was killed may leave half a line.
            whole = [x for x in path.read_text().splitlines(keepends=True) if x.endswith("\n")]
            path.write_text("".join(x for x in whole if json.loads(x)["step"] < step))
        if self._wants_tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self._tensorboard = SummaryWriter(str(folder / "tensorboard"), purge_step=step)


def _offline_run(folder: Path) -> Any:
    for kind in ("CACHE", "CONFIG", "DATA"):
        # By default these are in the home directory.
        os.environ.setdefault(f"WANDB_{kind}_DIR", str(folder / "wandb" / kind.lower()))
    import wandb

    return wandb.init(
        project="cortex",
        name=folder.name,
        dir=folder,
        mode="offline",
        settings=wandb.Settings(
            silent=True, console="off", disable_git=True, disable_code=True, x_disable_meta=True
        ),
    )
