"""A vision transformer with a class token and a time token, an encoder of noisy images.

Tokens are [class, time, patches]. The time token is the sinusoid of 250 ln(t), as it is; positions
are learned. Blocks normalise first; the class token is the answer. Attention is written out, so
that no fused kernel picks its rounding from the batch.

Source: [Dosovitskiy2021]; the tokens, offsets and initial values of [Lei2025], as its released code
has them; [Chen2021] for the frozen patches.
"""

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Le
from torch import Tensor, nn
from torch.nn import functional as F

from advpure.base.budget import MAX_BLOCKS, MAX_SIDE, MAX_WIDTH
from advpure.base.errors import BadInput
from advpure.base.validation import validate
from advpure.networks.layers import Width, check_patch
from advpure.networks.representation import RepresentationNetwork, draw_default

_TIME = 1000.0
"""From the noise condition ln(t) / 4 to the transformer's time 250 ln(t)."""
_PERIOD = 1e4
_RATIO = 4
_HeadWidth = Annotated[int, Ge(0), Le(MAX_WIDTH)]


@dataclass(frozen=True, kw_only=True)
class ViTConfig:
    """The shape of a transformer.

    Attributes:
        image_size: Side of the images.
        image_channels: Channels of the images.
        patch: Side of a patch, which divides the side of the images.
        width: Numbers of a token.
        depth: Blocks.
        heads: Attention heads, which divide the width.
        hidden: Width of the projection head, 0 for none.
        projection: Numbers that the projection head returns.
        classes: Answers of the linear head, 0 for none.
        normed: Whether the linear head reads the normalised class token.
        frozen_patches: Whether the patch embedding stays as it was drawn, with the initial values
            that go with it.
    """

    image_size: Annotated[int, Ge(1), Le(MAX_SIDE)]
    image_channels: Width
    patch: Annotated[int, Ge(1), Le(MAX_SIDE)]
    width: Annotated[int, Ge(2), Le(MAX_WIDTH)]
    depth: Annotated[int, Ge(1), Le(MAX_BLOCKS)]
    heads: Annotated[int, Ge(1), Le(MAX_WIDTH)]
    hidden: _HeadWidth = 0
    projection: Width = 256
    classes: _HeadWidth = 0
    normed: bool = False
    frozen_patches: bool = False

    def __post_init__(self) -> None:
        """Refuse shapes that cannot be built.

        Raises:
            BadInput: naming the setting and the rule.
        """
        validate(self)
        check_patch(self.patch, self.image_channels)
        if self.image_size % self.patch:
            sides = [k for k in range(1, self.image_size) if self.image_size % k == 0]
            near = min(sides, key=lambda side: abs(side - self.patch), default=1)
            raise BadInput(
                f"image_size {self.image_size}",
                f"is not divided by patch {self.patch}",
                f"use for example patch {near}",
            )
        if self.width % self.heads:
            raise BadInput(
                f"width {self.width}", f"is not divided by {self.heads} heads", "use other heads"
            )


