"""What quantising did, for readers."""

from cortex.checkpoint import Checkpoint
from training.quantization.quantize_checkpoint import Quantized, weights_mb


def summary(source: Checkpoint, made: Quantized) -> str:
    """Sizes, each layer's error, and the layers that stay in bfloat16."""
    fp32 = weights_mb(source.model)
    small = weights_mb(made.checkpoint.model)
    kept = set(made.checkpoint.card["quantization"]["kept_in_bf16"])
    lines = [
        f"weights: fp32 {fp32:.2f} MB, bf16 {fp32 / 2:.2f} MB, INT8 {small:.2f} MB "
        f"({100 * (1 - small / fp32):.0f} % less than fp32)",
        f"{'layer':<26}{'R2 lost alone':>14}",
    ]
    for error in made.errors:
        why = "" if error.layer not in kept else "  kept in bf16"
        if why and error.layer not in made.sensitive:
            why += ", as asked"
        lines.append(f"{error.layer:<26}{error.r2_lost:>14.2e}{why}")
    return "\n".join([*lines, f"{'all in int8 together':<26}{made.r2_lost:>14.2e}"])
