"""Structural similarity of images.

SSIM = (2 mu_a mu_b + C1)(2 s_ab + C2) / ((mu_a^2 + mu_b^2 + C1)(s_a^2 + s_b^2 + C2)), with means,
variances and covariance under a Gaussian window, C = (K L)^2 and L = 1 the range of the data; mean
over all places where the window fits, and over channels. Only this valid region counts, and a
window of any size keeps its standard deviation; torchmetrics averages a padded border too, and
derives the size from the standard deviation, so that its window never fits 8 x 8 digits.

Source: [Wang2004]: window 11 x 11 of standard deviation 1.5, K = (0.01, 0.03). Images smaller
than the window get the largest odd one that fits (7 x 7 for 8 x 8 digits).
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from advpure.base.errors import BadInput
from advpure.base.units import check_images
from advpure.base.validation import whole

_K1, _K2 = 0.01, 0.03
_SIGMA, _LARGEST = 1.5, 11


def ssim_window(height: int, width: int) -> int:
    """Return the side of the window for images of a size.

    Example:
        >>> ssim_window(32, 32), ssim_window(8, 8)
        (11, 7)
    """
    side = min(height, width, _LARGEST)
    return side - 1 + side % 2


def ssim(a: Tensor, b: Tensor, window: int | None = None) -> Tensor:
    """Measure the structural similarity of pairs of images.

    Args:
        a: [B, C, H, W], floating point in [0, 1].
        b: The same shape.
        window: Side of the Gaussian window, odd; None for 11, or the largest that fits.

    Returns:
        [B], float64, at most 1; 1 for equal images. Differentiable.

    Raises:
        BadInput: for values outside [0, 1], unlike shapes, or a window that is even or too large.

    Example:
        >>> x = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
        >>> ssim(x, x).item()
        1.0
    """
    for images in (a, b):
        check_images(images)
    if a.shape != b.shape:
        raise BadInput(
            f"images of shapes {tuple(a.shape)} and {tuple(b.shape)}",
            "are not two equal [B, C, H, W]",
            "compare images of one size",
        )
    height, width = a.shape[2:]
    side = ssim_window(height, width) if window is None else whole(window, "window", 1)
    if side < 1 or side % 2 == 0 or side > min(height, width):
        rule = f"is not odd, or does not fit {height} x {width} images"
        raise BadInput(f"window {side}", rule, f"use {ssim_window(height, width)}")
    x, y = a.double(), b.double()
    mean_x, mean_y = _blur(x, side), _blur(y, side)
    var_x, var_y = _blur(x * x, side) - mean_x**2, _blur(y * y, side) - mean_y**2
    both = _blur(x * y, side) - mean_x * mean_y
    c1, c2 = _K1**2, _K2**2
    similar = (2 * mean_x * mean_y + c1) * (2 * both + c2)
    each: Tensor = similar / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))
    return each.mean(dim=(1, 2, 3))


def _blur(images: Tensor, side: int) -> Tensor:
    """Average under the window where it fits: rows first, then columns."""
    offsets = torch.arange(side, dtype=images.dtype, device=images.device) - (side - 1) / 2
    bell = torch.exp(-offsets.square() / (2 * _SIGMA**2))
    bell = bell / bell.sum()
    flat = images.reshape(-1, 1, *images.shape[2:])
    blurred = F.conv2d(F.conv2d(flat, bell.view(1, 1, -1, 1)), bell.view(1, 1, 1, -1))
    return blurred.reshape(*images.shape[:2], *blurred.shape[2:])
