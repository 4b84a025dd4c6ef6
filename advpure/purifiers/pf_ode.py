"""``pf-ode``: add noise, then follow the probability-flow ODE back with Heun's method."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from torch import Tensor

from advpure.base.kinds import StepsOfChain
from advpure.core.chain import Chain, Step
from advpure.core.denoisers import Denoiser
from advpure.core.recipe import NoiseStrength, need, noise_form, smooth
from advpure.core.schedules import karras_grid, nearest_node
from advpure.purifiers.oneshot import grid_of


@dataclass(frozen=True, kw_only=True)
class PFODE(NoiseStrength):
    """EDM's deterministic sampler, started from the noisy image [Karras2022].

    Attributes:
        recipe: ``full``: the grid starts at 2 sigma itself, 2 nodes - 1 = 35 evaluations
            ([Carlini2023], table 5). ``truncated``: starts at the node of the fixed grid nearest
            2 sigma, 13, 15 or 17 evaluations at sigma 0.25, 0.5, 1 [Li2024].
        nodes: Nodes of the grid.
    """

    recipe: Literal["full", "truncated"] = "full"
    nodes: StepsOfChain = 18

    def chain(self, denoiser: Denoiser | None) -> Chain:
        """Lay out the noise, Heun steps down the grid, and an Euler step to 0."""
        network = need(denoiser, self.sigma)
        if self.recipe == "full":
            levels = karras_grid(self.nodes, 0.002, self.level).tolist()
        else:
            grid = grid_of(network, self.nodes)
            levels = grid[nearest_node(grid, self.level) :].tolist()
        levels.append(0.0)
        steps = [smooth(self.level)]
        for k, (here, there) in enumerate(pairwise(levels)):
            steps.append(heun_step(network, here, there, len(levels) - 1 - k))
        return Chain(steps)


def heun_step(denoiser: Denoiser, here: float, there: float, number: int) -> Step:
    """Follow dx/ds = (x - D(x; s)) / s from level `here` to `there`, by Euler when `there` is 0.

    Args:
        denoiser: D(x; sigma).
        here: Noise level of the state, model units.
        there: Lower level.
        number: The step's time, for trajectories.
    """
    h = there - here

    def move(x: Tensor, z: Tensor | None) -> Tensor:
        slope = (x - denoiser(x, here)) / here
        y = x + h * slope
        if there == 0.0:
            return y
        return x + h * (0.5 * slope + 0.5 * (y - denoiser(y, there)) / there)

    form = None if there else noise_form(denoiser, state=0.0, estimate=1.0, level=here)
    return Step(
        name="heun" if there else "euler",
        phase="reverse",
        time=number,
        move=move,
        evaluations=2 if there else 1,
        sigma=there,
        form=form,
    )
