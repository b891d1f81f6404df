"""Makes an INT8 checkpoint from a float one, for the server to load like any other.

bazel run //training:quantize -- --model=decoder --session=recording.nwb --output=decoder_int8

Weights get a scale an output. Inputs of layers are rounded with a step a row at run time, or with
--activations=static in calibrated steps. Calibration uses trials that the model was trained on. One
layer after the other is tried alone in int8; those whose errors would cost more than --most_r2_lost
together stay in bfloat16, and the model card names them.
"""

from pathlib import Path
from typing import Literal, cast

from absl import flags
from tqdm import tqdm

from cortex import cli
from cortex.checkpoint import load_checkpoint, save_checkpoint
from cortex.data.open_session import open_session
from cortex.quantized_model import float_layers
from training.quantization.quantize_checkpoint import QuantizeConfig, quantize_checkpoint
from training.quantization.summary import summary

MODEL = flags.DEFINE_string("model", None, "float checkpoint directory", required=True)
SESSION = flags.DEFINE_multi_string(
    "session", None, "recording that it was trained on: .nwb or binned .npz", required=True
)
SERIES = flags.DEFINE_string("series", None, "the recorded series, where training had --series")
OUTPUT = flags.DEFINE_string("output", None, "checkpoint directory to write", required=True)
ACTIVATIONS = flags.DEFINE_enum(
    "activations", QuantizeConfig.activations, ["dynamic", "static"], "where inputs' steps are from"
)
PERCENTILE = flags.DEFINE_float(
    "percentile", QuantizeConfig.percentile, "of absolute inputs, that static steps reach", 1, 100
)
EMBEDDINGS = flags.DEFINE_enum(
    "embeddings", QuantizeConfig.embeddings, ["int8", "bf16"], "what tokens' tables are kept in"
)
MOST_R2_LOST = flags.DEFINE_float(
    "most_r2_lost", QuantizeConfig.most_r2_lost, "what layers in int8 may cost together", 0.0
)
KEEP_LAYERS = flags.DEFINE_list("keep_layers", [], "layers that stay in bfloat16 in any case")
TRIALS = flags.DEFINE_integer(
    "calibration_trials", QuantizeConfig.trials, "trials of each session to calibrate on", 2
)
SEED = flags.DEFINE_integer("seed", QuantizeConfig.seed, "seed of the choice of these trials")
DEVICE = flags.DEFINE_string("device", "cpu", "where to calibrate: cpu or cuda")


def main(argv: list[str]) -> None:
    """Quantises, prints what it did, and writes the directory."""
    cli.no_arguments(argv)
    source = load_checkpoint(Path(MODEL.value))
    source.require_float()
    grid = source.model.config.grid
    sessions = [open_session(Path(path), grid, series=SERIES.value) for path in SESSION.value]
    config = QuantizeConfig(
        activations=cast(Literal["dynamic", "static"], ACTIVATIONS.value),
        percentile=PERCENTILE.value,
        embeddings=cast(Literal["int8", "bf16"], EMBEDDINGS.value),
        most_r2_lost=MOST_R2_LOST.value,
        keep_layers=tuple(KEEP_LAYERS.value),
        trials=TRIALS.value,
        seed=SEED.value,
    )
    with tqdm(total=len(float_layers(source.model)), desc="sensitivity", unit="layer") as bar:
        made = quantize_checkpoint(
            source, sessions, config, device=DEVICE.value, on_layer=lambda _: bar.update()
        )
    digest = save_checkpoint(made.checkpoint, Path(OUTPUT.value))
    print(summary(source, made))
    print(f"wrote {OUTPUT.value}, model {source.name}, weights {digest[:12]}")


if __name__ == "__main__":
    cli.run(main)
