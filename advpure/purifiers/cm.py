"""``cm`` and ``cm-ft``: consistency purification, one or several evaluations of the model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from advpure.base.errors import BadInput
from advpure.base.kinds import StepsOfChain
from advpure.core.chain import Chain, Step
from advpure.core.denoisers import Denoiser
from advpure.core.recipe import NoiseStrength, denoise, need, smooth
from advpure.core.schedules import nearest_node
from advpure.purifiers.oneshot import TimeRule, grid_of, told_level


@dataclass(frozen=True, kw_only=True)
class ConsistencyPurification(NoiseStrength):
    """Add noise sigma and map the state to the origin of its trajectory ([Li2024], section 3).

    Several steps add noise again, sqrt(tau^2 - sigma_min^2) z, at lower and lower nodes tau and
    map it again ([Song2023], algorithm 1).

    Attributes:
        steps: Network evaluations; later nodes are spread evenly between the first and the last
            of the grid.
        time_rule: See OneStepEDM; the official code tells the node nearest 2 sigma.
        nodes: Nodes of the grid.
        clip: Clip every estimate to [-1, 1]; the official purifier does not.
    """

    network: ClassVar[str | None] = "cm"
    steps: int = 1
    time_rule: TimeRule = "nearest"
    nodes: StepsOfChain = 18
    clip: bool = False

    def chain(self, denoiser: Denoiser | None) -> Chain:
        """Lay out noise and evaluation, once for each of `steps`."""
        network = need(denoiser, self.sigma)
        told = told_level(self.level, self.time_rule, self.nodes, network)
        chain = [smooth(self.level), denoise(network, told, clip=self.clip)]
        if self.steps > 1:
            grid = grid_of(network, self.nodes)
            start, end = nearest_node(grid, told), len(grid) - 1
            if not 1 <= self.steps <= end - start:
                raise BadInput(
                    f"{self.steps} steps",
                    f"do not fit the {end - start} nodes below the first",
                    "lower steps or raise sigma",
                )
            places = [start + round(k * (end - start) / self.steps) for k in range(1, self.steps)]
            chain += again_steps(network, [float(grid[k]) for k in places], clip=self.clip)
        elif self.steps < 1:
            raise BadInput(f"{self.steps} steps", "purify nothing", "use 1 or more")
        return Chain(chain)


def again_steps(network: Denoiser, levels: Sequence[float], *, clip: bool = False) -> list[Step]:
    """Make the steps after the first: noise again, and the model again, at each of the levels.

    Args:
        network: The consistency model.
        levels: Nodes of the grid, model units, falling.
        clip: Clip every estimate to [-1, 1].
    """
    steps = []
    for time, level in enumerate(levels, 2):
        again = (level**2 - network.sigma_min**2) ** 0.5
        steps += [smooth(again, time), denoise(network, level, clip=clip, time=time)]
    return steps


@dataclass(frozen=True, kw_only=True)
class TunedConsistencyPurification(ConsistencyPurification):
    """Consistency purification with a model that was fine-tuned to purify ([Li2024], section 3.3).

    Attributes: those of ConsistencyPurification.
    """

    network: ClassVar[str | None] = "cm-ft"
