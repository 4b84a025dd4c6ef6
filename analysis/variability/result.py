"""Randomness against input: one row of sums per image, and what is computed from the rows.

Variances are means over pixels in squared [0, 1] units, as [Wei2025] prints them (times 1e-3 in its
table S12); distances are Euclidean, in [0, 1] units; correlations and ratios have no unit. The
images are the independent cases: intervals are over images, Student's for means, a bootstrap for
ratios of means.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from advpure.analysis.variability.two_way import TwoWay
from advpure.analysis.variability.variance import (
    Components,
    SumsOfSquares,
    plain_components,
    unbiased_components,
)
from advpure.base.errors import BadInput
from advpure.runs.schema import Count, Row, Schema
from advpure.statistics.estimates import Estimate, plain
from advpure.statistics.rates import Mean, mean_interval
from advpure.statistics.ratio import Ratio, ratio_of_means


class SnrRow(NamedTuple):
    """One image.

    Attributes:
        id: Sample id.
        perturbations: K.
        configurations: S.
        pixels: Numbers in an image.
        squares_rows: Sum of squares of the means over configurations; see `SumsOfSquares`.
        squares_columns: That of the means over inputs.
        squares_within: That of the outputs within each configuration.
        initial: Mean L2 norm of the perturbations, as realised.
        initial_centroid: Mean L2 distance of the inputs to their mean.
        vary_input: Mean L2 distance of outputs to their centroid at a fixed configuration.
        vary_randomness: The same at a fixed input.
        vary_both: The same about the centroid of all.
        correlation_vary_input: Mean correlation of pairs of directions at a fixed configuration;
            None where directions have none.
        correlation_vary_randomness: The same at a fixed input.
    """

    id: int
    perturbations: int
    configurations: int
    pixels: int
    squares_rows: float
    squares_columns: float
    squares_within: float
    initial: float
    initial_centroid: float
    vary_input: float
    vary_randomness: float
    vary_both: float
    correlation_vary_input: float | None
    correlation_vary_randomness: float | None

    @classmethod
    def of(cls, sample: int, table: TwoWay) -> "SnrRow":
        """Make the row of an image from the statistics of its table."""
        return cls(sample, *table.sums, *(getattr(table, name) for name in cls._fields[7:]))

    @property
    def sums(self) -> SumsOfSquares:
        """The sums of squares."""
        return SumsOfSquares(*self[1:7])

    @property
    def plain(self) -> Components:
        """The variance components as the paper estimates them."""
        return plain_components(self.sums)

    @property
    def unbiased(self) -> Components:
        """The variance components without bias."""
        return unbiased_components(self.sums)


SNR_SCHEMA = Schema(
    "snr",
    keys={"id": Count},
    values={
        **dict.fromkeys(SnrRow._fields[1:4], Count),
        **dict.fromkeys(SnrRow._fields[4:12], float),
        **dict.fromkeys(SnrRow._fields[12:], float | None),
    },
)

T = TypeVar("T")
Value = Callable[[SnrRow], float | None]

MEANS: dict[str, Value] = {
    "total": lambda row: row.plain.total,
    "input": lambda row: row.plain.input,
    "internal": lambda row: row.plain.internal,
    "snr_mean_of_ratios": lambda row: row.plain.snr,
    "total_unbiased": lambda row: row.unbiased.total,
    "input_unbiased": lambda row: row.unbiased.input,
    "internal_unbiased": lambda row: row.unbiased.internal,
    "interaction_unbiased": lambda row: row.unbiased.interaction,
    "snr_mean_of_ratios_unbiased": lambda row: row.unbiased.snr,
    "total_summed": lambda row: row.plain.total * row.pixels,
    "input_summed": lambda row: row.plain.input * row.pixels,
    "internal_summed": lambda row: row.plain.internal * row.pixels,
    "initial": lambda row: row.initial,
    "initial_centroid": lambda row: row.initial_centroid,
    "centroid_vary_input": lambda row: row.vary_input,
    "centroid_vary_randomness": lambda row: row.vary_randomness,
    "centroid_vary_both": lambda row: row.vary_both,
    "correlation_vary_randomness": lambda row: row.correlation_vary_randomness,
    "correlation_vary_input": lambda row: row.correlation_vary_input,
}
"""Quantities that have a value for every image, by name."""

_Part = Callable[[SnrRow], float]
RATIOS: dict[str, tuple[_Part, _Part]] = {
    "snr_ratio_of_means": (lambda r: r.plain.input, lambda r: r.plain.internal),
    "snr_ratio_of_means_unbiased": (lambda r: r.unbiased.input, lambda r: r.unbiased.internal),
    "internal_to_input": (lambda r: r.plain.internal, lambda r: r.plain.input),
    "internal_to_input_unbiased": (lambda r: r.unbiased.internal, lambda r: r.unbiased.input),
}
"""Quantities that are a ratio of two means over images, by name."""


@dataclass(frozen=True)
class SnrResult:
    """Variance components, distances and correlations of some images.

    Args:
        rows: One per image, in any order; kept sorted by id.
        settings: What they depend on, as JSON values.

    Raises:
        BadInput: for no rows, or two of the same image.

    Example:
        >>> row = SnrRow(0, 2, 2, 1, 1.0, 16.0, 1.0, *[1.0] * 5, None, 0.5)
        >>> result = SnrResult((row, row._replace(id=1, squares_within=3.0)))
        >>> result.mean("input").value, result.mean("correlation_vary_input")
        (0.5, None)
        >>> result.ratio("snr_ratio_of_means").value
        0.125
    """

    rows: tuple[SnrRow, ...]
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Sort the rows."""
        ordered = tuple(sorted(self.rows, key=lambda row: row.id))
        if not ordered:
            raise BadInput("a result of variances", "has no rows", "measure at least one image")
        if len({row.id for row in ordered}) != len(ordered):
            raise BadInput("a result of variances", "has an image twice", "give each image once")
        object.__setattr__(self, "rows", ordered)

    @classmethod
    def from_records(
        cls, records: Iterable[Row], settings: dict[str, Any] | None = None
    ) -> "SnrResult":
        """Read rows that were stored with `SNR_SCHEMA`."""
        rows = (SnrRow(**{k: r[k] for k in SnrRow._fields}) for r in records)
        return cls(tuple(rows), settings or {})

    @property
    def n(self) -> int:
        """The number of images."""
        return len(self.rows)

    def of_images(self, name: str) -> dict[int, float]:
        """Return a quantity of `MEANS` by sample id; images without a value are left out."""
        values = {row.id: _known(MEANS, name)(row) for row in self.rows}
        return {i: value for i, value in values.items() if value is not None}

    def mean(self, name: str) -> Mean | None:
        """Return the mean of a quantity of `MEANS` over images; None where no image has one."""
        values = list(self.of_images(name).values())
        return mean_interval(values, within=_within(name)) if values else None

    def ratio(self, name: str) -> Ratio | None:
        """Return a quantity of `RATIOS`; None where its denominator is not above 0."""
        top, bottom = _known(RATIOS, name)
        return ratio_of_means([top(row) for row in self.rows], [bottom(row) for row in self.rows])

    def estimate(self, name: str) -> Estimate | None:
        """Return a quantity of `MEANS`, with the value of each image, or of `RATIOS`."""
        if name in RATIOS:
            return Estimate.of(self.ratio(name), style="beside")
        return Estimate.of(self.mean(name), self.of_images(name), style="beside")

    def tree(self) -> dict[str, Any]:
        """Return every quantity by name; those without a value are None."""
        return {"n": self.n, **{name: self.estimate(name) for name in (*MEANS, *RATIOS)}}

    def to_json(self) -> dict[str, Any]:
        """Return every quantity with `_n`, `_interval` and, for means, `_std` over images."""
        values: dict[str, Any] = plain(self.tree())
        return values


def _within(name: str) -> tuple[float, float]:
    """Return what the values of a quantity cannot leave; unbiased variances may be below 0."""
    if name.startswith("correlation"):
        return -1.0, 1.0
    return (-math.inf if name.endswith("unbiased") else 0.0), math.inf


def _known(quantities: dict[str, T], name: str) -> T:
    if name not in quantities:
        known = ", ".join(quantities)
        raise BadInput(f"quantity {name!r}", "is not known", f"use {known}")
    return quantities[name]
