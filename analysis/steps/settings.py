"""What to measure at every step of a chain, and what a measured step is called in records."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Literal, NamedTuple

from advpure.analysis.perturbations import Distribution
from advpure.analysis.steps.divergence import Method, ProbeSettings
from advpure.analysis.subject import Seeded
from advpure.base.budget import check_repeats
from advpure.base.kinds import Natural, Strength
from advpure.base.units import parse_eps
from advpure.base.validation import validate
from advpure.core.chain import Step

Form = Literal["scalar", "epsilon", "other"]


@dataclass(frozen=True, kw_only=True)
class StepSettings(Seeded):
    """What to measure at every step.

    Attributes:
        eps: Strength of the perturbations in [0, 1] units, e.g. 8/255.
        distribution: ``uniform`` in [-eps, eps], ``gaussian`` of the same root mean square, or
            ``sign``.
        perturbations: Perturbations followed through the chain, per image; derivatives are taken on
            the trajectory of the first.
        probes: Probes of the noise prediction, and as many fresh perturbations, at every step.
        directions: Directions along the data, and as many across.
        method: Derivatives of the probes: ``vjp``, about half the time, or ``jvp``, no activations.
        every: Derivatives at every so many-th step with a network, and at the last; above 1 the
            predictions have no product.
        seed: Base seed of the purifier's noise, the perturbations, the probes and the directions.

    Raises:
        BadInput: for values that make no sense, naming the rule.
    """

    eps: Strength = "8/255"
    distribution: Distribution = "uniform"
    perturbations: Natural = 4
    probes: Natural = ProbeSettings.probes
    directions: Natural = 3
    method: Method = "vjp"
    every: Natural = 1

    def __post_init__(self) -> None:
        """Check, and turn the strength into a number."""
        object.__setattr__(self, "eps", parse_eps(self.eps))
        validate(self)
        check_repeats(self.perturbations + self.probes + self.directions, "repetitions of a step")

    @property
    def strength(self) -> float:
        """The strength as a number."""
        return float(self.eps)


class StepInfo(NamedTuple):
    """A step of the chain, as the records name it.

    Attributes:
        step: Its place, from 0.
        name: What it does.
        phase: ``forward`` or ``reverse``.
        time: The papers' t for discrete schedules.
        form: ``scalar``: a factor times the state; ``epsilon``: kappa (x - gamma epsilon(x));
            ``other``: neither, so nothing is predicted.
        gain: The factor of a scalar step.
        kappa: See `NoiseForm`.
        gamma: The factor of epsilon, likewise.
        scale: The factor on the clean image after the step.
        sigma: The noise level after it, model units.
        selected: Whether derivatives are taken there.
    """

    step: int
    name: str
    phase: str
    time: int
    form: str
    gain: float | None
    kappa: float | None
    gamma: float | None
    scale: float
    sigma: float
    selected: bool


class StepRate(NamedTuple):
    """One measured rate; None where the perturbation was 0 before the step."""

    sample: int
    step: int
    kind: str
    draw: int
    rate: float | None


class StepProbe(NamedTuple):
    """One probe of epsilon: v^T J v and ||J v||^2 (``vjp``: ||J^T v||^2)."""

    sample: int
    step: int
    probe: int
    trace: float
    energy: float


def describe_chain(chain: Sequence[Step], every: int) -> tuple[StepInfo, ...]:
    """List the steps with their forms, and where derivatives are taken.

    Args:
        chain: The chain.
        every: Derivatives at every so many-th step with a network, and at the last.

    Example:
        >>> from advpure.loading import load_purifier
        >>> [info.form for info in describe_chain(load_purifier("cm", "digits").chain, 1)]
        ['scalar', 'epsilon']
    """
    last = max((k for k, step in enumerate(chain) if step.gain is None), default=-1)
    number = count()
    infos = []
    for k, step in enumerate(chain):
        form: Form = "other" if step.form is None else "epsilon"
        form = form if step.gain is None else "scalar"
        selected = form != "scalar" and (next(number) % every == 0 or k == last)
        infos.append(
            StepInfo(
                k,
                step.name,
                step.phase,
                step.time,
                form,
                step.gain,
                kappa=step.form.kappa if step.form else None,
                gamma=step.form.gamma if step.form else None,
                scale=step.scale,
                sigma=step.sigma,
                selected=selected,
            )
        )
    return tuple(infos)
