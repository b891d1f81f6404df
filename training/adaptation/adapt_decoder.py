"""From a decoder and a few trials of a new recording to a decoder of that recording."""

from dataclasses import asdict, replace

import torch

from cortex.checkpoint import Checkpoint
from cortex.errors import InputError
from cortex.model import Model
from cortex.session import Session
from cortex.vocabulary import unit_names
from training.adaptation.adaptation_config import AdaptationConfig
from training.adaptation.unit_matching import KnownUnits, matched_tables
from training.fitting.fit import OnReport, fitting
from training.fitting.initialise import initialise
from training.fitting.provenance import device_name, session_digest, versions
from training.fitting.train_decoder import TrainingSession, known_kinds
from training.fitting.turns import Work, finished
from training.samples.trial_samples import trial_samples
from training.samples.trial_tensors import TrialTensors


def adapt_decoder(
    source: Checkpoint,
    target: TrainingSession,
    config: AdaptationConfig,
    *,
    alike: KnownUnits | None = None,
    device: torch.device | str = "cpu",
    card: dict[str, object] | None = None,
    on_report: OnReport | None = None,
) -> Checkpoint:
    """Adapts a decoder as `decoder_adaptation` does, without a pause."""
    return finished(
        decoder_adaptation(
            source, target, config, alike=alike, device=device, card=card, on_report=on_report
        )
    )


def decoder_adaptation(
    source: Checkpoint,
    target: TrainingSession,
    config: AdaptationConfig,
    *,
    alike: KnownUnits | None = None,
    device: torch.device | str = "cpu",
    card: dict[str, object] | None = None,
    on_report: OnReport | None = None,
) -> Work[Checkpoint]:
    """Adapts a decoder to a recording, with a pause after every step.

    The result has the source's shape, and the recording's time grid and units. Units that the
    source knows keep their embeddings; where it knows them all, the first stage is left out.

    Args:
        source: the decoder to start from.
        target: the recording, and the trials of it that may be learnt from.
        config: how.
        alike: units to liken new ones to; None starts those from fresh embeddings.
        device: where to train.
        card: more for the model card, such as the split.
        on_report: called with the step, counted over both stages, and its figures.

    Returns:
        The checkpoint, not yet saved.

    Raises:
        InputError: the recording does not go with the source, or has nothing to learn from.
    """
    session, trials = target.session, target.trials
    _check_together(source, session)
    vocabulary = unit_names(session)
    torch.manual_seed(config.units.seed)
    model = Model(
        replace(
            source.model.config,
            n_units=len(vocabulary),
            grid=session.grid,
            dropout=config.dropout,
        )
    )
    known = initialise(model, vocabulary, source)
    if alike:
        _start_alike(model, source, session, matched_tables(alike, session, trials))
    augmentation = (config.whole or config.units).augmentation
    samples = trial_samples(session, trials)
    kinds = known_kinds(source)
    tensors = TrialTensors(
        kinds.labelled(samples) if kinds else samples,
        bins_per_step=session.grid.bins_per_step,
        crop_steps=augmentation.crop_steps,
        device=device,
    )
    _set_scale(model, tensors, config.prior_trials)
    model.to(device)
    stages = ([config.units] if known < len(vocabulary) else []) + (
        [config.whole] if config.whole else []
    )
    done = 0
    for stage in stages:
        fitted = yield from fitting(model, tensors, stage, on_report=_later(on_report, done))
        model.load_state_dict(fitted.weights)
        done += stage.steps
    return Checkpoint(
        model=model.cpu().eval(),
        name=source.name,
        unit_ids=vocabulary,
        velocity_unit=session.behavior.unit,
        card={
            "sessions": [
                {
                    "session_id": session.session_id,
                    "subject": session.subject,
                    "digest": session_digest(session),
                    "train_trials": [int(t) for t in trials],
                }
            ],
            "adapted_from": {
                "digest": source.digest,
                "known_units": known,
                "likened": alike is not None,
                "sessions": source.card.get("sessions", []),
                "adapted_from": source.card.get("adapted_from"),
            },
            "trials": len(trials),
            "config": asdict(config),
            "versions": versions(),
            "device": device_name(torch.device(device)),
            "steps": done,
            "movement_traces": kinds.traces.tolist() if kinds else None,
            **(card or {}),
        },
    )


def _check_together(source: Checkpoint, session: Session) -> None:
    if session.behavior.unit != source.velocity_unit:
        raise InputError(
            f"session {session.session_id!r} has velocities in {session.behavior.unit}, model "
            f"{source.name!r} decodes {source.velocity_unit}; expected one unit"
        )
    bins = source.model.config.grid.bins_per_step
    if session.grid.bins_per_step != bins:
        raise InputError(
            f"session {session.session_id!r} has {session.grid.bins_per_step} bins a step, model "
            f"{source.name!r} {bins}; expected one number"
        )


@torch.no_grad()
def _start_alike(
    model: Model, source: Checkpoint, session: Session, tables: dict[str, torch.Tensor]
) -> None:
    """Gives the units that the source does not know what those have that they resemble."""
    known = set(source.unit_ids)
    new = torch.tensor([name not in known for name in unit_names(session)])
    for name, table in tables.items():
        model.get_parameter(name)[new] = table[new]


def _set_scale(model: Model, trials: TrialTensors, prior_trials: float) -> None:
    """Mean and variance of the velocity: the source's and the trials' own, each by its weight."""
    mean, scale = (moment.cpu() for moment in trials.label_moments())
    own = len(trials) / (len(trials) + prior_trials)
    model.velocity_mean.lerp_(mean, own)
    model.velocity_scale.square_().lerp_(scale.square(), own).sqrt_()


def _later(on_report: OnReport | None, done: int) -> OnReport | None:
    """The same, with steps counted on from those of an earlier stage."""
    if on_report is None:
        return None
    return lambda step, values: on_report(done + step, values)
