"""Units, in one place: images and strengths live in [0, 1] outside a denoiser, [-1, 1] inside.

A standard deviation or a distance s in [0, 1] units is 2 s in model units.
"""

import math
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from advpure.base.errors import BadInput
from advpure.base.text import digits
from advpure.base.validation import number

Norm = Literal["linf", "l2"]
_L2_CEILING = 4.0
_TOLERANCE = 1e-6
_SMALLEST = 1e-15
"""Below it no image of any precision changes."""


def to_model(images: Tensor) -> Tensor:
    """Map images from [0, 1] to the [-1, 1] of the networks: 2x - 1."""
    return images * 2.0 - 1.0


def to_unit(states: Tensor) -> Tensor:
    """Map network states from [-1, 1] back to [0, 1], unclipped: (x + 1) / 2."""
    return (states + 1.0) / 2.0


def parse_number(text: str | float, what: str) -> float:
    """Read a finite number or a fraction such as 8/255.

    Args:
        text: A number, or its text, possibly a fraction of two numbers.
        what: The name used in the error.

    Raises:
        BadInput: when the text is no finite number.

    Example:
        >>> round(parse_number("8/255", "epsilon"), 6)
        0.031373
    """
    return number(text, what)


def as_number(value: Any) -> float | None:
    """Return a number or fraction such as 8/255 as a float, None for anything else.

    Example:
        >>> as_number("1/4"), as_number("ddpm"), as_number(True)
        (0.25, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return parse_number(value, "value")
    except BadInput:
        return None


def refuse_l1(norm: object) -> None:
    """Refuse the l1 ball with its reason; other words are left to the list of norms.

    Raises:
        BadInput: for l1.

    Example:
        >>> refuse_l1("l1")
        Traceback (most recent call last):
        ...
        advpure.BadInput: norm l1 is not covered: its balls hold sparse changes, which neither the \
steps and projections nor the random search here are made for; use linf or l2
    """
    if isinstance(norm, str) and norm.strip().lower() in ("l1", "l_1"):
        raise BadInput(
            "norm l1",
            "is not covered: its balls hold sparse changes, which neither the steps and "
            "projections nor the random search here are made for",
            "use linf or l2",
        )


def parse_eps(text: str | float, norm: Norm = "linf") -> float:
    """Read a perturbation bound in [0, 1] units.

    Args:
        text: A number or fraction. A bare whole number is ambiguous and refused.
        norm: The norm that it bounds; an l-inf bound is at most 1.

    Returns:
        The bound, in [0, 1] units.

    Raises:
        BadInput: when it is not positive, not finite, or could be in 0..255 units.

    Example:
        >>> parse_eps("2/255") == 2 / 255
        True
    """
    value = parse_number(text, "epsilon")
    if value <= 0:
        raise BadInput(f"epsilon {text}", "is not positive", "write for example 8/255")
    if value < _SMALLEST:
        rule = f"is below {_SMALLEST:g}, where no image changes"
        raise BadInput(f"epsilon {text}", rule, "write for example 8/255")
    ceiling = 1.0 if norm == "linf" else _L2_CEILING
    whole = isinstance(text, int | np.integer) or (
        isinstance(text, str) and digits(text.strip()) is not None
    )
    fraction = isinstance(text, str) and "/" in text
    if (whole and norm == "linf") or (value > ceiling and not (fraction and norm == "l2")):
        raise BadInput(
            f"epsilon {text}",
            "is ambiguous, since images live in [0, 1]",
            f"write {value:g}/255 or {value:.1f}/1"
            if value <= ceiling
            else f"write {value:g}/255 ({value:.1f} in [0, 1] units reaches beyond every image)",
        )
    return value


def parse_sigma(text: str | float) -> float:
    """Read a noise level in [0, 1] units; the networks see twice as much.

    Raises:
        BadInput: when it is negative or could be in 0..255 units (above 40).
    """
    value = parse_number(text, "sigma")
    if value <= 0:
        raise BadInput(f"sigma {text}", "is not positive", "write for example 0.25")
    if value > 40:
        raise BadInput(
            f"sigma {text}",
            "is above 40, the noise of the sampler's start (sigma is in [0, 1] units)",
            f"write {value / 255:.4g} if you meant {value:g}/255",
        )
    return value


def check_images(images: Tensor, labels: Tensor | None = None) -> None:
    """Refuse anything but float images [B, C, H, W] in [0, 1] with matching labels.

    Args:
        images: Candidate images.
        labels: Optional class indices [B], int64.

    Raises:
        BadInput: naming the first rule that is broken.
    """
    check_plain(images, "images", "pass torch.from_numpy(...)")
    if images.ndim != 4:
        subject = f"images of shape {tuple(images.shape)}"
        raise BadInput(subject, "are not [B, C, H, W]", "add the missing axes")
    if not images.is_floating_point():
        fix = "take the real part" if images.is_complex() else "divide by 255 first"
        raise BadInput(f"images of dtype {images.dtype}", "are not floating point", fix)
    if images.numel():
        low, high = (float(v) for v in torch.aminmax(images.detach()))
        if not (low >= -_TOLERANCE and high <= 1 + _TOLERANCE):
            raise BadInput(
                f"images with values in [{low:.4g}, {high:.4g}]",
                "leave [0, 1]",
                _range_fix(low, high),
            )
    if labels is not None:
        check_labels(labels, images.shape[0])


def _range_fix(low: float, high: float) -> str:
    """Say what brings images with these extremes into [0, 1]."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return "remove the NaN or infinite values"
    if low >= 0:
        return "divide by 255" if high > 2 else "clip them"
    if low >= -1 - _TOLERANCE and high <= 1 + _TOLERANCE:
        return "map them with (x + 1) / 2"
    return "put the normalisation into the model, in front of its network"


