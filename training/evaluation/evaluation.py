"""The whole evaluation of a checkpoint on a recording: every protocol, one result."""

from collections.abc import Callable
from dataclasses import dataclass

from cortex.checkpoint import Checkpoint
from cortex.errors import InputError
from cortex.quantized_model import n_weights
from cortex.session import Session
from training.evaluation import benchmark, onset
from training.evaluation.decoders import make_decoders
from training.evaluation.figures import ProtocolResult
from training.evaluation.oracle_shares import OracleShares, oracle_shares
from training.evaluation.per_bin import PerBin, decode_per_bin, score_per_bin
from training.fitting.provenance import session_digest
from training.oracle.ceiling import Ceiling
from training.samples.splits import split_session


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What a decoder reached on held-out trials.

    Attributes:
        session_id: name of the recording.
        session_digest: of all that a model learns from in it.
        units: in the recording.
        trained_on: how many trials the decoder, the Wiener filter and the ridges learnt from.
        held_out_trials: trials that are scored.
        model: name of the model.
        model_digest: of its weights.
        parameters: numbers in it.
        protocols: each one's figures; "per_bin" first.
        streaming_error: largest difference between Cortex's velocities streamed and offline, over
            the largest.
        oracle: shares of the oracle; None where none was given.
    """

    session_id: str
    session_digest: str
    units: int
    trained_on: int
    held_out_trials: tuple[int, ...]
    model: str
    model_digest: str
    parameters: int
    protocols: tuple[ProtocolResult, ...]
    streaming_error: float
    oracle: OracleShares | None


def held_out_split(checkpoint: Checkpoint, session: Session) -> tuple[list[int], list[int]]:
    """Training and held-out trials, as the model's card has them.

    Raises:
        InputError: the model was not trained on the recording, or its card names no split.
    """
    card = checkpoint.card
    if session_digest(session) not in [s["digest"] for s in card.get("sessions", ())]:
        raise InputError(
            f"session {session.session_id!r}: not a recording that the model was trained on, so "
            "its held-out trials are unknown"
        )
    if "split_seed" not in card:
        raise InputError("the model's card.json has no split_seed, expected that of its training")
    return split_session(session, card["split_seed"])


def evaluate(
    checkpoint: Checkpoint,
    session: Session,
    *,
    lag_s: float = 0.1,
    ceiling: Ceiling | None = None,
    device: str = "cpu",
) -> tuple[Evaluation, PerBin]:
    """Scores a checkpoint on the trials that its card holds out.

    A protocol that the recording does not allow says so in its result.

    Args:
        checkpoint: the decoder.
        session: one of the recordings that it was trained on.
        lag_s: of the benchmark's protocol, as in `benchmark.score_benchmark`.
        ceiling: the oracle's score on the session.
        device: where Cortex runs.

    Returns:
        The figures, and the velocities of the per-bin protocol, for pictures.

    Raises:
        InputError: the session is not the model's, the device is not there, or the per-bin
            protocol finds fewer than two labels.
    """
    train, test = held_out_split(checkpoint, session)
    decoders = make_decoders(checkpoint, session, train, device=device)
    decoded = decode_per_bin(session, test, decoders)
    evaluation = Evaluation(
        session_id=session.session_id,
        session_digest=session_digest(session),
        units=len(session.unit_ids),
        trained_on=len(train),
        held_out_trials=tuple(test),
        model=checkpoint.name,
        model_digest=checkpoint.digest,
        parameters=n_weights(checkpoint.model),
        protocols=(
            score_per_bin(decoded, decoders.name),
            _if_possible(
                benchmark.NAME,
                lambda: benchmark.score_benchmark(session, train, test, decoders, lag_s=lag_s),
            ),
            _if_possible(onset.NAME, lambda: onset.score_onset(session, train, test, decoders)),
        ),
        streaming_error=decoded.streaming_error,
        oracle=oracle_shares(ceiling, decoded) if ceiling else None,
    )
    return evaluation, decoded


def _if_possible(protocol: str, score: Callable[[], ProtocolResult]) -> ProtocolResult:
    """The result, or the reason why the recording has none. The decoders fit it: they ran."""
    try:
        return score()
    except InputError as error:
        return ProtocolResult(protocol=protocol, not_run=str(error))
