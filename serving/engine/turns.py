"""Whose batch is next, windows' or steps'."""

from serving.engine.jobs import Kind


class Turns:
    """Earliest deadline first between the two kinds, within bounds.

    The kind whose most urgent request has the earlier deadline goes, windows among equals. But
    once one kind has had `most` batches in a row while the other waited, the other has a turn: so
    each gets at least one batch in `most + 1` under any load.
    """

    def __init__(self, *, most: int) -> None:
        """Begins with nobody ahead.

        Args:
            most: batches of one kind in a row at most while the other waits.
        """
        self._most = most
        self._last: Kind | None = None
        self._in_a_row = 0

    def choose(self, deadlines: dict[Kind, float]) -> Kind:
        """The kind to run next.

        Args:
            deadlines: of the most urgent request of each kind that has one to run; not empty.
        """
        chosen = min(deadlines, key=lambda kind: (deadlines[kind], kind is not Kind.WINDOW))
        if len(deadlines) == 1:
            self._in_a_row = 0
        elif chosen is self._last and self._in_a_row >= self._most:
            (chosen,) = deadlines.keys() - {chosen}
            self._in_a_row = 1
        else:
            self._in_a_row = self._in_a_row + 1 if chosen is self._last else 1
        self._last = chosen
        return chosen
