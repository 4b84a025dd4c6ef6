"""Memory for the graphs of a chain's steps, so that their gradient need not run them again.

A recomputed gradient runs every step twice forwards. Steps whose graphs fit into a budget of the
process are kept from the forward pass instead, the first ones of a chain first, and the others are
run again: the same operations on the same numbers, so the same bits. The budget is shared by
everything that is alive: tiles, draws and chains. What a step needs is weighed when its chain is
first run on a shape, as the tensors that autograd saves.
"""

import weakref
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from advpure.base.memory import STEPS
from advpure.base.validation import Range, number
from advpure.core.chain import Chain

_Shape = tuple[torch.Size, torch.dtype]
_SIZES: weakref.WeakKeyDictionary[Chain, dict[_Shape, dict[int, int]]] = weakref.WeakKeyDictionary()


def set_step_memory(megabytes: float) -> None:
    """Bound the memory of stored steps in this process; 0, the default, stores none.

    It is for a program to decide: commands allow a sixteenth of the free memory, from 512 to 4096,
    and 512 on a GPU. No number that is computed changes.

    Args:
        megabytes: Of all graphs that are alive at once; docs/speed.md has what those of the shipped
            networks need.

    Raises:
        BadInput: for a number below 0.
    """
    size = int(number(megabytes, "a memory of megabytes", Range(least=0)) * 2**20)
    STEPS.limit = STEPS.on_devices = size


class _Kept(NamedTuple):
    """A step's input and answer, with the graph between them."""

    x: Tensor
    y: Tensor


class StoredSteps:
    """The graphs of one run of a chain, as far as they fit; freed with it, or as they are taken.

    Args:
        chain: What is run.
        like: Its first state, [B, C, H, W].
    """

    def __init__(self, chain: Chain, like: Tensor) -> None:
        """Look up what the steps weigh on this shape."""
        sizes = _SIZES.setdefault(chain, {})
        self.weighing = (like.shape, like.dtype) not in sizes
        self.sizes = sizes.setdefault((like.shape, like.dtype), {})
        self.kept: dict[int, _Kept] = {}
        self.held: dict[int, int] = {}
        weakref.finalize(self, _give_back, self.held)

    def run(self, k: int, call: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """Return a step's answer to x, and keep its graph where the budget has room.

        Args:
            k: Index of the step.
            call: The step, with its noise.
            x: Its input.
        """
        if self.weighing:
            y, self.sizes[k] = _weighed(call, x)
            return y
        size = self.sizes.get(k)
        if size is None or not STEPS.take(size, on_device=x.device.type != "cpu"):
            return call(x)
        self.held[k] = size
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            y = call(x)
        self.kept[k] = _Kept(x, y)
        return y.detach()

    def take(self, k: int) -> _Kept | None:
        """Return the graph of a step once, if it is kept; its memory is the caller's."""
        if k in self.held:
            STEPS.give_back(self.held.pop(k))
        return self.kept.pop(k, None)


def storing(chain: Chain, x: Tensor) -> StoredSteps | None:
    """Return where to keep the steps of a chain, None where no gradient or no memory is asked."""
    wanted = STEPS.limit and torch.is_grad_enabled() and x.requires_grad
    return StoredSteps(chain, x) if wanted else None


def _weighed(call: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, int]:
    """Return the answer of a step, and the bytes that autograd saves for its gradient."""
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            storage = tensor.untyped_storage()
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()

    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
    with torch.enable_grad(), hooks:
        y = call(x.detach().requires_grad_())
    return y.detach(), sum(saved.values())


def _give_back(held: dict[int, int]) -> None:
    while held:
        STEPS.give_back(held.popitem()[1])
