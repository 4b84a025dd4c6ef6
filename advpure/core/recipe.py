"""What every purifier's settings share: a chain, a strength, and the switches that change results.

A purifier is one frozen settings class in one file, with `chain(denoiser)`, and one line in
advpure.purifiers. Its fields are its options, on the command line and in Python alike, and all of
them are stored with each result.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from advpure.base.errors import BadInput
from advpure.base.kinds import StepsOfChain
from advpure.base.validation import validate
from advpure.core.chain import Chain, NoiseForm, Step
from advpure.core.denoisers import Denoiser, check_covered
from advpure.core.schedules import IndexRule, Schedule, ScheduleName, linear_schedule, make_schedule

DEFAULT_T, DEFAULT_SIGMA = 100, 0.25
"""The strength of a purifier that is given none: of a discrete schedule, and of noise levels."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Settings of a purifier and the chain that they describe.

    Attributes:
        network: Which shipped network it needs: ``edm``, ``cm`` or None.
        votes: Reverse passes that a defense built on it votes over by default.
        levelled: Whether it leaves noise for a classifier that receives the noise level.
    """

    network: ClassVar[str | None] = "edm"
    votes: ClassVar[int] = 1
    levelled: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Check every option against its annotation; NumPy numbers become plain ones."""
        validate(self)

    def chain(self, denoiser: Denoiser | None) -> Chain:
        """Lay out the steps. Nothing is computed but tables."""
        raise TypeError(f"{type(self).__name__} is abstract: write chain()")

    def surrogate(self, denoiser: Denoiser | None) -> Chain | None:
        """Lay out a shorter chain for surrogate gradients, or None where there is none."""
        return None


@dataclass(frozen=True, kw_only=True)
class TimeStrength(Recipe):
    """Strength of a purifier that follows a discrete schedule.

    Attributes:
        t: Number of noising steps, 1 .. T; 100 unless sigma is given.
        sigma: Noise level in [0, 1] units instead of t.
        index_rule: How sigma becomes a time index: ``dds``, ``densepure`` or ``nearest``.
        schedule: ``linear`` (1000 steps) or ``cosine`` (4000 steps).
        schedule_steps: Another number of steps T of the schedule.
    """

    t: int | None = None
    sigma: float | None = None
    index_rule: IndexRule = "dds"
    schedule: ScheduleName = "linear"
    schedule_steps: StepsOfChain | None = None

    def __post_init__(self) -> None:
        """Check the strength."""
        super().__post_init__()
        refuse_two_strengths(self.t, self.sigma)
        steps = len(self.tables)
        if self.t is not None and not 1 <= self.t <= steps:
            raise BadInput(
                f"t {self.t}", f"is outside the {self.schedule} schedule", f"use 1 .. {steps}"
            )

    @property
    def tables(self) -> Schedule:
        """The schedule's tables."""
        return make_schedule(self.schedule, self.schedule_steps)

    @property
    def index(self) -> int:
        """The index of the noisiest state: t - 1, or the index of sigma."""
        if self.sigma is not None:
            return self.tables.index(self.sigma, self.index_rule)
        return (DEFAULT_T if self.t is None else self.t) - 1


@dataclass(frozen=True, kw_only=True)
class NoiseStrength(Recipe):
    """Strength of a purifier that adds noise of one level.

    Attributes:
        sigma: Noise level in [0, 1] units; 0.25 unless t is given.
        t: Instead of sigma: the level of t steps of the linear 1,000-step schedule.
    """

    sigma: float | None = None
    t: int | None = None

    def __post_init__(self) -> None:
        """Check the strength."""
        super().__post_init__()
        refuse_two_strengths(self.t, self.sigma)
        if self.t is not None and not 1 <= self.t <= 1000:
            raise BadInput(f"t {self.t}", "is outside the linear schedule", "use 1 .. 1000")

    @property
    def level(self) -> float:
        """The noise level in model units: 2 sigma."""
        if self.t is not None:
            return float(linear_schedule().sigmas[self.t - 1])
        return 2.0 * (DEFAULT_SIGMA if self.sigma is None else self.sigma)


