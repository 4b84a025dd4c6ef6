"""Networks in a lower precision, everything around them in float32.

Convolutions and matrix products of a network are computed in bfloat16 or float16, as autocast
chooses; its weights stay as they are. What a network is given and answers with, so the states
between steps, the images, the noise and the logits, is float32. Gradients pass the same way back:
they are those of the network in that precision, also where a step is computed again.

float16 has no number below 6e-8, and the gradient of a confident classifier is smaller: it would
vanish, and the defense look robust. So each row of a gradient is multiplied by a power of two
before it enters a network, and divided by it behind, which rounds nothing.
"""

import functools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from advpure.base.errors import BadInput
from advpure.base.imports import explain
from advpure.base.validation import check_choice

Precision = Literal["float32", "bfloat16", "float16"]


def check_precision(precision: str, device: str = "cpu") -> None:
    """Refuse a precision that is not known, or that a device does not compute in.

    Args:
        precision: See `Precision`.
        device: As of `advpure.base.devices.check_device`.

    Raises:
        BadInput: naming it and the reason.

    Example:
        >>> check_precision("int8")
        Traceback (most recent call last):
        ...
        advpure.BadInput: precision 'int8' is not known; known: float32, bfloat16, float16
    """
    check_choice(precision, get_args(Precision), "precision")
    fault = "" if precision == "float32" else _fault(precision, torch.device(device).type)
    if fault:
        rule = f"cannot be computed on {device} here ({fault})"
        raise BadInput(f"precision {precision}", rule, "use float32")


@functools.cache
def _fault(precision: str, kind: str) -> str:
    """Return why a device does not convolve in a precision, forwards and back; empty if it does."""
    x = torch.ones(1, 8, 4, 4, device=kind, requires_grad=True)
    weight = torch.ones(8, 8, 3, 3, device=kind)
    try:
        with torch.inference_mode(False), torch.enable_grad():
            with torch.autocast(kind, getattr(torch, precision)):
                y = F.conv2d(x, weight)
            torch.autograd.grad(y.float().sum(), x)
    except RuntimeError as error:
        return explain(error)
    return ""


def is_emulated(precision: Precision) -> bool:
    """Return whether the processor has no instructions for a precision: right, but slower."""
    asked = {"bfloat16": "_is_mkldnn_bf16_supported", "float16": "_is_mkldnn_fp16_supported"}
    ask = getattr(torch.ops.mkldnn, asked[precision], None) if precision in asked else None
    return ask is not None and not ask()


class InPrecision(nn.Module):
    """A network in a lower precision, from float32 to float32.

    Args:
        network: A module or function; its first argument and its answer are tensors [B, ...].
        precision: See `Precision`.
    """

    def __init__(self, network: Callable[..., Any], precision: Precision) -> None:
        """Wrap the network, which stays as it is."""
        super().__init__()
        self.network: Any = network
        self.precision = precision
        self.training = False
        if hasattr(network, "features"):  # what represents images does so in the precision too
            self.features = functools.partial(computed_in, precision, network.features)

    def forward(self, x: Tensor, *others: Any) -> Tensor:
        """Answer.

        Raises:
            BadInput: for another precision than float32.
        """
        return computed_in(self.precision, self.network, x, *others)


def computed_in(
    precision: Precision, function: Callable[..., Tensor], x: Tensor, *others: Any
) -> Tensor:
    """Return a function's answer, computed in a precision; see the module.

    Args:
        precision: See `Precision`; float32 is a plain call.
        function: Takes x and the others.
        x: float32, [B, ...].
        others: What else it takes.

    Raises:
        BadInput: for a lower precision and an x of another type.
    """
    if precision == "float32":
        return function(x, *others)
    if x.dtype != torch.float32:
        raise BadInput(
            f"images of {x.dtype} for networks in {precision}".replace("torch.", ""),
            "mix two precisions",
            "pass images.float(), or load the networks without precision",
        )
    sizes = SimpleNamespace()
    if precision == "float16":
        x = _Divide.apply(x, sizes)
    with torch.autocast(x.device.type, getattr(torch, precision)):
        answer = function(x, *others)
    answer = answer.float()
    return _Multiply.apply(answer, sizes) if precision == "float16" else answer


class _Multiply(torch.autograd.Function):
    """Identity whose gradient is multiplied row by row, to a largest magnitude of about 1."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, sizes: SimpleNamespace) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        ctx.sizes = inputs[1]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        largest = gradient.detach().flatten(1).abs().amax(1).clamp_min(2.0**-100)
        size = torch.ldexp(torch.ones_like(largest), largest.frexp().exponent)
        ctx.sizes.of_rows = size
        return gradient / _column(size, gradient), None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _: None) -> Tensor:
        return tangent.view_as(tangent)


class _Divide(torch.autograd.Function):
    """Identity whose gradient loses the factor that `_Multiply` gave it."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, sizes: SimpleNamespace) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Tensor) -> None:
        ctx.sizes = inputs[1]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * _column(ctx.sizes.of_rows, gradient), None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _: None) -> Tensor:
        return tangent.view_as(tangent)


def _column(size: Tensor, like: Tensor) -> Tensor:
    return size.reshape(-1, *[1] * (like.ndim - 1))
