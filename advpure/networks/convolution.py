"""A 3x3 convolution that is one matrix product where a map has few pixels.

On a map of 2x2 pixels five of nine taps fall on the border, and kernels work on blocks of channels,
so that four channels cost as much as sixteen. Pixels and channels together, times a matrix that is
made once, take less time there.

The matrix is kept beside the module, where copies, files and fingerprints do not see it, with the
filters that it was made of, and holds while these are what they were, number by number: versions
of tensors say nothing of changes through NumPy, shared memory or fused optimisers.
"""

from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

Numbers = npt.NDArray[Any]

_SIDE, _SIDE_OF_FEW = 2, 4
"""Pixels a side up to which the product is faster, for any number of channels and for few."""

_FEW = 4
"""Channels, before or after, that count as few."""


class Conv3x3(nn.Conv2d):
    """A 3x3 convolution with a border of zeros; see the module.

    It is the product on a CPU, for more than one row, and where no filter learns: one row has a
    kernel of its own, which starts sooner. Weights are those of `nn.Conv2d`.

    Args:
        before: Channels of the input.
        after: Channels of the output.
    """

    def __init__(self, before: int, after: int) -> None:
        """Create the filters."""
        super().__init__(before, after, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return features [B, after, H, W] of [B, before, H, W]."""
        weight, bias = self.weight, self.bias
        if not (
            _is_faster(x, weight) and _is_frozen(weight) and (bias is None or _is_frozen(bias))
        ):
            convolved: Tensor = self._conv_forward(x, weight, bias)
            return convolved
        made = self._product(weight, bias, x.shape[2], x.shape[3])
        answer = F.linear(x.permute(0, 2, 3, 1).flatten(1), made.matrix, made.bias)
        return answer.reshape(x.shape[0], x.shape[2], x.shape[3], -1).permute(0, 3, 1, 2)

    def _product(self, weight: Tensor, bias: Tensor | None, *sides: int) -> "_Product":
        """Return the product for maps of some sides, made again when the filters have changed."""
        known = _PRODUCTS.setdefault(self, {})
        made = known.get(sides)
        with torch._C._DisableFuncTorch():  # or it would belong to a transformation of torch.func
            if made is None or not made.is_of(weight, bias):
                made = known[sides] = _Product.of(weight, bias, *sides)
        return made


def _is_faster(x: Tensor, weight: Tensor) -> bool:
    """Whether the product takes less time than the convolution, and may take its place."""
    shape = x.shape
    if len(shape) != 4 or max(shape[2:]) > _SIDE_OF_FEW or not min(shape[2:]):
        return False
    if max(shape[2:]) > _SIDE and min(weight.shape[:2]) > _FEW:
        return False
    if torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None:
        return False  # what is recorded is for batches of other sizes too
    return shape[0] > 1 and x.device.type == "cpu"


def _is_frozen(filters: Tensor) -> bool:
    """Whether nobody asks for a derivative by these, in either mode, and NumPy can read them."""
    return (
        type(filters) is nn.Parameter
        and not filters.requires_grad
        and filters.dtype in (torch.float32, torch.float64)
        and filters.device.type == "cpu"
    )


@dataclass(frozen=True)
class _Product:
    """The matrix of a convolution, [H W after, H W before], and the filters that it was made of."""

    matrix: Tensor
    bias: Tensor | None
    sources: tuple[Numbers, Numbers | None]

    @classmethod
    @torch.inference_mode(False)  # gradients may pass it later
    def of(cls, weight: Tensor, bias: Tensor | None, height: int, width: int) -> "_Product":
        """Put the filters where a pixel after looks at one before, and zeros elsewhere."""
        border = [(0, 0), (max(height - 2, 0),) * 2, (max(width - 2, 0),) * 2, (0, 0)]
        taps = np.pad(weight.numpy().transpose(0, 2, 3, 1), border)
        taps = taps[:, 1:2] if height == 1 else taps
        taps = taps[:, :, 1:2] if width == 1 else taps
        row, down, right, channel = taps.strides
        looks = np.lib.stride_tricks.as_strided(  # one step on after is one step back before
            taps[:, height - 1 :, width - 1 :],
            (height, width, len(taps), height, width, taps.shape[3]),
            (-down, -right, row, down, right, channel),
        )
        matrix = torch.from_numpy(looks.reshape(height * width * len(taps), -1).copy())
        repeated = None if bias is None else torch.from_numpy(np.tile(bias, height * width))
        bare = None if bias is None else bias.numpy().copy()
        return cls(matrix, repeated, (weight.numpy().copy(order="K"), bare))

    def is_of(self, weight: Tensor, bias: Tensor | None) -> bool:
        """Whether it was made of these numbers."""
        return _is_same(weight, self.sources[0]) and _is_same(bias, self.sources[1])


def _is_same(now: Tensor | None, before: Numbers | None) -> bool:
    if now is None or before is None:
        return now is None and before is None
    numbers = now.numpy()
    return (
        numbers.dtype == before.dtype
        and numbers.shape == before.shape
        and bool((numbers == before).all())
    )


_PRODUCTS: "WeakKeyDictionary[Conv3x3, dict[tuple[int, ...], _Product]]" = WeakKeyDictionary()
