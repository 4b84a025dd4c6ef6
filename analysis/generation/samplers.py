"""Samplers: chains that start from noise alone instead of from a noisy image.

A chain that adds noise of a level to an image and removes it again is a sampler where the image is
the grey one (0 in model units) and the level is the largest that the network knows. So the steps
are those of the purifiers:

* ``cm``: D(sigma_max z; sigma_max), then noise again at lower nodes of the grid and D again
  ([Song2023], algorithm 1), every estimate clipped to [-1, 1] as in the published sampler;
* ``edm``: Heun's method down the grid, 2 nodes - 1 evaluations ([Karras2022]);
* ``ddim``, ``ddpm``: implicit or ancestral steps down a discrete schedule from the noisiest index
  that the network covers, x0 clipped.
"""

import copy
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn

from advpure.base.errors import BadInput
from advpure.core.chain import Chain
from advpure.core.denoisers import Denoiser, EpsilonDenoiser
from advpure.core.recipe import denoise, smooth
from advpure.core.schedules import linear_schedule
from advpure.purifiers.cm import again_steps
from advpure.purifiers.ddpm import DDIM, DDPM
from advpure.purifiers.oneshot import grid_of
from advpure.purifiers.pf_ode import PFODE
from advpure.training.labelled import Labelled

Sampler = Literal["cm", "edm", "ddim", "ddpm"]
PURIFIER: dict[Sampler, str] = {"cm": "cm", "edm": "pf-ode", "ddim": "ddim", "ddpm": "ddpm"}
"""The purifier that has a sampler's steps and kind of network."""
STEPS: dict[Sampler, int] = {"cm": 1, "edm": 18, "ddim": 50, "ddpm": 1000}
"""Steps by default: evaluations, nodes of the grid, or kept indices at most."""


def sampler_chain(
    sampler: Sampler,
    denoiser: Denoiser,
    steps: int,
    *,
    nodes: int | None = None,
    at: Sequence[int] = (),
) -> Chain:
    """Lay out the steps of a sampler, on grey images.

    Args:
        sampler: Which.
        denoiser: D(x; sigma).
        steps: Of cm, evaluations; of edm, nodes of the grid; else kept indices, about as many.
        nodes: Of cm, nodes of the grid; None for 18.
        at: Of cm, the indices of the nodes, from 0 at the noisiest, one each step; none for nodes
            spread evenly.

    Raises:
        BadInput: for steps that do not fit.

    Example:
        >>> from advpure.core.analytic import GaussianDenoiser
        >>> network = GaussianDenoiser(torch.zeros(1, 2, 2), 0.25)
        >>> [step.name for step in sampler_chain("cm", network, 2)]
        ['smooth', 'denoise', 'smooth', 'denoise']
        >>> sampler_chain("edm", network, 18).evaluations
        35
    """
    if sampler == "cm":
        return _consistency(denoiser, steps, 18 if nodes is None else nodes, at)
    if sampler == "edm":
        if steps < 2:
            raise BadInput(f"{steps} steps of edm", "are no grid", "use 2 or more, such as 18")
        top = min(denoiser.sigma_max, 80.0)
        return PFODE(sigma=top / 2, nodes=steps).chain(denoiser)
    own = denoiser.schedule if isinstance(denoiser, EpsilonDenoiser) else linear_schedule()
    covered = int((own.sigmas <= denoiser.sigma_max * (1 + 1e-9)).sum())
    shared: dict[str, Any] = {
        "t": covered,
        "schedule": own.name,
        "schedule_steps": len(own),
        "forward": "oneshot",
        "clip_x0": True,
        "stride": max(math.ceil(covered / steps), 1),
    }
    kind = DDPM if sampler == "ddpm" else DDIM
    return kind(**shared).chain(denoiser)


def _consistency(denoiser: Denoiser, steps: int, nodes: int, at: Sequence[int]) -> Chain:
    grid = grid_of(denoiser, nodes)
    end = len(grid) - 1
    if not at and not 1 <= steps <= max(end, 1):
        raise BadInput(f"{steps} steps", f"do not fit the {end} nodes of cm", f"use 1 to {end}")
    indices = list(at) or [round(k * end / steps) for k in range(steps)]
    if len(indices) != steps:
        rule = f"do not give {steps} steps their nodes"
        raise BadInput(f"{len(indices)} nodes", rule, "name one for each step")
    falls = all(a < b for a, b in pairwise(indices))
    if not (indices[0] == 0 and falls and indices[-1] < max(end, 1)):
        fix = f"write indices from 0 up to {end - 1}, each larger than the one before"
        raise BadInput(
            f"nodes {', '.join(map(str, indices))}", f"do not fit a grid of {nodes}", fix
        )
    levels = [float(grid[k]) for k in indices]
    first = [smooth(levels[0]), denoise(denoiser, levels[0], clip=True)]
    return Chain([*first, *again_steps(denoiser, levels[1:], clip=True)])


def classes_of(denoiser: Denoiser) -> int:
    """Return the number of classes that a network is conditional on, 0 for none."""
    network = getattr(denoiser, "network", None)
    count = int(getattr(getattr(network, "config", None), "classes", 0) or 0)
    return count if count > 1 else 0


def with_classes(denoiser: Denoiser, classes: Tensor) -> Denoiser:
    """Return a view of a class-conditional denoiser that is told the class of every row.

    Args:
        denoiser: Its network takes (state, condition, classes).
        classes: int64 [B].
    """
    view = copy.copy(denoiser)
    view._modules = denoiser._modules.copy()
    network: Any = denoiser.network
    assert isinstance(network, nn.Module)
    view.network = Labelled(network, classes)
    return view


def grey_images(count: int, shape: Sequence[int], device: str | torch.device) -> Tensor:
    """Return images [count, C, H, W] of 1/2, which is 0 in model units."""
    return torch.full((count, *shape), 0.5, device=device)
