"""Writes a simulated session of maze reaches as NWB.

bazel run //training:simulate -- --output=simulated.nwb --trials=200
"""

from dataclasses import fields
from pathlib import Path
from typing import Any

from absl import flags

from cortex import cli
from cortex.data.nwb_writer import write_nwb
from cortex.data.simulator import SimulatorConfig, simulate

OUTPUT = flags.DEFINE_string("output", None, "NWB file to write", required=True)
flags.DEFINE_integer("trials", SimulatorConfig.trials, "reaches")
flags.DEFINE_integer("units", SimulatorConfig.units, "neurons")
flags.DEFINE_integer("seed", SimulatorConfig.seed, "fixes everything")
flags.DEFINE_integer(
    "heldout_units", SimulatorConfig.heldout_units, "units marked as held out of the input"
)
flags.DEFINE_float("val_share", SimulatorConfig.val_share, "share of the trials in split val")
flags.DEFINE_float(
    "log_rate_mean", SimulatorConfig.log_rate_mean, "mean of the log of baseline rates in Hz"
)
flags.DEFINE_float("log_rate_sd", SimulatorConfig.log_rate_sd, "its standard deviation")
flags.DEFINE_float("silent_share", SimulatorConfig.silent_share, "share of units that never fire")
flags.DEFINE_float(
    "tuning", SimulatorConfig.tuning, "mean gain on direction, in log rate at 400 mm/s"
)
flags.DEFINE_float("lead_ms", SimulatorConfig.lead_ms, "mean time by which spikes lead the hand")


def main(argv: list[str]) -> None:
    """Simulates and writes."""
    cli.no_arguments(argv)
    chosen: dict[str, Any] = {f.name: flags.FLAGS[f.name].value for f in fields(SimulatorConfig)}
    config = SimulatorConfig(**chosen)
    recording = simulate(config)
    write_nwb(recording, Path(OUTPUT.value))
    spikes = sum(len(times) for times in recording.spike_times)
    print(f"wrote {OUTPUT.value}: {config.trials} trials, {config.units} units, {spikes} spikes")


if __name__ == "__main__":
    cli.run(main)
