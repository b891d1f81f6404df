"""Adaptation: what moves in which stage, what it gains, what it says of itself and refuses."""

from dataclasses import replace

import pytest
import torch

from cortex.checkpoint import Checkpoint
from cortex.errors import InputError
from cortex.time_grid import TimeGrid
from cortex.vocabulary import unit_names
from training.adaptation.adapt_decoder import adapt_decoder
from training.adaptation.adaptation_config import AdaptationConfig, adaptation_recipe
from training.adaptation.first_trials import first_trials
from training.adaptation.keep_source import with_units_of
from training.adaptation.planted_for_tests import HELD_OUT, NEW_TRIALS, SOURCE_TRIALS, planted
from training.adaptation.source import Source
from training.adaptation.unit_matching import known_units
from training.adaptation.unseen import require_unseen
from training.evaluation.scoring import score
from training.fitting.fit_config import FitConfig
from training.fitting.initialise import UNIT_EMBEDDING
from training.fitting.provenance import session_digest
from training.fitting.train_config import TrainConfig
from training.fitting.train_decoder import TrainingSession, train_decoder

FEW = NEW_TRIALS[:3]


def _config(units: int = 2, whole: int | None = 2, **stage: object) -> AdaptationConfig:
    base = adaptation_recipe(planted().new, len(FEW))
    assert base.whole
    return replace(
        base,
        dropout=0.0,
        units=replace(base.units, steps=units, batch_trials=4, **stage),  # type: ignore[arg-type]
        whole=replace(base.whole, steps=whole, batch_trials=4) if whole else None,
    )


def _r2(checkpoint: Checkpoint) -> float:
    return score(checkpoint, planted().new, NEW_TRIALS, HELD_OUT).r2


def _few() -> TrainingSession:
    return TrainingSession(session=planted().new, trials=FEW)


def test_the_first_stage_moves_every_new_embedding_and_nothing_else() -> None:
    source = planted().source
    still = adapt_decoder(source, _few(), _config(whole=None, learning_rate=0.0))
    config = _config(units=5, whole=None, learning_rate=0.01, weight_decay=0.5)
    moved = adapt_decoder(source, _few(), config)
    before, after = still.model.state_dict(), moved.model.state_dict()
    buffers = {"velocity_mean", "velocity_scale"}
    for name in set(before) - {UNIT_EMBEDDING} - buffers:
        assert torch.equal(after[name], source.model.state_dict()[name]), name
    assert (before[UNIT_EMBEDDING] != after[UNIT_EMBEDDING]).any(1).all()


def test_the_second_stage_moves_the_rest() -> None:
    source = planted().source.model.state_dict()
    adapted = adapt_decoder(planted().source, _few(), _config()).model.state_dict()
    assert not torch.equal(adapted["cross.kv.weight"], source["cross.kv.weight"])


def test_few_trials_go_further_than_from_scratch() -> None:
    target = TrainingSession(session=planted().new, trials=NEW_TRIALS)
    config = _config(units=40, whole=None)
    adapted = adapt_decoder(planted().source, target, config)
    fit = FitConfig(steps=config.steps, batch_trials=4)
    scratch = train_decoder([target], TrainConfig(dropout=0.0, fit=fit))
    assert _r2(adapted) > max(_r2(scratch) + 0.3, 0.45)


def test_units_that_start_alike_decode_at_once() -> None:
    target = TrainingSession(session=planted().new, trials=NEW_TRIALS)
    still = _config(units=1, whole=None, learning_rate=0.0)
    alike = known_units(planted().source, [planted().first])
    assert _r2(adapt_decoder(planted().source, target, still, alike=alike)) > 0.4
    assert _r2(adapt_decoder(planted().source, target, still)) < 0.1


