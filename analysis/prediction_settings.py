"""Everything that a prediction depends on, by name."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from advpure.analysis.minimum_radius import Search
from advpure.analysis.perturbations import Distribution
from advpure.analysis.survival_run import Box
from advpure.defaults import DEFAULT_DATASET
from advpure.gradients import GradientMode
from advpure.outputs import Outputs
from advpure.randomness import Scheme

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
        search: ``plain`` or ``tight``, see `advpure.analysis.minimum_radius`.
        bisections: Halvings of the bracket of r*.
        top: End of the bracket; None for twice the larger of `eps` and the data set's radius.
        box: ``unit`` or ``free``, see `advpure.analysis.survival_run`; clean images keep to unit.
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
    seed: int = 0
    tile: int | None = None
    device: str = "cpu"
    eps: float | str | None = None
    norm: str | None = None
    attack: str = "pgd"
    attack_options: Mapping[str, Any] = field(default_factory=dict)
    radius_attack: str | None = None
    radius_options: Mapping[str, Any] = field(default_factory=dict)
    search: Search = "plain"
    bisections: int = 10
    top: float | str | None = None
    box: Box = "unit"
    cr_eps: float | str | None = None
    distribution: Distribution = "uniform"
    perturbations: int = 10
