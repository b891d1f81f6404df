"""The binaries, run as a user runs them."""

import json
import re
from pathlib import Path

import pytest

from training.binary_for_tests import run_binary


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("work")
    for name, seed in (("a.nwb", "0"), ("b.nwb", "1")):
        made = run_binary(
            path, "simulate", f"--output={name}", "--trials=6", "--units=8", f"--seed={seed}"
        )
        assert made.returncode == 0, made.stderr
    return path


def test_train_then_evaluate_agree(folder: Path) -> None:
    trained = run_binary(folder, "train", "--session=a.nwb", "--output=model", "--steps=3")
    assert trained.returncode == 0, trained.stderr
    scored = run_binary(
        *(folder, "evaluate", "--session=a.nwb", "--model=model", "--output=scores"),
        *("--measured=measured", "--rows=r2/a", "--lag_ms=120"),
    )
    assert scored.returncode == 0, scored.stderr
    said = re.search(r"R2 (\S+) \(Wiener filter (\S+)\)", trained.stdout)
    again = re.search(r"nano, offline +(\S+) .*\n +Wiener filter +(\S+)", scored.stdout)
    assert said is not None
    assert again is not None
    assert said.groups() == again.groups()
    report = json.loads((folder / "scores" / "evaluation.json").read_text())
    assert report["protocols"]["benchmark"]["figures"]["cortex_ahead"]["future_s"] == -0.12
    assert (folder / "scores" / "decoded.png").stat().st_size > 10_000
    assert (folder / "scores" / "paths.png").stat().st_size > 10_000
    table = (folder / "measured" / "evaluate_simulated_0.md").read_text()
    assert "`r2/a/per_bin/cortex`" in table
    assert "--session=a.nwb --model=model --lag_ms=120.0 --rows=r2/a`" in table
    other = run_binary(folder, "evaluate", "--session=b.nwb", "--model=model")
    assert other.returncode == 2
    assert "not a recording that the model was trained on" in other.stderr


def test_quantize_then_report(folder: Path) -> None:
    trained = run_binary(folder, "train", "--session=a.nwb", "--output=float", "--steps=3")
    assert trained.returncode == 0, trained.stderr
    made = run_binary(
        *(folder, "quantize", "--model=float", "--session=a.nwb", "--output=int8"),
        *("--activations=static", "--percentile=99.5", "--keep_layers=velocity.out,cross.out"),
        *("--most_r2_lost=1", "--calibration_trials=4"),
    )
    assert made.returncode == 0, made.stderr
    assert made.stdout.count("kept in bf16, as asked") == 2
    config = json.loads((folder / "int8" / "config.json").read_text())["quantization"]
    assert config["kept"] == ["cross.out", "velocity.out"]
    assert len(config["input_scales"]) == 4
    case = ("--model=float", "--quantized=int8", "--session=a.nwb")
    reported = run_binary(
        *(folder, "quantize_report", *case, "--name=a", "--output=report"),
        "--measured=measured",
    )
    assert reported.returncode == 0, reported.stderr
    assert "static INT8 inputs, bf16 between" in reported.stdout
    assert (folder / "report" / "scores.png").stat().st_size > 8_000
    assert (folder / "report" / "layers.png").stat().st_size > 8_000
    again = run_binary(
        *(folder, "quantize_report", *case, "--name=b", "--precision=fp32"), "--measured=measured"
    )
    assert again.returncode == 0, again.stderr
    table = (folder / "measured" / "quantization.md").read_text()
    for row in ("quant/a/r2_lost", "quant/b/r2_lost", "quant/nano/weights_mb"):
        assert f"`{row}`" in table
    more = run_binary(folder, "train", "--session=a.nwb", "--output=m", "--init_from=int8")
    assert more.returncode == 2
    assert "is in int8, expected the float model" in more.stderr


@pytest.mark.parametrize(
    ("binary", "arguments", "message"),
    [
        ("train", ["--session=none.nwb", "--output=m"], "none.nwb: no such file"),
        ("train", ["--session=x.txt", "--output=m"], "unknown kind of recording"),
        ("train", ["--session=a.nwb", "--output=m", "--size=huge"], "'huge' is unknown"),
        ("train", ["--session=a.nwb", "--output=m", "steps=3"], "unexpected argument 'steps=3'"),
        ("evaluate", ["--session=a.nwb", "--model=none"], "none: no such directory"),
        (
            "evaluate",
            ["--session=a.nwb", "--model=model", "--oracle=none.json"],
            "none.json: cannot be read",
        ),
        (
            "quantize",
            ["--model=none", "--session=a.nwb", "--output=x"],
            "none: no such directory",
        ),
        (
            "quantize_report",
            ["--model=a", "--model=b", "--quantized=c", "--session=a.nwb", "--name=a"],
            "2 --model, 1 --quantized, 1 --session, 1 --name: expected as many of each",
        ),
        ("simulate", ["--output=x.nwb", "--trials=0"], "trials is 0, expected at least 1"),
        ("simulate", ["--output=none/x.nwb", "--trials=1"], "cannot be written"),
        ("import_mc_maze", ["--output=x.nwb"], "no trial given"),
        ("import_mc_maze", ["--output=x.nwb", "a.nwb"], "not a CSV table"),
    ],
)
def test_bad_input_is_one_line(
    folder: Path, binary: str, arguments: list[str], message: str
) -> None:
    done = run_binary(folder, binary, *arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert message in done.stderr.splitlines()[-1]