def test_the_scale_leans_on_the_source_when_trials_are_few() -> None:
    source, new = planted().source.model, planted().new
    faster = replace(new.behavior, velocity=new.behavior.velocity * 3)
    target = TrainingSession(session=replace(new, behavior=faster), trials=FEW)

    def scale(prior_trials: float) -> torch.Tensor:
        config = replace(_config(units=1, whole=None), prior_trials=prior_trials)
        return adapt_decoder(planted().source, target, config).model.velocity_scale

    own, some, most = scale(0.0), scale(3.0), scale(1e6)
    torch.testing.assert_close(most, source.velocity_scale, rtol=1e-3, atol=0)
    torch.testing.assert_close(some, ((own**2 + source.velocity_scale**2) / 2).sqrt())


def test_the_result_is_the_new_recordings_decoder_and_says_where_from() -> None:
    new, source = planted().new, planted().source
    adapted = adapt_decoder(source, _few(), _config(), card={"split_seed": 4})
    assert adapted.unit_ids == unit_names(new)
    assert adapted.model.config.n_units == len(new.unit_ids)
    card = adapted.card
    assert card["adapted_from"]["digest"] == "source"
    assert card["adapted_from"]["known_units"] == 0
    assert card["adapted_from"]["sessions"][0]["session_id"] == "waves"
    assert card["sessions"][0]["train_trials"] == list(FEW)
    assert (card["trials"], card["steps"], card["split_seed"]) == (3, 4, 4)


def test_known_units_keep_their_embeddings_and_skip_the_first_stage() -> None:
    source = planted().source
    target = TrainingSession(session=planted().first, trials=NEW_TRIALS)
    adapted = adapt_decoder(source, target, _config(whole=None))
    assert adapted.card["steps"] == 0
    before, after = (c.model.state_dict()[UNIT_EMBEDDING] for c in (source, adapted))
    assert torch.equal(before, after)


def test_the_sources_units_can_be_kept() -> None:
    source = planted().source
    adapted = adapt_decoder(source, _few(), _config())
    both = with_units_of(source, adapted)
    assert both.unit_ids == (*adapted.unit_ids, *source.unit_ids)
    embedding = both.model.state_dict()[UNIT_EMBEDDING]
    assert torch.equal(
        embedding[len(adapted.unit_ids) :], source.model.state_dict()[UNIT_EMBEDDING]
    )
    assert _r2(adapted) == pytest.approx(_r2(both), abs=1e-5)


def test_what_does_not_go_together_is_refused() -> None:
    source, new = planted().source, planted().new
    inches = replace(new, behavior=replace(new.behavior, unit="in/s"))
    with pytest.raises(InputError, match=r"in in/s, model 'nano' decodes mm/s"):
        adapt_decoder(source, TrainingSession(session=inches, trials=FEW), _config())
    coarse = replace(new, grid=TimeGrid(bin_us=20_000, bins_per_step=1))
    with pytest.raises(InputError, match="has 1 bins a step, model 'nano' 4"):
        adapt_decoder(source, TrainingSession(session=coarse, trials=FEW), _config())


@pytest.mark.parametrize("k", [0, -1, 11])
def test_a_k_that_is_not_there_is_refused(k: int) -> None:
    with pytest.raises(InputError, match=f"from {k} trials, expected 1 to 10"):
        first_trials(planted().new, NEW_TRIALS, k)
    assert first_trials(planted().new, NEW_TRIALS, None) == list(NEW_TRIALS)


def test_held_out_trials_are_ones_that_no_ancestor_has_seen() -> None:
    first, new = planted().first, planted().new
    adapted = adapt_decoder(planted().source, _few(), _config())
    for checkpoint in (planted().source, adapted):
        source = Source(checkpoint=checkpoint)
        require_unseen(source, first, NEW_TRIALS)
        with pytest.raises(InputError, match="learnt from 2 of the 4 held-out trials"):
            require_unseen(source, first, [48, 49, 50, 51])
    assert SOURCE_TRIALS[-1] == 49
    described = Source(checkpoint=planted().source, digests=(session_digest(new),))
    with pytest.raises(InputError, match="among the source's sessions"):
        require_unseen(described, new, HELD_OUT)
