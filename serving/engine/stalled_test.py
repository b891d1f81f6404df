import math

import pytest

from cortex.errors import InputError
from serving.engine.stalled import Freshness, StalledPolicy

POLICY = StalledPolicy(hold_s=0.1, decay_s=0.2)


@pytest.mark.parametrize(
    ("age_s", "state", "share"),
    [
        (0.0, Freshness.FRESH, 1.0),
        (0.04, Freshness.FRESH, 1.0),
        (0.05, Freshness.HELD, 1.0),
        (0.1, Freshness.HELD, 1.0),
        (0.15, Freshness.DECAYING, 0.75),
        (0.25, Freshness.DECAYING, 0.25),
        (0.31, Freshness.STALE, 0.0),
        (math.inf, Freshness.STALE, 0.0),
    ],
)
def test_held_then_falling_linearly_then_stale(
    age_s: float, state: Freshness, share: float
) -> None:
    latest = POLICY.at((8.0, -4.0), age_s=age_s, step_s=0.02)
    assert latest.state is state and latest.age_s == age_s
    assert latest.velocity == pytest.approx((8.0 * share, -4.0 * share))


def test_without_decay_it_is_stale_at_once() -> None:
    policy = StalledPolicy(hold_s=0.03, decay_s=0.0)
    assert policy.at((1.0, 1.0), age_s=0.03, step_s=0.02).state is Freshness.FRESH
    assert policy.at((1.0, 1.0), age_s=0.031, step_s=0.02).velocity == (0.0, 0.0)


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(InputError, match="decay_s is -1"):
        StalledPolicy(decay_s=-1)
    with pytest.raises(InputError, match="hold_s is nan"):
        StalledPolicy(hold_s=math.nan)
