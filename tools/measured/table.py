"""Tables of measured figures, and their two files.

Each command that measures writes its figures with `write`, as `NAME.json` for programs and
`NAME.md` for readers. Other documents quote rows by their names, which are stable paths such as
`forward/S/batch_32`.
"""

import dataclasses
import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence

_PACKAGES = ("numpy", "torch", "triton")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One figure.

    Attributes:
        name: stable path, unique in its table, as in `forward/S/batch_1`.
        value: the figure, in `unit`.
        unit: as in `ms`, `R2`, `1/s`, `MB`.
        p99: 99th percentile of the same measurements, in `unit`, where there are several.
        baselines: figures of other implementations from the same run, in `unit`, by name.
        note: what a reader has to know about this row.
    """

    name: str
    value: float
    unit: str
    p99: float | None = None
    baselines: Mapping[str, float] = dataclasses.field(default_factory=dict)
    note: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """The figures of one command, and where they come from.

    Attributes:
        name: name of both files, without suffix.
        command: what was run, as a reader would type it.
        machine: the hardware, as in `Xeon ..., 16 cores; NVIDIA H200`.
        versions: versions of Python and the libraries that matter, by name.
        date: day of the last measurement, as in `2026-01-31`.
        rows: the figures, in the order shown.
    """

    name: str
    command: str
    machine: str
    versions: Mapping[str, str]
    date: str
    rows: Sequence[Row]

    def __post_init__(self) -> None:
        """Checks the rows.

        Raises:
            ValueError: two rows have one name.
        """
        names = [row.name for row in self.rows]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"table {self.name}: rows must have one name each; twice: {twice}")


def measured_here(name: str, rows: Iterable[Row], *, command: str | None = None) -> Table:
    """Returns a table of rows measured by this process, today, on this machine.

    Args:
        name: name of both files, without suffix.
        rows: the figures.
        command: what was run; by default the command line of this process.
    """
    return Table(
        name=name,
        command=this_command() if command is None else command,
        machine=this_machine(),
        versions=these_versions(),
        date=datetime.date.today().isoformat(),
        rows=tuple(rows),
    )


def this_command() -> str:
    """The command line of this process, with its program relative to the repository."""
    program = pathlib.Path(sys.argv[0])
    root = pathlib.Path(__file__).parents[2]
    if program.is_absolute() and program.is_relative_to(root):
        program = program.relative_to(root)
    return shlex.join(["python3", str(program), *sys.argv[1:]])


def this_machine() -> str:
    """Names the CPU, its cores and, where torch sees them, the GPUs."""
    cores = len(os.sched_getaffinity(0))
    machine = f"{_cpu_model()}, {cores} {'core' if cores == 1 else 'cores'}"
    gpus = _gpus()
    return f"{machine}; {gpus}" if gpus else machine


def these_versions() -> dict[str, str]:
    """Versions of Python and of each installed library that figures depend on."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def merge(old: Table, new: Table) -> Table:
    """Returns `new` with the rows of `old` that it does not measure again.

    Rows keep the order of `old`; rows with new names follow. Command, machine, versions and date
    are those of `new`. A row that stays from a run elsewhere says so in its note.
    """
    remeasured = {row.name: row for row in new.rows}
    rows = [
        remeasured.pop(row.name) if row.name in remeasured else _kept(row, old, new)
        for row in old.rows
    ]
    return dataclasses.replace(new, rows=(*rows, *remeasured.values()))


def write(table: Table, folder: pathlib.Path) -> None:
    """Writes `folder/NAME.json` and `folder/NAME.md`, replacing what was there."""
    folder.mkdir(parents=True, exist_ok=True)
    # The name is that of the file.
    content = {key: value for key, value in dataclasses.asdict(table).items() if key != "name"}
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    (folder / f"{table.name}.json").write_text(text, encoding="utf-8")
    (folder / f"{table.name}.md").write_text(render(table), encoding="utf-8")


def update(table: Table, folder: pathlib.Path) -> None:
    """As `write`, but rows that are already there stay, if they are not measured again.

    Raises:
        ValueError: what is there is not a table.
    """
    path = folder / f"{table.name}.json"
    write(merge(read(path), table) if path.exists() else table, folder)


def read(path: pathlib.Path) -> Table:
    """Reads a table from its JSON file.

    Raises:
        ValueError: the file is not such a table.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        rows = tuple(Row(**row) for row in content.pop("rows"))
        return Table(name=path.stem, rows=rows, **content)
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise ValueError(f"{path}: not a table of measured figures: {error}") from error


def render(table: Table) -> str:
    """Returns the table as Markdown. A column that every row leaves empty is left out."""
    baselines = list(dict.fromkeys(name for row in table.rows for name in row.baselines))
    columns = {
        "row": [f"`{row.name}`" for row in table.rows],
        "value": [_figure(row.value) for row in table.rows],
        "p99": [_figure(row.p99) for row in table.rows],
        "unit": [row.unit for row in table.rows],
        **{name: [_figure(row.baselines.get(name)) for row in table.rows] for name in baselines},
        "note": [row.note.replace("|", "\\|") for row in table.rows],
    }
    shown = {
        name: cells
        for name, cells in columns.items()
        if any(cells) or name in ("row", "value", "unit")
    }
    figures = {"value", "p99", *baselines}
    lines = [
        f"# {table.name}",
        "",
        f"- Command: `{table.command}`",
        f"- Machine: {table.machine}",
        f"- Versions: {', '.join(f'{name} {v}' for name, v in table.versions.items())}",
        f"- Date: {table.date}",
        "",
        _line(shown),
        _line("---:" if name in figures else "---" for name in shown),
        *(_line(cells) for cells in zip(*shown.values(), strict=True)),
    ]
    return "\n".join(lines) + "\n"


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _figure(value: float | None) -> str:
    """Four significant digits, and thousands apart: more would be noise."""
    if value is None:
        return ""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def _kept(row: Row, old: Table, new: Table) -> Row:
    if (old.machine, old.versions) == (new.machine, new.versions) or "measured on" in row.note:
        return row
    versions = ", ".join(f"{name} {version}" for name, version in old.versions.items())
    origin = f"measured on {old.machine} ({versions}), {old.date}"
    return dataclasses.replace(row, note=f"{row.note}; {origin}" if row.note else origin)


def _cpu_model() -> str:
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def _gpus() -> str:
    # A figure that needs no torch should not need it installed to say where it was measured.
    try:
        import torch
    except ImportError:
        return ""
    if not torch.cuda.is_available():
        return ""
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return names[0] if len(names) == 1 else f"{len(names)} x {names[0]}"
