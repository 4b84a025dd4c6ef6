"""Which perturbed inputs and which configurations of a purifier are compared."""

from dataclasses import dataclass

from advpure.analysis.perturbations import Distribution
from advpure.analysis.subject import Seeded
from advpure.base.budget import check_repeats
from advpure.base.kinds import Several, Strength
from advpure.base.units import parse_eps
from advpure.base.validation import validate
from advpure.core.randomness import RandomnessConfig


@dataclass(frozen=True, kw_only=True)
class SnrSettings(Seeded):
    """Which inputs and configurations to compare.

    Attributes:
        eps: Strength of the perturbations in [0, 1] units, e.g. 8/255.
        distribution: ``uniform`` in [-eps, eps], ``gaussian`` of the same root mean square, or
            ``sign``.
        perturbations: K, perturbed inputs of every image.
        configurations: S, base seeds of the purifier: seed, seed + 1, ...
        seed: First base seed, and the seed of the perturbations.
        clip: Clip perturbed images to [0, 1].

    Raises:
        BadInput: for values that make no sense, naming the rule.

    Example:
        >>> SnrSettings(configurations=3, seed=5).seeds
        range(5, 8)
    """

    eps: Strength = "8/255"
    distribution: Distribution = "uniform"
    perturbations: Several = 50
    configurations: Several = 50
    clip: bool = False

    def __post_init__(self) -> None:
        """Check, and turn the strength into a number."""
        object.__setattr__(self, "eps", parse_eps(self.eps))
        validate(self)
        check_repeats(self.cells, "purifications an image")
        for seed in (self.seed, self.seed + self.configurations - 1):
            RandomnessConfig(seed)

    @property
    def strength(self) -> float:
        """The strength as a number."""
        return float(self.eps)

    @property
    def seeds(self) -> range:
        """The base seeds of the configurations."""
        return range(self.seed, self.seed + self.configurations)

    @property
    def cells(self) -> int:
        """Purifications per image."""
        return self.perturbations * self.configurations
