"""Opens a recording, whatever its format."""

from pathlib import Path

from cortex.data.binned_npz import read_binned_npz
from cortex.data.nwb_reader import read_nwb
from cortex.errors import InputError
from cortex.session import Session
from cortex.time_grid import TimeGrid


def open_session(
    path: Path,
    grid: TimeGrid | None = None,
    *,
    include_heldout: bool = False,
    series: str | None = None,
) -> Session:
    """A session from an .nwb or a binned .npz file.

    Args:
        path: the file.
        grid: the time grid; None for the default one, or for the one that a binned file has.
        include_heldout: also read the units that a benchmark holds out; only NWB marks any.
        series: which recorded series is decoded, such as "cursor_pos", whose velocity is then
            derived; None for the hand's, the finger's or the cursor's velocity, the first that
            there is.

    Raises:
        InputError: the file cannot be used, lacks the series, or is binned in another way than the
            grid.
    """
    if path.suffix not in (".nwb", ".npz"):
        raise InputError(f"{path}: unknown kind of recording, expected .nwb or .npz")
    if path.is_dir():
        raise InputError(f"{path}: is a directory, expected a file")
    if path.suffix == ".nwb":
        return read_nwb(path, grid or TimeGrid(), include_heldout=include_heldout, series=series)
    session = read_binned_npz(path)
    if series not in (None, session.behavior.series):
        raise InputError(f"{path}: has no series {series!r}, expected {session.behavior.series}")
    if grid is not None and grid != session.grid:
        raise InputError(
            f"{path}: is binned at {session.grid.bin_us} us, {session.grid.bins_per_step} a step, "
            f"windows of {session.grid.window_steps} steps; cannot be read as {grid}"
        )
    return session
