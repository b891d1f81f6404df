"""Random search: the recipe first, no repeats, fixed by its seed."""

from pathlib import Path

import pytest

from cortex.errors import InputError
from training.comparison.contestants import KINDS, Entry, contestants
from training.comparison.gru_space import gru_space
from training.comparison.wiener_candidate import wiener_space
from training.samples.session_for_tests import make_session


def test_draws_begin_with_the_recipe_and_never_repeat() -> None:
    space = gru_space(make_session())
    drawn = space.draw(40, seed=3)
    assert drawn[0] == space.base
    assert len(drawn) == 40
    assert not any(a == b for i, a in enumerate(drawn) for b in drawn[:i])
    assert drawn == space.draw(40, seed=3)
    assert drawn[:10] != space.draw(10, seed=4)
    assert len({candidate.fit.augmentation.unit_dropout for candidate in drawn}) == 3
    assert {candidate.shape["layers"] for candidate in drawn} == {1, 2, 3}


def test_a_small_space_is_tried_whole() -> None:
    space = wiener_space()
    drawn = space.draw(99, seed=0)
    assert sorted(c.config.history_s for c in drawn) == sorted(space.choices["config.history_s"])


def test_every_kind_gets_the_budget_the_seed_and_the_cap(tmp_path: Path) -> None:
    session = make_session()
    entry = Entry(budget=5, seed=7, max_steps=11)
    entered = contestants([session], entry, tmp_path)
    assert [c.kind for c in entered] == list(KINDS)
    assert [len(c.candidates) for c in entered] == [5] * len(KINDS)
    fits = [
        settings["fit"]
        for c in entered
        for settings in (candidate.settings() for candidate in c.candidates)
        if "fit" in settings
    ]
    assert len(fits) == 15
    assert {fit["seed"] for fit in fits} == {7}
    assert {fit["steps"] for fit in fits} == {11}


def test_one_cortex_learns_from_all_sessions_where_asked(tmp_path: Path) -> None:
    sessions = [make_session(), make_session(seed=1)]
    entry = Entry(kinds=("wiener", "cortex"), budget=1, joint=True)
    assert [(c.kind, c.sessions) for c in contestants(sessions, entry, tmp_path)] == [
        ("wiener", (0,)),
        ("wiener", (1,)),
        ("cortex", (0, 1)),
    ]


def test_an_unknown_kind_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="kinds of decoders are lstm, expected some of cortex"):
        contestants([make_session()], Entry(kinds=("lstm",)), tmp_path)
