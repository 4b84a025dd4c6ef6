"""A small residual classifier on images in [0, 1], its normalisation inside.

Source: [He2016] (basic blocks, batch normalisation), sized for 8 to 32 pixels.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Le
from torch import Tensor, nn
from torch.nn import functional as F

from advpure.base.budget import MAX_BLOCKS, MAX_WIDTH
from advpure.base.errors import BadInput
from advpure.base.validation import validate
from advpure.networks.layers import Width, check_levels


@dataclass(frozen=True, kw_only=True)
class ResNetConfig:
    """The shape of a residual classifier.

    Attributes:
        image_channels: Channels of the images.
        classes: Number of classes.
        channels: Width of every stage; each stage after the first halves the resolution.
        blocks: Basic blocks per stage.
        mean: Per-channel mean that is subtracted, in [0, 1] units.
        std: Per-channel standard deviation that is divided by, in [0, 1] units.
    """

    image_channels: Width
    classes: Annotated[int, Ge(2), Le(MAX_WIDTH)]
    channels: tuple[Width, ...] = (32, 64)
    blocks: Annotated[int, Ge(1), Le(MAX_BLOCKS)] = 1
    mean: tuple[Annotated[float, Ge(-1e6), Le(1e6)], ...] = (0.5,)
    std: tuple[Annotated[float, Ge(1e-6), Le(1e6)], ...] = (0.5,)

    def __post_init__(self) -> None:
        """Accept lists (JSON, TOML) and refuse shapes that cannot be built.

        Raises:
            BadInput: naming the setting and the rule.
        """
        validate(self)
        check_levels(self.channels)
        if not len(self.mean) == len(self.std) == self.image_channels:
            raise BadInput(f"mean {self.mean}", "does not match the channels", "give one each")


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch normalisation, added to a shortcut.

    Args:
        before: Channels of the input.
        after: Channels of the output.
        stride: 2 to halve the resolution.
    """

    def __init__(self, before: int, after: int, stride: int) -> None:
        """Create the layers."""
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(after)
        same = before == after and stride == 1
        self.skip = nn.Identity() if same else nn.Conv2d(before, after, 1, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        """Return features [B, after, H / stride, W / stride]."""
        h = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.skip(x) + self.norm2(self.conv2(h)))


class ResNet(nn.Module):
    """Classify images in [0, 1].

    Rows are independent in evaluation mode only: while training, batch normalisation mixes them.

    Args:
        config: The shape.
    """

    def __init__(self, config: ResNetConfig) -> None:
        """Create the layers."""
        super().__init__()
        self.config = config
        self.enter = nn.Conv2d(config.image_channels, config.channels[0], 3, padding=1)
        stages: list[nn.Module] = []
        width = config.channels[0]
        for stage, after in enumerate(config.channels):
            for k in range(config.blocks):
                stages.append(BasicBlock(width, after, 2 if stage and k == 0 else 1))
                width = after
        self.stages = nn.Sequential(*stages)
        self.leave = nn.Linear(width, config.classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [B, classes] of images [B, C, H, W] in [0, 1]."""
        mean = torch.tensor(self.config.mean, dtype=images.dtype, device=images.device)
        std = torch.tensor(self.config.std, dtype=images.dtype, device=images.device)
        x = (images - mean[:, None, None]) / std[:, None, None]
        h = self.stages(F.relu(self.enter(x)))
        logits: Tensor = self.leave(h.mean(dim=(2, 3)))
        return logits
