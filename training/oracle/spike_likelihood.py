"""The likelihood of a trial's spikes for many reaches at once.

The simulator's units fire in a millisecond with probability 1 - exp(-m), where log m is the sum of
a base, the drive of the reach, and the unit's own recent spikes. Given the spikes, the log
likelihood of a reach is a sum over milliseconds of -m without a spike and log(1 - exp(-m)) with
one.

Spikes are evaluated one by one, and the delay, where the drive is constant, in closed form from
running sums. During the movement the drive is held constant over a cell of a few milliseconds of
the hand's time, at its value in the middle. Cells of 1 ms give the exact likelihood.
"""

import numpy as np
import torch
from torch import Tensor

from cortex.data.simulator import SPEED_SCALE
from training.oracle.observed_trial import ObservedTrial
from training.oracle.reach_prior import Reaches

PLAN_AFTER_MS = 80
"""The simulator's delay activity begins this long after the target appears."""

CELL_MS = 10
# Elements of the largest temporary: within the CPU's cache, or some hundred MiB on a GPU.
CPU_ELEMENTS, GPU_ELEMENTS = 1 << 19, 1 << 27

Span = tuple[int, int, float]
"""First millisecond, one past the last, and the power to which their likelihood is raised."""


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

        silence_TU = tensor(trial.silence, torch.float64)
        # Row t: expected spikes at rest before millisecond t.
        self.running_TU = torch.nn.functional.pad(silence_TU.cumsum(0), (0, 0, 1, 0))
        self.lead_U = tensor(trial.lead_ms, torch.int64)
        self.lead_range = (int(trial.lead_ms.min()), int(trial.lead_ms.max()))
        self.velocity_gain_3U = tensor(np.stack([*trial.direction.T, trial.speed])) / SPEED_SCALE
        self.plan_gain_2U = tensor(trial.plan.T)
        self.spike_ms_S = tensor(trial.spike_ms[order], torch.int64)
        self.spike_unit_S = tensor(unit, torch.int64)
        self.spike_log_mean_S = tensor(trial.spike_log_mean[order])

    @property
    def device(self) -> torch.device:
        """Where the trial is."""
        return self.running_TU.device


