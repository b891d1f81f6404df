"""Writes a recording as NWB, in the schema of MC_Maze (DANDI 000128)."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from pynwb import NWBHDF5IO, H5DataIO, NWBFile
from pynwb.behavior import SpatialSeries
from pynwb.file import Subject

from cortex.data.recording import Recording
from cortex.errors import InputError

COLUMN_DESCRIPTIONS = {
    "target_pos": "x and y of the target (mm)",
    "target_on_time": "when the target appeared (s)",
    "go_cue_time": "when the monkey was told to reach (s)",
    "move_onset_time": "when the hand began to move (s)",
    "rt": "reaction time (ms)",
    "delay": "from target to go cue (ms)",
}

COMPRESSED = {"compression": "gzip", "shuffle": True}


def write_nwb(recording: Recording, path: Path) -> None:
    """Writes a file, replacing one of that name only once it is whole.

    Raises:
        InputError: the file cannot be written.
    """
    file = _nwb_file(recording)
    if not path.parent.is_dir():
        raise InputError(f"{path}: cannot be written: no such directory as {path.parent}")
    partial = path.with_name(path.stem + ".partial.nwb")
    try:
        with NWBHDF5IO(str(partial), "w") as io:
            io.write(file)
        partial.replace(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)


def _nwb_file(recording: Recording) -> NWBFile:
    file = NWBFile(
        session_description=recording.description,
        identifier=recording.session_id,
        session_id=recording.session_id,
        # Recordings count seconds from their own start; a fixed date keeps files reproducible.
        session_start_time=datetime(2000, 1, 1, tzinfo=UTC),
        experiment_description=recording.description,
        notes=recording.notes or None,
        keywords=["motor cortex", "reaching"],
    )
    file.subject = Subject(
        subject_id=recording.subject, species="Macaca mulatta", sex="U", age="P5Y/"
    )
    _add_units(file, recording)
    _add_trials(file, recording)
    # A file that holds behaviour back has no such module at all.
    if len(recording.sample_times):
        _add_behavior(file, recording)
    return file


def _add_behavior(file: NWBFile, recording: Recording) -> None:
    behavior = file.create_processing_module("behavior", f"{recording.effector} movement")
    series = [
        (f"{recording.effector}_pos", recording.hand_pos, "mm"),
        (f"{recording.effector}_vel", recording.hand_vel, "mm/s"),
    ]
    if recording.cursor_pos is not None:
        series.append(("cursor_pos", recording.cursor_pos, "mm"))
    # The first series has the timestamps, the others link to its.
    timestamps = H5DataIO(recording.sample_times, **COMPRESSED)
    for name, data, unit in series:
        added = SpatialSeries(
            name=name,
            data=H5DataIO(data, **COMPRESSED),
            timestamps=timestamps,
            unit=unit,
            reference_frame="centre of the screen, x to the right, y up",
        )
        behavior.add(added)
        timestamps = added


def _add_units(file: NWBFile, recording: Recording) -> None:
    device = file.create_device("array", description="electrode array")
    group = file.create_electrode_group(
        "array", description="electrode array", location="motor cortex", device=device
    )
    electrodes: dict[int, int] = {}
    for unit_id in recording.unit_ids:
        electrode = unit_id // 10
        if electrode not in electrodes:
            electrodes[electrode] = len(electrodes)
            file.add_electrode(id=electrode, location="motor cortex", group=group)
    file.add_unit_column("heldout", "whether the benchmark holds the unit out of the input")
    heldout = recording.heldout or (False,) * len(recording.unit_ids)
    for unit_id, times, out in zip(recording.unit_ids, recording.spike_times, heldout, strict=True):
        file.add_unit(
            id=unit_id,
            spike_times=times,
            obs_intervals=recording.obs_intervals,
            electrodes=[electrodes[unit_id // 10]],
            electrode_group=group,
            heldout=out,
        )
    # add_unit has made one list of all spikes; as an array it is written many times faster.
    file.units.spike_times.transform(lambda spikes: np.asarray(spikes))
    file.units.spike_times.set_data_io(H5DataIO, COMPRESSED)


def _add_trials(file: NWBFile, recording: Recording) -> None:
    file.add_trial_column("split", "the benchmark's split: train, val, test or none")
    for name in recording.trial_columns:
        file.add_trial_column(name, COLUMN_DESCRIPTIONS.get(name, name))
    splits = recording.split or ("none",) * len(recording.trial_start)
    for i, (start, stop, split) in enumerate(
        zip(recording.trial_start, recording.trial_stop, splits, strict=True)
    ):
        columns = {name: values[i] for name, values in recording.trial_columns.items()}
        file.add_trial(start_time=start, stop_time=stop, split=split, **columns)
