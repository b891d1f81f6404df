import pathlib

from tools.measured import table as measured

_FOLDER = pathlib.Path(__file__).parent
_TABLES = sorted(_FOLDER.glob("*.json"))


def test_every_page_is_the_render_of_its_figures() -> None:
    rendered = {path.stem: measured.render(measured.read(path)) for path in _TABLES}
    pages = {path.stem: path.read_text(encoding="utf-8") for path in _FOLDER.glob("*.md")}
    pages.pop("README", None)
    assert pages == rendered


def test_no_two_tables_measure_one_row() -> None:
    rows = [row.name for path in _TABLES for row in measured.read(path).rows]
    assert len(rows) == len(set(rows))