class SpikeLikelihood:
    """Log likelihood of the spikes in spans of a trial, each raised to a power.

    It is relative to a hand at rest as far as missing spikes go, so that only differences between
    reaches mean anything.
    """

    def __init__(self, trial: TrialConstants, *spans: Span) -> None:
        """Prepares running sums.

        Args:
            trial: the trial.
            spans: adjoining spans, in order of time; what lies outside is left out.
        """
        self.trial, self.spans = trial, spans
        self.start, self.stop = spans[0][0], spans[-1][1]
        # The first millisecond of the hand that counts, and one past the last.
        self.hand_start = self.start + trial.lead_range[0]
        self.hand_stop = self.stop + trial.lead_range[1]
        cell, device = trial.cell_ms, trial.device
        # Row t: expected spikes at rest before the hand's millisecond hand_start - cell + t.
        hand_T = torch.arange(self.hand_start - cell, self.hand_stop + cell + 1, device=device)
        ahead_TU = self._running(hand_T[:, None] - trial.lead_U)
        # Row t: those in the cell that begins there.
        self.cell_TU = (ahead_TU[cell:] - ahead_TU[:-cell]).float()
        self.ahead_TU = ahead_TU[cell:].float()
        spike_T = torch.arange(self.start, self.stop + 1, device=device)
        self.running_TU = self._running(spike_T[:, None].expand(-1, len(trial.lead_U))).float()
        within = (trial.spike_ms_S >= self.start) & (trial.spike_ms_S < self.stop)
        self.spike_ms_S = trial.spike_ms_S[within]
        unit_S = trial.spike_unit_S[within]
        self.spike_hand_ms_S = (self.spike_ms_S + trial.lead_U[unit_S]).float()
        self.spike_power_S = torch.cat(
            [
                self.spike_ms_S.new_full((stop - start,), p, dtype=torch.float32)
                for start, stop, p in spans
            ]
        )[self.spike_ms_S - self.start]
        self.spike_log_mean_S = trial.spike_log_mean_S[within]
        self.spike_velocity_gain_3S = trial.velocity_gain_3U[:, unit_S]
        self.spike_plan_gain_2S = trial.plan_gain_2U[:, unit_S]

    def _running(self, ms_TU: Tensor) -> Tensor:
        """Expected spikes at rest (T, U) from the spans' start to a millisecond of each unit."""
        running = self.trial.running_TU
        parts = (
            power * (running.gather(0, ms_TU.clamp(start, stop)) - running[start])
            for start, stop, power in self.spans
        )
        return sum(parts, torch.zeros((), device=running.device))

    def __call__(self, reaches: Reaches) -> Tensor:
        """Log likelihood (N,) of each reach."""
        limit = GPU_ELEMENTS if self.trial.device.type == "cuda" else CPU_ELEMENTS
        cells, spikes = self._moving_part(reaches)
        widest = max((cells.stop - cells.start) * self.cell_TU.shape[1], len(self.spike_ms_S), 1)
        chunk = max(limit // widest, 1)
        parts = zip(*(field.split(chunk, -1) for field in vars(reaches).values()), strict=True)
        return torch.cat(
            [
                self._spikes(part, spikes) - self._still(part) - self._moving(part, cells)
                for part in (Reaches(**dict(zip(vars(reaches), p, strict=True))) for p in parts)
            ]
        )

    def _moving_part(self, reaches: Reaches) -> tuple[range, slice]:
        """Cells, counted from the onset, and spikes, in which the hand may move."""
        onset = reaches.onset
        lasts = (reaches.second_on + reaches.second - onset).max()
        # One transfer from the device for all.
        bounds = torch.stack([onset.min(), onset.max(), lasts])
        at = torch.searchsorted(
            self.spike_hand_ms_S, torch.stack([bounds[0], bounds[1] + bounds[2]])
        )
        earliest, latest, longest, *spikes = torch.cat([bounds, at]).long().tolist()
        cell = self.trial.cell_ms
        first = max((self.hand_start - latest) // cell, 0)
        stop = -(-min(self.hand_stop - earliest, longest) // cell)
        return range(first, max(stop, first)), slice(*spikes)

    def _still(self, reaches: Reaches) -> Tensor:
        """Expected spikes (N,) above rest of the delay, until units lead into the movement."""
        plan_NU = reaches.heading.T @ self.trial.plan_gain_2U
        begin_N = reaches.target_on.long() + PLAN_AFTER_MS - self.start
        end_N = reaches.onset.long() - self.hand_start
        rest_NU = _rows(self.ahead_TU, end_N) - _rows(self.running_TU, begin_N)
        return (rest_NU * plan_NU.expm1_()).sum(1)

    def _moving(self, reaches: Reaches, cells: range) -> Tensor:
        """Expected spikes (N,) above rest of the movement."""
        if not cells:
            return torch.zeros_like(reaches.onset)
        trial, cell = self.trial, self.trial.cell_ms
        since_J = torch.arange(cells.start, cells.stop, device=trial.device) * cell
        begin_JN = reaches.onset + since_J[:, None]
        velocity_2JN = reaches.velocity(begin_JN + (cell - 1) / 2)
        feature_JN5 = torch.stack(
            [
                *velocity_2JN,
                velocity_2JN.square().sum(0).sqrt(),
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
        row_JN = begin_JN.long() - (self.hand_start - cell)
        rest_JNU = _rows(self.cell_TU, row_JN)
        return drive_JNU.expm1_().mul_(rest_JNU).sum((0, 2))

    def _spikes(self, reaches: Reaches, moving: slice) -> Tensor:
        """Log probability (N,) of the spikes."""
        ms_S1 = self.spike_ms_S[:, None]
        planning_SN = (ms_S1 >= reaches.target_on + PLAN_AFTER_MS) & (ms_S1 < reaches.onset)
        drive_SN = planning_SN * (self.spike_plan_gain_2S.T @ reaches.heading)
        velocity_2SN = reaches.velocity(self.spike_hand_ms_S[moving, None])
        x_S1, y_S1, speed_S1 = self.spike_velocity_gain_3S[:, moving, None]
        speed_SN = velocity_2SN.square().sum(0).sqrt()
        drive_SN[moving] += x_S1 * velocity_2SN[0] + y_S1 * velocity_2SN[1] + speed_S1 * speed_SN
        mean_SN = drive_SN.add_(self.spike_log_mean_S[:, None]).exp_()
        return self.spike_power_S @ (-torch.expm1(-mean_SN)).log()


def _rows(table_TU: Tensor, row: Tensor) -> Tensor:
    """Rows (..., U) of a table, its first or last for those outside of it.

    On a CPU, index_select takes whole rows several times faster than indexing does.
    """
    flat = row.clamp(0, len(table_TU) - 1).flatten()
    return table_TU.index_select(0, flat).view(*row.shape, -1)
