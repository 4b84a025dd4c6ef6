"""J^T u, the derivative backwards: the adjoint of `push_forward`."""

from collections.abc import Callable

import torch
from torch import Tensor

from advpure.base.errors import BadInput
from advpure.base.units import check_plain
from advpure.core.gradients import differentiating, plain


def check_directions(function: object, x: Tensor, v: Tensor) -> None:
    """Refuse what cannot be differentiated: no callable, or no floats of one shape.

    Raises:
        BadInput: naming it.
    """
    if not callable(function):
        kind = type(function).__name__
        raise BadInput(f"a function of type {kind}", "cannot be called", "pass a map of tensors")
    for rows in (x, v):
        check_plain(rows, "states and directions", "pass tensors [B, ...]")
    if not (x.is_floating_point() and v.is_floating_point()) or x.shape != v.shape or not len(x):
        raise BadInput(
            f"states {list(x.shape)} of {x.dtype} and directions {list(v.shape)} of {v.dtype}",
            "are not floats of one shape",
            "pass one direction for each state",
        )


def pull_back(function: Callable[[Tensor], Tensor], x: Tensor, u: Tensor) -> Tensor:
    """Return J^T u of a row-wise function at x, by reverse-mode derivatives.

    A purifier in the gradient mode ``checkpoint`` keeps few states, so the memory does not grow
    with its length; ``bpda`` and ``surrogate`` give another matrix than J^T.

    Args:
        function: [B, ...] to [B, ...], differentiable, rows independent.
        x: Where, [B, ...].
        u: Directions, [B, ...].

    Returns:
        [B, ...], detached; 0 where the result does not depend on x. Cost: one evaluation and one
        backward pass.

    Raises:
        BadInput: when nothing of the result is differentiable, or the derivative is not finite.

    Example:
        >>> pull_back(lambda y: y**2, torch.tensor([3.0]), torch.tensor([1.0])).tolist()
        [6.0]
    """
    check_directions(function, x, u)
    with differentiating():
        x, u = plain(x).requires_grad_(), plain(u)
        y = function(x)
        if not y.requires_grad:
            raise BadInput(
                "this purifier (the purified image does not depend on the image differentiably)",
                "has no derivative backwards",
                'use gradient="full" and differentiable operations, or method jvp',
            )
        (pulled,) = torch.autograd.grad(y, x, u, materialize_grads=True)
    if not bool(pulled.isfinite().all()):
        raise BadInput("a purifier's derivative", "is not finite", "check its settings and dtype")
    result: Tensor = pulled.detach()
    return result
