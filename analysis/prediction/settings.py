"""Everything that a prediction depends on, by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Annotated, Any, ClassVar

from advpure.analysis.perturbations import Distribution
from advpure.analysis.subject import Attacked, DefenseSubject, Seeded
from advpure.analysis.survival.minimum_radius import Search, SearchSettings
from advpure.analysis.survival.points import Box
from advpure.base.errors import BadInput
from advpure.base.flags import Flag
from advpure.base.kinds import Natural, Strength
from advpure.base.text import read_natural, several
from advpure.base.units import parse_sigma
from advpure.base.validation import words
from advpure.purifiers import PURIFIERS

PURIFIED_BY = ("ddpm", "reverse", "ddim")
"""The purifiers whose robustness is predicted where none are named."""


@dataclass(frozen=True, kw_only=True)
class PredictionSettings(SearchSettings, Attacked, Seeded, DefenseSubject):
    """Purifiers, their attack, and the searches and rates that predict what it leaves.

    Randomness is fixed.

    Attributes:
        defense: Purifiers, a list. Default: ddpm,reverse,ddim.
        t: Strengths in time steps, a list such as 10,20,50,100,150, each with every purifier.
        sigma: Strengths as noise levels in [0, 1] units, a list, instead of t.
        attack: The attack that is measured: pgd, apgd, bpda ...
        attack_options: Other setting of the attack, KEY=VALUE; a step size belongs to its radius.
        radius_attack: The attack that finds smallest perturbations. Default: the same, with the
            same options.
        radius_options: Other setting of that attack, KEY=VALUE.
        search: ``plain``: attack every radius afresh; ``tight``: go on from what was found.
        top: End of the search, [0, 1] units. Default: twice the larger of the radius and the data
            set's.
        box: ``unit``: anchor points stay in [0, 1]; ``free``: they may leave it.
        cr_eps: Strength of the noise that measures compression. Default: the radius (in l2: for
            which uniform noise has that norm).
        distribution: Its distribution: uniform, gaussian or sign.
        perturbations: Perturbations per image.
    """

    unused: ClassVar[Mapping[str, str]] = {"policy": "leave it out: one purification decides"}

    defense: Annotated[str | list[str] | None, Flag("--defense", "-d")] = None  # type: ignore[assignment]
    t: int | str | list[int] | None = None  # type: ignore[assignment]
    sigma: float | str | list[float] | None = None  # type: ignore[assignment]
    radius_attack: str | None = None
    radius_options: Annotated[Mapping[str, Any], Flag("--radius-option")] = field(
        default_factory=dict
    )
    search: Search = "plain"
    top: Strength | None = None
    box: Box = "unit"
    cr_eps: Strength | None = None
    distribution: Distribution = "uniform"
    perturbations: Natural = 10

    def __post_init__(self) -> None:
        """Check every field by its annotation; the lists are checked as they are read."""
        super().__post_init__()
        self.names()
        self.times()
        self.levels()

    def names(self) -> tuple[str, ...]:
        """Return the names of the purifiers."""
        if self.defense is None:
            return PURIFIED_BY
        read: Callable[[Any], str] = lambda one: words(one, "defense").strip()  # noqa: E731
        return several(self.defense, read, "purifiers", "write ddpm,ddim")

    def times(self) -> tuple[int, ...]:
        """Return the strengths in time steps; none where there are none."""
        if self.t is None:
            return ()
        return several(self.t, lambda one: read_natural(one, "t"), "time steps", "write 10,50,100")

    def levels(self) -> tuple[float, ...]:
        """Return the strengths as noise levels; none where there are none."""
        if self.sigma is None:
            return ()
        return several(self.sigma, parse_sigma, "noise levels", "write 0.25,0.5")

    def grid(self) -> list[tuple[str, int | None, float | None]]:
        """Return every purifier with every strength: name, t, sigma.

        Raises:
            BadInput: for an unknown purifier, or both strengths.

        Example:
            >>> PredictionSettings(defense="ddpm, ddim", t=[10, 20]).grid()[1:3]
            [('ddpm', 20, None), ('ddim', 10, None)]
        """
        for name in self.names():
            PURIFIERS.get(name)
        if self.t is not None and self.sigma is not None:
            raise BadInput(f"t {self.t} and sigma {self.sigma}", "are two strengths", "give one")
        return list(product(self.names(), self.times() or [None], self.levels() or [None]))
