"""Which form of an operator runs, and why."""

import pytest
import torch

from kernels.dispatch import Form, forced, form_for


def test_a_cpu_runs_plain_pytorch() -> None:
    with torch.no_grad():
        assert form_for(torch.zeros(1)) == "torch"


@pytest.mark.parametrize("form", ["torch", "triton"])
def test_a_form_can_be_forced(form: Form) -> None:
    with forced("torch"):
        with forced(form):
            assert form_for(torch.zeros(1), wins=False) == form
        assert form_for(torch.zeros(1)) == "torch"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_runs_kernels_where_they_win_and_nothing_learns() -> None:
    x = torch.zeros(1, device="cuda")
    with torch.no_grad():
        assert form_for(x) == "triton"
        assert form_for(x, wins=False) == "torch"
    assert form_for(x) == "torch"
