"""The parts that the networks share: noise features, a modulated residual block, attention.

Everything is written with plain differentiable operations, so forward-mode derivatives
(`torch.func.jvp`), double precision and second derivatives work, and no fused kernel picks its
rounding from the batch.
"""

import math
from collections.abc import Sequence
from typing import Annotated, Any

import torch
from annotated_types import Ge, Le
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn import functional as F

from advpure.base.budget import MAX_LEVELS, MAX_WIDTH
from advpure.base.errors import BadInput
from advpure.networks.convolution import Conv3x3

_PUSHES_CHANNELS_LAST = torch.__version__ >= "2.14"
"""Whether torch can push a tangent through a normalisation whose channels are last."""

Width = Annotated[int, Ge(1), Le(MAX_WIDTH)]
"""The width of a layer."""


def check_levels(channels: Sequence[int]) -> None:
    """Refuse a list of widths that makes no network.

    Raises:
        BadInput: when it is empty or longer than any image can be halved.
    """
    if not 1 <= len(channels) <= MAX_LEVELS:
        raise BadInput(
            f"channels of {len(channels)} levels",
            "make no network",
            f"give one width a level, for 1 to {MAX_LEVELS} levels",
        )


def check_patch(side: int, image_channels: int) -> None:
    """Refuse a square of pixels with more numbers than a layer is wide.

    Raises:
        BadInput: naming how many it has.
    """
    count = image_channels * side**2
    if count > MAX_WIDTH:
        raise BadInput(f"patch {side}", f"has {count:,} numbers", "use for example 2")


class NoiseFeatures(nn.Module):
    """Map a noise level to cosines and sines at geometrically spaced frequencies.

    The input is c_noise = ln(sigma) / 4, which spans about [-1.6, 1.1], so the frequencies run
    from 1/2 to 16: the slowest is monotonic over the range, the fastest tells neighbouring nodes
    of an 18-node grid apart.

    Args:
        count: How many frequencies; the output has twice as many columns.
    """

    def __init__(self, count: int) -> None:
        """Keep the number of frequencies; there is nothing to learn."""
        super().__init__()
        self.exponents = [-1.0 + 5.0 * k / max(count - 1, 1) for k in range(count)]

    def forward(self, noise: Tensor) -> Tensor:
        """Return the features [B, 2 * count] of the levels [B]."""
        exponents = torch.tensor(self.exponents, dtype=noise.dtype, device=noise.device)
        phase = noise[:, None] * torch.exp2(exponents)
        return torch.cat([phase.cos(), phase.sin()], dim=1)


