"""The speed binary, on a CPU and a small session."""

import math
from pathlib import Path

from tools.measured.table import read
from training.binary_for_tests import run_binary


def test_every_figure_has_its_row(tmp_path: Path) -> None:
    done = run_binary(
        tmp_path,
        *("speed", "--sizes=nano", "--steps=2"),
        *("--trials_a_batch=2", "--trial_steps=20", "--units=20", "--measured=measured"),
    )
    assert done.returncode == 0, done.stderr
    rows = {row.name: row for row in read(tmp_path / "measured" / "train_speed.json").rows}
    names = ("step", "tokens_per_s", "latents_per_s", "tflop_per_s", "mfu")
    assert list(rows) == [f"train/nano/{name}" for name in names]
    for name, row in rows.items():
        assert {row.note.split(";")[0], *row.baselines} == {"fp32 eager", "bf16 eager"}
        assert all(math.isfinite(x) and x > 0 for x in (row.value, *row.baselines.values())), name
        assert name in done.stdout
    step, tokens = rows["train/nano/step"], rows["train/nano/tokens_per_s"]
    assert step.value < min(step.baselines.values())
    assert f"{tokens.value * step.value / 1000:.0f} tokens" in step.note
