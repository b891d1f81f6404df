"""The distribution of a trial's reach given its spikes so far, by sequential Monte Carlo.

A reach does not change over a trial; only what is known of it does. Weighted particles take in the
spikes as they come (Chopin 2002, doi:10.1093/biomet/89.3.539). Whenever the weights have become too
uneven the particles are drawn again, and each makes a few Metropolis moves that leave the
distribution given all spikes so far as it is. Spikes that say too much at once are taken in by
parts, as powers of their likelihood.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from cortex.errors import InputError
from training.oracle.reach_prior import DIMENSIONS, reaches_at
from training.oracle.spike_likelihood import SpikeLikelihood, TrialConstants

# Powers of a likelihood that are tried, from all that is left to a 4096th of it.
POWERS = [2 ** (-i / 4) for i in range(49)]


@dataclass(frozen=True, kw_only=True)
class PosteriorConfig:
    """How closely particles follow the distribution.

    Attributes:
        particles: how many.
        moves: length of each Metropolis move after a draw: 1 proposes a point that does not depend
            on the particle's own, 0 would propose its own.
        least_even: effective share of the particles below which they are drawn again.
    """

    particles: int = 500
    moves: tuple[float, ...] = (1.0, 0.7, 0.4, 0.2)
    least_even: float = 0.5

    def __post_init__(self) -> None:
        """Raises InputError on too few particles for the covariance of their points."""
        if self.particles < 4 * DIMENSIONS:
            raise InputError(
                f"oracle: particles is {self.particles}, expected at least {4 * DIMENSIONS}"
            )


class ReachPosterior:
    """Particles that follow what the spikes of one trial say."""

    def __init__(self, trial: TrialConstants, config: PosteriorConfig, seed: int) -> None:
        """Begins at the prior, before any spike.

        Args:
            trial: the trial.
            config: how many particles, and how they move.
            seed: of all that is random.
        """
        self._trial = trial
        self._config = config
        self._generator = torch.Generator(trial.device).manual_seed(seed)
        self._seen_ms = 0
        self._points = self._normal()
        self._log_weight = self._points.new_zeros(config.particles)

    def advance(self, stop_ms: int) -> None:
        """Takes in the spikes before a millisecond of the trial that are not taken in yet."""
        stop_ms = min(stop_ms, self._trial.n_ms)
        if stop_ms <= self._seen_ms:
            return
        new = SpikeLikelihood(self._trial, (self._seen_ms, stop_ms, 1.0))
        left = 1.0
        while left:
            log_likelihood = new(reaches_at(self._points))
            power = left * self._even_power(left * log_likelihood)
            self._log_weight = self._log_weight + power * log_likelihood
            left -= power
            if left:
                past = (0, self._seen_ms, 1.0), (self._seen_ms, stop_ms, 1 - left)
                self._renew(SpikeLikelihood(self._trial, *past))
        self._seen_ms = stop_ms

    def velocity(self, at_ms: Tensor) -> Tensor:
        """Mean velocity (2, T) in mm/s at milliseconds (T,) of the trial."""
        weight = self._log_weight.softmax(0)
        return reaches_at(self._points).velocity(at_ms[:, None]) @ weight

    def _even_power(self, log_likelihood: Tensor) -> float:
        """The highest of POWERS of a likelihood that leaves the weights even enough."""
        powers = log_likelihood.new_tensor(POWERS)[:, None]
        weights = (self._log_weight + powers * log_likelihood).softmax(1)
        even = 1 / (weights.square().sum(1) * self._config.particles)
        enough = even >= self._config.least_even
        # The lowest is taken whatever it does, so that there is an end.
        enough[-1] = True
        return POWERS[int(enough.to(torch.int8).argmax())]

    def _renew(self, likelihood: SpikeLikelihood) -> None:
        """Draws the particles again and moves them.

        A move is a step towards the particles' mean and a random one, such that it would leave a
        normal distribution of their mean and covariance as it is. The prior is such a distribution,
        and the posterior comes close to one, so most proposals are accepted.
        """
        weight = self._log_weight.softmax(0)
        mean = weight @ self._points
        centred = self._points - mean
        covariance = (weight * centred.T) @ centred
        covariance.diagonal().add_(1e-6)
        factor = torch.linalg.cholesky_ex(covariance).L
        # In units of `factor` from here on.
        unit = torch.linalg.solve_triangular(factor, centred.T, upper=False).T
        unit = unit[self._drawn(weight)]
        points, score = self._scored(unit, mean, factor, likelihood)
        for length in self._config.moves:
            proposed = math.sqrt(1 - length**2) * unit + length * self._normal()
            proposed_points, proposed_score = self._scored(proposed, mean, factor, likelihood)
            chance = torch.rand(len(unit), generator=self._generator, device=unit.device)
            accept = chance.log() < proposed_score - score
            unit = torch.where(accept[:, None], proposed, unit)
            points = torch.where(accept[:, None], proposed_points, points)
            score = torch.where(accept, proposed_score, score)
        self._points, self._log_weight = points, torch.zeros_like(weight)

    def _scored(
        self, unit: Tensor, mean: Tensor, factor: Tensor, likelihood: SpikeLikelihood
    ) -> tuple[Tensor, Tensor]:
        """Points (N, DIMENSIONS), and log odds (N,) of the posterior over the normal fit to it."""
        points = mean + unit @ factor.T
        prior = (unit.square() - points.square()).sum(1) / 2
        return points, likelihood(reaches_at(points)) + prior

    def _drawn(self, weight: Tensor) -> Tensor:
        """Indices (N,) of particles drawn by weight (N,), at even spacing."""
        at = torch.rand((), generator=self._generator, device=weight.device)
        at = (torch.arange(len(weight), device=weight.device) + at) / len(weight)
        return torch.searchsorted(weight.cumsum(0), at).clamp(max=len(weight) - 1)

    def _normal(self) -> Tensor:
        shape = (self._config.particles, DIMENSIONS)
        return torch.randn(shape, generator=self._generator, device=self._trial.device)
