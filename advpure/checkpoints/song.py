"""DDPM++ and NCSN++: the U-Nets of the score-SDE line, which no library of ours has.

One network covers EDM's two CIFAR-10 models, the JAX networks of the CIFAR-10 consistency models
and Score-SDE's DDPM++: they differ in the noise features, in the resampling filter, in a residual
path of the input, and in the names of their files.

Source: [Song2021b], appendix H; [Karras2022], appendix F.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Resample = Literal["none", "down", "up"]
FIR = (1.0, 3.0, 3.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class SongConfig:
    """The shape of a DDPM++ or NCSN++ network and the names of its official file.

    Attributes:
        image_size: Height and width of the images, in pixels.
        width: Base number of channels.
        multiples: Channels of every level in base widths, finest first.
        blocks: Residual blocks per level on the way down; one more on the way up.
        attention: Resolutions with self-attention, in pixels.
        fourier: Random Fourier features of the noise level (NCSN++), else sinusoids (DDPM++).
        fir: Resample with the filter [1, 3, 3, 1] instead of averages and copies.
        residual_input: Add a strided convolution of the input at every level (NCSN++).
        classes: Number of classes of a class-conditional network, 0 for none.
        names: The code base of the official file.
    """

    image_size: int = 32
    width: int = 128
    multiples: tuple[int, ...] = (2, 2, 2)
    blocks: int = 4
    attention: tuple[int, ...] = (16,)
    fourier: bool = False
    fir: bool = False
    residual_input: bool = False
    classes: int = 0
    names: Literal["edm", "flax", "score-sde"] = "edm"


class Attention(nn.Module):
    """Single-head self-attention over positions with separate projections."""

    def __init__(self, channels: int) -> None:
        """Create the projections."""
        super().__init__()
        self.norm = _norm(channels)
        self.query, self.key = nn.Conv2d(channels, channels, 1), nn.Conv2d(channels, channels, 1)
        self.value, self.out = nn.Conv2d(channels, channels, 1), nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return (x + what its positions read) / sqrt(2), [B, C, H, W]."""
        h = self.norm(x)
        query, key, value = (each(h).flatten(2) for each in (self.query, self.key, self.value))
        weights = (query.transpose(1, 2) @ (key / math.sqrt(x.shape[1]))).softmax(-1)
        out: Tensor = (x + self.out((value @ weights.transpose(1, 2)).reshape(x.shape))) * 0.5**0.5
        return out


class Block(nn.Module):
    """A residual block that may resize and may attend; sums are divided by sqrt(2).

    Args:
        before: Channels of the input.
        after: Channels of the output.
        embedding: Width of the noise embedding.
        resample: Whether it halves or doubles the resolution.
        attend: Whether attention follows.
        fir: Whether resizing uses the filter.
    """

    def __init__(
        self, before: int, after: int, embedding: int, resample: Resample, attend: bool, fir: bool
    ) -> None:
        """Create the layers."""
        super().__init__()
        self.resample, self.fir = resample, fir
        self.norm0, self.norm1 = _norm(before), _norm(after)
        self.conv0 = nn.Conv2d(before, after, 3, padding=1)
        self.affine = nn.Linear(embedding, after)
        self.conv1 = nn.Conv2d(after, after, 3, padding=1)
        plain = before == after and resample == "none"
        self.skip = None if plain else nn.Conv2d(before, after, 1)
        self.attention = Attention(after) if attend else None

    def forward(self, x: Tensor, embedded: Tensor) -> Tensor:
        """Return the features of [B, before, H, W] and the noise embedding [B, E]."""
        h = self.conv0(_resize(F.silu(self.norm0(x)), self.resample, self.fir))
        h = self.conv1(F.silu(self.norm1(h + self.affine(embedded)[:, :, None, None])))
        x = _resize(x, self.resample, self.fir)
        out: Tensor = (h + (x if self.skip is None else self.skip(x))) * 0.5**0.5
        return out if self.attention is None else self.attention(out)


