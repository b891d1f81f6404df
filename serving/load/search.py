"""The highest load under which something still holds."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

R = TypeVar("R")


@dataclass(frozen=True)
class Trial(Generic[R]):
    """A load that was tried, what was seen, and whether it held."""

    load: float
    result: R
    held: bool


def search(
    attempt: Callable[[float], R],
    holds: Callable[[R], bool],
    *,
    first: float,
    least: float = 0.0,
    most: float = math.inf,
    factor: float = 2.0,
    steps: int = 8,
    bisections: int = 3,
    apart: float = 1.0,
) -> list[Trial[R]]:
    """Tries loads: up by a factor while they hold, or down while they do not, then in between.

    Args:
        attempt: puts on a load, and returns what was seen.
        holds: whether what was seen is good.
        first: the first load.
        least: the lowest load to try.
        most: the highest load to try.
        factor: from one load to the next.
        steps: loads to try after the first, at most.
        bisections: loads to try between the highest that held and the lowest that did not.
        apart: how many times the former the latter must be to look between.

    Returns:
        The trials in the order in which they were made; `best` picks the one that was looked for.
    """
    trials: list[Trial[R]] = []

    def held(load: float) -> bool:
        result = attempt(load)
        trials.append(Trial(load, result, holds(result)))
        return trials[-1].held

    load = min(max(first, least), most)
    up = held(load)
    for _ in range(steps):
        if load == (most if up else least):
            break
        load = min(load * factor, most) if up else max(load / factor, least)
        if held(load) != up:
            break
    for _ in range(bisections):
        low = max((trial.load for trial in trials if trial.held), default=None)
        high = min((trial.load for trial in trials if not trial.held), default=None)
        # A lower load that failed where a higher one held was bad luck: there is nothing between.
        if low is None or high is None or low * apart >= high:
            break
        held(math.sqrt(low * high))
    return trials


def best(trials: Sequence[Trial[R]]) -> Trial[R] | None:
    """The trial of the highest load that held; None where none did."""
    return max((trial for trial in trials if trial.held), key=lambda t: t.load, default=None)
