"""The likelihood of a trial's spikes for many reaches at once.

The simulator's units fire in a millisecond with probability 1 - exp(-m), where log m is the sum of
a base, the drive of the reach, and the unit's own recent spikes. Given the spikes, the log
likelihood of a reach is a sum over milliseconds of -m without a spike and log(1 - exp(-m)) with
one.

Spikes are evaluated one by one, and the delay, where the drive is constant, in closed form from
running sums. During the movement the drive is held constant over a cell of a few milliseconds of
the hand's time, at its value in the middle. Cells of 1 ms give the exact likelihood.
"""

import math

import torch
from torch import Tensor

from cortex.data.simulator import SPEED_SCALE
from training.oracle.observed_trial import ObservedTrial
from training.oracle.reach_prior import LONGEST_MS, Reaches

PLAN_AFTER_MS = 80
"""The simulator's delay activity begins this long after the target appears."""

CELL_MS = 5
# Elements of the largest temporary: within the CPU's cache, or some hundred MiB on a GPU.
CPU_ELEMENTS, GPU_ELEMENTS = 1 << 20, 1 << 27


class TrialConstants:
    """A trial on a device, for `SpikeLikelihood`."""

    def __init__(
        self, trial: ObservedTrial, device: torch.device | str, cell_ms: int = CELL_MS
    ) -> None:
        """Copies the trial to the device.

        Args:
            trial: what was observed.
            device: where likelihoods are computed.
            cell_ms: milliseconds over which the drive of a movement is held constant.
        """
        self.cell_ms = cell_ms
        self.n_ms = len(trial.silence)
        # In order of the moment of the hand that a spike tells of.
        order = (trial.spike_ms + trial.lead_ms[trial.spike_unit]).argsort(kind="stable")
        unit = trial.spike_unit[order]

        def tensor(values: object, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.as_tensor(values, dtype=dtype, device=device)

        self.silence_TU = tensor(trial.silence, torch.float64)
        self.lead_U = tensor(trial.lead_ms, torch.int64)
        self.lead_range = (int(trial.lead_ms.min()), int(trial.lead_ms.max()))
        self.velocity_gain_3U = tensor([*trial.direction.T, trial.speed]) / SPEED_SCALE
        self.plan_gain_2U = tensor(trial.plan.T)
        self.spike_ms_S = tensor(trial.spike_ms[order], torch.int64)
        self.spike_unit_S = tensor(unit, torch.int64)
        self.spike_log_mean_S = tensor(trial.spike_log_mean[order])

    @property
    def device(self) -> torch.device:
        """Where the trial is."""
        return self.silence_TU.device

    def weights(self, *spans: tuple[int, int, float]) -> Tensor:
        """Weights (ms,) of the milliseconds: (start, stop, weight) for each span, else zero."""
        weight_T = torch.zeros(self.n_ms, dtype=torch.float64, device=self.device)
        for start, stop, weight in spans:
            weight_T[start:stop] = weight
        return weight_T


class SpikeLikelihood:
    """Log likelihood of a trial's spikes, each millisecond's raised to a weight.

    It is relative to a hand at rest for as far as spikes are missing, so that only differences
    between reaches mean anything.
    """

    def __init__(self, trial: TrialConstants, span: tuple[int, int], weight_T: Tensor) -> None:
        """Prepares running sums.

        Args:
            trial: the trial.
            span: milliseconds outside which all weights are zero.
            weight_T: (ms,) weight of each millisecond.
        """
        self.trial, self.span = trial, span
        start, stop = span
        cell = trial.cell_ms
        silence_TU = trial.silence_TU * weight_T[:, None]
        running_TU = torch.nn.functional.pad(silence_TU.cumsum(0), (0, 0, 1, 0))
        # Row t: expected spikes at rest before the hand's millisecond t.
        at_ms = torch.arange(trial.n_ms + trial.lead_range[1] + cell + 1, device=trial.device)
        ahead_TU = running_TU.gather(0, (at_ms[:, None] - trial.lead_U).clamp(0, trial.n_ms))
        # Row t: those in the cell that begins there.
        self.cell_TU = (ahead_TU[cell:] - ahead_TU[:-cell]).float()
        self.ahead_TU, self.running_TU = ahead_TU.float(), running_TU.float()
        within = (trial.spike_ms_S >= start) & (trial.spike_ms_S < stop)
        self.spike_ms_S = trial.spike_ms_S[within]
        unit_S = trial.spike_unit_S[within]
        self.spike_hand_ms_S = (self.spike_ms_S + trial.lead_U[unit_S]).float()
        self.spike_weight_S = weight_T[self.spike_ms_S].float()
        self.spike_log_mean_S = trial.spike_log_mean_S[within]
        self.spike_velocity_gain_3S = trial.velocity_gain_3U[:, unit_S]
        self.spike_plan_gain_2S = trial.plan_gain_2U[:, unit_S]

    def __call__(self, reaches: Reaches) -> Tensor:
        """Log likelihood (N,) of each reach."""
        limit = GPU_ELEMENTS if self.trial.device.type == "cuda" else CPU_ELEMENTS
        cells = self._cells(reaches)
        widest = max((cells[1] - cells[0]) * self.cell_TU.shape[1], len(self.spike_ms_S), 1)
        chunk = max(limit // widest, 1)
        parts = zip(*(field.split(chunk, -1) for field in vars(reaches).values()), strict=True)
        return torch.cat([self._chunk(self._part(part), cells) for part in parts])

    @staticmethod
    def _part(fields: tuple[Tensor, ...]) -> Reaches:
        return Reaches(**dict(zip(Reaches.__dataclass_fields__, fields, strict=True)))

    def _cells(self, reaches: Reaches) -> tuple[int, int]:
        """The cells, counted from the onset, that any reach moves in and any spike tells of."""
        onset = reaches.onset
        moves = reaches.second_on + reaches.second - onset
        earliest, latest, longest = torch.stack([onset.min(), onset.max(), moves.max()]).tolist()
        self._moving_ms = (earliest, latest + longest)
        cell, (low, high) = self.trial.cell_ms, self.trial.lead_range
        first = max(math.floor((self.span[0] + low - latest) / cell), 0)
        stop = math.ceil(min(self.span[1] + high - earliest, longest, LONGEST_MS) / cell)
        return first, max(stop, first)

    def _chunk(self, reaches: Reaches, cells: tuple[int, int]) -> Tensor:
        return self._spikes(reaches) - self._still(reaches) - self._moving(reaches, *cells)

    def _still(self, reaches: Reaches) -> Tensor:
        """Expected spikes (N,) above rest of the delay, until units lead into the movement."""
        plan_NU = reaches.heading.T @ self.trial.plan_gain_2U
        begin_N = (reaches.target_on.long() + PLAN_AFTER_MS).clamp(max=len(self.running_TU) - 1)
        end_N = reaches.onset.long().clamp(max=len(self.ahead_TU) - 1)
        rest_NU = self.ahead_TU[end_N] - self.running_TU[begin_N]
        return (rest_NU * plan_NU.expm1_()).sum(1)

    def _moving(self, reaches: Reaches, first: int, stop: int) -> Tensor:
        """Expected spikes (N,) above rest of the movement."""
        if first == stop:
            return torch.zeros_like(reaches.onset)
        trial, cell = self.trial, self.trial.cell_ms
        since_J = torch.arange(first, stop, device=trial.device) * cell
        begin_JN = reaches.onset + since_J[:, None]
        velocity_2JN = reaches.velocity(begin_JN + (cell - 1) / 2)
        feature_JN5 = torch.stack(
            [
                *velocity_2JN,
                torch.linalg.vector_norm(velocity_2JN, dim=0),
                *reaches.heading[:, None].expand_as(velocity_2JN),
            ],
            -1,
        )
        # A unit's delay activity ends at the onset, so lead_ms into the movement it tells of.
        planning_JU = ((trial.lead_U - since_J[:, None]) / cell).clamp(0, 1)
        gain_J5U = torch.cat(
            [
                trial.velocity_gain_3U.expand(len(since_J), 3, -1),
                planning_JU[:, None] * trial.plan_gain_2U,
            ],
            1,
        )
        drive_JNU = torch.bmm(feature_JN5, gain_J5U)
        rest_JNU = self.cell_TU[begin_JN.long().clamp(max=len(self.cell_TU) - 1)]
        return torch.einsum("jnu,jnu->n", drive_JNU.expm1_(), rest_JNU)

    def _spikes(self, reaches: Reaches) -> Tensor:
        """Log probability (N,) of the spikes."""
        ms_S1 = self.spike_ms_S[:, None]
        planning_SN = (ms_S1 >= reaches.target_on + PLAN_AFTER_MS) & (ms_S1 < reaches.onset)
        drive_SN = planning_SN * (self.spike_plan_gain_2S.T @ reaches.heading)
        earliest, latest = self._moving_ms
        moving = slice(
            *torch.searchsorted(
                self.spike_hand_ms_S, self.spike_hand_ms_S.new_tensor([earliest, latest])
            ).tolist()
        )
        velocity_2SN = reaches.velocity(self.spike_hand_ms_S[moving, None])
        x_S1, y_S1, speed_S1 = self.spike_velocity_gain_3S[:, moving, None]
        speed_SN = torch.linalg.vector_norm(velocity_2SN, dim=0)
        drive_SN[moving] += x_S1 * velocity_2SN[0] + y_S1 * velocity_2SN[1] + speed_S1 * speed_SN
        mean_SN = drive_SN.add_(self.spike_log_mean_S[:, None]).exp_()
        return self.spike_weight_S @ (-torch.expm1(-mean_SN)).log()
