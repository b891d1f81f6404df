"""The best R2 that a simulated session allows, from an oracle that has the units' true tuning.

bazel run //training:simulated_ceiling -- --session=simulated.nwb --output=oracle.json

The oracle knows how the simulator draws reaches and how its units fire, each spike to the
millisecond, and nothing of the hand: its estimate is the mean velocity over the reaches that a
trial's spikes allow. No decoder of the same spikes has a lower squared error on average.
"""

from pathlib import Path

import torch
from absl import flags
from tqdm import tqdm

from cortex import cli
from cortex.data.open_session import open_session
from cortex.errors import InputError
from training.fitting.provenance import session_digest
from training.oracle.ceiling import read_ceiling
from training.oracle.ceiling_file import CeilingFile
from training.oracle.estimate import estimate_all
from training.oracle.reach_posterior import PosteriorConfig
from training.oracle.simulated_session import SimulatedSession
from training.samples.splits import split_session

SESSION = flags.DEFINE_string("session", None, "NWB file of training:simulate", required=True)
OUTPUT = flags.DEFINE_string("output", "oracle.json", "JSON file; one begun before goes on")
SPLIT_SEED = flags.DEFINE_integer("split_seed", 0, "seed of the split by trial")
TRIALS = flags.DEFINE_integer("trials", None, "the first so many held-out trials; all", 1)
PARTICLES = flags.DEFINE_integer("particles", PosteriorConfig.particles, "reaches followed")
SEED = flags.DEFINE_integer("seed", 0, "seed of the particles", lower_bound=0)
DEVICE = flags.DEFINE_enum("device", "cpu", ["cpu", "cuda"], "where to compute")
PROCESSES = flags.DEFINE_integer("processes", 1, "trials side by side, a core each", 1)


def main(argv: list[str]) -> None:
    """Scores the held-out trials that are not scored yet."""
    cli.no_arguments(argv)
    if DEVICE.value == "cuda" and not torch.cuda.is_available():
        raise InputError("device 'cuda' is not there, expected a GPU or --device=cpu")
    config = PosteriorConfig(particles=PARTICLES.value)
    path, output = Path(SESSION.value), Path(OUTPUT.value)
    session = open_session(path)
    _, held_out = split_session(session, SPLIT_SEED.value)
    settings = {"split_seed": SPLIT_SEED.value, "seed": SEED.value, "particles": config.particles}
    file = CeilingFile(
        output,
        {"session_id": session.session_id, "digest": session_digest(session), **settings},
    )
    wanted = held_out[: TRIALS.value]
    missing = [trial for trial in wanted if trial not in file]
    if missing:
        truth = SimulatedSession(path, session)
        trials = [truth.trial(index) for index in missing]
        estimates = estimate_all(trials, config, DEVICE.value, SEED.value, PROCESSES.value)
        with tqdm(
            total=len(wanted), initial=len(wanted) - len(missing), desc="oracle", unit="trial"
        ) as bar:
            for trial, estimate in zip(trials, estimates, strict=True):
                fields = file.add(trial.index, trial.velocity, estimate)
                bar.set_postfix_str(f"R2 {fields['r2_causal']:.4f}", refresh=False)
                bar.update()
    ceiling = read_ceiling(output)
    print(f"{'held-out trials':<24}{len(ceiling.trials):>8}")
    print(f"{'labelled steps':<24}{ceiling.points:>8}")
    print(f"{'R2, causal':<24}{ceiling.r2_causal:>8.4f}")
    print(f"{'R2, smoothed':<24}{ceiling.r2_smoothed:>8.4f}")


if __name__ == "__main__":
    cli.run(main)
