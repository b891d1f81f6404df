"""Layers with one large weight, each of which has a later one's fetched while it runs."""

from collections.abc import Sequence

from torch import Tensor, nn

# Layers between asking for a weight and its use: memory takes some microseconds, as a layer of few
# rows does, and what is asked for too early may be gone again.
_LAYERS_AHEAD = 2


class WeightLayer(nn.Module):
    """A layer with a weight.

    Attributes:
        ahead: the weight of a later layer, for kernels to fetch into the cache; None for none.
    """

    ahead: Tensor | None = None

    @property
    def operand(self) -> Tensor:
        """The weight as kernels read it, without gradients."""
        raise NotImplementedError

    def train(self, mode: bool = True) -> "WeightLayer":
        """As for any module; what `fetch_ahead` has said is forgotten."""
        self.ahead = None
        return super().train(mode)


def fetch_ahead(layers: Sequence[WeightLayer]) -> None:
    """Has each layer fetch the weight of one behind it, once weights and device are final.

    Args:
        layers: in the order of their use; the first ones follow the last, in the next call.
    """
    for n, layer in enumerate(layers):
        layer.ahead = layers[(n + _LAYERS_AHEAD) % len(layers)].operand
