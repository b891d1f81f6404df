"""The dandisets of the Neural Latents Benchmark that hold reaching, each at one fixed version.

Source: Pei, Ye et al., "Neural Latents Benchmark '21" (2021), arXiv 2109.04463. A published version
of a dandiset never changes, so that a pinned download is the same recording for everyone. All are
licensed CC-BY-4.0.
"""

from dataclasses import dataclass

from cortex.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Dandiset:
    """One dandiset.

    Attributes:
        identifier: six digits, as the archive numbers it.
        name: the benchmark's name for it.
        version: the published version.
    """

    identifier: str
    name: str
    version: str


DANDISETS = (
    Dandiset(identifier="000127", name="Area2_Bump", version="0.220113.0359"),
    Dandiset(identifier="000128", name="MC_Maze", version="0.220113.0400"),
    Dandiset(identifier="000129", name="MC_RTT", version="0.241017.1444"),
    Dandiset(identifier="000138", name="MC_Maze_Large", version="0.220113.0407"),
    Dandiset(identifier="000139", name="MC_Maze_Medium", version="0.220113.0408"),
    Dandiset(identifier="000140", name="MC_Maze_Small", version="0.220113.0408"),
)


def find_dandiset(identifier: str) -> Dandiset:
    """The dandiset of that number.

    Raises:
        InputError: it is not in the table.
    """
    for dandiset in DANDISETS:
        if dandiset.identifier == identifier:
            return dandiset
    known = ", ".join(f"{each.identifier} ({each.name})" for each in DANDISETS)
    raise InputError(f"dandiset {identifier!r} is unknown, expected one of {known}")
