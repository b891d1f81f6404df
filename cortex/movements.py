"""A readout that mixes the movements a subject makes.

Reaches of a task are of a few kinds, such as the eight targets of a centre-out task. The mean
velocity given the spikes is then a mixture: a probability for each kind, and what the hand would do
if it were that kind. A linear readout has to shrink between kinds it cannot tell apart; this one
need not. What the kinds are, training finds in the recorded velocities; which one it is,
cortex.evidence tells.

Source: mixtures of experts, Jacobs et al. 1991, doi:10.1162/neco.1991.3.1.79; mixtures of
trajectory models in motor decoding, Yu et al. 2007, doi:10.1152/jn.00482.2006.

Shapes: B samples, S steps, Q queries a step, N kinds of movement.
"""

from torch import Tensor


def velocity_if(velocity_BSQN2: Tensor, movement_B: Tensor) -> Tensor:
    """Velocity (B, S, Q, 2) of one kind of movement, its number given, for each sample."""
    index = movement_B.view(-1, *(1,) * (velocity_BSQN2.dim() - 1))
    return velocity_BSQN2.take_along_dim(index, -2).squeeze(-2)
