"""Binaries end in one line on bad input."""

import pytest

from cortex import cli
from cortex.errors import InputError


@pytest.fixture(autouse=True)
def _no_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["binary"])


def test_bad_input_is_one_line_and_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    def main(argv: list[str]) -> None:
        raise InputError("x.nwb: no such file")

    with pytest.raises(SystemExit) as ended:
        cli.run(main)
    assert ended.value.code == 2
    assert capsys.readouterr().err == "error: x.nwb: no such file\n"


def test_ctrl_c_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    def main(argv: list[str]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as ended:
        cli.run(main)
    assert ended.value.code == 130
    assert capsys.readouterr().err == ""


def test_stray_words_are_refused() -> None:
    with pytest.raises(InputError, match="unexpected argument 'session=x'"):
        cli.no_arguments(["binary", "session=x"])
