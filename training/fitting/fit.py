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
from training.fitting.turns import Work, finished
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
    on_report: OnReport | None = None,
) -> Fitted:
    """Trains in place, as `fitting` does, without a pause."""
    return finished(
        fitting(
            model,
            trials,
            config,
            processes=processes,
            validate=validate,
            run=run,
            on_report=on_report,
        )
    )


def fitting(
    model: DecoderModule,
    trials: TrialTensors,
    config: FitConfig,
    *,
    processes: Processes | None = None,
    validate: Validate | None = None,
    run: RunFolder | None = None,
    on_report: OnReport | None = None,
) -> Work[Fitted]:
    """Trains in place, and pauses after every step for other fits to take theirs.

    Args:
        model: the model, on the trials' device.
        trials: what may be learnt from.
        config: how.
        processes: those that train together; None for this one alone.
        validate: scores the averaged weights now and then; training stops once they no longer
            improve, and the best are kept. None trains for the whole schedule.
        run: where the state of the run is saved, and taken up again if it is there.
        on_report: called with the step and its figures (loss, learning_rate, validation_r2). None
            reads no loss, so that nothing waits for the device before the end.
    """
    trainer = Trainer(model, trials, config, processes)
    best = BestAverage(trainer, validate)
    if run:
        run.restore(trainer, best)
    captured = not trainer.sharded and trials.device.type == "cuda"
    steps = CapturedStep(trainer) if captured else trainer
    losses = []
    while trainer.done < config.steps and not best.stale:
        losses.append(steps.step())
        done, last = trainer.done, trainer.done == config.steps
        saves = run is not None and run.due(done)
        reports = on_report is not None and (done % REPORT_EVERY == 0 or last or saves)
        if reports or saves or last or best.due():
            steps.join()
        if on_report and reports:
            loss = trainer.whole_loss(torch.stack(losses).mean())
            on_report(done, {"loss": loss, "learning_rate": trainer.rate})
        if reports or not on_report:
            losses.clear()
        if best.due():
            score = best.look()
            if on_report:
                on_report(done, {"validation_r2": score})
        if run and saves:
            run.save(trainer, best)
        yield
    trainer.average.weights.update(best.weights)
    with trainer.average.applied():
        return Fitted(weights=trainer.weights(), steps=best.best_step, validation_r2=best.scores)