class SongUNet(nn.Module):
    """The raw network of a denoiser: image and noise condition in, image out.

    Args:
        config: The shape.
    """

    def __init__(self, config: SongConfig) -> None:
        """Create the layers, in the order in which they run."""
        super().__init__()
        self.config = config
        self.label = -1
        embedding = 4 * config.width
        features = config.width * (2 if config.fourier else 1)
        self.frequencies: Tensor
        if config.fourier:
            self.register_buffer("frequencies", torch.zeros(config.width))
        self.labels = nn.Linear(config.classes, features) if config.classes else None
        self.embed0, self.embed1 = nn.Linear(features, embedding), nn.Linear(embedding, embedding)
        self.enter = nn.Conv2d(3, config.width, 3, padding=1)
        self.down, self.up, self.residual = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        before, skips, top = config.width, [config.width], len(config.multiples) - 1

        def block(before: int, after: int, resample: Resample, attend: bool) -> Block:
            return Block(before, after, embedding, resample, attend, config.fir)

        side = 3
        for level, multiple in enumerate(config.multiples):
            if level:
                self.down.append(block(before, before, "down", False))
                skips.append(before)
                if config.residual_input:
                    self.residual.append(nn.Conv2d(side, before, 3))
                    side = before
            for _ in range(config.blocks):
                attend = config.image_size >> level in config.attention
                self.down.append(block(before, multiple * config.width, "none", attend))
                before = multiple * config.width
                skips.append(before)
        self.middle = nn.ModuleList([block(before, before, "none", k == 0) for k in range(2)])
        for level in range(top, -1, -1):
            if level < top:
                self.up.append(block(before, before, "up", False))
            after = config.multiples[level] * config.width
            for k in range(config.blocks + 1):
                attend = k == config.blocks and config.image_size >> level in config.attention
                self.up.append(block(before + skips.pop(), after, "none", attend))
                before = after
        self.norm, self.leave = _norm(before), nn.Conv2d(before, 3, 3, padding=1)

    def embed(self, condition: Tensor, labels: Tensor | None) -> Tensor:
        """Return the embedding [B, 4 * width] of noise conditions [B] and labels [B]."""
        if self.config.fourier:
            phase = condition[:, None] * (2 * math.pi * self.frequencies)
        else:
            half = self.config.width // 2
            steps = torch.arange(half, dtype=condition.dtype, device=condition.device)
            phase = condition[:, None] * torch.exp(steps * -(math.log(10000) / (half - 1)))
        features = torch.cat([phase.sin(), phase.cos()], dim=1)
        if self.labels is not None:
            if labels is None:
                labels = torch.full(
                    (len(features),), self.label, device=features.device, dtype=torch.int64
                )
            classes = self.config.classes
            one_hot = F.one_hot(labels.clamp_min(0), classes).to(features.dtype)
            one_hot = torch.where(labels[:, None] < 0, 1 / classes, one_hot)
            features = features + self.labels(one_hot * math.sqrt(classes))
        return F.silu(self.embed1(F.silu(self.embed0(features))))

    def forward(self, x: Tensor, condition: Tensor, labels: Tensor | None = None) -> Tensor:
        """Evaluate the network once.

        Args:
            x: Scaled images, [B, 3, H, W], H and W multiples of 2^(levels - 1).
            condition: Noise condition, [B]: ln(sigma) / 4, or 999 t for Score-SDE.
            labels: Class per image, [B], negative for the mean class; `self.label` by default.

        Returns:
            Its output [B, 3, H, W].
        """
        embedded = self.embed(condition, labels)
        h, side = self.enter(x), x
        skips, residual = [h], iter(self.residual)
        for block in self.down:
            h = block(h, embedded)
            if block.resample == "down" and self.config.residual_input:
                convolution = next(residual)
                h = side = (h + _shrink(side, 2, convolution)) * 0.5**0.5
            skips.append(h)
        for block in self.middle:
            h = block(h, embedded)
        for block in self.up:
            h = block(h if block.resample == "up" else torch.cat([h, skips.pop()], 1), embedded)
        out: Tensor = self.leave(F.silu(self.norm(h)))
        return out


def build(config: SongConfig) -> SongUNet:
    """Build the network."""
    return SongUNet(config)


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(min(32, channels // 4), channels, eps=1e-6)


def _filter(x: Tensor) -> Tensor:
    """Return the 4 x 4 filter for every channel of x, of sum one, [C, 1, 4, 4]."""
    line = torch.tensor(FIR, dtype=x.dtype, device=x.device)
    square = line[:, None] * line / line.sum() ** 2
    return square.expand(x.shape[1], 1, 4, 4)


def _resize(x: Tensor, resample: Resample, fir: bool) -> Tensor:
    """Halve or double the resolution: by the filter, or by averages and copies."""
    if resample == "none":
        return x
    if not fir:
        return F.avg_pool2d(x, 2) if resample == "down" else F.interpolate(x, scale_factor=2.0)
    if resample == "down":
        return F.conv2d(x, _filter(x), stride=2, padding=1, groups=x.shape[1])
    return F.conv_transpose2d(x, 4 * _filter(x), stride=2, padding=1, groups=x.shape[1])


def _shrink(x: Tensor, padding: int, convolution: nn.Module) -> Tensor:
    """Filter, then convolve with stride 2: one zero border for both, as upfirdn2d has it."""
    smooth = F.conv2d(x, _filter(x), padding=padding, groups=x.shape[1])
    assert isinstance(convolution, nn.Conv2d)
    return F.conv2d(smooth, convolution.weight, convolution.bias, stride=2)