def refuse_two_strengths(t: int | None, sigma: float | None) -> None:
    """Refuse t and sigma together, and a sigma that is no noise level in [0, 1] units."""
    if t is not None and sigma is not None:
        raise BadInput(f"t {t} and sigma {sigma}", "are two strengths", "give one of them")
    if sigma is not None and not 0 < sigma <= 40:
        raise BadInput(
            f"sigma {sigma}", "is outside (0, 40], in [0, 1] units", "use for example 0.25"
        )


def need(denoiser: Denoiser | None, sigma: float | None = None) -> Denoiser:
    """Return the denoiser, or say that the purifier has none, or one for other noise levels.

    Args:
        denoiser: What was given.
        sigma: The purifier's strength, [0, 1] units, if it is given as a noise level.
    """
    if denoiser is None:
        raise BadInput("this purifier", "has no denoiser", "pass denoiser=...")
    if sigma is not None:
        check_covered(denoiser, type(denoiser).__name__, sigma)
    return denoiser


def smooth(level: float, time: int = 1) -> Step:
    """Make the step x + level z, with the level in model units."""

    def move(x: Tensor, z: Tensor | None) -> Tensor:
        assert z is not None
        return x + level * z

    return Step(
        name="smooth", phase="forward", time=time, move=move, noisy=True, sigma=level, gain=1.0
    )


def denoise(denoiser: Denoiser, level: float, *, clip: bool = False, time: int = 1) -> Step:
    """Make the step D(x; level), clipped to [-1, 1] if asked; the level in model units."""

    def move(x: Tensor, z: Tensor | None) -> Tensor:
        x0 = denoiser(x, level)
        return x0.clamp(-1.0, 1.0) if clip else x0

    form = None if clip else noise_form(denoiser, state=0.0, estimate=1.0, level=level)
    return Step(name="denoise", phase="reverse", time=time, move=move, evaluations=1, form=form)


def noise_form(
    denoiser: Denoiser, *, state: float, estimate: float, level: float, root: float = 1.0
) -> NoiseForm:
    """Write state x + estimate D(x / root; level) as kappa (x - gamma epsilon(x)).

    The predicted noise is epsilon(x) = (x - root D(x / root; level)) / (root level), so
    D = x / root - level epsilon, kappa = state + estimate / root and kappa gamma = estimate level.

    Args:
        denoiser: D(x; sigma).
        state: Factor of the state.
        estimate: Factor of the estimated clean image.
        level: Noise level that the denoiser receives, model units.
        root: Factor of the clean image in the state: sqrt(abar), or 1.

    Example:
        >>> import torch
        >>> from advpure.core.analytic import GaussianDenoiser
        >>> network = GaussianDenoiser(torch.zeros(1, 1, 1), 1.0)
        >>> form = noise_form(network, state=0.0, estimate=1.0, level=2.0)
        >>> form.kappa, form.gamma, form.epsilon(torch.ones(1, 1, 1, 1).double()).item()
        (1.0, 2.0, 0.4)
    """
    kappa = state + estimate / root

    def epsilon(x: Tensor) -> Tensor:
        return (x - root * denoiser(x / root, level)) / (root * level)

    return NoiseForm(kappa=kappa, gamma=estimate * level / kappa, epsilon=epsilon)


def rescale(factor: float, *, scale: float, sigma: float) -> Step:
    """Make the step x -> factor x, into a state of the given scale and noise level."""

    def move(x: Tensor, z: Tensor | None) -> Tensor:
        return factor * x

    return Step(
        name="rescale", phase="forward", time=0, move=move, scale=scale, sigma=sigma, gain=factor
    )


def vp_scale(level: float) -> float:
    """Return sqrt(abar) at a noise level in model units: 1 / sqrt(1 + level^2)."""
    return 1.0 / math.sqrt(1.0 + level**2)
