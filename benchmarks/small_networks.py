"""Small adversarially trained classifiers of CIFAR-10, from the files published with a verifier.

The shapes in a file say what the network is. Two families: convolutions of 4 x 4 with stride 2
before two linear layers, and residual networks without normalisation layers.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

MEAN = (0.4914, 0.4822, 0.4465)
DEVIATIONS = {"plain": (0.2023, 0.1994, 0.2010), "residual": (0.2471, 0.2435, 0.2616)}
"""Of the channels, by which each family was trained to be normalised."""


class Normalised(nn.Module):
    """A network on [0, 1] images.

    Args:
        network: From normalised images to logits.
        deviation: Of the channels.
    """

    def __init__(self, network: nn.Module, deviation: tuple[float, ...]) -> None:
        """Keep the constants as buffers."""
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None])
        self.register_buffer("deviation", torch.tensor(deviation)[:, None, None])

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [B, classes] of images [B, 3, 32, 32] in [0, 1]."""
        logits: Tensor = self.network((images - self.mean) / self.deviation)
        return logits


class Block(nn.Module):
    """Two convolutions of 3 x 3 around a shortcut, which is one of 1 x 1 where the size changes."""

    def __init__(self, into: int, out: int, stride: int) -> None:
        """Lay out the convolutions."""
        super().__init__()
        self.conv1 = nn.Conv2d(into, out, 3, stride, 1)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1)
        self.shortcut = nn.Sequential()
        if stride > 1 or into != out:
            self.shortcut.append(nn.Conv2d(into, out, 1, stride))

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, out, H / stride, W / stride]."""
        inner = self.conv2(functional.relu(self.conv1(x)))
        return functional.relu(inner + self.shortcut(x))


class Residual(nn.Module):
    """A convolution of stride 2, groups of two blocks that begin with one, and two layers."""

    def __init__(self, width: int, groups: int, features: int) -> None:
        """Lay out the blocks."""
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, 2, 1)
        self.groups = [f"layer{k + 1}" for k in range(groups)]
        for k, name in enumerate(self.groups):
            first = Block(width if k == 0 else 2 * width, 2 * width, 2)
            self.add_module(name, nn.Sequential(first, Block(2 * width, 2 * width, 1)))
        self.linear1, self.linear2 = nn.Linear(features, 100), nn.Linear(100, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        x = functional.relu(self.conv1(x))
        for name in self.groups:
            x = self.get_submodule(name)(x)
        logits: Tensor = self.linear2(functional.relu(self.linear1(x.flatten(1))))
        return logits


def small_network(path: Path) -> nn.Module:
    """Load a network, ready to classify images in [0, 1].

    Args:
        path: A file of weights: names to tensors, also under `state_dict` or in a list.
    """
    loaded = torch.load(path, weights_only=True, map_location="cpu")
    if isinstance(loaded, dict):
        loaded = loaded.get("state_dict", loaded)
    weights: Mapping[str, Tensor] = loaded[0] if isinstance(loaded, list) else loaded
    family = "residual" if "conv1.weight" in weights else "plain"
    network = _residual(weights) if family == "residual" else _plain(weights)
    network.load_state_dict(weights)
    return Normalised(network, DEVIATIONS[family]).eval().requires_grad_(False)


def _residual(weights: Mapping[str, Tensor]) -> nn.Module:
    groups = len({name.split(".")[0] for name in weights if name.startswith("layer")})
    width, features = len(weights["conv1.weight"]), weights["linear1.weight"].shape[1]
    return Residual(width, groups, features)


def _plain(weights: Mapping[str, Tensor]) -> nn.Module:
    layers: list[nn.Module] = []
    for weight in (each for name, each in weights.items() if name.endswith("weight")):
        out, into = weight.shape[:2]
        if weight.ndim == 2 and not any(isinstance(each, nn.Flatten) for each in layers):
            layers.append(nn.Flatten())
        layer = nn.Conv2d(into, out, 4, 2) if weight.ndim == 4 else nn.Linear(into, out)
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1])
