"""A classifier that receives the noise level: noisy images to logits in one call, no denoiser.

The network was trained on the nodes of a grid of N levels, so it is asked at the node nearest to
the noise. N is stored with the weights: another N has other nodes.

Source: [Lei2025], and the rule of its released code.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

from torch import Tensor, nn

from advpure.base.errors import BadInput
from advpure.base.units import to_model
from advpure.base.validation import Range, number, whole
from advpure.core.denoisers import checked_range, network_inputs
from advpure.core.schedules import Floats, karras_grid, nearest_node

_RANGE = ("sigma_data", "sigma_min", "sigma_max")
LEVELLED = "levelled-classifier"
"""What the file of such a classifier says that it is."""


@dataclass(frozen=True, kw_only=True)
class NoiseLevels:
    """Which noise levels a network takes.

    Attributes:
        sigma_data: Standard deviation of the data, model units.
        sigma_min: Lowest node of the grid, model units.
        sigma_max: Highest.
        nodes: Number of nodes N.
        low: Lowest level that it was trained to classify at, [0, 1] units.
        high: Highest.
    """

    sigma_data: float
    sigma_min: float
    sigma_max: float
    nodes: int
    low: float
    high: float

    @classmethod
    def of(cls, metadata: Mapping[str, Any], name: str) -> "NoiseLevels":
        """Read what a file of weights says.

        Args:
            metadata: sigma_data, sigma_min, sigma_max, nodes and covers, two levels.
            name: What to call the file in a message.

        Raises:
            BadInput: for a file that does not say them, or says what cannot be.
        """
        span = checked_range({key: metadata.get(key) for key in _RANGE})
        nodes = whole(metadata.get("nodes"), f"nodes of {name}", 2)
        ends = metadata.get("covers")
        if not isinstance(ends, list | tuple) or len(ends) != 2:
            raise BadInput(f"network {name}", "does not say which levels it covers", "train it")
        low, high = (number(end, f"covers of {name}", Range(least=0)) for end in ends)
        return cls(nodes=nodes, low=low, high=high, **span)

    @cached_property
    def grid(self) -> Floats:
        """The nodes, descending, model units."""
        return karras_grid(self.nodes, self.sigma_min, self.sigma_max)

    def node(self, sigma: float) -> float:
        """Return the node nearest to a noise level, model units.

        Args:
            sigma: Standard deviation of the noise, [0, 1] units.

        Example:
            >>> published = {"sigma_data": 0.5, "sigma_min": 0.002, "sigma_max": 80.0}
            >>> levels = NoiseLevels(nodes=81, low=0.25, high=1.0, **published)
            >>> [round(levels.node(sigma), 5) for sigma in (0.25, 0.5, 1.0)]
            [0.49271, 0.96542, 2.00365]
        """
        return float(self.grid[nearest_node(self.grid, 2.0 * sigma)])

    def covers(self, sigma: float) -> bool:
        """Return whether the node of a level lies between those of `low` and `high`.

        Example:
            >>> published = {"sigma_data": 0.5, "sigma_min": 0.002, "sigma_max": 80.0}
            >>> levels = NoiseLevels(nodes=81, low=0.25, high=0.25, **published)
            >>> levels.covers(0.26), levels.covers(0.5)
            (True, False)
        """
        return self.node(self.low) <= self.node(sigma) <= self.node(self.high)

    @property
    def span(self) -> float:
        """The ratio of the highest to the lowest level."""
        return self.high / self.low if self.low else math.inf

    def __str__(self) -> str:
        """Say which levels are covered, [0, 1] units."""
        return f"{self.low:g}" if self.low == self.high else f"{self.low:g} to {self.high:g}"


class LevelledClassifier(nn.Module):
    """Classify images plus noise of one level by the network that was trained for it.

    Args:
        networks: Called with scaled states and ln(t) / 4; in evaluation mode.
        levels: Which noise levels each of them takes.
        sigma: The level of the noise in what it is given, [0, 1] units; None until `at` sets it.
    """

    def __init__(
        self,
        networks: Sequence[nn.Module],
        levels: Sequence[NoiseLevels],
        sigma: float | None = None,
    ) -> None:
        """Keep the networks; see the class."""
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.levels = tuple(levels)
        self.training = False
        self.sigma = sigma
        self.number = 0 if sigma is None else self._covering(sigma)

    def at(self, sigma: float) -> Self:
        """Return a view for noise of another level; the networks stay shared.

        Args:
            sigma: Standard deviation of the noise, [0, 1] units.

        Raises:
            BadInput: for a level that no network was trained for.
        """
        view = type(self).__new__(type(self))
        view.__dict__.update(self.__dict__)
        view.sigma, view.number = sigma, self._covering(sigma)
        return view

    @property
    def node(self) -> float:
        """The noise level that the network receives, model units."""
        if self.sigma is None:
            raise BadInput(
                "a classifier that receives the noise level",
                "was given none",
                "use --defense rrcm, which adds the noise, or .at(sigma)",
            )
        return self.levels[self.number].node(self.sigma)

    def forward(self, images: Tensor) -> Tensor:
        """Classify.

        Args:
            images: Images in [0, 1] plus noise of standard deviation sigma, [B, C, H, W].

        Returns:
            Logits [B, K]. One network call.
        """
        sigma_data = self.levels[self.number].sigma_data
        state, condition = network_inputs(to_model(images), self.node, sigma_data)
        logits: Tensor = self.networks[self.number](state, condition)
        return logits

    @property
    def has_features(self) -> bool:
        """Whether the network of the level has a representation, see `features`."""
        return hasattr(self.networks[self.number], "features")

    def features(self, states: Tensor, level: Tensor) -> Tensor:
        """Represent noisy states.

        Args:
            states: Model units, [B, C, H, W].
            level: Standard deviation of their noise, model units, [B, 1, 1, 1].

        Returns:
            [B, width]. One network call.
        """
        network: Any = self.networks[self.number]
        sigma_data = self.levels[self.number].sigma_data
        represented: Tensor = network.features(*network_inputs(states, level, sigma_data))
        return represented

    def _covering(self, sigma: float) -> int:
        """Return which network takes a level: of several the one that takes the fewest."""
        able = [k for k, levels in enumerate(self.levels) if levels.covers(sigma)]
        if not able:
            known = ", ".join(str(levels) for levels in self.levels)
            raise BadInput(
                f"sigma {sigma:g}",
                f"is no noise level that the classifier was trained for, {known} in [0, 1] units",
                "choose one of them, or a classifier for this level",
            )
        return min(able, key=lambda k: self.levels[k].span)
