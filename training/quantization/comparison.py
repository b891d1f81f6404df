"""Streamed velocity R2 of a decoder in float, in bfloat16 and in INT8, on its held-out trials."""

from dataclasses import dataclass, replace

from cortex.checkpoint import Checkpoint
from cortex.errors import InputError
from cortex.precision import Precision
from cortex.quantized_model import with_float_activations
from cortex.session import Session
from training.evaluation.evaluation import held_out_split
from training.evaluation.figures import Difference, Figure, make_difference, make_figure
from training.evaluation.metrics import require_points
from training.evaluation.scoring import true_velocity
from training.evaluation.streamed_decoding import stream_trials


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One decoder's forms on one recording.

    Attributes:
        figures: of fp32, bf16, int8_weights (weights in INT8 only) and int8 (inputs, too).
        losses: fp32's R2 less that of each other form, in their order.
    """

    figures: tuple[Figure, ...]
    losses: tuple[Difference, ...]


def compare(
    source: Checkpoint,
    small: Checkpoint,
    session: Session,
    *,
    device: str = "cpu",
    precision: Precision = "bf16",
) -> Comparison:
    """Streams the held-out trials through every form.

    Args:
        source: the float model.
        small: the INT8 model made from it.
        session: a recording that it was trained on.
        device: where to decode.
        precision: of what the INT8 forms compute between their layers.

    Raises:
        InputError: one was not made from the other, the session is not the model's, or the
            held-out trials hold fewer than two labels.
    """
    made_from = small.card.get("quantization", {}).get("from")
    if not small.model.quantization or made_from != source.digest:
        raise InputError(
            f"the INT8 model was made from {(made_from or 'nothing known')[:12]}, expected "
            f"{source.digest[:12]}, the float model beside it"
        )
    _, test = held_out_split(source, session)
    true = true_velocity(session, test)
    require_points(session.session_id, len(test), sum(map(len, true)))
    weights_only = replace(small, model=with_float_activations(small.model))
    inputs = small.model.quantization.activations
    forms: list[tuple[str, str, Checkpoint, Precision]] = [
        ("fp32", "float32", source, "fp32"),
        ("bf16", "bfloat16", source, "bf16"),
        ("int8_weights", f"INT8 weights, {precision} inputs", weights_only, precision),
        ("int8", f"INT8 weights, {inputs} INT8 inputs, {precision} between", small, precision),
    ]
    decoded = [stream_trials(form, session, test, device, p) for _, _, form, p in forms]
    figures = [
        make_figure(key, name, true, velocity)
        for (key, name, _, _), velocity in zip(forms, decoded, strict=True)
    ]
    return Comparison(
        figures=tuple(figures),
        losses=tuple(
            make_difference(figures[0], figure, true, decoded[0], velocity)
            for figure, velocity in zip(figures[1:], decoded[1:], strict=True)
        ),
    )
