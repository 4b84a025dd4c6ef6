"""DDPM++ and NCSN++: the U-Nets of the score-SDE line, which no library of ours has.

One network covers EDM's two CIFAR-10 models, the JAX networks of the CIFAR-10 consistency models
and Score-SDE's DDPM++: they differ in the noise features, in the resampling filter, in a residual
path of the input, and in the names of their files (spec 2.7, 11.4 to 11.6).

Source: Score-SDE (2011.13456), appendix H; EDM (2206.00364), appendix F.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from advpure.checkpoints.layout import Layout, Shape, Source, part, permuted, same

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
                labels = torch.full((len(features),), self.label, device=features.device)
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


def layout(network: nn.Module, config: SongConfig) -> Layout:
    """Lay out the official file."""
    assert isinstance(network, SongUNet)
    make = {"edm": _edm, "flax": _flax, "score-sde": _score_sde}[config.names]
    return make(network, config)


_BLOCK = ("norm0", "conv0", "affine", "norm1", "conv1", "skip")
_ATTENTION = ("query", "key", "value")


def _edm(network: SongUNet, config: SongConfig) -> Layout:
    """Name the blocks by resolution, as EDM does; queries, keys and values are interleaved."""
    state, sources = network.state_dict(), dict[str, Source]()
    unused: dict[str, Shape] = {"model.map_augment.weight": (network.embed0.in_features, 9)}
    box = (1, 1, 4, 4) if config.fir else (1, 1, 2, 2)

    def take(ours: str, official: str) -> None:
        for leaf in ("weight", "bias"):
            sources[f"{ours}.{leaf}"] = same(f"model.{official}.{leaf}", state[f"{ours}.{leaf}"])

    def block(ours: str, official: str, module: nn.Module) -> None:
        assert isinstance(module, Block)
        for inner in _BLOCK:
            if f"{ours}.{inner}.weight" in state:
                take(f"{ours}.{inner}", f"{official}.{inner}")
        if module.resample != "none":
            for inner in ("conv0", "skip"):
                unused[f"model.{official}.{inner}.resample_filter"] = box
        if module.attention is not None:
            take(f"{ours}.attention.norm", f"{official}.norm2")
            take(f"{ours}.attention.out", f"{official}.proj")
            for k, inner in enumerate(_ATTENTION):
                for leaf in ("weight", "bias"):
                    name, target = (
                        f"model.{official}.qkv.{leaf}",
                        f"{ours}.attention.{inner}.{leaf}",
                    )
                    sources[target] = part(name, state[target], k, "interleaved", 1)

    if config.fourier:
        sources["frequencies"] = same("model.map_noise.freqs", state["frequencies"])
    if config.classes:
        take("labels", "map_label")
    take("embed0", "map_layer0")
    take("embed1", "map_layer1")
    top = len(config.multiples) - 1
    place = [
        f"{config.image_size >> level}x{config.image_size >> level}" for level in range(top + 1)
    ]
    take("enter", f"enc.{place[0]}_conv")
    names = [
        *[f"enc.{place[0]}_block{k}" for k in range(config.blocks)],
        *[
            f"enc.{place[level]}_{end}"
            for level in range(1, top + 1)
            for end in ("down", *[f"block{k}" for k in range(config.blocks)])
        ],
    ]
    for k, (module, name) in enumerate(zip(network.down, names, strict=True)):
        block(f"down.{k}", name, module)
    for k in range(len(network.residual)):
        take(f"residual.{k}", f"enc.{place[k + 1]}_aux_residual")
        unused[f"model.enc.{place[k + 1]}_aux_residual.resample_filter"] = box
    for k, module in enumerate(network.middle):
        block(f"middle.{k}", f"dec.{place[top]}_in{k}", module)
    names = [
        f"dec.{place[level]}_{end}"
        for level in range(top, -1, -1)
        for end in (
            *(["up"] if level < top else []),
            *[f"block{k}" for k in range(config.blocks + 1)],
        )
    ]
    for k, (module, name) in enumerate(zip(network.up, names, strict=True)):
        block(f"up.{k}", name, module)
    take("norm", f"dec.{place[0]}_aux_norm")
    take("leave", f"dec.{place[0]}_aux_conv")
    return Layout({name: sources[name] for name in state}, unused, r"resample_filter|freqs")


def _in_order(network: SongUNet) -> Iterator[tuple[str, nn.Module]]:
    """Walk over blocks, attentions and residual convolutions in the order in which they run."""
    residual = iter(range(len(network.residual)))
    for side in ("down", "middle", "up"):
        for k, block in enumerate(getattr(network, side)):
            yield f"{side}.{k}", block
            if block.attention is not None:
                yield f"{side}.{k}.attention", block.attention
            if block.resample == "down" and network.config.residual_input:
                number = next(residual)
                yield f"residual.{number}", network.residual[number]


_SCORE_BLOCK = {
    "norm0": "GroupNorm_0", "conv0": "Conv_0", "affine": "Dense_0", "norm1": "GroupNorm_1",
    "conv1": "Conv_1", "skip": "Conv_2",
}  # fmt: skip
_SCORE_ATTENTION = {"query": "NIN_0", "key": "NIN_1", "value": "NIN_2", "out": "NIN_3"}


def _score_sde(network: SongUNet, config: SongConfig) -> Layout:
    """Number the modules in the order in which they run, as Score-SDE does."""
    state, sources = network.state_dict(), dict[str, Source]()
    numbers = count()

    def take(ours: str, official: str) -> None:
        for leaf in ("weight", "bias"):
            name = f"{ours}.{leaf}"
            if name in state:
                sources[name] = same(f"all_modules.{official}.{leaf}", state[name])

    if config.fourier:
        sources["frequencies"] = same(f"all_modules.{next(numbers)}.W", state["frequencies"])
    for ours in ("embed0", "embed1", "enter"):
        take(ours, str(next(numbers)))
    for ours, module in _in_order(network):
        number = next(numbers)
        if isinstance(module, Block):
            for inner, official in _SCORE_BLOCK.items():
                take(f"{ours}.{inner}", f"{number}.{official}")
        elif isinstance(module, Attention):
            take(f"{ours}.norm", f"{number}.GroupNorm_0")
            for inner, official in _SCORE_ATTENTION.items():
                weight, bias = f"{ours}.{inner}.weight", f"{ours}.{inner}.bias"
                sources[weight] = _mixing(f"all_modules.{number}.{official}.W", state[weight])
                sources[bias] = same(f"all_modules.{number}.{official}.b", state[bias])
        else:
            take(ours, f"{number}.Conv2d_0")
    for ours in ("norm", "leave"):
        take(ours, str(next(numbers)))
    return Layout({name: sources[name] for name in state}, {"sigmas": (1000,)}, r"^sigmas$")


def _flax(network: SongUNet, config: SongConfig) -> Layout:
    """Number the modules kind by kind, with flax's axes: kernels are [H, W, in, out]."""
    state, sources = network.state_dict(), dict[str, Source]()
    blocks, attentions, shrinks = count(), count(), count()

    def take(ours: str, official: str, *, plain: bool = False) -> None:
        weight, bias = f"{ours}.weight", f"{ours}.bias"
        if weight not in state:
            return
        value = state[weight]
        if value.ndim == 1:
            sources[weight] = same(f"{official}.scale", value)
        elif value.ndim == 2:
            sources[weight] = permuted(f"{official}.kernel", value, (1, 0))
        else:
            leaf = "weight" if plain else "kernel"
            sources[weight] = permuted(f"{official}.{leaf}", value, (3, 2, 0, 1))
        sources[bias] = same(f"{official}.bias", state[bias])

    sources["frequencies"] = same("GaussianFourierProjection_0.W", state["frequencies"])
    for ours, official in (("embed0", "Dense_0"), ("embed1", "Dense_1"), ("enter", "Conv_0")):
        take(ours, official)
    for ours, module in _in_order(network):
        if isinstance(module, Block):
            number = next(blocks)
            for inner, official in _SCORE_BLOCK.items():
                take(f"{ours}.{inner}", f"ResnetBlockBigGANpp_{number}.{official}")
        elif isinstance(module, Attention):
            number = next(attentions)
            take(f"{ours}.norm", f"AttnBlockpp_{number}.GroupNorm_0")
            for inner, official in _SCORE_ATTENTION.items():
                weight, bias = f"{ours}.{inner}.weight", f"{ours}.{inner}.bias"
                name = f"AttnBlockpp_{number}.{official}"
                sources[weight] = _mixing(f"{name}.W", state[weight])
                sources[bias] = same(f"{name}.b", state[bias])
        else:
            take(ours, f"Downsample_{next(shrinks)}.Conv2d_0", plain=True)
    take("norm", "GroupNorm_0")
    take("leave", "Conv_1")
    return Layout({name: sources[name] for name in state})


def _mixing(name: str, tensor: Tensor) -> Source:
    """Take a matrix [in, out] as a 1 x 1 convolution [out, in, 1, 1]."""
    turned = permuted(name, tensor[:, :, 0, 0], (1, 0))
    return Source(turned.names, turned.shapes, lambda value: turned.make(value)[:, :, None, None])
