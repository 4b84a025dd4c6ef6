"""``onestep-ddpm``, ``onestep-edm``, ``calibrated``: add noise once, denoise once.

``none``: leave the image.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from advpure.base.kinds import StepsOfChain
from advpure.core.chain import Chain
from advpure.core.denoisers import Denoiser
from advpure.core.recipe import (
    NoiseStrength,
    Recipe,
    TimeStrength,
    denoise,
    need,
    rescale,
    smooth,
    vp_scale,
)
from advpure.core.schedules import Floats, karras_grid, nearest_node
from advpure.purifiers.vp import noising_steps

TimeRule = Literal["nearest", "paper", "exact"]


@dataclass(frozen=True, kw_only=True)
class Nothing(Recipe):
    """Leave the image as it is: the undefended baseline."""

    network: ClassVar[str | None] = None

    def chain(self, denoiser: Denoiser | None) -> Chain:
        """Lay out no step."""
        return Chain()


@dataclass(frozen=True, kw_only=True)
class OneStepDDPM(TimeStrength):
    """Noise to an index and take the network's estimate of x0 (diffusion denoised smoothing).

    The three published pipelines differ in the index of a given sigma and in where the noise
    comes from; published accuracies differ by a point or less:

    * ``dds``: first index with s_i >= 2 sigma; the state is drawn at that index, so the noise is
      s_i / 2, slightly above sigma [Carlini2023].
    * ``densepure``: rounded closed form; the image gets noise sigma, then the scale
      1 / sqrt(1 + 4 sigma^2) [Xiao2023].
    * ``nearest``: the nearest index, noise and scale as for ``densepure`` [Li2024].

    Attributes:
        clip_x0: Clip the estimate to [-1, 1], as all three do.
    """

    clip_x0: bool = True

    def chain(self, denoiser: Denoiser | None) -> Chain:
        """Lay out the noise and one network evaluation."""
        network, schedule, index = need(denoiser, self.sigma), self.tables, self.index
        asked = float(schedule.sigmas[index])
        if self.sigma is None or self.index_rule == "dds":
            steps = noising_steps(schedule, index, "oneshot")
            root = steps[0].scale
        else:
            level = 2.0 * self.sigma
            root = vp_scale(level)
            steps = [smooth(level, index + 1), rescale(root, scale=root, sigma=level)]
        # The network reads a variance-preserving state at its own index: x / sqrt(abar_index).
        steps.append(rescale(1 / vp_scale(asked), scale=root / vp_scale(asked), sigma=asked))
        steps.append(denoise(network, asked, clip=self.clip_x0, time=index + 1))
        return Chain(steps)


@dataclass(frozen=True, kw_only=True)
class OneStepEDM(NoiseStrength):
    """Add noise sigma and denoise once with the EDM network.

    Attributes:
        time_rule: Noise level told to the network: ``nearest`` node of the grid to 2 sigma,
            ``paper`` (the node nearest sigma, as in the text of [Li2024], unlike its code) or
            ``exact`` (2 sigma itself).
        nodes: Nodes of the grid.
        clip: Clip the result to [-1, 1].
    """

    time_rule: TimeRule = "nearest"
    nodes: StepsOfChain = 18
    clip: bool = False

    def chain(self, denoiser: Denoiser | None) -> Chain:
        """Lay out the noise and one network evaluation."""
        network = need(denoiser, self.sigma)
        told = told_level(self.level, self.time_rule, self.nodes, network)
        return Chain([smooth(self.level), denoise(network, told, clip=self.clip)])


@dataclass(frozen=True, kw_only=True)
class Calibrated(OneStepEDM):
    """Denoise once with a network that was fine-tuned through a classifier.

    Re-derived, see `advpure.training.calibration`. The network was trained at the level itself.

    Attributes: those of OneStepEDM; `time_rule` is ``exact`` by default.
    """

    network: ClassVar[str | None] = "calibrated"
    time_rule: TimeRule = "exact"


def told_level(level: float, rule: TimeRule, nodes: int, network: Denoiser) -> float:
    """Return the noise level, model units, that a network is told for noise of `level`."""
    if rule == "exact":
        return level
    grid = grid_of(network, nodes)
    return float(grid[nearest_node(grid, level if rule == "nearest" else level / 2)])


def grid_of(network: Denoiser, nodes: int) -> Floats:
    """Return the Karras grid between 0.002 and 80, or a network's own narrower range."""
    return karras_grid(nodes, max(network.sigma_min, 0.002), min(network.sigma_max, 80.0))
