"""Turns single MC_Maze trials in CSV into one NWB session.

bazel run //training:import_mc_maze -- --output=maze.nwb trial_748.csv.gz trial_1356.csv.gz
"""

from pathlib import Path

from absl import flags

from cortex import cli
from cortex.data.maze_csv import read_maze_csv
from cortex.data.nwb_writer import write_nwb

OUTPUT = flags.DEFINE_string("output", None, "NWB file to write", required=True)


def main(argv: list[str]) -> None:
    """Reads the trials named as arguments and writes the session."""
    recording = read_maze_csv([Path(name) for name in argv[1:]])
    write_nwb(recording, Path(OUTPUT.value))
    print(
        f"wrote {OUTPUT.value}: {len(recording.trial_start)} trials, "
        f"{len(recording.unit_ids)} units"
    )


if __name__ == "__main__":
    cli.run(main)
