"""Weights in 8-bit integers: scales an output, and weights that no product can take."""

import pytest
import torch

from kernels.int8_weight import MOST_DEPTH, Int8Weight, check_weight, quantize_weight


def _weight() -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(4, 16) * torch.tensor([[1e-3], [1.0], [30.0], [2.0]])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_are_scaled_an_output(dtype: torch.dtype) -> None:
    weight = _weight().to(dtype).requires_grad_()
    q, scale = quantize_weight(weight)
    torch.testing.assert_close(scale, weight.detach().float().abs().amax(1) / 127)
    assert (q.abs().amax(1) == 127).all()
    error = (q * scale[:, None] - weight.detach().float()).abs()
    assert (error <= scale[:, None] * 0.5001).all()
    check_weight(Int8Weight(q, scale), 16)


def test_the_widest_sum_fits() -> None:
    assert MOST_DEPTH * 127**2 < 2**31 <= (MOST_DEPTH + 1) * 127**2


def test_weights_that_no_product_can_take_are_errors() -> None:
    weight = quantize_weight(_weight())
    q, scale = weight

    def fails(match: str, given: Int8Weight, depth: int = 16) -> None:
        with pytest.raises(ValueError, match=match):
            check_weight(given, depth)

    fails("int16", weight._replace(q_NK=q.short()))
    fails("float64", weight._replace(scale_N=scale.double()))
    fails("rows of 17", weight, 17)
    fails("rows of 16", weight._replace(scale_N=scale[:3]))
    fails("contiguous", weight._replace(q_NK=q.t().contiguous().t()))
    deep = torch.zeros(1, MOST_DEPTH + 1, dtype=torch.int8)
    fails("overflow", Int8Weight(deep, scale[:1]), MOST_DEPTH + 1)
