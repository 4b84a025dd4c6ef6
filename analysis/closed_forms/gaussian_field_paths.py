"""Simulated descent on a Gaussian's score: what figures 4a and 4b of [Wei2025] show.

The covariance has principal directions that are no coordinate axes (those of a random reflection),
states start at samples of the data, and a perturbation is followed as the difference of two states,
so that nothing of the closed form enters.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import logsumexp

from advpure.analysis.closed_forms.gaussian_field import Floats
from advpure.analysis.closed_forms.gaussian_field_table import Deviation, FieldSettings
from advpure.base.budget import check_repeats
from advpure.base.errors import BadInput
from advpure.base.kinds import Natural, Seed
from advpure.base.validation import instance, resolved, validate, whole


@dataclass(frozen=True)
class FieldRates:
    """Simulated rates of every step, and what they are compared with.

    Attributes:
        settings: The field.
        rates: Rate of every perturbation and step, [draws, steps].
        predicted: Root mean square rate of every step in closed form, [steps].
        on_manifold: Rate along the data, 1 - h / s^2.
        off_manifold: Rate across it.
        eq_13: Equation 13's expected rate of one step, to first order.
    """

    settings: FieldSettings
    rates: Floats
    predicted: Floats
    on_manifold: float
    off_manifold: float
    eq_13: float

    @classmethod
    def of(cls, settings: FieldSettings, rates: Floats) -> "FieldRates":
        """Put closed forms beside simulated rates, [draws, steps].

        Warns:
            DivergingStep: when descent does not converge.
        """
        field = settings.field()
        return cls(
            settings,
            rates,
            predicted=field.step_rates(settings.steps),
            on_manifold=abs(float(field.factors[0])),
            off_manifold=abs(float(field.factors[-1])),
            eq_13=field.approximate,
        )

    @property
    def pooled(self) -> Floats:
        """Root mean square rate of every step over all perturbations, [steps].

        The root of the mean squared size after a step over that before, sizes relative to their
        start. This tends to `predicted` with the number of perturbations, whatever the dimension;
        the mean of their rates stays below it, the more the fewer directions are left.
        """
        logs = np.cumsum(2.0 * np.log(self.rates), axis=1)  # sums, so that nothing underflows
        energies = np.concatenate([[0.0], logsumexp(logs, axis=0)])
        energies[1:] -= np.log(len(logs))
        pooled: Floats = np.exp(0.5 * np.diff(energies))
        return pooled


@dataclass(frozen=True, kw_only=True)
class SimulationSettings:
    """Which perturbations to follow.

    Attributes:
        draws: Random perturbations, each at a state of its own.
        eps: Standard deviation of a perturbation's entries.
        seed: Seed of states, perturbations and principal directions.
    """

    draws: Natural = 16
    eps: Deviation = 0.01
    seed: Seed = 0

    def __post_init__(self) -> None:
        """Check every field."""
        validate(self)


def simulate_rates(
    settings: FieldSettings, simulation: SimulationSettings | None = None, **changes: Any
) -> FieldRates:
    """Follow random perturbations through the field.

    Args:
        settings: The field.
        simulation: Which perturbations; None for the defaults.
        changes: Fields of `SimulationSettings` to replace, such as ``draws=2``.

    Raises:
        BadInput: for no draws or too many, or states that leave the range of numbers.

    Example:
        >>> rates = simulate_rates(FieldSettings(dimension=50, std_off_manifold=0.1), draws=2)
        >>> rates.rates.shape, round(rates.on_manifold, 4)
        ((2, 100), 0.999)
    """
    instance(settings, FieldSettings, "settings", "pass FieldSettings(...)")
    chosen = resolved(SimulationSettings, simulation, changes)
    check_simulation(settings, chosen)
    random = np.random.Generator(np.random.Philox(key=[chosen.seed, 1]))
    normals = random.standard_normal((2, chosen.draws, settings.dimension))
    axis = random.standard_normal(settings.dimension)
    axis /= np.linalg.norm(axis)
    scales = np.sqrt(settings.variances)
    x = _reflect(normals[0] * scales, axis)
    states = np.stack([x, x + chosen.eps * normals[1]])
    sizes = [np.linalg.norm(states[1] - states[0], axis=1)]
    with np.errstate(all="ignore"):  # looked for below
        for _ in range(settings.steps):
            score = -_reflect(_reflect(states, axis) / settings.variances, axis)
            states = states + settings.step * score
            sizes.append(np.linalg.norm(states[1] - states[0], axis=1))
    if not np.isfinite(sizes).all() or not (np.array(sizes) > 0).all():
        raise BadInput(
            f"{settings.steps} steps of size {settings.step:g}",
            "leave the range of numbers",
            "simulate fewer steps, or a step below twice the smallest variance",
        )
    return FieldRates.of(settings, (np.array(sizes[1:]) / np.array(sizes[:-1])).T)


def check_simulation(settings: FieldSettings, simulation: SimulationSettings) -> None:
    """Refuse a simulation whose states exceed the memory budget.

    Raises:
        BadInput: for more numbers than the budget.
    """
    check_repeats(simulation.draws * settings.steps, "rates")
    check_repeats(simulation.draws * settings.dimension, "entries of perturbations")


def simulate_paths(settings: FieldSettings, *, paths: int = 12) -> Floats:
    """Follow states in the plane of one direction along the data and one across it.

    Args:
        settings: The field; its two variances, step and steps count.
        paths: Number of states, spread over an ellipse of 2.5 standard deviations along the data
            and 1.2 times that across, so that all paths can be seen.

    Returns:
        [paths, steps + 1, 2]: along and across, in the units of the data.

    Raises:
        BadInput: for no paths.
    """
    instance(settings, FieldSettings, "settings", "pass FieldSettings(...)")
    paths = whole(paths, "paths", 1, 2**20)
    angles = 2.0 * np.pi * (np.arange(paths) + 0.5) / paths
    reach = 2.5 * settings.std_on_manifold
    start = reach * np.stack([np.cos(angles), 0.48 * np.sin(angles)], axis=1)
    variances = np.square([settings.std_on_manifold, settings.std_off_manifold])
    states = np.empty((paths, settings.steps + 1, 2))
    states[:, 0] = start
    for k in range(settings.steps):
        states[:, k + 1] = states[:, k] - settings.step * states[:, k] / variances
    return states


def _reflect(rows: Floats, axis: Floats) -> Floats:
    """Turn coordinates along the principal directions into coordinates, and back."""
    reflected: Floats = rows - 2.0 * (rows @ axis)[..., None] * axis
    return reflected
