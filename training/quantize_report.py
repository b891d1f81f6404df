"""Scores float decoders beside their INT8 forms, on held-out trials, streamed.

bazel run //training:quantize_report -- --model=decoder --quantized=decoder_int8 \
    --session=recording.nwb --name=simulated --output=report

--model, --quantized, --session and --name repeat together, for one table of several recordings.
Sizes of weights, R2 with its interval in float32, in bfloat16, with INT8 weights alone and with
INT8 inputs, and pictures of these and of each layer's error.
"""

from pathlib import Path
from typing import cast

from absl import flags
from tqdm import tqdm

from cortex import cli
from cortex.checkpoint import load_checkpoint
from cortex.data.open_session import open_session
from cortex.errors import InputError
from cortex.precision import Precision
from tools.measured.command_line import command_line
from tools.measured.table import measured_here, update
from training.quantization.comparison import compare
from training.quantization.drawing import draw_layers, draw_scores
from training.quantization.report import Case, as_text, measured_rows

MODEL = flags.DEFINE_multi_string("model", None, "float checkpoint directory", required=True)
QUANTIZED = flags.DEFINE_multi_string(
    "quantized", None, "INT8 checkpoint directory made from it", required=True
)
SESSION = flags.DEFINE_multi_string(
    "session", None, "recording that it was trained on: .nwb or binned .npz", required=True
)
NAME = flags.DEFINE_multi_string(
    "name", None, "of the recording in rows, such as chewie", required=True
)
SERIES = flags.DEFINE_string("series", None, "the recorded series, where training had --series")
DEVICE = flags.DEFINE_string("device", "cpu", "where to decode: cpu or cuda")
PRECISION = flags.DEFINE_enum(
    "precision", "bf16", ["fp32", "bf16"], "of what INT8 forms compute between their layers"
)
OUTPUT = flags.DEFINE_string("output", None, "folder for scores.png and layers.png")
MEASURED = flags.DEFINE_string("measured", None, "also write a measured table into this folder")

TABLE = "quantization"
FLAGS = "model", "quantized", "session", "name"


def main(argv: list[str]) -> None:
    """Compares each pair, prints a table, and writes pictures and rows."""
    cli.no_arguments(argv)
    lists = MODEL.value, QUANTIZED.value, SESSION.value, NAME.value
    if len({len(each) for each in lists}) > 1:
        raise InputError(
            f"{', '.join(f'{len(each)} --{flag}' for each, flag in zip(lists, FLAGS, strict=True))}"
            ": expected as many of each"
        )
    if len(set(NAME.value)) < len(NAME.value):
        raise InputError(f"names {NAME.value} repeat, expected unique ones")
    cases = [_case(*each) for each in tqdm(list(zip(*lists, strict=True)), unit="decoder")]
    print("\n".join(as_text(case) for case in cases))
    if OUTPUT.value:
        folder = Path(OUTPUT.value)
        folder.mkdir(parents=True, exist_ok=True)
        draw_scores(cases, folder / "scores.png")
        draw_layers(cases, folder / "layers.png")
    if MEASURED.value:
        command = command_line(
            "//training:quantize_report",
            files=FLAGS[:3],
            places=("output", "measured"),
        )
        update(measured_here(TABLE, measured_rows(cases), command=command), Path(MEASURED.value))


def _case(model: str, quantized: str, recording: str, name: str) -> Case:
    source, small = load_checkpoint(Path(model)), load_checkpoint(Path(quantized))
    session = open_session(Path(recording), source.model.config.grid, series=SERIES.value)
    comparison = compare(
        source, small, session, device=DEVICE.value, precision=cast(Precision, PRECISION.value)
    )
    return Case(name=name, source=source, small=small, comparison=comparison)


if __name__ == "__main__":
    cli.run(main)