def check_plain(tensor: object, what: str, fix: str) -> None:
    """Refuse what is no tensor with values in memory: other objects, sparse and meta tensors.

    Args:
        tensor: What was given.
        what: Its name in the error, in the plural.
        fix: How to make a tensor of it.

    Raises:
        BadInput: naming the kind.
    """
    if not isinstance(tensor, Tensor):
        raise BadInput(f"{what} of type {type(tensor).__name__}", "are not a tensor", fix)
    if tensor.layout != torch.strided or tensor.is_nested:
        layout = str(tensor.layout).removeprefix("torch.")
        raise BadInput(f"{what} of layout {layout}", "are not dense", "call to_dense()")
    if tensor.is_meta:
        raise BadInput(f"{what} on the device meta", "have no values", "make them on the CPU")


def check_labels(labels: Tensor, count: int) -> None:
    """Refuse anything but `count` whole, non-negative class indices."""
    check_plain(labels, "labels", "pass an int64 tensor")
    if labels.shape != (count,):
        raise BadInput(
            f"labels of shape {tuple(labels.shape)}",
            f"do not match {count} images",
            "give one each",
        )
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise BadInput(f"labels of dtype {labels.dtype}", "are not class indices", "use int64")
    if count and int(labels.min()) < 0:
        raise BadInput(f"label {int(labels.min())}", "is negative", "number classes from 0")


def check_reach(length: float, norm: str, what: str) -> None:
    """Refuse a length that is meant in 0..255 units, since it leaves every image in [0, 1].

    Raises:
        BadInput: for more than 1 in the l-inf norm, or 4 in the l2 norm.

    Example:
        >>> check_reach(2.0, "linf", "step size")
        Traceback (most recent call last):
        ...
        advpure.BadInput: step size 2 is ambiguous, since images live in [0, 1]; write 2/255
    """
    if length > (1.0 if norm == "linf" else _L2_CEILING):
        rule = "is ambiguous, since images live in [0, 1]"
        raise BadInput(f"{what} {length:g}", rule, f"write {length:g}/255")


def check_radius(eps: float, dtype: torch.dtype, what: str = "epsilon") -> None:
    """Refuse a perturbation, or a step, so small that the dtype cannot add it to an image.

    Raises:
        BadInput: naming the spacing of the dtype's numbers near 1.

    Example:
        >>> check_radius(1e-9, torch.float32)
        Traceback (most recent call last):
        ...
        advpure.BadInput: epsilon 1e-09 is below 1.2e-07, the spacing of float32 numbers \
near 1; use float64 images and networks, or a larger one
    """
    spacing = torch.finfo(dtype).eps
    if eps < spacing:
        name = str(dtype).removeprefix("torch.")
        raise BadInput(
            f"{what} {eps:.3g}",
            f"is below {spacing:.2g}, the spacing of {name} numbers near 1",
            "use float64 images and networks, or a larger one",
        )