class SeededDropout(nn.Module):
    """Dropout whose mask comes from a given generator, never from the global one.

    Args:
        rate: The probability of zeroing a value, in [0, 1).
    """

    def __init__(self, rate: float) -> None:
        """Start without a generator; a trainer supplies one per step."""
        super().__init__()
        self.rate = rate
        self.generator: torch.Generator | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Drop values while training; return the input itself otherwise.

        Raises:
            BadInput: when it trains at a positive rate without a generator.
        """
        if not self.training or self.rate == 0.0:
            return x
        if self.generator is None:
            raise BadInput(f"dropout {self.rate}", "has no generator", "call seed_dropout first")
        keep = (
            torch.rand(x.shape, generator=self.generator, dtype=torch.float32, device="cpu").to(
                x.device
            )
            >= self.rate
        )
        return x * keep / (1.0 - self.rate)


def seed_dropout(network: nn.Module, generator: torch.Generator) -> None:
    """Give every dropout layer of a network the generator of this training step."""
    for module in network.modules():
        if isinstance(module, SeededDropout):
            module.generator = generator


def groups_for(channels: int) -> int:
    """Return the largest number of groups up to 8 that divides the channels."""
    return next(g for g in (8, 4, 2, 1) if channels % g == 0)


class ClassTable(nn.Module):
    """Class embeddings, of which a negative label asks for the mean.

    The mean over all classes is how a class-conditional network starts out as an unconditional
    one (Consistency purification, appendix C).

    Args:
        classes: Number of classes.
        width: Width of the embedding.
    """

    def __init__(self, classes: int, width: int) -> None:
        """Create the table."""
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(classes, width))

    def forward(self, labels: Tensor) -> Tensor:
        """Return the embeddings [B, width] of labels [B]."""
        average = self.weight.mean(0, keepdim=True)
        return torch.where(labels[:, None] < 0, average, self.weight[labels.clamp_min(0)])


class Attention(nn.Module):
    """Single-head self-attention over positions, with an explicit softmax, added to its input.

    Args:
        channels: Width of the feature map.
    """

    def __init__(self, channels: int) -> None:
        """Create the projections; the last one starts at zero."""
        super().__init__()
        self.norm = nn.GroupNorm(groups_for(channels), channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.project = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return x plus what its positions [B, C, H, W] read from one another."""
        query, key, value = self.qkv(normalised(self.norm, x)).flatten(2).chunk(3, dim=1)
        scores = query.transpose(1, 2) @ key / math.sqrt(x.shape[1])
        mixed = value @ scores.softmax(dim=-1).transpose(1, 2)
        out: Tensor = x + self.project(mixed.reshape(x.shape))
        return out


class ResidualBlock(nn.Module):
    """Two normalised 3x3 convolutions around a noise-dependent scale and shift.

    y = skip(x) + conv2(drop(silu(norm(h) * (1 + scale) + shift))), h = conv1(silu(norm(x))).

    Args:
        before: Channels of the input.
        after: Channels of the output.
        dropout: Dropout rate in front of the second convolution.
        attend: Whether self-attention follows.
    """

    def __init__(self, before: int, after: int, dropout: float, attend: bool) -> None:
        """Create the layers; the second convolution starts at zero."""
        super().__init__()
        self.norm1 = nn.GroupNorm(groups_for(before), before)
        self.conv1 = Conv3x3(before, after)
        self.norm2 = nn.GroupNorm(groups_for(after), after)
        self.dropout = SeededDropout(dropout)
        self.conv2 = Conv3x3(after, after)
        self.skip = nn.Conv2d(before, after, 1) if before != after else nn.Identity()
        self.attention = Attention(after) if attend else nn.Identity()

    def forward(self, x: Tensor, modulation: Tensor, beside: Tensor | None = None) -> Tensor:
        """Return features [B, after, H, W].

        Args:
            x: Features [B, before, H, W].
            modulation: Scale and shift, [B, 2 * after, 1, 1], or [1, ...] for all rows.
            beside: The last channels [B, C, H, W] of the input, whose first ones are then x
                [B, before - C, H / 2, W / 2], each value meant for two by two pixels.
        """
        if beside is None:
            h, skipped = self.conv1(F.silu(normalised(self.norm1, x))), self.skip(x)
        else:
            h, skipped = self._upsampled(x, beside)
        scale, shift = modulation.chunk(2, dim=1)
        if len(modulation) == 1:  # the affine map of the normalisation has room for it
            norm, scale = self.norm2, 1.0 + scale.flatten()
            weight, bias = norm.weight * scale, norm.bias * scale + shift.flatten()
            h = pushable(h.to(weight.dtype))
            h = F.group_norm(h, norm.num_groups, weight, bias, norm.eps)
        else:
            h = normalised(self.norm2, h) * (1.0 + scale) + shift
        h = self.conv2(self.dropout(F.silu(h)))
        out: Tensor = self.attention(skipped + h)
        return out

    def _upsampled(self, low: Tensor, beside: Tensor) -> tuple[Tensor, Tensor]:
        """Return conv1(silu(norm1(x))) and skip(x) of x = [upsampled low, beside].

        What is done to each value is done before the upsampling, at a quarter of the cost.
        Upsampling and then a 3x3 convolution are a transposed 4x4 convolution, whose filters are
        the flipped ones summed over two by two taps, at four ninths of the cost.
        """
        width, conv, skip = low.shape[1], self.conv1, self.skip
        assert isinstance(skip, nn.Conv2d)  # there are more channels than the block answers with
        low_hidden, hidden = (F.silu(each) for each in _normalised_parts(self.norm1, low, beside))
        flipped = F.pad(conv.weight[:, :width].flip(2, 3), (1, 1, 1, 1))
        taps = F.avg_pool2d(flipped, 2, stride=1, divisor_override=1).transpose(0, 1)
        taps = taps.contiguous(memory_format=torch.channels_last)
        h = F.conv2d(hidden, conv.weight[:, width:], conv.bias, padding=1)
        h = h + F.conv_transpose2d(low_hidden, taps, stride=2, padding=1)
        skipped = F.conv2d(beside, skip.weight[:, width:], skip.bias)
        return h, skipped + _doubled(F.conv2d(low, skip.weight[:, :width]))


