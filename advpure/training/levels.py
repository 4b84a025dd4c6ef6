"""Noise levels that a training draws from: a short list, or an interval, in [0, 1] units."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from advpure.base.errors import BadInput
from advpure.base.validation import check_value
from advpure.training.randomness import integers, uniform

LEVELS: Mapping[str, Any] = {"sigmas": (), "sigma_range": ()}
"""The settings of a recipe's loss that choose levels, with their defaults."""


@dataclass(frozen=True)
class Levels:
    """The distribution that noise levels are drawn from: a list or an interval.

    Attributes:
        values: Levels that are drawn with equal chances; empty means the interval.
        low: Lower end of the interval.
        high: Upper end.
    """

    values: tuple[float, ...] = ()
    low: float = 0.0
    high: float = 0.0

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> "Levels":
        """Read `sigmas` (a list) or `sigma_range` (two numbers).

        Raises:
            BadInput: when both or none are given, or a level is not positive.
        """
        values, ends = (check_value(settings[name], tuple[float, ...], name) for name in LEVELS)
        if bool(values) == bool(ends):
            raise BadInput("sigmas and sigma_range", "exclude each other", "give one of them")
        if ends and not (len(ends) == 2 and 0 <= ends[0] < ends[1]):
            raise BadInput(f"sigma_range {ends}", "is no interval", "write [0.0, 1.0]")
        if any(not value > 0 for value in values):
            raise BadInput(f"sigmas {values}", "are not all positive", "use for example 0.25")
        if values:
            return cls(tuple(float(value) for value in values))
        return cls((), float(ends[0]), float(ends[1]))

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw levels, float32 [count] on the CPU, [0, 1] units.

        Example:
            >>> Levels((0.25,)).draw(2, torch.Generator()).tolist()
            [0.25, 0.25]
        """
        if self.values:
            index = integers(0, len(self.values), (count,), generator)
            return torch.tensor(self.values, dtype=torch.float32, device="cpu")[index]
        return self.low + (self.high - self.low) * uniform((count,), generator)

    def __str__(self) -> str:
        """Name the levels as the papers do."""
        if self.values:
            return "{" + ", ".join(f"{value:g}" for value in self.values) + "}"
        return f"U[{self.low:g}, {self.high:g}]"
