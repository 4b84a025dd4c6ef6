"""Class-conditional networks in training, and the unconditional ones that they become.

A network with class tokens adds the token of an image's class to the embedding of the noise level.
Without labels it uses the mean of its tokens. An unconditional network is made from it by putting
that mean in the place of the table, as one learnable token, and training on. The other way round, a
network without classes gets a table of zeros, which changes nothing before it is trained.

Source: [Li2024], appendix C.
"""

from collections.abc import Mapping

from torch import Tensor, nn

from advpure.base.errors import BadInput

TOKENS = "tokens.weight"
"""Name of the table in the state of a network."""


class Labelled(nn.Module):
    """A network that receives the labels of a batch.

    Args:
        network: Called with images, noise levels and labels.
        labels: Classes, int64 [B].
    """

    def __init__(self, network: nn.Module, labels: Tensor) -> None:
        """Wrap the network."""
        super().__init__()
        self.network, self.labels = network, labels

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        """Call the network."""
        out: Tensor = self.network(x, noise, self.labels)
        return out


def with_labels(network: nn.Module, labels: Tensor) -> nn.Module:
    """Tell a class-conditional network the labels; return any other network as it is.

    Args:
        network: Possibly wrapped.
        labels: Classes, int64 [B].

    Example:
        >>> from advpure.networks import build_network
        >>> shape = {"image_size": 8, "image_channels": 1, "channels": [8]}
        >>> [type(with_labels(build_network("unet", {**shape, "classes": count}), None)).__name__
        ...  for count in (0, 1, 10)]
        ['UNet', 'UNet', 'Labelled']
    """
    table = next((value for name, value in network.named_parameters() if name.endswith(TOKENS)), ())
    return Labelled(network, labels) if len(table) > 1 else network


def with_tokens(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give a state without class tokens those of zero that a class-conditional network wants.

    Example:
        >>> import torch
        >>> with_tokens({}, {"tokens.weight": torch.ones(2, 1)})["tokens.weight"].tolist()
        [[0.0], [0.0]]
    """
    added = {TOKENS: wanted[TOKENS].new_zeros(wanted[TOKENS].shape)} if TOKENS in wanted else {}
    return {**added, **state}


def average_tokens(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Replace the class tokens of a state by their mean, [1, width].

    Raises:
        BadInput: for a state without class tokens.

    Example:
        >>> import torch
        >>> average_tokens({"tokens.weight": torch.tensor([[1.0], [3.0]])})["tokens.weight"]
        tensor([[2.]])
    """
    if TOKENS not in state:
        raise BadInput("teacher", "has no class tokens", "start from a class-conditional network")
    return {
        name: value.mean(0, keepdim=True) if name == TOKENS else value
        for name, value in state.items()
    }
