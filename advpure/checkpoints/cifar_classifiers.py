"""The two residual CIFAR-10 classifiers with public weights: ResNet-56 and WRN-28-10.

Their module names are the official ones, so a layout is the identity.

Source: [He2016], section 4.2 (shortcut A: strided copy, zero channels); [Zagoruyko2016], as
RobustBench names its parts.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from advpure.checkpoints.layout import Layout, constant, identity, same


@dataclass(frozen=True, kw_only=True)
class ResNetConfig:
    """The shape of a CIFAR ResNet: 6 blocks + 2 layers deep.

    Attributes:
        blocks: Basic blocks in each of the three stages; 9 make ResNet-56.
    """

    blocks: int = 9


@dataclass(frozen=True, kw_only=True)
class WideResNetConfig:
    """The shape of a wide residual network: 6 blocks + 4 layers deep.

    Attributes:
        blocks: Blocks in each of the three stages; 4 make WRN-28.
        factor: How many times wider than 16, 32, 64 channels.
    """

    blocks: int = 4
    factor: int = 10


class _PlainBlock(nn.Module):
    """Two convolutions with batch normalisation; the shortcut has no parameters."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.stride, self.grown = stride, after - before
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)

    def forward(self, x: Tensor) -> Tensor:
        h = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.grown:
            before = self.grown // 2
            x = F.pad(
                x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, before, self.grown - before)
            )
        return F.relu(h + x)


class CifarResNet(nn.Module):
    """ResNet of three stages with 16, 32 and 64 channels: normalised images to logits [B, 10].

    Args:
        config: The shape.
    """

    def __init__(self, config: ResNetConfig) -> None:
        """Create the layers."""
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)

        def stage(before: int, after: int, stride: int) -> nn.Sequential:
            rest = [_PlainBlock(after, after, 1) for _ in range(config.blocks - 1)]
            return nn.Sequential(_PlainBlock(before, after, stride), *rest)

        self.layer1, self.layer2 = stage(16, 16, 1), stage(16, 32, 2)
        self.layer3 = stage(32, 64, 2)
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of normalised images [B, 3, 32, 32]."""
        h = F.relu(self.bn1(self.conv1(x)))
        h = self.layer3(self.layer2(self.layer1(h)))
        logits: Tensor = self.linear(h.mean((2, 3)))
        return logits


class _WideBlock(nn.Module):
    """Normalise, then convolve, twice; a 1 x 1 convolution where the width changes."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.convShortcut: nn.Module | None = None
        self.bn1 = nn.BatchNorm2d(before)
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        if before != after:
            self.convShortcut = nn.Conv2d(before, after, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.bn1(x))
        # Where the width changes, the shortcut starts after the normalisation.
        x = x if self.convShortcut is None else self.convShortcut(h)
        out: Tensor = x + self.conv2(F.relu(self.bn2(self.conv1(h))))
        return out


class _WideStage(nn.Module):
    """Blocks of one width, under the name that official files have."""

    def __init__(self, before: int, after: int, stride: int, blocks: int) -> None:
        super().__init__()
        rest = [_WideBlock(after, after, 1) for _ in range(blocks - 1)]
        self.layer = nn.Sequential(_WideBlock(before, after, stride), *rest)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x)
        return out


class WideResNet(nn.Module):
    """Wide residual network: images in [0, 1], [B, 3, 32, 32], to logits [B, 10].

    Args:
        config: The shape.
    """

    def __init__(self, config: WideResNetConfig) -> None:
        """Create the layers."""
        super().__init__()
        widths = [16, *[base * config.factor for base in (16, 32, 64)]]
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.block1 = _WideStage(widths[0], widths[1], 1, config.blocks)
        self.block2 = _WideStage(widths[1], widths[2], 2, config.blocks)
        self.block3 = _WideStage(widths[2], widths[3], 2, config.blocks)
        self.bn1 = nn.BatchNorm2d(widths[3])
        self.fc = nn.Linear(widths[3], 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        h = self.block3(self.block2(self.block1(self.conv1(x))))
        h = F.avg_pool2d(F.relu(self.bn1(h)), 8)
        logits: Tensor = self.fc(h.flatten(1))
        return logits


def build_resnet(config: ResNetConfig) -> CifarResNet:
    """Build ResNet-(6 blocks + 2)."""
    return CifarResNet(config)


def build_wide(config: WideResNetConfig) -> WideResNet:
    """Build WRN-(6 blocks + 4)."""
    return WideResNet(config)


def layout_resnet(network: nn.Module, config: ResNetConfig) -> Layout:
    """Lay out the official file, which was saved before batch counters existed.

    Files of today's torch have them: they are left out when read, as they change no answer.
    """
    return Layout(
        {
            name: constant(torch.zeros((), dtype=torch.long))
            if name.endswith("num_batches_tracked")
            else same(name, value)
            for name, value in network.state_dict().items()
        }
    )


def layout_wide(network: nn.Module, config: WideResNetConfig) -> Layout:
    """Lay out the official file."""
    return identity(network)