class _SelfAttention(nn.Module):
    """Attention of several heads with an explicit softmax; no offsets but the last."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        parts = self.qkv(x).reshape(batch, tokens, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)
        scores = (query * (width // self.heads) ** -0.5) @ key.transpose(-2, -1)
        mixed = scores.softmax(dim=-1).to(value.dtype) @ value
        out: Tensor = self.proj(mixed.transpose(1, 2).reshape(batch, tokens, width))
        return out


class _Mlp(nn.Module):
    """Two layers with the exact GELU between."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, _RATIO * width)
        self.fc2 = nn.Linear(_RATIO * width, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class _Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(width), _SelfAttention(width, heads)
        self.norm2, self.mlp = nn.LayerNorm(width), _Mlp(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class _Patches(nn.Module):
    """Embed every patch linearly, [B, N, width]."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.proj = nn.Conv2d(config.image_channels, config.width, config.patch, config.patch)

    def forward(self, x: Tensor) -> Tensor:
        patches: Tensor = self.proj(x).flatten(2).transpose(1, 2)
        return patches


class ViT(RepresentationNetwork):
    """Encode noisy images by their class token.

    Args:
        config: The shape.
    """

    def __init__(self, config: ViTConfig) -> None:
        """Create the layers."""
        super().__init__(
            width=config.width,
            hidden=config.hidden,
            projection=config.projection,
            classes=config.classes,
            normed=config.normed,
        )
        self.config = config
        count = (config.image_size // config.patch) ** 2
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 2 + count, config.width))
        self.patch_embed = _Patches(config)
        blocks = (_Block(config.width, config.heads) for _ in range(config.depth))
        self.blocks = nn.ModuleList(blocks)

    @property
    def layers(self) -> int:
        """Number of the last layer: one more than blocks."""
        return self.config.depth + 1

    def layer_of(self, name: str) -> int:
        """Return which layer a parameter belongs to: 0 for the embeddings, then the blocks.

        Example:
            >>> shape = {"image_size": 4, "image_channels": 1, "patch": 2, "width": 2, "heads": 1}
            >>> network = ViT(ViTConfig(depth=2, **shape))
            >>> [network.layer_of(n) for n in ("pos_embed", "blocks.1.norm1.bias", "norm.bias")]
            [0, 2, 3]
        """
        first, _, rest = name.partition(".")
        if first in ("cls_token", "pos_embed", "patch_embed"):
            return 0
        return int(rest.partition(".")[0]) + 1 if first == "blocks" else self.layers

    def encode(self, x: Tensor, noise: Tensor) -> Tensor:
        """Return the class token after the last block, [B, width].

        Raises:
            BadInput: for images of another size.
        """
        shape = self.config
        if x.shape[1:] != (shape.image_channels, shape.image_size, shape.image_size):
            raise BadInput(
                f"images {[*x.shape[1:]]}",
                f"do not fit a transformer of {shape.image_channels} channels and side "
                f"{shape.image_size}",
                "give it such images, or train one for these",
            )
        patches = self.patch_embed(x)
        time = sinusoids(_TIME * noise, shape.width).to(patches.dtype)[:, None]
        token = self.cls_token.expand(len(x), -1, -1).to(patches.dtype)
        h = torch.cat([token, time, patches], dim=1) + self.pos_embed
        for block in self.blocks:
            h = block(h)
        return h[:, 0]


def sinusoids(time: Tensor, width: int) -> Tensor:
    """Return cosines, then sines, of a time [B] at width // 2 frequencies, [B, width], float32.

    The frequencies fall from 1 to 1 / 10,000; an odd width ends with a zero.

    Example:
        >>> sinusoids(torch.zeros(1), 4)
        tensor([[1., 1., 0., 0.]])
    """
    half = width // 2
    exponents = torch.arange(half, dtype=torch.float32, device=time.device) / half
    phase = time.float()[:, None] * torch.exp(-math.log(_PERIOD) * exponents)
    waves = torch.cat([phase.cos(), phase.sin()], dim=1)
    return F.pad(waves, (0, width % 2))


def initialise_vit(network: ViT, generator: torch.Generator) -> None:
    """Draw the encoder's initial values.

    PyTorch's own bounds; where the patches are frozen, those of MoCo v3: Xavier-uniform matrices,
    queries, keys and values each for themselves, no offsets. The class token has the deviation
    1e-6, positions have 0.02.

    Args:
        network: Changed in place.
        generator: Where the draws come from.
    """
    config = network.config
    draw_default(network.patch_embed, generator)
    draw_default(network.blocks, generator)
    nn.init.normal_(network.cls_token, std=1e-6, generator=generator)
    nn.init.trunc_normal_(network.pos_embed, std=0.02, generator=generator)
    if not config.frozen_patches:
        return
    for name, part in network.blocks.named_modules():
        if isinstance(part, nn.Linear):
            outputs, inputs = part.weight.shape
            fan = outputs // 3 + inputs if name.endswith("qkv") else outputs + inputs
            bound = math.sqrt(6.0 / fan)
            nn.init.uniform_(part.weight, -bound, bound, generator=generator)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
    bound = math.sqrt(6.0 / (3 * config.patch**2 + config.width))
    nn.init.uniform_(network.patch_embed.proj.weight, -bound, bound, generator=generator)
    assert network.patch_embed.proj.bias is not None
    nn.init.zeros_(network.patch_embed.proj.bias)
