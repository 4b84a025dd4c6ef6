"""What an encoder of noisy images is: features, a projection head to learn them, a linear head.

An encoder maps a scaled noisy state and its noise level to features E. While it is pre-trained, a
projection head maps the features to P; afterwards a linear head maps them to logits. Both heads are
there only where the configuration says so, so that a file holds what its use needs.

Source: [Lei2025], as its released code builds it.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

PROJECTION, HEAD = "projection_head", "linear_head"
"""Names of the two heads in the state of a network."""
_HEAD_STD = 2e-5


class ProjectionHead(nn.Sequential):
    """Three linear layers without offsets, with batch normalisation and ReLU between them.

    Args:
        width: Numbers of the features.
        hidden: Width of the two layers between.
        out: Numbers of the projection.
    """

    def __init__(self, width: int, hidden: int, out: int) -> None:
        """Create the layers."""
        super().__init__(
            nn.Linear(width, hidden, bias=False),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden, bias=False),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Linear(hidden, out, bias=False),
        )


class RepresentationNetwork(nn.Module):
    """Encode a noisy image. Subclasses write `encode`, `layers` and `layer_of`.

    Args:
        width: Numbers of the features.
        hidden: Width of the projection head, 0 for none.
        projection: Numbers that it returns.
        classes: Answers of the linear head, 0 for none.
        normed: Whether the linear head reads the normalised features.

    Attributes:
        width: Numbers of the features.
    """

    def __init__(
        self, *, width: int, hidden: int, projection: int, classes: int, normed: bool
    ) -> None:
        """Create norm and heads."""
        super().__init__()
        self.width, self.normed = width, normed
        self.norm = nn.LayerNorm(width)
        if hidden:
            self.projection_head = ProjectionHead(width, hidden, projection)
        if classes:
            self.linear_head = nn.Linear(width, classes)

    @property
    def layers(self) -> int:
        """Number of the last layer, which the norm and the heads make up; the first is 0."""
        raise TypeError(f"{type(self).__name__} is abstract: write layers")

    def layer_of(self, name: str) -> int:
        """Return which layer a parameter belongs to, 0 at the image to `layers` at the answer."""
        raise TypeError(f"{type(self).__name__} is abstract: write layer_of()")

    def encode(self, x: Tensor, noise: Tensor) -> Tensor:
        """Return what the norm is applied to, [B, width]; see `forward` for the arguments."""
        raise TypeError(f"{type(self).__name__} is abstract: write encode()")

    def features(self, x: Tensor, noise: Tensor) -> Tensor:
        """Return the encoder's output E, the normalised features, [B, width]."""
        normed: Tensor = self.norm(self.encode(x, noise))
        return normed

    def project(self, features: Tensor) -> Tensor:
        """Return P, [B, projection], of features; while training, rows of a call are not alone."""
        projected: Tensor = self.projection_head(features)
        return projected

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        """Encode, and classify where there is a linear head.

        Args:
            x: Noisy states [B, C, H, W], scaled to about unit variance.
            noise: ln(t) / 4 of the noise levels t in model units, [B].

        Returns:
            Logits [B, classes], or the encoder's output [B, width] of a network without classes.
        """
        if not hasattr(self, HEAD):
            return self.features(x, noise)
        encoded = self.encode(x, noise)
        logits: Tensor = self.linear_head(self.norm(encoded) if self.normed else encoded)
        return logits


def initialise_representation(network: RepresentationNetwork, generator: torch.Generator) -> None:
    """Draw the heads: PyTorch's own bounds for the projection, almost zero for the classes.

    Args:
        network: Changed in place.
        generator: Where the draws come from.
    """
    if hasattr(network, PROJECTION):
        draw_default(network.projection_head, generator)
    if hasattr(network, HEAD):
        nn.init.trunc_normal_(network.linear_head.weight, std=_HEAD_STD, generator=generator)
        nn.init.zeros_(network.linear_head.bias)


def draw_default(module: nn.Module, generator: torch.Generator) -> None:
    """Draw linear layers and convolutions within PyTorch's own bounds, +- 1 / sqrt(fan-in).

    Args:
        module: Changed in place, in the order of its modules.
        generator: Where the draws come from.
    """
    for part in module.modules():
        if isinstance(part, nn.Conv2d | nn.Linear):
            bound = 1.0 / math.sqrt(part.weight[0].numel())
            nn.init.uniform_(part.weight, -bound, bound, generator=generator)
            if part.bias is not None:
                nn.init.uniform_(part.bias, -bound, bound, generator=generator)


def carry_over(state: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Return a state for a network whose heads are others: it keeps those that are new.

    Args:
        state: Of the network that is started from.
        network: With other heads; those that `state` lacks stay as they are.

    Example:
        >>> own = nn.ModuleDict({"linear_head": nn.Linear(1, 1, bias=False)})
        >>> sorted(carry_over({"projection_head.0.weight": torch.zeros(1)}, own))
        ['linear_head.weight']
    """
    own: dict[str, Any] = network.state_dict()

    def is_head(name: str) -> bool:
        return name.partition(".")[0] in (PROJECTION, HEAD)

    kept = {name: value for name, value in state.items() if name in own or not is_head(name)}
    return {name: value for name, value in own.items() if is_head(name)} | kept
