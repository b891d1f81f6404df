"""Of several kinds of movement, the one that a sample is known to be."""

import torch

from cortex.movements import velocity_if


def test_each_sample_has_its_own_kind() -> None:
    velocity = torch.randn(2, 5, 4, 3, 2)
    chosen = velocity_if(velocity, torch.tensor([2, 0]))
    assert torch.equal(chosen, torch.stack((velocity[0, :, :, 2], velocity[1, :, :, 0])))
