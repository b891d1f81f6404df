"""Times a training step of each model size on a simulated session like MC_Maze.

bazel run //training:speed --config=cuda -- --device=cuda --measured=docs/measured

A token is an event that a step reads from the recording. MFU is the share of --peak_tflops that the
step's matrix products reach. Each size's rows have its fastest way of running as their value.
"""

import math
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from absl import flags

from cortex import cli
from cortex.data.nwb_writer import write_nwb
from cortex.data.open_session import open_session
from cortex.data.simulator import SimulatorConfig, simulate
from cortex.model import Model
from cortex.model_config import SIZES, ModelConfig
from cortex.session import Session
from tools.measured.table import Row, measured_here, render, update
from training.fitting.fit_config import FitConfig
from training.fitting.processes import joined
from training.fitting.step_speed import (
    UNTIMED_STEPS,
    StepSpeed,
    flop_a_step,
    step_speed,
    tokens_a_step,
)
from training.fitting.trainer import Trainer
from training.samples.augmentation import AugmentationConfig
from training.samples.trial_samples import trial_samples
from training.samples.trial_tensors import TrialTensors

# How steps are run: whether the blocks are compiled, and whether all is one CUDA graph.
MODES = {
    "eager": (False, False),
    "compiled": (True, False),
    "captured": (False, True),
    "compiled_captured": (True, True),
}

