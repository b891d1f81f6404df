"""Rotary embedding: only differences of position matter, at any session time."""

import pytest
import torch

from kernels.rotary import rotary_phases, rotate


@pytest.mark.parametrize("origin", [0, 1_440_000, 2**40])
def test_scores_depend_on_the_difference_alone(origin: int) -> None:
    torch.manual_seed(0)
    q, k = torch.randn(2, 1, 1, 16)

    def score(at_q: int, at_k: int) -> float:
        turned = [
            rotate(x, rotary_phases(torch.tensor([at]), 16, min_period=4.0, max_period=500.0))
            for x, at in ((q, at_q), (k, at_k))
        ]
        return float((turned[0] * turned[1]).sum())

    assert score(origin + 37, origin + 5) == pytest.approx(
        score(32, 0), abs=2e-3 * (origin > 2**30) + 2e-5
    )
    assert abs(score(32, 0) - score(31, 0)) > 1e-3


def test_norm_is_kept() -> None:
    x = torch.randn(5, 2, 8)
    turned = rotate(x, rotary_phases(torch.arange(5), 8, min_period=4.0, max_period=64.0))
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))
