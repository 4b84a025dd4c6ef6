"""Measured compression rates: one row per perturbation, and what is computed from the rows."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from advpure.base.errors import BadInput
from advpure.runs.schema import Count, Length, Row, Schema
from advpure.statistics.rates import NOT_NEGATIVE, Interval
from advpure.statistics.repeated import mean_over_images, means_by_image

CompressionKey = tuple[float, int, int, int]


class CompressionRow(NamedTuple):
    """One perturbation of one image.

    Attributes:
        eps: Its strength, [0, 1] units.
        seed: Base seed of the purifier's noise and of the perturbation.
        id: Sample id.
        draw: Number of the perturbation.
        rate: change / norm; None where the realised perturbation is zero, for which there is no
            rate.
        norm: Euclidean norm of the realised perturbation, [0, 1] units.
        change: Euclidean norm of the change of the purified image, [0, 1] units.
    """

    eps: float
    seed: int
    id: int
    draw: int
    rate: float | None
    norm: float
    change: float

    @property
    def key(self) -> CompressionKey:
        """What names the row: (eps, seed, id, draw)."""
        return self.eps, self.seed, self.id, self.draw


COMPRESSION_SCHEMA = Schema(
    "compression",
    keys={"eps": float, "seed": int, "id": Count, "draw": Count},
    values={"rate": float | None, "norm": Length, "change": float},
    derived={"rate": ("ratio", "change", "norm")},
)


class CompressionSummary(NamedTuple):
    """The compression rate at one strength, over images.

    Attributes:
        eps: Strength, [0, 1] units.
        seed: Base seed, or None over all seeds.
        mean: Mean over images of each image's mean rate.
        std: Standard deviation over images of each image's mean rate (n - 1); None for n = 1.
        n: Number of images with a rate.
        interval: 95 % interval of the mean for new images, Student's t; None for n = 1.
        rates: Number of rates behind it.
        absent: Perturbations without a rate, left out.
    """

    eps: float
    seed: int | None
    mean: float
    std: float | None
    n: int
    interval: Interval | None
    rates: int
    absent: int


@dataclass(frozen=True)
class CompressionResult:
    """Compression rates and their summaries.

    Args:
        rows: One per perturbation, in any order; kept sorted by key, so that summaries do not
            depend on the order of computation.
        settings: What they depend on, as JSON values.

    Raises:
        BadInput: for no rows, or two rows with the same key.

    Example:
        >>> rows = [CompressionRow(0.1, 0, i, 0, 0.2 + 0.1 * i, 1.0, 1.0) for i in range(3)]
        >>> result = CompressionResult(tuple(rows))
        >>> round(result.mean, 3), round(result.std, 3), result.n
        (0.3, 0.1, 3)
    """

    rows: tuple[CompressionRow, ...]
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Sort the rows."""
        ordered = tuple(sorted(self.rows, key=lambda row: row.key))
        if not ordered:
            raise BadInput("a compression result", "has no rows", "measure at least one image")
        if len({row.key for row in ordered}) != len(ordered):
            raise BadInput("a compression result", "has a row twice", "give every row once")
        object.__setattr__(self, "rows", ordered)

    @classmethod
    def from_records(
        cls, records: Iterable[Row], settings: dict[str, Any] | None = None
    ) -> "CompressionResult":
        """Read rows that were stored with `COMPRESSION_SCHEMA`."""
        rows = (CompressionRow(**{k: r[k] for k in CompressionRow._fields}) for r in records)
        return cls(tuple(rows), settings or {})

    @property
    def eps(self) -> tuple[float, ...]:
        """The strengths, ascending."""
        return tuple(sorted({row.eps for row in self.rows}))

    @property
    def seeds(self) -> tuple[int, ...]:
        """The base seeds, ascending."""
        return tuple(sorted({row.seed for row in self.rows}))

    def image_means(self, eps: float | None = None, seed: int | None = None) -> dict[int, float]:
        """Return each image's mean rate by sample id.

        Args:
            eps: A strength; None where there is only one.
            seed: A base seed, or None for all.
        """
        return means_by_image((row.id, row.rate) for row in self._select(eps, seed))

    def summary(self, eps: float | None = None, seed: int | None = None) -> CompressionSummary:
        """Summarise one strength, at one seed or over all.

        Raises:
            BadInput: when there is nothing to summarise, or several strengths and none is named.
        """
        rows = self._select(eps, seed)
        strength = rows[0].eps
        mean = mean_over_images(
            means_by_image((row.id, row.rate) for row in rows),
            f"the compression rate at epsilon {strength:g}",
            within=NOT_NEGATIVE,
        )
        rates = sum(row.rate is not None for row in rows)
        return CompressionSummary(
            strength, seed, mean.value, mean.std, mean.n, mean.interval, rates, len(rows) - rates
        )

    @property
    def pooled(self) -> list[CompressionSummary]:
        """One summary for every strength, over all seeds."""
        return [self.summary(eps) for eps in self.eps]

    @property
    def mean(self) -> float:
        """The mean rate, where there is one strength."""
        return self.summary().mean

    @property
    def std(self) -> float | None:
        """The standard deviation over images, where there is one strength."""
        return self.summary().std

    @property
    def n(self) -> int:
        """The number of images, where there is one strength."""
        return self.summary().n

    @property
    def interval(self) -> Interval | None:
        """The 95 % interval of the mean, where there is one strength."""
        return self.summary().interval

    def _select(self, eps: float | None, seed: int | None) -> list[CompressionRow]:
        if eps is None:
            if len(self.eps) > 1:
                listed = ", ".join(f"{value:g}" for value in self.eps)
                raise BadInput(
                    "this result", f"has several epsilons ({listed})", "name one of them"
                )
            eps = self.eps[0]
        rows = [row for row in self.rows if row.eps == eps and seed in (None, row.seed)]
        if not rows:
            known = f"known: {', '.join(map(str, self.eps))} and seeds {self.seeds}"
            raise BadInput(f"epsilon {eps} with seed {seed}", "was not measured", known)
        return rows
