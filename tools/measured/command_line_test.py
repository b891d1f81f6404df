"""The quoted command: inputs by name, repeated flags, nothing that only places files."""

import pytest
from absl import flags

from tools.measured.command_line import command_line


@pytest.fixture
def values(monkeypatch: pytest.MonkeyPatch) -> flags.FlagValues:
    values = flags.FlagValues()  # type: ignore[no-untyped-call]
    flags.DEFINE_multi_string("session", None, "", flag_values=values)
    flags.DEFINE_multi_string("rows", None, "", flag_values=values)
    flags.DEFINE_string("oracle", None, "", flag_values=values)
    flags.DEFINE_string("output", None, "", flag_values=values)
    flags.DEFINE_integer("budget", 8, "", flag_values=values)
    monkeypatch.setattr(flags, "FLAGS", values)
    return values


def test_what_was_given_is_quoted(values: flags.FlagValues) -> None:
    values(["binary", "--session=/a/b c.npz", "--session=/d/e.npz", "--rows=r2/b", "--rows=r2/e"])
    values["output"].parse("/somewhere")
    values["output"].present = 1
    line = command_line("//a:b", files=("session", "oracle"), places=("output",))
    assert line == (
        "./bazelw run //a:b -- '--session=b c.npz' --session=e.npz --rows=r2/b --rows=r2/e"
    )


def test_a_bare_command_has_no_dashes(values: flags.FlagValues) -> None:
    values(["binary"])
    assert command_line("//a:b", files=("session", "oracle")) == "./bazelw run //a:b"
