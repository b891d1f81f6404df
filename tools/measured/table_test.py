import dataclasses
import datetime
import pathlib
import sys

import pytest

from tools.measured import table as measured
from tools.measured.table import Row, Table

_TABLE = Table(
    name="forward",
    command="python3 training/profile.py --size=S",
    machine="Some CPU, 16 cores; Some GPU",
    versions={"python": "3.11.7", "torch": "2.13.0"},
    date="2026-01-31",
    rows=(
        Row(
            name="forward/S/batch_1",
            value=0.149,
            unit="ms",
            p99=0.151,
            baselines={"eager": 2.58, "compiled": 0.27211},
        ),
        Row(name="forward/S/rate", value=12345.6, unit="1/s", note="one | stream"),
    ),
)

_GOLDEN = """\
# forward

- Command: `python3 training/profile.py --size=S`
- Machine: Some CPU, 16 cores; Some GPU
- Versions: python 3.11.7, torch 2.13.0
- Date: 2026-01-31

| row | value | p99 | unit | eager | compiled | note |
| --- | ---: | ---: | --- | ---: | ---: | --- |
| `forward/S/batch_1` | 0.149 | 0.151 | ms | 2.58 | 0.2721 |  |
| `forward/S/rate` | 12,346 |  | 1/s |  |  | one \\| stream |
"""


def test_renders_markdown() -> None:
    assert measured.render(_TABLE) == _GOLDEN


def test_leaves_out_empty_columns() -> None:
    table = dataclasses.replace(_TABLE, rows=(Row(name="a", value=0.0, unit="ms"),))
    assert measured.render(table).splitlines()[-3:] == [
        "| row | value | unit |",
        "| --- | ---: | --- |",
        "| `a` | 0 | ms |",
    ]


def test_writes_what_it_reads(tmp_path: pathlib.Path) -> None:
    measured.write(_TABLE, tmp_path)
    assert measured.read(tmp_path / "forward.json") == _TABLE
    assert (tmp_path / "forward.md").read_text() == _GOLDEN


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"rows": [{"name": "a"}]}', '{"rows": 1}'])
def test_refuses_other_files(tmp_path: pathlib.Path, text: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"other\.json: not a table"):
        measured.read(path)


def test_refuses_two_rows_of_one_name() -> None:
    row = Row(name="a", value=1.0, unit="ms")
    with pytest.raises(ValueError, match=r"twice: \['a'\]"):
        dataclasses.replace(_TABLE, rows=(row, row))


def test_merge_replaces_rows_by_name() -> None:
    again = Row(name="forward/S/rate", value=2.0, unit="1/s")
    other = Row(name="forward/M/rate", value=1.0, unit="1/s")
    new = dataclasses.replace(_TABLE, date="2026-02-01", rows=(other, again))
    merged = measured.merge(_TABLE, new)
    assert merged.rows == (_TABLE.rows[0], again, other)
    assert merged.date == "2026-02-01"


def test_update_keeps_what_is_not_measured_again(tmp_path: pathlib.Path) -> None:
    again = Row(name="forward/S/rate", value=2.5, unit="1/s")
    measured.update(_TABLE, tmp_path)
    assert measured.read(tmp_path / f"{_TABLE.name}.json") == _TABLE
    measured.update(dataclasses.replace(_TABLE, rows=(again,)), tmp_path)
    assert measured.read(tmp_path / f"{_TABLE.name}.json").rows == (_TABLE.rows[0], again)


def test_merge_says_which_rows_are_from_elsewhere() -> None:
    again = Row(name="forward/S/rate", value=2.0, unit="1/s")
    new = dataclasses.replace(_TABLE, machine="Other CPU, 1 core", rows=(again,))
    merged = measured.merge(_TABLE, new)
    origin = "measured on Some CPU, 16 cores; Some GPU (python 3.11.7, torch 2.13.0), 2026-01-31"
    assert merged.rows[0].note == origin
    assert measured.merge(merged, new) == merged


def test_describes_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["training/profile.py", "--name=a b"])
    table = measured.measured_here("here", [])
    assert table.command == "python3 training/profile.py '--name=a b'"
    assert table.versions["python"].startswith("3.")
    assert "core" in table.machine
    assert table.date == datetime.date.today().isoformat()
