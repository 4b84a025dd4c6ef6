"""A compact U-Net F(x, c_noise) for denoisers, in the manner of the EDM family.

One embedding of the noise level gives every block its scale and shift through a single linear
layer, because on small images the number of operations costs more than the arithmetic. `patch`
folds patch x patch pixels into channels first, for the same reason.

Source: the raw network F of [Karras2022] (table 1); blocks after [Dhariwal2021].
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Le, Lt
from torch import Tensor, nn
from torch.nn import functional as F

from advpure.base.budget import MAX_BLOCKS, MAX_WIDTH
from advpure.base.errors import BadInput
from advpure.base.validation import validate
from advpure.networks.convolution import Conv3x3
from advpure.networks.layers import (
    ClassTable,
    NoiseFeatures,
    ResidualBlock,
    Width,
    check_levels,
    check_patch,
    groups_for,
    normalised,
)

_MANY = 16
"""Pixels a side from which on it pays to normalise and convolve before upsampling."""


@dataclass(frozen=True, kw_only=True)
class UNetConfig:
    """The shape of a U-Net.

    Attributes:
        image_size: Height and width of the images, in pixels.
        image_channels: Channels of the images.
        channels: Width of every level, finest first; each level halves the resolution.
        blocks: Residual blocks per level on either side.
        attention: Levels (0 is the finest) whose blocks carry self-attention.
        dropout: Dropout rate inside the blocks while training.
        embedding: Width of the noise embedding, even.
        patch: Side of the pixel squares that are folded into channels at the entrance.
        classes: Number of class tokens that are added to the embedding of the noise level, 0 for
            none; 1 is the one learnable token of an unconditional network.
    """

    image_size: Width
    image_channels: Width
    channels: tuple[Width, ...] = (32, 64)
    blocks: Annotated[int, Ge(1), Le(MAX_BLOCKS)] = 1
    attention: tuple[Annotated[int, Ge(0)], ...] = ()
    dropout: Annotated[float, Ge(0), Lt(1)] = 0.0
    embedding: Annotated[int, Ge(2), Le(MAX_WIDTH)] = 64
    patch: Width = 1
    classes: Annotated[int, Ge(0), Le(MAX_WIDTH)] = 0

    def __post_init__(self) -> None:
        """Accept lists (JSON, TOML) and refuse shapes that cannot be built.

        Raises:
            BadInput: naming the setting and the rule.
        """
        validate(self)
        check_levels(self.channels)
        check_patch(self.patch, self.image_channels)
        factor = self.patch * 2 ** (len(self.channels) - 1)
        if self.image_size % factor:
            raise BadInput(
                f"image size {self.image_size}", f"is not a multiple of {factor}", "drop a level"
            )
        if any(level >= len(self.channels) for level in self.attention):
            raise BadInput(f"attention {self.attention}", "names no level", "count levels from 0")
        if self.embedding % 2:
            raise BadInput(f"embedding {self.embedding}", "is odd", "use for example 64")


class UNet(nn.Module):
    """The raw network of a denoiser: image and noise level in, image out.

    Args:
        config: The shape.
    """

    def __init__(self, config: UNetConfig) -> None:
        """Create the layers; the last convolution of the network starts at zero."""
        super().__init__()
        self.config = config
        folded = config.image_channels * config.patch**2
        widths, top = config.channels, len(config.channels) - 1

        def block(before: int, level: int) -> ResidualBlock:
            return ResidualBlock(before, widths[level], config.dropout, level in config.attention)

        self.features = NoiseFeatures(config.embedding // 2)
        self.embed = nn.Linear(config.embedding, config.embedding)
        self.tokens = ClassTable(config.classes, config.embedding) if config.classes else None
        self.enter = Conv3x3(folded, widths[0])
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        width = widths[0]
        for level in range(top + 1):
            for _ in range(config.blocks):
                self.down.append(block(width, level))
                width = widths[level]
        self.middle = block(width, top)
        for level in reversed(range(top + 1)):
            for _ in range(config.blocks):
                self.up.append(block(width + widths[level], level))
                width = widths[level]
        self.norm = nn.GroupNorm(groups_for(width), width)
        self.leave = Conv3x3(width, folded)
        levels = [level for level in range(top + 1) for _ in range(config.blocks)]
        order = [*levels, top, *reversed(levels)]  # as forward consumes them
        self.modulation_widths = [2 * widths[level] for level in order]
        self.modulate = nn.Linear(config.embedding, sum(self.modulation_widths))

    def forward(self, x: Tensor, noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """Evaluate the network once.

        Args:
            x: Scaled images c_in * x, [B, C, H, W].
            noise: c_noise = ln(sigma) / 4 per image, [B]; one that was expanded to [B] costs less.
            labels: Classes, int64 [B], negative or None for the mean class; without class tokens
                they mean nothing.

        Returns:
            Tensor [B, C, H, W]: the F of D = c_skip x + c_out F.
        """
        if noise.stride(0) == 0:  # one level for all rows
            noise = noise[:1]
        embedded = self.embed(self.features(noise))
        if self.tokens is not None:
            anyone = torch.full((1,), -1, device=x.device, dtype=torch.int64)
            embedded = embedded + self.tokens(anyone if labels is None else labels)
        embedded = F.silu(embedded)
        modulation = self.modulate(embedded)[:, :, None, None]
        parts = iter(modulation.split(self.modulation_widths, dim=1))
        count = self.config.blocks
        h = F.pixel_unshuffle(x, self.config.patch) if self.config.patch > 1 else x
        h = self.enter(h)
        skips: list[Tensor] = []
        for k, block in enumerate(self.down):
            if k and k % count == 0:
                h = F.avg_pool2d(h, 2)
            h = block(h, next(parts))
            skips.append(h)
        h = self.middle(h, next(parts))
        for k, block in enumerate(self.up):
            skip = skips.pop()
            doubles = k and k % count == 0
            if doubles and skip.shape[-1] >= _MANY:
                h = block(h, next(parts), beside=skip)
                continue
            h = F.interpolate(h, scale_factor=2.0, mode="nearest") if doubles else h
            h = block(torch.cat([h, skip], dim=1), next(parts))
        h = self.leave(F.silu(normalised(self.norm, h)))
        return F.pixel_shuffle(h, self.config.patch) if self.config.patch > 1 else h
