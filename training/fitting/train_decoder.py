"""From sessions to a checkpoint: the whole of training as one call."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from cortex.checkpoint import Checkpoint
from cortex.errors import InputError
from cortex.model import Model
from cortex.model_config import ModelConfig
from cortex.session import Session
from cortex.vocabulary import unit_names
from training.evaluation.sample_decoding import r2_on
from training.fitting.fit import OnReport, fitting
from training.fitting.initialise import initialise
from training.fitting.processes import Processes
from training.fitting.provenance import device_name, session_digest, versions
from training.fitting.run_folder import RunFolder
from training.fitting.train_config import TrainConfig
from training.fitting.turns import Work, finished
from training.samples.movement_kinds import MovementKinds, find_kinds
from training.samples.splits import split_trials
from training.samples.trial_samples import TrialSample, trial_samples
from training.samples.trial_tensors import TrialTensors


@dataclass(frozen=True, kw_only=True)
class TrainingSession:
    """A recording, and the trials of it that may be learnt from."""

    session: Session
    trials: Sequence[int]


def train_decoder(
    sessions: Sequence[TrainingSession],
    config: TrainConfig,
    *,
    processes: Processes | None = None,
    init_from: Checkpoint | None = None,
    run_folder: Path | None = None,
    save_every: int = 200,
    card: dict[str, object] | None = None,
    on_report: OnReport | None = None,
) -> Checkpoint:
    """Trains one decoder as `decoder_training` does, without a pause."""
    return finished(
        decoder_training(
            sessions,
            config,
            processes=processes,
            init_from=init_from,
            run_folder=run_folder,
            save_every=save_every,
            card=card,
            on_report=on_report,
        )
    )


def decoder_training(
    sessions: Sequence[TrainingSession],
    config: TrainConfig,
    *,
    processes: Processes | None = None,
    init_from: Checkpoint | None = None,
    run_folder: Path | None = None,
    save_every: int = 200,
    card: dict[str, object] | None = None,
    on_report: OnReport | None = None,
) -> Work[Checkpoint]:
    """Trains one decoder on some trials of one or many sessions, with a pause after every step.

    Args:
        sessions: what may be learnt from, all on grids with the same bins a step and velocities in
            one unit. The first one's grid becomes the model's.
        config: what and how.
        processes: those that train together, and their device; None for this one on the CPU.
        init_from: weights to start from.
        run_folder: where the run's state is saved, and taken up again if it is there.
        save_every: steps between saves.
        card: more for the model card, such as the split.
        on_report: called with the step and its figures.

    Returns:
        The checkpoint, not yet saved, with a model card of every input. On any but the first
        process its weights mean nothing.

    Raises:
        InputError: sessions that do not go together, an unknown size, no label to learn from, or a
            run folder of another run.
    """
    processes = processes or Processes()
    first = sessions[0].session
    _check_together([s.session for s in sessions])
    vocabulary = tuple(name for s in sessions for name in unit_names(s.session))
    torch.manual_seed(config.fit.seed)
    model_config = ModelConfig.of_size(
        config.size,
        n_units=len(vocabulary),
        grid=first.grid,
        dropout=config.dropout,
        **config.shape,
    )
    model = Model(model_config)
    known = initialise(model, vocabulary, init_from) if init_from else 0
    learn, look = _samples(sessions, config)
    kinds = _kinds(learn, model_config, config, init_from)
    if kinds:
        learn = kinds.labelled(learn)
    identity = {
        "sessions": [
            {
                "session_id": s.session.session_id,
                "subject": s.session.subject,
                "digest": session_digest(s.session),
                "series": s.session.behavior.series,
                "train_trials": [int(t) for t in s.trials],
            }
            for s in sessions
        ],
        "config": asdict(config),
        "init_from": {"digest": init_from.digest, "known_units": known} if init_from else None,
        "versions": versions(),
    }
    fitted = yield from fitting(
        model.to(processes.device),
        _tensors(learn, config, model_config, processes),
        config.fit,
        processes=processes,
        validate=r2_on(look, processes.device) if look else None,
        run=RunFolder(run_folder, every=save_every, identity=identity, processes=processes)
        if run_folder
        else None,
        on_report=on_report,
    )
    trained = Model(model_config)
    if processes.first:
        trained.load_state_dict(fitted.weights)
    return Checkpoint(
        model=trained.eval(),
        name=config.size,
        unit_ids=vocabulary,
        velocity_unit=first.behavior.unit,
        card={
            **identity,
            "processes": processes.count,
            "device": device_name(processes.device),
            "steps": fitted.steps,
            "validation_r2": fitted.validation_r2,
            "movement_traces": kinds.traces.tolist() if kinds else None,
            **(card or {}),
        },
    )


def _kinds(
    samples: list[TrialSample],
    model_config: ModelConfig,
    config: TrainConfig,
    init_from: Checkpoint | None,
) -> MovementKinds | None:
    """The kinds of movement that the model mixes: the starting weights', or those of the trials."""
    if model_config.movements == 1 or not any(s.labelled.any() for s in samples):
        return None
    known = known_kinds(init_from) if init_from else None
    return known or find_kinds(samples, model_config.movements, seed=config.fit.seed)


def known_kinds(checkpoint: Checkpoint) -> MovementKinds | None:
    """The kinds of movement that a checkpoint's readout mixes; None where it mixes none."""
    traces = checkpoint.card.get("movement_traces")
    return MovementKinds(traces=np.array(traces, np.float32)) if traces else None


def _check_together(sessions: Sequence[Session]) -> None:
    first = sessions[0]
    names = [s.session_id for s in sessions]
    if len(set(names)) < len(names):
        raise InputError(f"training: session ids {names} repeat, expected unique ones")
    for other in sessions[1:]:
        if other.behavior.unit != first.behavior.unit:
            raise InputError(
                f"session {other.session_id!r} has velocities in {other.behavior.unit}, "
                f"{first.session_id!r} in {first.behavior.unit}; expected one unit"
            )
        if other.grid.bins_per_step != first.grid.bins_per_step:
            raise InputError(
                f"session {other.session_id!r} has {other.grid.bins_per_step} bins a step, "
                f"{first.session_id!r} {first.grid.bins_per_step}; expected one number"
            )


def _samples(
    sessions: Sequence[TrainingSession], config: TrainConfig
) -> tuple[list[TrialSample], list[TrialSample]]:
    """Trials to learn from and trials to look at, of every session in the same shares."""
    learn: list[TrialSample] = []
    look: list[TrialSample] = []
    first_unit = 0
    for s in sessions:
        samples = trial_samples(s.session, s.trials, first_unit=first_unit)
        first_unit += len(s.session.unit_ids)
        if config.validation_share > 0:
            kept, seen = split_trials(len(samples), config.fit.seed, 1.0 - config.validation_share)
            learn += [samples[i] for i in kept]
            look += [samples[i] for i in seen]
        else:
            learn += samples
    return learn, look


def _tensors(
    samples: list[TrialSample],
    config: TrainConfig,
    model_config: ModelConfig,
    processes: Processes,
) -> TrialTensors:
    return TrialTensors(
        samples,
        bins_per_step=model_config.grid.bins_per_step,
        crop_steps=config.fit.augmentation.crop_steps,
        device=processes.device,
    )
