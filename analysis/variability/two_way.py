"""Statistics of a table of outputs f_s(x_k), K inputs under S configurations, read in blocks.

Centroids must be known before distances to them, so the table is read several times: it lies on
disk (`RowFile`), and what is held is a few blocks of fixed size, whatever K and S. Beside them
three distances are kept for every cell, 12 bytes, for their distribution. Everything is summed in
float64 as differences from the clean image, in the order of the table, so no result depends on how
its cells were computed; equal columns have an internal variance of exactly 0.

Distances to centroids ([Wei2025], figure 2f and table S13), each the mean over all cells of the
Euclidean norm of

    vary input:       y[k, s] - mean over k     (one configuration; 1.004 -> 0.241 in the paper),
    vary randomness:  y[k, s] - mean over s     (one input),
    vary both:        y[k, s] - mean over both.

Correlations of purification directions (figures 2d and 2e): d[k, s] = y[k, s] - x_k, flattened; the
mean over pairs of Pearson's correlation, over pairs of configurations at one input (vary
randomness) or pairs of inputs at one configuration (vary input), then over inputs or
configurations. With u the directions less their mean over pixels, of norm 1, the mean over the
pairs of n of them is (|sum u|^2 - n) / (n (n - 1)): no pair is ever formed. A direction without
variance over pixels has no correlation and is left out.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from advpure.analysis.variability.variance import SumsOfSquares
from advpure.base.errors import BadInput
from advpure.base.validation import floats, instance

Array = npt.NDArray[np.float64]
_BLOCK = 2**19  # numbers of a block, 4 MiB


@dataclass(frozen=True)
class Table:
    """Where the cells of one image are read from.

    Attributes:
        perturbations: K.
        configurations: S.
        inputs: The inputs first .. last - 1, [last - first, d], float64.
        outputs: Those of one configuration: (configuration, first, last) to [last - first, d].
    """

    perturbations: int
    configurations: int
    inputs: Callable[[int, int], Array]
    outputs: Callable[[int, int, int], Array]

    @classmethod
    def of_arrays(cls, inputs: npt.ArrayLike, outputs: npt.ArrayLike) -> "Table":
        """Make a table of arrays that fit in memory.

        Args:
            inputs: [K, ...].
            outputs: [S, K, ...].

        Raises:
            BadInput: for shapes that do not match.
        """
        x, y = floats(inputs, "inputs"), floats(outputs, "outputs")
        if y.ndim < 3 or x.shape != y.shape[1:]:
            raise BadInput(
                f"outputs of shape {list(y.shape)} for inputs of shape {list(x.shape)}",
                "are no table",
                "give inputs [K, ...] and outputs [S, K, ...]",
            )
        flat_x, flat_y = x.reshape(len(x), -1), y.reshape(*y.shape[:2], -1)
        return cls(len(x), len(y), lambda a, b: flat_x[a:b], lambda s, a, b: flat_y[s, a:b])


class TwoWay(NamedTuple):
    """What is known of one table.

    Attributes:
        sums: Sums of squares over all cells and pixels.
        maps: The same by pixel, rows, columns and within, [3, d].
        distances: Of every cell to its centroid: vary input, vary randomness, vary both,
            [3, S, K], float32, [0, 1] units.
        initial: Mean Euclidean distance of the inputs to the clean image.
        initial_centroid: Mean Euclidean distance of the inputs to their mean.
        vary_input: Mean distance to the centroid of one configuration.
        vary_randomness: Mean distance to the centroid of one input.
        vary_both: Mean distance to the centroid of all.
        correlation_vary_input: Mean correlation of directions of one configuration; None where
            no two directions have one.
        correlation_vary_randomness: The same for one input.
    """

    sums: SumsOfSquares
    maps: Array
    distances: npt.NDArray[np.float32]
    initial: float
    initial_centroid: float
    vary_input: float
    vary_randomness: float
    vary_both: float
    correlation_vary_input: float | None
    correlation_vary_randomness: float | None


def table_statistics(table: Table, clean: npt.ArrayLike) -> TwoWay:
    """Measure one table.

    Args:
        table: The cells.
        clean: The clean image x0, d numbers.

    Returns:
        See `TwoWay`. Cost: the outputs are read four times, nothing is purified.

    Raises:
        BadInput: for a table with a single input or configuration, which has no variance.

    Example:
        >>> x = np.array([[1.0, 0.0], [-1.0, 0.0]])
        >>> table = Table.of_arrays(x, np.stack([x / 2, x / 2 + 3.0]))
        >>> found = table_statistics(table, np.zeros(2))
        >>> found.vary_input, found.initial, found.sums.columns
        (0.5, 1.0, 18.0)
    """
    instance(table, Table, "table", "pass Table.of_arrays(...)")
    k, s = table.perturbations, table.configurations
    if k < 2 or s < 2:
        raise BadInput(
            f"a table of {k} perturbations and {s} configurations",
            "has no variance to compare",
            "give at least 2 of each",
        )
    origin = floats(clean, "the clean image").reshape(-1)
    if origin.size != table.inputs(0, 1).shape[1] or not np.isfinite(origin).all():
        raise BadInput(
            f"a clean image of {origin.size} numbers",
            f"is not {table.inputs(0, 1).shape[1]} finite ones, as the inputs are",
            "give the image that was perturbed",
        )
    cells = np.empty((3, s, k), dtype=np.float32)
    initial, initial_centroid = _input_distances(table, origin)
    columns = _by_configuration(table, origin, cells[0])
    rows = _by_input(table, origin, columns.grand, cells[1:])
    maps = np.stack([rows.squares * s, columns.squares * k, columns.within])
    sums = SumsOfSquares(k, s, origin.size, *(float(each.sum()) for each in maps))
    return TwoWay(
        sums,
        maps,
        cells,
        initial,
        initial_centroid,
        columns.distance,
        rows.distance,
        rows.distance_both,
        columns.correlation,
        rows.correlation,
    )


class _Columns(NamedTuple):
    grand: Array
    squares: Array
    within: Array
    distance: float
    correlation: float | None


class _Rows(NamedTuple):
    squares: Array
    distance: float
    distance_both: float
    correlation: float | None


def _input_distances(table: Table, origin: Array) -> tuple[float, float]:
    blocks = list(_blocks(table.perturbations, origin.size))
    mean, initial, centred = np.zeros(origin.size), 0.0, 0.0
    for a, b in blocks:
        apart = table.inputs(a, b) - origin
        mean += apart.sum(axis=0)
        initial += float(_norms(apart).sum())
    mean /= table.perturbations
    for a, b in blocks:
        centred += float(_norms(table.inputs(a, b) - origin - mean).sum())
    return initial / table.perturbations, centred / table.perturbations


def _by_configuration(table: Table, origin: Array, cells: npt.NDArray[np.float32]) -> _Columns:
    """Go down one column after another: its mean, then the distances to it."""
    blocks = list(_blocks(table.perturbations, origin.size))
    spread, within = _Spread(origin.size), np.zeros(origin.size)
    distance, pairs = 0.0, _MeanOf()
    for s in range(table.configurations):
        mean = np.zeros(origin.size)
        for a, b in blocks:
            mean += (table.outputs(s, a, b) - origin).sum(axis=0)
        mean /= table.perturbations
        spread.add(mean)
        directions = _Directions(origin.size)
        for a, b in blocks:
            outputs = table.outputs(s, a, b)
            directions.add(outputs - table.inputs(a, b))
            apart = outputs - origin - mean
            within += np.square(apart).sum(axis=0)
            norms = _norms(apart)
            cells[s, a:b] = norms
            distance += float(norms.sum())
        pairs.add(directions.correlation)
    cases = table.perturbations * table.configurations
    return _Columns(spread.mean, spread.squares, within, distance / cases, pairs.value)


def _by_input(table: Table, origin: Array, grand: Array, cells: npt.NDArray[np.float32]) -> _Rows:
    """Go along a block of rows: their means, then the distances to them."""
    spread, distance, distance_both, pairs = _Spread(origin.size), 0.0, 0.0, _MeanOf()
    for a, b in _blocks(table.perturbations, origin.size):
        inputs, means = table.inputs(a, b), np.zeros((b - a, origin.size))
        for s in range(table.configurations):
            means += table.outputs(s, a, b) - origin
        means /= table.configurations
        directions = _Directions(b - a, origin.size)
        for s in range(table.configurations):
            outputs = table.outputs(s, a, b)
            directions.add(outputs - inputs)
            apart = outputs - origin
            own, both = _norms(apart - means), _norms(apart - grand)
            cells[0, s, a:b], cells[1, s, a:b] = own, both
            distance, distance_both = distance + own.sum(), distance_both + both.sum()
        for mean in means:
            spread.add(mean)
        for correlation in directions.correlations:
            pairs.add(correlation)
    cases = table.perturbations * table.configurations
    return _Rows(spread.squares, float(distance) / cases, float(distance_both) / cases, pairs.value)


class _Spread:
    """Mean and sum of squares about it of vectors, taken from the first: equal ones give 0."""

    def __init__(self, size: int) -> None:
        self.first: Array | None = None
        self.count, self.total, self.square = 0, np.zeros(size), np.zeros(size)

    def add(self, vector: Array) -> None:
        if self.first is None:
            self.first = vector.copy()
        shift = vector - self.first
        self.count += 1
        self.total += shift
        self.square += np.square(shift)

    @property
    def mean(self) -> Array:
        assert self.first is not None
        return self.first + self.total / self.count

    @property
    def squares(self) -> Array:
        # Rounding may take a sum of squares that is about 0 below it.
        return np.maximum(self.square - np.square(self.total) / self.count, 0.0)


class _Directions:
    """Sums of unit vectors, one for each of several families, and what their pairs correlate."""

    def __init__(self, *shape: int) -> None:
        self.single = len(shape) == 1
        self.total = np.zeros(shape)
        self.count = np.zeros(shape[:-1])

    def add(self, directions: Array) -> None:
        """Add directions [b, d]: all of one family, or each of its own."""
        centred = directions - directions.mean(axis=1, keepdims=True)
        norms = _norms(centred)
        # What is left of a constant direction is rounding.
        floor = 1e-12 * np.abs(directions).max(axis=1, initial=0.0) * directions.shape[1] ** 0.5
        known = norms > floor
        unit = centred * (known / np.where(known, norms, 1.0))[:, None]
        if self.single:
            self.total += unit.sum(axis=0)
            self.count += known.sum()
        else:
            self.total += unit
            self.count += known

    @property
    def correlations(self) -> list[float | None]:
        lengths = np.atleast_1d(np.square(self.total).sum(axis=-1))
        return [
            float((length - n) / (n * (n - 1))) if n > 1 else None
            for length, n in zip(lengths, np.atleast_1d(self.count), strict=True)
        ]

    @property
    def correlation(self) -> float | None:
        (value,) = self.correlations
        return value


class _MeanOf:
    """The mean of what is there."""

    def __init__(self) -> None:
        self.total, self.count = 0.0, 0

    def add(self, value: float | None) -> None:
        if value is not None:
            self.total, self.count = self.total + value, self.count + 1

    @property
    def value(self) -> float | None:
        return self.total / self.count if self.count else None


def _blocks(count: int, width: int) -> Iterator[tuple[int, int]]:
    """Cut rows into blocks of about `_BLOCK` numbers, the same whatever was computed how."""
    step = max(_BLOCK // width, 1)
    return ((start, min(start + step, count)) for start in range(0, count, step))


def _norms(rows: Array) -> Array:
    norms: Array = np.sqrt(np.square(rows).sum(axis=1))
    return norms
