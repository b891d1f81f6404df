"""The mixture of movements: by hand, and its limits."""

import torch

from cortex.movements import mixed_velocity, velocity_if


def test_velocities_are_weighted_by_probability() -> None:
    logits = torch.tensor([[1.0, 3.0]]).log()
    velocity = torch.tensor([[[[4.0, -4.0], [8.0, 0.0]]]])
    torch.testing.assert_close(mixed_velocity(velocity, logits), torch.tensor([[[7.0, -1.0]]]))


def test_a_certain_movement_stands_alone() -> None:
    velocity = torch.randn(5, 4, 3, 2)
    logits = torch.randn(5, 3)
    logits[:, 1] = 1e4
    torch.testing.assert_close(mixed_velocity(velocity, logits), velocity[:, :, 1])


def test_each_sample_has_its_own_kind() -> None:
    velocity = torch.randn(2, 5, 4, 3, 2)
    chosen = velocity_if(velocity, torch.tensor([2, 0]))
    assert torch.equal(chosen, torch.stack((velocity[0, :, :, 2], velocity[1, :, :, 0])))
