"""What was recorded of leading singular values, over images."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from advpure.analysis.steps.manifold import share_along
from advpure.analysis.steps.singular import Spectrum
from advpure.runs.schema import Count, Row, Schema
from advpure.statistics.rates import Mean, mean_interval

SINGULAR = Schema(
    "singular", {"sample": Count, "rank": Count},
    {"sigma": float, "bound": float, "converged": bool, "along": float | None},
)  # fmt: skip
SPECTRA = Schema(
    "spectra", {"sample": Count},
    {"energy": float, "energy_error": float | None, "products": Count, "mismatch": float},
)  # fmt: skip


class RankSummary(NamedTuple):
    """The singular values of one rank, over images.

    Attributes:
        rank: From 1.
        sigma: Their mean.
        bound: The largest bound.
        converged: Images where the tolerance was met.
        along: Mean share of the right singular vector that lies along the data; None without
            reference images.
    """

    rank: int
    sigma: Mean
    bound: float
    converged: int
    along: Mean | None


@dataclass(frozen=True)
class SingularResult:
    """Leading singular values of some images.

    Args:
        values: Rows of the table `singular`.
        spectra: Rows of the table `spectra`, at least one.
        dimensions: d.
        components: Dimension of the spans along the data; None without them.
    """

    values: Sequence[Row]
    spectra: Sequence[Row]
    dimensions: int
    components: int | None = None

    @property
    def ranks(self) -> tuple[RankSummary, ...]:
        """Summaries by rank."""
        found = []
        for rank in sorted({row["rank"] for row in self.values}):
            own = [row for row in self.values if row["rank"] == rank]
            shares = [row["along"] for row in own if row["along"] is not None]
            found.append(
                RankSummary(
                    rank, mean_interval([row["sigma"] for row in own]),
                    max(row["bound"] for row in own), sum(row["converged"] for row in own),
                    mean_interval(shares) if shares else None,
                )
            )  # fmt: skip
        return tuple(found)

    @property
    def rms_rate(self) -> Mean:
        """||J||_F / sqrt(d), the root mean square compression rate, over images."""
        return mean_interval([self._rms(row) for row in self.spectra])

    @property
    def worst_over_rms(self) -> Mean | None:
        """sigma_max sqrt(d) / ||J||_F: how much worse the worst direction is.

        Over images with a Jacobian other than 0; None without any.
        """
        top = {row["sample"]: row["sigma"] for row in self.values if row["rank"] == 1}
        pairs = [(top[row["sample"]], self._rms(row)) for row in self.spectra]
        found = [sigma / rate for sigma, rate in pairs if rate > 0.0]
        return mean_interval(found) if found else None

    def to_json(self) -> dict[str, Any]:
        """Return one JSON object."""
        rows = [
            {
                "rank": each.rank, "sigma": mean_json(each.sigma), "bound": each.bound,
                "converged": each.converged, "along": each.along and mean_json(each.along),
            }
            for each in self.ranks
        ]  # fmt: skip
        return {
            "n": len(self.spectra),
            "sigma_max": rows[0]["sigma"],
            "rms_rate": mean_json(self.rms_rate),
            "worst_over_rms": self.worst_over_rms and mean_json(self.worst_over_rms),
            "along_by_chance": self.components and self.components / self.dimensions,
            "rows": rows,
        }

    def _rms(self, row: Row) -> float:
        return float(np.sqrt(row["energy"] / self.dimensions))


def singular_records(spectrum: Spectrum, span: Tensor | None) -> tuple[list[Row], Row]:
    """Turn a spectrum into rows of the two tables.

    Args:
        spectrum: What was found.
        span: Directions along the data at the image, [k, d], or None.
    """
    shares: list[float] | list[None] = [None] * len(spectrum.values)
    if span is not None:
        shares = share_along(span, spectrum.right.double().flatten(1)).tolist()
    columns = zip(spectrum.values, spectrum.bounds, spectrum.converged, shares, strict=True)
    values: list[Row] = [
        {
            "sample": spectrum.id, "rank": rank, "sigma": sigma, "bound": bound,
            "converged": converged, "along": share,
        }
        for rank, (sigma, bound, converged, share) in enumerate(columns, 1)
    ]  # fmt: skip
    energy = spectrum.energy
    error = None if energy.std is None else energy.std / energy.n**0.5
    summary: Row = {
        "sample": spectrum.id, "energy": energy.value, "energy_error": error,
        "products": spectrum.products, "mismatch": spectrum.mismatch,
    }  # fmt: skip
    return values, summary


def mean_json(mean: Mean) -> dict[str, Any]:
    """Return a mean as JSON values."""
    return {**mean._asdict(), "interval": mean.interval and list(mean.interval)}
