"""Writes a simulated session of maze reaches as NWB.

bazel run //training:simulate -- --output=simulated.nwb --trials=200
"""

from pathlib import Path

from absl import flags

from cortex import cli
from cortex.data.nwb_writer import write_nwb
from cortex.data.simulator import SimulatorConfig, simulate

OUTPUT = flags.DEFINE_string("output", None, "NWB file to write", required=True)
TRIALS = flags.DEFINE_integer("trials", SimulatorConfig.trials, "reaches")
UNITS = flags.DEFINE_integer("units", SimulatorConfig.units, "neurons")
SEED = flags.DEFINE_integer("seed", SimulatorConfig.seed, "fixes everything")


def main(argv: list[str]) -> None:
    """Simulates and writes."""
    cli.no_arguments(argv)
    config = SimulatorConfig(trials=TRIALS.value, units=UNITS.value, seed=SEED.value)
    recording = simulate(config)
    write_nwb(recording, Path(OUTPUT.value))
    spikes = sum(len(times) for times in recording.spike_times)
    print(f"wrote {OUTPUT.value}: {config.trials} trials, {config.units} units, {spikes} spikes")


if __name__ == "__main__":
    cli.run(main)
