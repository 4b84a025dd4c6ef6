"""What a run will cost, before it starts: evaluations counted, seconds and memory calibrated."""

import statistics
import time
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from advpure.base.peak import peak_resident
from advpure.core.chain import Chain
from advpure.core.defense import Defense
from advpure.core.purifier import Purifier

_LONG = 12  # network evaluations of a chain that is timed in part
_FEW = 3


@dataclass(frozen=True)
class Cost:
    """The most that a run can cost.

    Attributes:
        images: Images still to do.
        evaluations: Network evaluations forward (denoiser and classifier), at most.
        backwards: Backward passes through the defense, at most.
        seconds: Wall time at the speed of one calibrated tile, at most.
        peak_memory: Bytes at the peak of the calibration, the program itself included.
    """

    images: int
    evaluations: int
    backwards: int
    seconds: float
    peak_memory: int

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return asdict(self)


def estimate(
    defense: Defense | Purifier, images: Tensor, count: int, forwards: int, backwards: int
) -> Cost:
    """Time one forward and one forward-and-backward tile, and scale.

    A long chain is timed by its beginning, so that an estimate takes seconds for any chain.

    Args:
        defense: The defense, or the purifier alone.
        images: A few images to calibrate on, [B, C, H, W]; one tile is filled with them.
        count: Images of the run.
        forwards: Forward passes per image, those with a gradient included.
        backwards: Backward passes per image.
    """
    rows = defense.tile or len(images)
    tile = images[torch.arange(rows, dtype=torch.int64, device="cpu") % len(images)]
    view = defense.at(ids=torch.arange(rows, dtype=torch.int64, device="cpu"))
    tiles = -(-count // rows)
    plain, full = _seconds(view, tile, False), 0.0
    if backwards:
        full = _seconds(view, tile, True)
    seconds = tiles * ((forwards - backwards) * plain + backwards * full)
    each = defense.evaluations if isinstance(defense, Defense) else defense.chain.evaluations
    total = count * forwards * each
    return Cost(count, total, count * backwards, seconds, peak_memory(tile.device))


def _seconds(view: Defense | Purifier, tile: Tensor, gradient: bool) -> float:
    """Return the seconds of one call; of a long chain from those of two of its beginnings.

    Time grows linearly with the steps, in every gradient mode that follows the chain itself.
    """
    purifier = view.purifier if isinstance(view, Defense) else view
    chain = purifier.chain
    if chain.evaluations <= _LONG or (gradient and purifier.gradient == "surrogate"):
        return _timed(view, tile, gradient)
    few, more = (_beginning(chain, evaluations) for evaluations in (_FEW, 2 * _FEW))
    if more.evaluations == few.evaluations:  # one step takes most of them
        return _timed(view, tile, gradient)
    short, longer = (_timed(_with_chain(view, cut), tile, gradient) for cut in (few, more))
    each = max(longer - short, 0.0) / (more.evaluations - few.evaluations)
    return longer + each * (chain.evaluations - more.evaluations)


def _beginning(chain: Chain, evaluations: int) -> Chain:
    """Return the shortest beginning of a chain with so many network evaluations."""
    return next(
        chain[:end] for end in range(1, len(chain) + 1) if chain[:end].evaluations >= evaluations
    )


def _with_chain(view: Defense | Purifier, chain: Chain) -> Defense | Purifier:
    """Return a view that runs another chain."""
    cut = view.at()
    if isinstance(cut, Defense):
        cut.purifier = cut.purifier.at()
        cut.purifier.chain = chain
    else:
        cut.chain = chain
    return cut


def _timed(view: Defense | Purifier, tile: Tensor, gradient: bool) -> float:
    """Return the median seconds of a few calls after one that warms up.

    A call that takes over two seconds is timed once, so that an estimate stays quick.
    """
    taken: list[float] = []
    while len(taken) < 2 or (len(taken) < 4 and taken[-1] < 2.0):
        start = time.perf_counter()
        x = tile.detach().clone().requires_grad_(gradient)
        with torch.set_grad_enabled(gradient):
            y = view(x)
            if gradient and y.requires_grad:
                torch.autograd.grad(y.sum(), x)
        if tile.device.type == "cuda":
            torch.cuda.synchronize(tile.device)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken[1:])


def peak_memory(device: torch.device) -> int:
    """Return the most bytes that this process has used so far, on a GPU those of torch."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return peak_resident()
