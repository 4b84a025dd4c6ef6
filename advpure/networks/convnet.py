"""A plain convolutional classifier of images in [0, 1] that learns CIFAR-10 in minutes.

A fixed layer whitens small patches of the normalised image; three or more blocks follow, each two
3x3 convolutions with a pooling between them; the largest value of every channel is classified.

Source: [Page2018], "How to train your ResNet" (patch whitening); [Jordan2024], from
which the proportions and the initial identity filters are taken.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated

import torch
from annotated_types import Ge, Le
from torch import Tensor, nn
from torch.nn import functional as F

from advpure.base.budget import MAX_BLOCKS, MAX_WIDTH
from advpure.base.errors import BadInput
from advpure.base.validation import validate
from advpure.networks.layers import Width, check_levels, check_patch


@dataclass(frozen=True, kw_only=True)
class ConvNetConfig:
    """The shape of a convolutional classifier.

    Attributes:
        image_channels: Channels of the images.
        classes: Number of classes.
        channels: Width of every block; each block halves the resolution.
        patch: Side of the whitened patches, in pixels.
        mean: Per-channel mean that is subtracted, in [0, 1] units.
        std: Per-channel standard deviation that is divided by, in [0, 1] units.
        logit_scale: Factor on the logits; below 1 it slows the last layer down.
    """

    image_channels: Width
    classes: Annotated[int, Ge(2), Le(MAX_WIDTH)]
    channels: tuple[Width, ...] = (64, 256, 256)
    patch: Annotated[int, Ge(1), Le(MAX_BLOCKS)] = 2
    mean: tuple[Annotated[float, Ge(-1e6), Le(1e6)], ...] = (0.5,)
    std: tuple[Annotated[float, Ge(1e-6), Le(1e6)], ...] = (0.5,)
    logit_scale: Annotated[float, Ge(1e-6), Le(1e6)] = 1 / 9

    def __post_init__(self) -> None:
        """Accept lists (JSON, TOML) and refuse shapes that cannot be built.

        Raises:
            BadInput: naming the setting and the rule.
        """
        validate(self)
        check_levels(self.channels)
        check_patch(self.patch, self.image_channels)
        if not len(self.mean) == len(self.std) == self.image_channels:
            raise BadInput(f"mean {self.mean}", "does not match the channels", "give one each")


class ShiftNorm(nn.BatchNorm2d):
    """Batch normalisation that learns a shift and no scale.

    Args:
        channels: Width of the feature map.
    """

    def __init__(self, channels: int) -> None:
        """Make the scale a constant of one."""
        super().__init__(channels, momentum=0.4)
        del self.weight
        self.register_buffer("weight", torch.ones(channels))


class ConvBlock(nn.Module):
    """GELU(norm(conv(GELU(norm(pool(conv(x))))))), which halves the resolution.

    Args:
        before: Channels of the input.
        after: Channels of the output.
    """

    def __init__(self, before: int, after: int) -> None:
        """Create the layers."""
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, padding=1, bias=False)
        self.norm1 = ShiftNorm(after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.norm2 = ShiftNorm(after)

    def forward(self, x: Tensor) -> Tensor:
        """Return features [B, after, H // 2, W // 2]."""
        h = F.gelu(self.norm1(F.max_pool2d(self.conv1(x), 2)))
        return F.gelu(self.norm2(self.conv2(h)))


class ConvNet(nn.Module):
    """Classify images in [0, 1].

    Rows are independent in evaluation mode only: while training, batch normalisation mixes them.

    Args:
        config: The shape.
    """

    def __init__(self, config: ConvNetConfig) -> None:
        """Create the layers; `fit` sets the whitening filters."""
        super().__init__()
        self.config = config
        taps = config.image_channels * config.patch**2
        filters = torch.eye(taps).reshape(taps, config.image_channels, config.patch, config.patch)
        self.register_buffer("whitening", torch.cat([filters, -filters]))
        self.whitening: Tensor
        self.offset = nn.Parameter(torch.zeros(2 * taps))
        widths = (2 * taps, *config.channels)
        self.blocks = nn.Sequential(
            *(ConvBlock(before, after) for before, after in pairwise(widths))
        )
        self.leave = nn.Linear(widths[-1], config.classes, bias=False)

    def fit(self, images: Tensor) -> None:
        """Set the whitening filters: principal directions of patches over their deviations.

        Args:
            images: Some thousand training images [n, C, H, W] in [0, 1].
        """
        size = self.config.patch
        rows = F.unfold(self._normalise(images.double()), size).transpose(1, 2)
        flat = rows.reshape(-1, rows.shape[-1])
        values, vectors = torch.linalg.eigh(flat.T @ flat / len(flat))
        scaled = (vectors / (values + 5e-4).sqrt()).T.flip(0)
        filters = scaled.reshape(-1, self.config.image_channels, size, size)
        self.whitening.copy_(torch.cat([filters, -filters]))

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [B, classes] of images [B, C, H, W] in [0, 1]."""
        h = F.gelu(F.conv2d(self._normalise(images), self.whitening, self.offset))
        logits: Tensor = self.leave(self.blocks(h).amax(dim=(2, 3)))
        return logits * self.config.logit_scale

    def _normalise(self, images: Tensor) -> Tensor:
        """Subtract the mean and divide by the standard deviation."""
        mean = torch.tensor(self.config.mean, dtype=images.dtype, device=images.device)
        std = torch.tensor(self.config.std, dtype=images.dtype, device=images.device)
        return (images - mean[:, None, None]) / std[:, None, None]


def initialise_convnet(network: ConvNet) -> None:
    """Set the scales that the learning rate counts on, and identities in the 3x3 convolutions.

    Args:
        network: Changed in place, after its weights were drawn with variance 1 / fan-in: a third
            of that is left in the convolutions, and 1 in the last layer.
    """
    with torch.no_grad():  # initial values: there is no gradient yet
        for layer in network.blocks.modules():
            if isinstance(layer, nn.Conv2d):
                layer.weight.mul_(3**-0.5)
                nn.init.dirac_(layer.weight[: layer.in_channels])
        network.leave.weight.div_(network.leave.weight.std())
