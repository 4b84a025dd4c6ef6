"""Gradients of a chain with respect to its input: exact ones, and the approximations in use.

``full``: autograd through all steps; memory grows with the length of the chain.
``checkpoint``: the same numbers; every step is run again with the same noise when its turn comes
    backwards, so that the memory holds one step's activations and a bounded number of states,
    and those of the steps that `advpure.core.stored.set_step_memory` has room for.
``bpda``: the true value forward, the identity backward ([Athalye2018]).
``surrogate``: the true value forward, the exact gradient of a shorter chain backward
    ([Lee2023]).
"""

import contextlib
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from advpure.base.errors import BadInput
from advpure.base.validation import check_choice
from advpure.core.chain import Chain, Noise, Step
from advpure.core.meter import tick
from advpure.core.stored import StoredSteps, storing

GradientMode = Literal["full", "checkpoint", "bpda", "surrogate"]
KEPT_STATES = 128


@contextlib.contextmanager
def differentiating() -> Iterator[None]:
    """Record gradients inside, whatever surrounds the call: `no_grad` or `inference_mode`.

    Raises:
        BadInput: for weights made under `torch.inference_mode()`, which no gradient can pass.
    """
    try:
        with torch.inference_mode(False), torch.enable_grad():
            yield
    except RuntimeError as error:
        if "nference tensor" not in str(error):
            raise
        raise BadInput(
            "a model with weights made under torch.inference_mode()",
            "lets no gradient pass",
            "build or load it outside",
        ) from error


def plain(tensor: Tensor) -> Tensor:
    """Return a copy without a graph that gradients can start from, also of an inference tensor."""
    with torch.inference_mode(False):
        return tensor.detach().clone()


def check_mode(mode: str) -> None:
    """Refuse an unknown gradient mode."""
    check_choice(mode, get_args(GradientMode), "gradient")


def run_chain(
    chain: Chain, x: Tensor, noise: Noise, mode: GradientMode, surrogate: Chain | None = None
) -> Tensor:
    """Run a chain so that its backward pass gives the chosen gradient.

    Args:
        chain: The steps.
        x: State [B, C, H, W], model units.
        noise: The batch's noise; every mode replays exactly this noise.
        mode: See the module.
        surrogate: The shorter chain of ``surrogate``, run with the same noise.

    Returns:
        The final state. Its value is the same in every mode. Modes other than ``full``
        differentiate with respect to x only, once.
    """
    check_mode(mode)
    if mode == "full" or not len(chain):
        return chain.run(x, noise)
    if mode == "checkpoint":
        return _recompute(x, chain, noise)
    if mode == "bpda":
        return replace_gradient(x, lambda y: chain.run(y, noise), lambda y: y)
    if surrogate is None:
        raise BadInput(
            "gradient 'surrogate'",
            "has no shorter chain",
            "use a purifier with a surrogate (ddpm, reverse, ddim, vpsde, densepure), or bpda",
        )
    return replace_gradient(x, lambda y: chain.run(y, noise), lambda y: surrogate.run(y, noise))


def replace_gradient(
    x: Tensor, value: Callable[[Tensor], Tensor], backward: Callable[[Tensor], Tensor]
) -> Tensor:
    """Return value(x), differentiated as if it were backward(x)."""
    result: Tensor = _Replace.apply(x, value, backward)
    return result


def _recompute(x: Tensor, chain: Chain, noise: Noise) -> Tensor:
    result: Tensor = _Recompute.apply(x, chain, noise, storing(chain, x))
    return result


def pull_back(y: Tensor, x: Tensor, gradient: Tensor) -> Tensor:
    """Return the gradient at x, zero where y does not depend on it, as plain autograd has it."""
    if not y.requires_grad:
        return torch.zeros_like(x)
    (pulled,) = torch.autograd.grad(y, x, gradient, materialize_grads=True)
    return pulled


class _Replace(torch.autograd.Function):
    """The value of one function with the vector-Jacobian product of another."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, value: Callable[[Tensor], Tensor], backward: Callable[[Tensor], Tensor]
    ) -> Tensor:
        ctx.save_for_backward(x)
        ctx.chain = backward
        return value(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        with differentiating():
            x = x.detach().requires_grad_()
            y = ctx.chain(x)
            if y is x:
                return gradient, None, None
            pulled = pull_back(y, x, gradient)
        return pulled, None, None


class _Recompute(torch.autograd.Function):
    """Run a chain keeping few states; rerun each step with its own noise on the way back.

    At most KEPT_STATES states at segment starts, plus one segment's states, live at a time.
    Steps with a known scalar derivative are neither kept nor rerun, and stored ones are not rerun.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, chain: Chain, noise: Noise, stored: StoredSteps | None
    ) -> Tensor:
        length = math.ceil(len(chain) / KEPT_STATES)
        starts: dict[int, Tensor] = {}
        for k, step in enumerate(chain):
            segment = chain[k : k + length] if k % length == 0 else None
            if segment is not None and any(s.gain is None for s in segment):
                starts[k] = x
            drawn = noise.of(step, x)
            if stored is None or step.gain is not None:
                x = step.move(x, drawn)
            else:
                x = stored.run(k, functools.partial(_moved, step, drawn), x)
        ctx.chain, ctx.noise, ctx.length, ctx.stored = chain, noise, length, stored
        ctx.places = list(starts)
        ctx.save_for_backward(*starts.values())
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        starts = dict(zip(ctx.places, ctx.saved_tensors, strict=True))
        chain: Chain = ctx.chain
        for first in reversed(range(0, len(chain), ctx.length)):
            segment = chain[first : first + ctx.length]
            states = [starts[first]] if first in starts else []
            last = _last_to_rerun(segment, first, ctx.stored)
            for k, step in enumerate(segment[:-1] if states else ()):
                if k < last:
                    states.append(step.move(states[-1], ctx.noise.of(step, states[-1])))
                else:
                    tick(step.evaluations * len(gradient))  # counts do not depend on the memory
            for k, step in reversed(list(enumerate(segment))):
                if step.gain is not None:
                    gradient = gradient * step.gain
                    continue
                kept = ctx.stored.take(first + k) if ctx.stored is not None else None
                with differentiating():
                    if kept is None:
                        x = states[k].detach().requires_grad_()
                        y = step.move(x, ctx.noise.of(step, x))
                    else:
                        x, y = kept
                        tick(step.evaluations * len(x))  # as above
                    gradient = pull_back(y, x, gradient)
                    del kept, x, y
        return gradient, None, None, None


def _last_to_rerun(segment: Chain, first: int, stored: StoredSteps | None) -> int:
    """Return the index in a segment of the last step whose graph is not stored, -1 for none."""
    kept = stored.kept if stored is not None else {}
    needed = [k for k, s in enumerate(segment) if s.gain is None and first + k not in kept]
    return needed[-1] if needed else -1


def _moved(step: Step, drawn: Any, x: Tensor) -> Tensor:
    return step.move(x, drawn)
