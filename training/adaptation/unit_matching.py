"""What to start units with that a model has never seen: that of units that are tuned alike."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import softmax
from torch import Tensor

from cortex.checkpoint import Checkpoint
from cortex.errors import InputError
from cortex.session import Session
from cortex.vocabulary import unit_names
from training.adaptation.unit_tuning import Array, Points, fit_tuning, log_rates, tuning_points
from training.fitting.initialise import UNIT_TABLES

# Shape (and inverse scale) of the gamma prior on how much more a unit fires than one tuned alike.
GAIN_SHAPE = 1.0


@dataclass(frozen=True, kw_only=True)
class KnownUnits:
    """Units that a model has learnt, and what they are tuned to.

    Attributes:
        tuning: (units, 4) as fit_tuning gives it.
        tables: (units, ...) what was learnt of them, by the parameter's name.
        scale: velocity that the tuning counts as one.
    """

    tuning: Array
    tables: dict[str, Tensor]
    scale: float


def known_units(checkpoint: Checkpoint, sessions: Sequence[Session]) -> KnownUnits:
    """The units of recordings that a model was trained on.

    Args:
        checkpoint: the model.
        sessions: recordings of its, whole: none of their trials is one to be decoded.

    Raises:
        InputError: the model does not know a recording's units, or it has no labelled step.
    """
    row = {name: i for i, name in enumerate(checkpoint.unit_ids)}
    scale = float(checkpoint.model.velocity_scale.mean())
    tuning, rows = [], []
    for session in sessions:
        names = unit_names(session)
        if not all(name in row for name in names):
            raise InputError(
                f"session {session.session_id!r}: model {checkpoint.name!r} does not know its "
                "units, expected a recording that it was trained on"
            )
        points = tuning_points(session, range(len(session.trials)))
        if not len(points.velocity):
            raise InputError(
                f"session {session.session_id!r}: no labelled step, expected velocity to tell what "
                "its units are tuned to"
            )
        tuning.append(fit_tuning(points, scale))
        rows += [row[name] for name in names]
    weights = checkpoint.model.state_dict()
    return KnownUnits(
        tuning=np.concatenate(tuning),
        tables={
            name: weights[name][torch.tensor(rows)] for name in weights.keys() & set(UNIT_TABLES)
        },
        scale=scale,
    )


def matched_tables(known: KnownUnits, session: Session, trials: Sequence[int]) -> dict[str, Tensor]:
    """(units, ...) the expected rows of each of a session's units, by the parameter's name.

    Every known unit is one guess of what a new unit may be; the guesses are weighted by how likely
    they make the new unit's spikes in the trials. Few trials leave many guesses standing, and so
    rows near the mean; many single out the units that are tuned alike.

    Args:
        known: the guesses.
        session: the new recording.
        trials: those that may be learnt from.
    """
    points = tuning_points(session, trials)
    weights = softmax(_log_likelihood(known, points), axis=1)
    return {
        name: torch.from_numpy(weights).to(table) @ table for name, table in known.tables.items()
    }


def _log_likelihood(known: KnownUnits, points: Points) -> Array:
    """(new units, known units) of Poisson counts, with the gain integrated out.

    With n spikes where 1 were expected at gain g = 1, the integral over a gamma(a, a) prior of g is
    proportional to (a + expected) ** -(a + n).
    """
    rate = log_rates(known.tuning, points, known.scale) + np.log(points.step_s)
    n_spikes = points.counts.sum(0)[:, None]
    expected = np.exp(rate).sum(0)
    log_likelihood: Array = points.counts.T @ rate
    log_likelihood -= (n_spikes + GAIN_SHAPE) * np.log(expected + GAIN_SHAPE)
    return log_likelihood
