"""Table S1 of [Wei2025], the settings of its Gaussian score field, and what follows from them.

As printed the field cannot be the one of figure 4b: a standard deviation of 0.01 across the data
and a step of 0.001 give the factor 1 - h / s^2 = -9, so descent diverges, equation 13's rate is
negative, and a rate never is. Two readings give a field that converges: the printed
deviation is the variance, or the step is a hundredth of the printed one. Both have the factor 0.9
across the data; the first is the curve of figure 4b.
"""

from dataclasses import dataclass, replace
from typing import Annotated, Any, NamedTuple

import numpy as np
from annotated_types import Ge, Le

from advpure.analysis.closed_forms.gaussian_field import (
    Floats,
    GaussianField,
    gaussian_field_compression,
)
from advpure.base.errors import BadInput
from advpure.base.flags import Flag
from advpure.base.kinds import Natural, Several
from advpure.base.validation import instance, validate

Deviation = Annotated[float, Ge(1e-50), Le(1e50)]
"""A positive number whose powers are neither 0 nor infinite."""


@dataclass(frozen=True, kw_only=True)
class FieldSettings:
    """A Gaussian with few directions along the data, and descent on its score.

    The defaults are the published ones.

    Attributes:
        dimension: Dimension d.
        intrinsic_dimension: Directions along the data, below d.
        std_on_manifold: Standard deviation along the data.
        std_off_manifold: Standard deviation across the data.
        step: Step size h, in the units of the variances.
        steps: Number of steps T.

    Raises:
        BadInput: for values that make no sense, naming the rule.

    Example:
        >>> FieldSettings(dimension=3, intrinsic_dimension=2).variances.tolist()
        [1.0, 1.0, 0.0001]
    """

    dimension: Several = 3072
    intrinsic_dimension: Natural = 40
    std_on_manifold: Annotated[Deviation, Flag("--std-on")] = 1.0
    std_off_manifold: Annotated[Deviation, Flag("--std-off")] = 0.01
    step: Deviation = 1e-3
    steps: Natural = 100

    def __post_init__(self) -> None:
        """Check every field."""
        validate(self)
        if self.intrinsic_dimension >= self.dimension:
            raise BadInput(
                f"intrinsic_dimension {self.intrinsic_dimension}",
                f"leaves nothing across the data in {self.dimension} dimensions",
                "lower it",
            )

    @property
    def variances(self) -> Floats:
        """The eigenvalues of the covariance, those along the data first, [d]."""
        values = np.full(self.dimension, float(self.std_off_manifold) ** 2)
        values[: self.intrinsic_dimension] = float(self.std_on_manifold) ** 2
        return values

    def field(self) -> GaussianField:
        """Return the field's compression in closed form.

        Warns:
            DivergingStep: when descent does not converge.
        """
        return gaussian_field_compression(self.variances, self.step)


class FieldReading(NamedTuple):
    """One reading of the printed settings.

    Attributes:
        name: ``printed``, ``variance`` (the deviation across the data is the variance) or
            ``small_step`` (the step that gives the same factor across the data).
        settings: The settings.
        field: Their compression.
    """

    name: str
    settings: FieldSettings
    field: GaussianField

    def values(self) -> dict[str, float | bool]:
        """Return every quantity of the table by name."""
        settings, field = self.settings, self.field
        rates = field.step_rates(settings.steps)
        shown = sorted({0, settings.steps // 5, settings.steps // 2, settings.steps - 1})
        return {
            "variance_on_manifold": float(settings.variances[0]),
            "variance_off_manifold": float(settings.variances[-1]),
            "step": settings.step,
            "factor_on_manifold": float(field.factors[0]),
            "factor_off_manifold": float(field.factors[-1]),
            "expected_rate_eq_13": field.approximate,
            "expected_rate_exact": field.exact,
            "converges": field.valid,
            **{f"rate_of_step_{k}": float(rates[k]) for k in shown},
            "rate_of_all_steps": field.total_rate(settings.steps),
        }


@dataclass(frozen=True)
class FieldTable:
    """The readings side by side; the first is as printed."""

    readings: tuple[FieldReading, ...]

    def rows(self) -> list[dict[str, Any]]:
        """Return one row a quantity: its name, and its value in every reading.

        Example:
            >>> table = field_table(FieldSettings(std_off_manifold=0.1))
            >>> table.rows()[3]
            {'quantity': 'factor_on_manifold', 'printed': 0.999}
        """
        columns = {reading.name: reading.values() for reading in self.readings}
        names = columns[self.readings[0].name]
        return [
            {"quantity": name, **{reading: values[name] for reading, values in columns.items()}}
            for name in names
        ]


def field_table(printed: FieldSettings) -> FieldTable:
    """Compare the printed settings with the readings under which descent converges.

    Args:
        printed: The settings as printed, with standard deviations.

    Returns:
        The printed reading alone where it converges, else all three.

    Warns:
        DivergingStep: when the printed settings diverge.

    Example:
        >>> import warnings
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("ignore")
        ...     table = field_table(FieldSettings())
        >>> {k: round(v, 6) for k, v in table.rows()[4].items() if k != "quantity"}
        {'printed': -9.0, 'variance': 0.9, 'small_step': 0.9}
    """
    instance(printed, FieldSettings, "settings", "pass FieldSettings(...)")
    first = FieldReading("printed", printed, printed.field())
    if first.field.valid:
        return FieldTable((first,))
    others = {"variance": variance_reading(printed), "small_step": small_step_reading(printed)}
    converging = [FieldReading(name, each, each.field()) for name, each in others.items()]
    return FieldTable((first, *converging))


def variance_reading(printed: FieldSettings) -> FieldSettings:
    """Take the printed deviations for variances."""
    return replace(
        printed,
        std_on_manifold=float(np.sqrt(printed.std_on_manifold)),
        std_off_manifold=float(np.sqrt(printed.std_off_manifold)),
    )


def small_step_reading(printed: FieldSettings) -> FieldSettings:
    """Take the step that gives the factor of `variance_reading` across the data."""
    return replace(printed, step=printed.step * float(printed.std_off_manifold))
