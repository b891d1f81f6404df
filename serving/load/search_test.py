import pytest

from serving.load.search import Trial, best, search


def _loads(limit: float, **options: float) -> list[float]:
    trials = search(lambda load: load, lambda load: load <= limit, **options)  # type: ignore[arg-type]
    assert [trial.held for trial in trials] == [trial.load <= limit for trial in trials]
    return [trial.load for trial in trials]


def test_up_by_the_factor_then_between() -> None:
    assert _loads(1000, first=100, bisections=2) == pytest.approx(
        [100, 200, 400, 800, 1600, 800 * 2**0.5, 800 * 2**0.25]
    )


def test_down_where_the_first_does_not_hold() -> None:
    assert _loads(30, first=100, bisections=1) == pytest.approx([100, 50, 25, 25 * 2**0.5])


def test_not_between_what_is_close_enough() -> None:
    assert _loads(1000, first=100, bisections=2, apart=1.5) == pytest.approx(
        [100, 200, 400, 800, 1600, 800 * 2**0.5]
    )


def test_no_further_than_the_most_and_the_least() -> None:
    assert _loads(1000, first=100, most=300, bisections=2) == [100, 200, 300]
    assert _loads(0, first=100, least=40, bisections=2) == [100, 50, 40]


def test_gives_up_after_so_many_steps() -> None:
    assert _loads(0, first=8, steps=3) == [8, 4, 2, 1]
    assert _loads(1e9, first=8, steps=3) == [8, 16, 32, 64]


def test_the_best_is_the_highest_that_held() -> None:
    found = best(search(lambda load: load * 10, lambda seen: seen < 5000, first=100, bisections=0))
    assert found == Trial(400, 4000, held=True)
    assert best(search(lambda load: load, lambda load: False, first=1)) is None
