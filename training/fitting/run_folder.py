"""The state of a run on disk, so that a killed run goes on where it was.

    run.json            what the run is: refused if it is another's
    step_00000200/      a sharded checkpoint (torch.distributed.checkpoint), written by every
                        process, and validation.json, the scores so far

A checkpoint counts only once its metadata is there, which is written last. The newest two are kept.
"""

import json
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch.distributed.checkpoint import state_dict_loader, state_dict_saver
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

from cortex.errors import InputError
from training.fitting.best_average import BestAverage
from training.fitting.processes import Processes
from training.fitting.trainer import Trainer

KEPT = 2


class RunFolder:
    """Saves and restores a trainer."""

    def __init__(
        self, folder: Path, *, every: int, identity: dict[str, Any], processes: Processes
    ) -> None:
        """Opens or creates the folder.

        Args:
            folder: the run's own directory.
            every: steps between checkpoints.
            identity: what the run is made of, as JSON: data digest, configuration.
            processes: those that enter every save and restore together.

        Raises:
            InputError: the folder holds a run of something else, or cannot be written.
        """
        self.folder = folder
        self._every = every
        self._processes = processes
        path = folder / "run.json"
        text = json.dumps(identity, indent=1, sort_keys=True) + "\n"
        try:
            if path.exists() and path.read_text() != text:
                raise InputError(
                    f"{path}: the run in this directory has other data or settings; give it the "
                    "same flags to go on, or another directory to begin anew"
                )
            if processes.first:
                folder.mkdir(parents=True, exist_ok=True)
                # In one piece: the other processes read it meanwhile.
                part = folder / "run.json.part"
                part.write_text(text)
                part.replace(path)
        except OSError as error:
            raise InputError(f"{folder}: cannot be written: {error.strerror}") from error

    def due(self, step: int) -> bool:
        """Whether a checkpoint is to be written after this step."""
        return step % self._every == 0

    def latest(self) -> Path | None:
        """The newest whole checkpoint."""
        whole = sorted(p.parent for p in self.folder.glob("step_*/.metadata"))
        return whole[-1] if whole else None

    def save(self, trainer: Trainer, best: BestAverage) -> None:
        """Writes a checkpoint; every process writes its own shards."""
        target = self.folder / f"step_{trainer.done:08d}"
        if self._processes.first:
            # Left by a run that was killed while it wrote.
            shutil.rmtree(target, ignore_errors=True)
            target.mkdir()
            (target / "validation.json").write_text(json.dumps(best.scores))
        self._together()
        with _quiet():
            state_dict_saver.save(_state(trainer, best), checkpoint_id=target)
        if self._processes.first:
            for old in sorted(self.folder.glob("step_*"))[:-KEPT]:
                shutil.rmtree(old)
        self._together()

    def restore(self, trainer: Trainer, best: BestAverage) -> None:
        """Takes up the newest checkpoint, if there is one.

        Raises:
            InputError: it cannot be read.
        """
        newest = self.latest()
        if newest is None:
            return
        state = _state(trainer, best)
        try:
            with _quiet():
                state_dict_loader.load(state, checkpoint_id=newest)
            scores = json.loads((newest / "validation.json").read_text())
        except (Exception, CheckpointException) as error:
            # torch raises many kinds on a damaged file, of which one is no Exception.
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise InputError(f"{newest}: cannot be taken up: {reason}") from error
        set_state_dict(
            trainer.objective,
            trainer.optimizer,
            model_state_dict=state["model"],
            optim_state_dict=state["optimizer"],
        )
        trainer.average.weights.update(state["average"])
        best.weights.update(state["best"])
        best.scores.update({int(step): score for step, score in scores.items()})
        trainer.done = int(newest.name.removeprefix("step_"))

    def _together(self) -> None:
        if self._processes.count > 1:
            dist.barrier()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warning that one process saves or loads alone."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")
        yield


def _state(trainer: Trainer, best: BestAverage) -> dict[str, Any]:
    model, optimizer = get_state_dict(trainer.objective, trainer.optimizer)
    return {
        "model": model,
        "optimizer": optimizer,
        "average": trainer.average.weights,
        "best": best.weights,
    }
