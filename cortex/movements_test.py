"""The mixture of movements: by hand, and its limits."""

import torch

from cortex.movements import mixed_velocity, movement_logits, output_width


def test_one_movement_is_a_plain_readout() -> None:
    assert output_width(1) == 2
    outputs = torch.randn(3, 2)
    assert torch.equal(mixed_velocity(outputs, 1), outputs)


def test_velocities_are_weighted_by_probability() -> None:
    assert output_width(2) == 6
    logits = torch.tensor([0.0, 3.0]).log()
    logits[0] = 0.0
    outputs = torch.cat((logits, torch.tensor([4.0, -4.0, 8.0, 0.0])))
    assert torch.equal(movement_logits(outputs, 2), logits)
    torch.testing.assert_close(mixed_velocity(outputs, 2), torch.tensor([7.0, -1.0]))


def test_a_certain_movement_stands_alone() -> None:
    outputs = torch.randn(5, 9)
    outputs[:, 1] = 1e4
    torch.testing.assert_close(mixed_velocity(outputs, 3), outputs[:, 5:7])
