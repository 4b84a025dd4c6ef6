"""What was recorded of leading singular values, over images."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from advpure.analysis.steps.manifold import share_along
from advpure.analysis.steps.singular import Spectrum
from advpure.runs.schema import Count, Row, Schema
from advpure.statistics.estimates import Estimate
from advpure.statistics.rates import NOT_NEGATIVE, mean_interval

SINGULAR = Schema(
    "singular",
    {"sample": Count, "rank": Count},
    {"sigma": float, "bound": float, "converged": bool, "along": float | None},
)
SPECTRA = Schema(
    "spectra",
    {"sample": Count},
    {"energy": float, "energy_error": float | None, "products": Count, "mismatch": float},
)


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
    def rms_rates(self) -> dict[int, float]:
        """||J||_F / sqrt(d), the root mean square compression rate, by sample id."""
        return {
            row["sample"]: float(np.sqrt(row["energy"] / self.dimensions)) for row in self.spectra
        }

    def of_images(self, column: str, rank: int) -> dict[int, float]:
        """Return a column of the values of a rank by sample id, of the images that have it."""
        own = [row for row in self.values if row["rank"] == rank and row[column] is not None]
        return {row["sample"]: row[column] for row in own}

    def tree(self) -> dict[str, Any]:
        """Return the result: `rows` by rank, the worst direction and the mean one.

        ``worst_over_rms``, sigma_max sqrt(d) / ||J||_F, says how much worse the worst direction is,
        over images with a Jacobian other than 0; None without any.
        """
        rms, top = self.rms_rates, self.of_images("sigma", 1)
        rows = []
        for rank in sorted({row["rank"] for row in self.values}):
            own = [row for row in self.values if row["rank"] == rank]
            rows.append(
                {
                    "rank": rank,
                    "sigma": _estimate(self.of_images("sigma", rank)),
                    "bound": max(row["bound"] for row in own),
                    "converged": sum(row["converged"] for row in own),
                    "along": _estimate(self.of_images("along", rank)),
                }
            )
        return {
            "n": len(self.spectra),
            "sigma_max": _estimate(top),
            "rms_rate": _estimate(rms),
            "worst_over_rms": _estimate({i: top[i] / rms[i] for i in rms if rms[i] > 0.0}),
            "along_by_chance": self.components and self.components / self.dimensions,
            "rows": rows,
        }


def _estimate(values: dict[int, float]) -> Estimate | None:
    if not values:
        return None
    return Estimate.of(mean_interval(list(values.values()), within=NOT_NEGATIVE), values)


def singular_records(spectrum: Spectrum, span: Tensor | None) -> tuple[list[Row], Row]:
    """Turn a spectrum into rows of the two tables.

    Args:
        spectrum: The spectrum.
        span: Directions along the data at the image, [k, d], or None.
    """
    shares: list[float] | list[None] = [None] * len(spectrum.values)
    if span is not None:
        shares = share_along(span, spectrum.right.double().flatten(1)).tolist()
    columns = zip(spectrum.values, spectrum.bounds, spectrum.converged, shares, strict=True)
    values: list[Row] = [
        {
            "sample": spectrum.id,
            "rank": rank,
            "sigma": sigma,
            "bound": bound,
            "converged": converged,
            "along": share,
        }
        for rank, (sigma, bound, converged, share) in enumerate(columns, 1)
    ]
    energy = spectrum.energy
    error = None if energy.std is None else energy.std / energy.n**0.5
    summary: Row = {
        "sample": spectrum.id,
        "energy": energy.value,
        "energy_error": error,
        "products": spectrum.products,
        "mismatch": spectrum.mismatch,
    }
    return values, summary
