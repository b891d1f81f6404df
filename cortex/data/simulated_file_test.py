"""A simulated file says what it was simulated with; others do not."""

from dataclasses import replace
from pathlib import Path

import pytest

from cortex.data.nwb_writer import write_nwb
from cortex.data.simulated_file import read_simulator_config
from cortex.data.simulator import SimulatorConfig, simulate
from cortex.errors import InputError

CONFIG = SimulatorConfig(trials=2, units=5, seed=4, tuning=0.7, heldout_units=1, val_share=0.5)


def test_the_configuration_is_in_the_file(tmp_path: Path) -> None:
    write_nwb(simulate(CONFIG), tmp_path / "s.nwb")
    assert read_simulator_config(tmp_path / "s.nwb") == CONFIG


@pytest.mark.parametrize(
    "notes", ["", "recorded on a Monday", "{}", "[1]", '{"simulator": {"reaches": 3}}']
)
def test_other_files_are_refused(tmp_path: Path, notes: str) -> None:
    write_nwb(replace(simulate(CONFIG), notes=notes), tmp_path / "s.nwb")
    with pytest.raises(InputError, match="not a simulated session"):
        read_simulator_config(tmp_path / "s.nwb")


def test_what_is_no_nwb_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_simulator_config(tmp_path / "s.nwb")
    (tmp_path / "s.nwb").write_text("spikes")
    with pytest.raises(InputError, match="not a readable NWB file"):
        read_simulator_config(tmp_path / "s.nwb")


def test_a_test_file_gives_no_answers_away() -> None:
    assert simulate(CONFIG).notes
    assert not simulate(CONFIG).without_answers().notes