NAMES = flags.DEFINE_list("sizes", ["XS", "S", "M"], f"model sizes, of {', '.join(SIZES)}")
PRECISIONS = flags.DEFINE_list("precisions", ["fp32", "bf16"], "of fp32, bf16")
MODE_NAMES = flags.DEFINE_list(
    "modes", None, f"ways to run a step, of {', '.join(MODES)}; all on cuda, eager on a CPU"
)
STEPS = flags.DEFINE_integer("steps", 50, "timed steps", 1)
TRIALS_A_BATCH = flags.DEFINE_integer("trials_a_batch", 32, "trials a step", 1)
TRIAL_STEPS = flags.DEFINE_integer("trial_steps", 110, "decoding steps a trial", 1)
UNITS = flags.DEFINE_integer("units", 182, "units of the session", 1)
EVENTS_A_STEP = flags.DEFINE_float("events_a_step", 10.0, "events a decoding step, about", 0.01)
PEAK_TFLOPS = flags.DEFINE_float(
    "peak_tflops", 989.0, "the device's peak; dense bfloat16 of Hopper"
)
DEVICE = flags.DEFINE_string("device", "cpu", "cpu or cuda")
MEASURED = flags.DEFINE_string("measured", None, "folder for the table of figures")
for flag, known in (("sizes", SIZES), ("precisions", ("fp32", "bf16")), ("modes", MODES)):
    flags.register_validator(  # type: ignore[no-untyped-call]
        flag,
        lambda names, known=known: names is None or set(names) <= set(known),
        f"expected one or more of {', '.join(known)}, with commas between",
    )


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a step of one size computes, however it is run.

    Attributes:
        tokens: events that it reads.
        latents: latents that it computes.
        tflop: its matrix products, in 10^12 floating-point operations.
    """

    tokens: float
    latents: int
    tflop: float


def main(argv: list[str]) -> None:
    """Measures and prints; writes the table where a folder is given."""
    cli.no_arguments(argv)
    with joined(DEVICE.value) as processes:
        session = _session()
        trials = TrialTensors(
            trial_samples(session, range(len(session.trials))),
            bins_per_step=session.grid.bins_per_step,
            crop_steps=TRIAL_STEPS.value,
            device=processes.device,
        )
        rows = [row for size in NAMES.value for row in _rows(size, session, trials)]
    table = measured_here("train_speed", rows)
    print(render(table))
    if MEASURED.value:
        update(table, Path(MEASURED.value))


def _session() -> Session:
    """A simulated session with two batches of trials and the events a step that are asked for."""
    base = SimulatorConfig(units=UNITS.value, trials=2 * TRIALS_A_BATCH.value)
    firing = base.units * (1 - base.silent_share)
    rate_hz = EVENTS_A_STEP.value / (0.02 * firing)
    config = SimulatorConfig(
        units=base.units,
        trials=base.trials,
        log_rate_mean=math.log(rate_hz) - base.log_rate_sd**2 / 2,
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "session.nwb"
        write_nwb(simulate(config), path)
        return open_session(path, None)


def _rows(size: str, session: Session, trials: TrialTensors) -> list[Row]:
    on_gpu = trials.device.type == "cuda"
    modes = MODE_NAMES.value or (list(MODES) if on_gpu else ["eager"])
    work = _work(size, session, trials)
    speeds: dict[str, StepSpeed] = {}
    for precision in PRECISIONS.value:
        for mode in modes:
            compiled, captured = MODES[mode]
            torch.compiler.reset()
            trainer = _trainer(size, session, trials, precision=precision, compile_blocks=compiled)
            speeds[f"{precision} {mode}"] = step_speed(trainer, captured=captured)
            del trainer
            if on_gpu:
                torch.cuda.empty_cache()
    return _rows_of(size, work, speeds)


def _work(size: str, session: Session, trials: TrialTensors) -> Work:
    trainer = _trainer(size, session, trials)
    latents = TRIALS_A_BATCH.value * trials.n_steps * SIZES[size]["latents_per_step"]
    return Work(tokens=tokens_a_step(trainer), latents=latents, tflop=flop_a_step(trainer) / 1e12)


def _trainer(size: str, session: Session, trials: TrialTensors, **fit: object) -> Trainer:
    model = Model(
        ModelConfig.of_size(size, n_units=len(session.unit_ids), grid=session.grid, dropout=0.05)
    )
    config = FitConfig(
        steps=UNTIMED_STEPS + STEPS.value,
        batch_trials=TRIALS_A_BATCH.value,
        augmentation=AugmentationConfig(crop_steps=TRIAL_STEPS.value),
        **fit,  # type: ignore[arg-type]
    )
    return Trainer(model.to(trials.device), trials, config)


def _rows_of(size: str, work: Work, speeds: dict[str, StepSpeed]) -> list[Row]:
    """A size's figures: of its fastest way to run, with those of the other ways beside them."""
    median_s = {way: speed.quantile_s(0.5) for way, speed in speeds.items()}
    best = min(median_s, key=lambda way: median_s[way])
    spread = " to ".join(f"{1000 * speeds[best].quantile_s(q):.3g}" for q in (0.1, 0.9))

    def row(name: str, unit: str, figures: dict[str, float], note: str = "") -> Row:
        others = {way: figure for way, figure in figures.items() if way != best}
        return Row(
            name=f"train/{size}/{name}",
            value=figures[best],
            unit=unit,
            baselines=others,
            note=f"{best}{note}",
        )

    def each_second(amount: float) -> dict[str, float]:
        return {way: amount / seconds for way, seconds in median_s.items()}

    shares = {w: 100 * f / PEAK_TFLOPS.value for w, f in each_second(work.tflop).items()}
    rows = [
        row(
            "step",
            "ms",
            {way: 1000 * seconds for way, seconds in median_s.items()},
            f"; p10 to p90 {spread}; {work.tokens:.0f} tokens, {work.latents} latents, "
            f"{work.tflop:.3g} TFLOP",
        ),
        row("tokens_per_s", "1/s", each_second(work.tokens)),
        row("latents_per_s", "1/s", each_second(work.latents)),
        row("tflop_per_s", "TFLOP/s", each_second(work.tflop)),
        row("mfu", "%", shares, f"; of {PEAK_TFLOPS.value:g} TFLOP/s"),
    ]
    if any(speed.peak_bytes for speed in speeds.values()):
        rows.append(row("memory", "GB", {w: s.peak_bytes / 1e9 for w, s in speeds.items()}))
    return rows


if __name__ == "__main__":
    cli.run(main)