def normalised(norm: nn.GroupNorm, x: Tensor) -> Tensor:
    """Apply a group normalisation to [B, C, H, W] of any precision, in that of its weights.

    Sums of squares are no bfloat16, and the kernel that takes a gradient of two precisions needs
    several times the time of casts around the one of float32.
    """
    answer: Tensor = norm(pushable(x.to(norm.weight.dtype)))
    return answer


def pushable(x: Tensor) -> Tensor:
    """Return [B, C, H, W] in a layout whose tangent torch can push through a normalisation.

    Torch before 2.14 cannot where channels are last.
    """
    if _PUSHES_CHANNELS_LAST or x.is_contiguous():
        return x
    tangent = forward_ad.unpack_dual(x).tangent  # type: ignore[no-untyped-call]
    return x if tangent is None else x.contiguous()


def _normalised_parts(norm: nn.GroupNorm, *parts: Tensor) -> list[Tensor]:
    """Apply a group normalisation to the parts of its channels, each [B, C_i, H_i, W_i].

    Every pixel of a part counts for an equal share of its plane, so parts may differ in resolution.
    """
    rows, groups = len(parts[0]), norm.num_groups
    parts = tuple(each.to(norm.weight.dtype) for each in parts)

    def of_groups(values: tuple[Tensor, ...]) -> Tensor:
        return torch.cat(values, 1).reshape(rows, groups, -1).mean(2)

    means, squares = zip(*(_Moments.apply(each) for each in parts), strict=True)
    mean = of_groups(means)
    deviation = ((of_groups(squares) - mean.square()).clamp_min(0.0) + norm.eps).sqrt()
    size = norm.num_channels // groups
    factor = norm.weight / deviation.repeat_interleave(size, 1)
    offset = norm.bias - mean.repeat_interleave(size, 1) * factor
    widths = [each.shape[1] for each in parts]
    maps = zip(parts, torch.split(factor, widths, 1), torch.split(offset, widths, 1), strict=True)
    return [torch.addcmul(b[:, :, None, None], x, a[:, :, None, None]) for x, a, b in maps]


class _Moments(torch.autograd.Function):
    """Means of x and of its squares over the pixels of every channel, [B, C] of [B, C, H, W].

    The gradient, (a + 2 b x) / pixels, is one pass over x where autograd makes five.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        return x.mean((2, 3)), x.square().mean((2, 3))

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        a, b = (each[:, :, None, None] / x[0, 0].numel() for each in gradients)
        return torch.addcmul(a, x, b, value=2.0)

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor) -> tuple[Tensor, Tensor]:
        (x,) = ctx.saved_tensors
        return tangent.mean((2, 3)), 2.0 * (x * tangent).mean((2, 3))


def _doubled(x: Tensor) -> Tensor:
    """Repeat every pixel of [B, C, H, W] two by two."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")
