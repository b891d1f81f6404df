"""A readout that mixes the movements a subject makes.

Reaches of a task are of a few kinds, such as the eight targets of a centre-out task. The mean
velocity given the spikes is then a mixture: a probability for each kind, and what the hand would do
if it were that kind. A linear readout has to shrink between kinds it cannot tell apart; this one
need not. What the kinds are, training finds in the recorded velocities.

Source: mixtures of experts, Jacobs et al. 1991, doi:10.1162/neco.1991.3.1.79; mixtures of
trajectory models in motor decoding, Yu et al. 2007, doi:10.1152/jn.00482.2006.

Shapes: N movements.
"""

from torch import Tensor


def output_width(movements: int) -> int:
    """Outputs that a mixture of so many movements needs: 2 velocities and a logit each."""
    return 3 * movements if movements > 1 else 2


def movement_logits(outputs: Tensor, movements: int) -> Tensor:
    """Logits (..., N) of the movements from a readout's outputs (..., 3 N)."""
    return outputs[..., :movements]


def mixed_velocity(outputs: Tensor, movements: int) -> Tensor:
    """Standardised velocity (..., 2) from a readout's outputs (..., output_width)."""
    outputs = outputs.float()
    if movements == 1:
        return outputs
    share_N = movement_logits(outputs, movements).softmax(-1)
    velocity_N2 = outputs[..., movements:].unflatten(-1, (movements, 2))
    velocity: Tensor = (share_N[..., None] * velocity_N2).sum(-2)
    return velocity
