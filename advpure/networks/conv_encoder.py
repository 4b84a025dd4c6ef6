"""A small convolutional encoder of noisy images, behind the interface of the transformer.

Residual blocks whose scale and shift follow the noise level, with a pooling between levels; the
mean over positions is the feature vector. For machines on which a transformer is slow.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated

from annotated_types import Ge, Le
from torch import Tensor, nn
from torch.nn import functional as F

from advpure.base.budget import MAX_BLOCKS, MAX_SIDE, MAX_WIDTH
from advpure.base.errors import BadInput
from advpure.base.validation import validate
from advpure.networks.layers import NoiseFeatures, ResidualBlock, Width, check_levels, check_patch
from advpure.networks.representation import RepresentationNetwork

_HeadWidth = Annotated[int, Ge(0), Le(MAX_WIDTH)]


@dataclass(frozen=True, kw_only=True)
class ConvEncoderConfig:
    """The shape of a convolutional encoder.

    Attributes:
        image_channels: Channels of the images.
        channels: Width of every level; a level halves the resolution of the one before.
        blocks: Residual blocks a level.
        patch: Side of the patches that the first layer reads, each once; 1 for a convolution of
            every pixel with its neighbours.
        embedding: Width of the embedding of the noise level, even.
        hidden: Width of the projection head, 0 for none.
        projection: Numbers that the projection head returns.
        classes: Answers of the linear head, 0 for none.
        normed: Whether the linear head reads the normalised features.
    """

    image_channels: Width
    channels: tuple[Width, ...]
    blocks: Annotated[int, Ge(1), Le(MAX_BLOCKS)] = 1
    patch: Annotated[int, Ge(1), Le(MAX_SIDE)] = 1
    embedding: Annotated[int, Ge(2), Le(MAX_WIDTH)] = 64
    hidden: _HeadWidth = 0
    projection: Width = 256
    classes: _HeadWidth = 0
    normed: bool = False

    def __post_init__(self) -> None:
        """Accept lists (JSON, TOML) and refuse shapes that cannot be built.

        Raises:
            BadInput: naming the setting and the rule.
        """
        validate(self)
        check_levels(self.channels)
        check_patch(self.patch, self.image_channels)


class _Level(nn.Module):
    """Residual blocks of one width, each with the modulation of its own."""

    def __init__(self, before: int, after: int, config: ConvEncoderConfig) -> None:
        super().__init__()
        widths = [before, *[after] * config.blocks]
        self.blocks = nn.ModuleList(
            ResidualBlock(a, b, dropout=0.0, attend=False) for a, b in pairwise(widths)
        )
        self.modulate = nn.ModuleList(
            nn.Linear(config.embedding, 2 * after) for _ in range(config.blocks)
        )

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        for block, modulate in zip(self.blocks, self.modulate, strict=True):
            x = block(x, modulate(embedding)[:, :, None, None])
        return x


class ConvEncoder(RepresentationNetwork):
    """Encode noisy images by convolutions.

    Args:
        config: The shape.
    """

    def __init__(self, config: ConvEncoderConfig) -> None:
        """Create the layers."""
        super().__init__(
            width=config.channels[-1],
            hidden=config.hidden,
            projection=config.projection,
            classes=config.classes,
            normed=config.normed,
        )
        self.config = config
        self.wave = NoiseFeatures(config.embedding // 2)
        self.embed = nn.Linear(2 * (config.embedding // 2), config.embedding)
        side, stride, border = (config.patch, config.patch, 0) if config.patch > 1 else (3, 1, 1)
        self.enter = nn.Conv2d(config.image_channels, config.channels[0], side, stride, border)
        widths = (config.channels[0], *config.channels)
        self.levels = nn.ModuleList(_Level(a, b, config) for a, b in pairwise(widths))

    @property
    def layers(self) -> int:
        """Number of the last layer: one more than levels."""
        return len(self.config.channels) + 1

    def layer_of(self, name: str) -> int:
        """Return which layer a parameter belongs to: 0 for what enters, then the levels."""
        first, _, rest = name.partition(".")
        if first in ("embed", "enter"):
            return 0
        return int(rest.partition(".")[0]) + 1 if first == "levels" else self.layers

    def encode(self, x: Tensor, noise: Tensor) -> Tensor:
        """Return the mean over positions of the last level, [B, width].

        Raises:
            BadInput: for images whose sides the patch does not divide.
        """
        patch = self.config.patch
        if x.shape[2] % patch or x.shape[3] % patch:
            raise BadInput(
                f"images {[*x.shape[1:]]}",
                f"are not divided by patch {patch}",
                "use a patch that divides their sides",
            )
        embedding = F.silu(self.embed(self.wave(noise)))
        h = self.enter(x)
        for number, level in enumerate(self.levels):
            h = level(F.avg_pool2d(h, 2) if number else h, embedding)
        return F.silu(h).mean((2, 3))
