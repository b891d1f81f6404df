"""Random search: the configurations that a kind of decoder is tried with.

Source: Bergstra and Bengio 2012, "Random search for hyper-parameter optimization".
"""

import dataclasses
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class SearchSpace(Generic[T]):
    """A kind's recipe, and what may be varied about it.

    A field is named from the candidate down: "fit.augmentation.unit_dropout".

    Attributes:
        base: the recipe, which is always tried.
        choices: values to choose from, by field.
    """

    base: T
    choices: Mapping[str, Sequence[Any]]

    def draw(self, budget: int, seed: int) -> list[T]:
        """The recipe and others, all different, `budget` in all or as many as there are.

        Args:
            budget: how many.
            seed: of the choice: the same one chooses the same.
        """
        total = math.prod(len(values) for values in self.choices.values())
        drawn = [self.base]
        for number in random.Random(seed).sample(range(total), min(budget, total)):
            candidate = self._candidate(number)
            if candidate != self.base:
                drawn.append(candidate)
        return drawn[:budget]

    def with_base(self, field: str, value: Any) -> "SearchSpace[T]":
        """The same space around a recipe with another value in one field."""
        return dataclasses.replace(self, base=_with_field(self.base, field.split("."), value))

    def capped(self, field: str, most: int) -> "SearchSpace[T]":
        """The same space with no more than so much in one field."""
        capped = self.with_base(field, min(attrgetter(field)(self.base), most))
        values = {min(value, most): None for value in self.choices.get(field, ())}
        choices = {**self.choices, field: tuple(values)} if values else self.choices
        return dataclasses.replace(capped, choices=choices)

    def _candidate(self, number: int) -> T:
        """One of all combinations of choices."""
        candidate = self.base
        for field, values in self.choices.items():
            number, place = divmod(number, len(values))
            candidate = _with_field(candidate, field.split("."), values[place])
        return candidate


def _with_field(node: Any, path: Sequence[str], value: Any) -> Any:
    """A copy of a dataclass or a mapping in which one field, however deep, has another value."""
    name, rest = path[0], path[1:]
    if isinstance(node, Mapping):
        return {**node, name: _with_field(node[name], rest, value) if rest else value}
    new = _with_field(getattr(node, name), rest, value) if rest else value
    return dataclasses.replace(node, **{name: new})
