"""Everything that a prediction depends on, by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from advpure.analysis.perturbations import Distribution
from advpure.analysis.survival.minimum_radius import Bisections, Search
from advpure.analysis.survival.points import Box
from advpure.base.defaults import DEFAULT_DATASET
from advpure.base.kinds import Natural, Seed, Strength
from advpure.base.text import read_natural, several
from advpure.base.units import Norm, parse_sigma
from advpure.base.validation import validate, words
from advpure.core.gradients import GradientMode
from advpure.core.outputs import Outputs
from advpure.core.randomness import Scheme

Names = str | list[str] | tuple[str, ...]
Steps = int | list[int] | tuple[int, ...]
Levels = float | list[float] | tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class PredictionRun:
    """Everything that a prediction depends on; randomness is fixed.

    Attributes:
        defense: Names of purifiers, a list or text joined by commas.
        dataset: Name of the data set.
        subset: Which images.
        n: How many of them; None for all.
        t: Strengths in time steps, each with every purifier.
        sigma: Strengths as noise levels in [0, 1] units, instead of t.
        options: Options of the purifiers.
        weights: Weights of the denoiser.
        classifier: Weights of the classifier; None for the data set's.
        outputs: What it answers with: ``logits``, ``probabilities`` or ``labels``.
        gradient: Gradient mode of the attack; exact by default.
        scheme: Keys of the noise: ``hash`` or ``counter``.
        seed: Base seed of the purifiers' randomness, of attack and compression rate alike.
        tile: Compute tile; None for the data set's.
        device: Where networks compute.
        eps: Radius of the attack; None for the data set's.
        norm: ``linf`` or ``l2``; None for the data set's.
        attack: The attack that is measured.
        attack_options: Its own settings; a step size belongs to `eps`.
        radius_attack: The attack that finds r*; None for the same, with the same options.
        radius_options: Its own settings, where it is another.
        search: ``plain`` or ``tight``, see `advpure.analysis.survival.minimum_radius`.
        bisections: Halvings of the bracket of r*.
        top: End of the bracket; None for twice the larger of `eps` and the data set's radius.
        box: ``unit`` or ``free`` for anchor points, see `advpure.analysis.survival.points`.
        cr_eps: Strength of the perturbations that measure compression; None for `eps` (in l2, for
            the strength of which uniform noise has that norm).
        distribution: Their distribution.
        perturbations: Perturbations per image.
    """

    defense: Names = ("ddpm", "reverse", "ddim")
    dataset: str = DEFAULT_DATASET
    subset: str = "test"
    n: int | None = None
    t: Steps | None = None
    sigma: Levels | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    weights: str | None = None
    classifier: str | None = None
    outputs: Outputs = "logits"
    gradient: GradientMode | None = None
    scheme: Scheme = "hash"
    seed: Seed = 0
    tile: int | None = None
    device: str = "cpu"
    eps: Strength | None = None
    norm: Norm | None = None
    attack: str = "pgd"
    attack_options: Mapping[str, Any] = field(default_factory=dict)
    radius_attack: str | None = None
    radius_options: Mapping[str, Any] = field(default_factory=dict)
    search: Search = "plain"
    bisections: Bisections = 10
    top: Strength | None = None
    box: Box = "unit"
    cr_eps: Strength | None = None
    distribution: Distribution = "uniform"
    perturbations: Natural = 10

    def __post_init__(self) -> None:
        """Check every field by its annotation; the lists are checked as they are read."""
        validate(self)
        self.names()
        self.times()
        self.levels()

    def names(self) -> tuple[str, ...]:
        """Return the names of the purifiers."""
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
