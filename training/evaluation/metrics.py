"""The score of a decoded velocity."""

from sklearn.metrics import r2_score

from cortex.errors import InputError
from cortex.session import FloatArray


def velocity_r2(true: FloatArray, decoded: FloatArray) -> float:
    """R2 of each dimension over all points pooled, then the mean of x and y.

    Args:
        true: (n, 2) recorded velocity.
        decoded: (n, 2) decoded velocity.
    """
    return float(r2_score(true, decoded, multioutput="uniform_average"))


def require_points(session_id: str, trials: int, points: int) -> None:
    """Raises InputError where R2 of the held-out trials would have no meaning."""
    if points < 2:
        raise InputError(
            f"session {session_id!r}: the {trials} held-out trials hold {points} velocity labels, "
            "expected at least 2"
        )
