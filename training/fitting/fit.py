"""Fits a model to trials: steps, looks at validation trials, and keeps the best average."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from cortex.decoder_module import DecoderModule
from training.fitting.best_average import BestAverage, Validate
from training.fitting.captured_step import CapturedStep
from training.fitting.fit_config import FitConfig
from training.fitting.processes import Processes
from training.fitting.run_folder import RunFolder
from training.fitting.trainer import Trainer
from training.samples.trial_tensors import TrialTensors

# Losses are read from the device this often: reading one waits for it.
REPORT_EVERY = 10

OnReport = Callable[[int, dict[str, float]], None]


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """What a fit leaves.

    Attributes:
        weights: the averaged weights, whole and on the CPU; empty on all but the first process.
        steps: optimiser steps that they rest on.
        validation_r2: by step, of the averaged weights, where there were validation trials.
    """

    weights: dict[str, Any]
    steps: int
    validation_r2: dict[int, float] = field(default_factory=dict)


def fit(
    model: DecoderModule,
    trials: TrialTensors,
    config: FitConfig,
    *,
    processes: Processes | None = None,
    validate: Validate | None = None,
    run: RunFolder | None = None,
    on_report: OnReport = lambda step, values: None,
) -> Fitted:
    """Trains in place.

    Args:
        model: the model, on the trials' device.
        trials: what may be learnt from.
        config: how.
        processes: those that train together; None for this one alone.
        validate: scores the averaged weights now and then; training stops once they no longer
            improve, and the best are kept. None trains for the whole schedule.
        run: where the state of the run is saved, and taken up again if it is there.
        on_report: called with the step and its figures (loss, learning_rate, validation_r2).
    """
    trainer = Trainer(model, trials, config, processes)
    best = BestAverage(trainer, validate)
    if run:
        run.restore(trainer, best)
    captured = not trainer.sharded and trials.device.type == "cuda" and not config.compile_blocks
    steps = CapturedStep(trainer) if captured else trainer
    losses = []
    while trainer.done < config.steps and not best.stale:
        losses.append(steps.step())
        done = trainer.done
        if done % REPORT_EVERY == 0 or done == config.steps or (run and run.due(done)):
            steps.join()
            loss = trainer.whole_loss(torch.stack(losses).mean())
            on_report(done, {"loss": loss, "learning_rate": trainer.rate})
            losses.clear()
        if best.due():
            on_report(done, {"validation_r2": best.look()})
        if run and run.due(done):
            run.save(trainer, best)
    trainer.average.weights.update(best.weights)
    with trainer.average.applied():
        return Fitted(weights=trainer.weights(), steps=best.best_step, validation_r2=best.scores)
