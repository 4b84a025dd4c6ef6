"""Make advertorch 0.2.3 importable: it is unmaintained and imports one name that torch has dropped.

The name is `torch.autograd.gradcheck.zero_gradients`. Everything else that advertorch's BPDAWrapper
and gradient attacks need still exists.
"""

import importlib
from collections.abc import Iterable
from types import ModuleType

from torch import Tensor

from advpure.base.extras import optional


def zero_gradients(tensors: Tensor | Iterable[Tensor]) -> None:
    """Set the accumulated gradients of a tensor, or of several, to zero in place."""
    for tensor in [tensors] if isinstance(tensors, Tensor) else tensors:
        if tensor.grad is not None:
            tensor.grad.detach_().zero_()


def load_advertorch(submodule: str = "") -> ModuleType:
    """Import advertorch, or one of its submodules, after supplying the missing name.

    Args:
        submodule: A dotted name below advertorch, such as "bpda".

    Raises:
        MissingExtra: when advertorch is not installed.
    """
    module = importlib.import_module("torch.autograd.gradcheck")
    if not hasattr(module, "zero_gradients"):
        module.zero_gradients = zero_gradients  # type: ignore[attr-defined]
    with optional("advertorch", "interop"):
        return importlib.import_module(f"advertorch.{submodule}" if submodule else "advertorch")
