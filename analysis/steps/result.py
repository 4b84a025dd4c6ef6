"""What the steps of a chain were measured to compress, computed from rows.

Rates over draws become one number an image: the root mean square for ``isotropic`` and ``limit``,
whose square estimates ||J_step||_F^2 / d without bias and is what equation 16 of [Wei2025] predicts
before its expansion; the mean for the other kinds. Means over images have Student's intervals, n is
the number of images. Errors over probes are standard errors of the estimates for these images.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from advpure.analysis.steps.settings import StepInfo, StepProbe, StepRate
from advpure.runs.schema import Count, Row, Schema
from advpure.statistics.rates import NOT_NEGATIVE, Mean, mean_interval

Floats = npt.NDArray[np.float64]

STEP_RATES = Schema(
    "steps", {"sample": Count, "step": Count, "kind": str, "draw": Count}, {"rate": float | None}
)
STEP_PROBES = Schema(
    "probes", {"sample": Count, "step": Count, "probe": Count}, {"trace": float, "energy": float}
)
STEP_CHAIN = Schema(
    "chain",
    {"step": Count},
    {
        "name": str,
        "phase": str,
        "time": int,
        "form": str,
        "gain": float | None,
        "kappa": float | None,
        "gamma": float | None,
        "scale": float,
        "sigma": float,
        "selected": bool,
    },
)

QUADRATIC = ("isotropic", "limit")
"""Kinds whose draws are averaged as squares."""


class StepSummary(NamedTuple):
    """One step, over images.

    Attributes:
        info: The step.
        rates: Mean over images by kind; kinds that were not measured there are absent.
        exact: The prediction with the Frobenius norm; the factor itself for a scalar step.
        first_order: The prediction of equation 16; likewise.
        exact_error: Standard error over probes of `exact`; None for a scalar step or one probe.
        first_order_error: Likewise of `first_order`.
        limit_error: Standard error over directions of the mean of ``limit``; likewise.
        exact_deviation: exact / limit - 1, both as means over images.
        first_order_deviation: Likewise of `first_order`.
        mean_eigenvalue: tr J / d of the noise prediction.
        cumulative: Mean over images of the product of the transported rates so far.
    """

    info: StepInfo
    rates: dict[str, Mean]
    exact: Mean | None
    first_order: Mean | None
    exact_error: float | None
    first_order_error: float | None
    limit_error: float | None
    exact_deviation: float | None
    first_order_deviation: float | None
    mean_eigenvalue: Mean | None
    cumulative: Mean


class ChainSummary(NamedTuple):
    """The whole chain, over images; products are made image by image.

    Attributes:
        measured: The compression rate: the product of the transported rates.
        linear: Its limit along the first perturbation; None where steps were left out.
        forward: The product of the factors of all scalar forward steps, exact.
        isotropic: The product of ``limit``: what the chain would do to perturbations that were
            isotropic before every step; None where steps were left out.
        exact: The product of the predictions with the Frobenius norm; None also where a step is
            not of the form.
        first_order: The product of equation 16's.
    """

    measured: Mean
    linear: Mean | None
    forward: float
    isotropic: Mean | None
    exact: Mean | None
    first_order: Mean | None


@dataclass(frozen=True)
class StepsResult:
    """Rows and what follows from them.

    Args:
        chain: The steps.
        rates: Measured rates of at least one image.
        probes: Probes of the noise predictions.
        dimensions: d.
        settings: What they depend on, as JSON values.
    """

    chain: tuple[StepInfo, ...]
    rates: Sequence[StepRate]
    probes: Sequence[StepProbe]
    dimensions: int
    settings: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_records(
        cls,
        chain: Sequence[Row],
        rates: Sequence[Row],
        probes: Sequence[Row],
        settings: Mapping[str, Any],
    ) -> "StepsResult":
        """Read what a run recorded."""
        return cls(
            tuple(StepInfo(**row) for row in chain),
            [StepRate(**row) for row in rates],
            [StepProbe(**row) for row in probes],
            int(settings["dimensions"]),
            settings,
        )

    @cached_property
    def samples(self) -> tuple[int, ...]:
        """Sample ids, ascending; empty for a chain without steps."""
        return tuple(sorted({row.sample for row in self.rates}))

    @cached_property
    def by_image(self) -> dict[str, Floats]:
        """Every quantity of a step by name, [images, steps], NaN where absent.

        The measured kinds; ``exact`` and ``first_order``, the predictions; ``mean_eigenvalue``;
        ``cumulative``, the mean over perturbations of the products so far.
        """
        return {
            **{kind: self._rates(kind) for kind in self._grouped},
            "exact": self.predictions(first_order=False),
            "first_order": self.predictions(first_order=True),
            "mean_eigenvalue": self._mean_eigenvalues(),
            "cumulative": self.cumulative(),
        }

    @cached_property
    def products(self) -> dict[str, Floats]:
        """The product over the chain of each image by the name in `ChainSummary`, [images]."""
        scalar = np.array([abs(i.gain) if i.gain is not None else np.nan for i in self.chain])
        limit = np.where(np.isnan(scalar), self._rates("limit"), scalar)
        return {
            "measured": self.by_image["cumulative"][:, -1],
            "linear": self._rates("linear").prod(axis=1),
            "isotropic": limit.prod(axis=1),
            "exact": self.by_image["exact"].prod(axis=1),
            "first_order": self.by_image["first_order"].prod(axis=1),
        }

    def named(self, values: Floats) -> dict[int, float]:
        """Return the values of images, [images], by sample id, without those that are absent."""
        pairs = zip(self.samples, values.tolist(), strict=True)
        return {i: value for i, value in pairs if value == value}

    def cumulative(self) -> Floats:
        """Return the mean over perturbations of the products so far, [images, steps]."""
        draws = self._draws()
        running: Floats = np.cumprod(np.nan_to_num(draws, nan=0.0), axis=2).mean(axis=1)
        return running

    def predictions(self, *, first_order: bool) -> Floats:
        """Return the predicted rate of every image and step, [images, steps], NaN where none.

        Args:
            first_order: Equation 16; else the root with the Frobenius norm.
        """
        rates = self._absent()
        for info in self.chain:
            if info.gain is not None:
                rates[:, info.step] = abs(info.gain)
        for (i, step), probes in self._probed.items():
            kappa, _ = self._factors(step)
            line, square = (column.mean() for column in self._ratios(step, probes))
            rates[i, step] = kappa * (line if first_order else np.sqrt(max(square, 0.0)))
        return rates

    def steps(self) -> tuple[StepSummary, ...]:
        """Summarise every step over images."""
        if not self.samples:
            return ()
        errors, summaries = self._errors(), []
        for info in self.chain:
            k = info.step
            means = {
                name: _mean(values[:, k], _within(name)) for name, values in self.by_image.items()
            }
            rates = {kind: mean for kind in self._grouped if (mean := means[kind]) is not None}
            cumulative = means["cumulative"]
            assert cumulative is not None
            summaries.append(
                StepSummary(
                    info,
                    rates,
                    means["exact"],
                    means["first_order"],
                    *errors[k],
                    exact_deviation=_deviation(means["exact"], rates.get("limit")),
                    first_order_deviation=_deviation(means["first_order"], rates.get("limit")),
                    mean_eigenvalue=means["mean_eigenvalue"],
                    cumulative=cumulative,
                )
            )
        return tuple(summaries)

    def whole(self) -> ChainSummary | None:
        """Summarise the chain over images; None for a chain without steps."""
        if not self.samples:
            return None
        gains = [abs(i.gain) for i in self.chain if i.phase == "forward" and i.gain is not None]
        means = {name: _mean(values, NOT_NEGATIVE) for name, values in self.products.items()}
        measured = means.pop("measured")
        assert measured is not None
        return ChainSummary(measured=measured, forward=float(np.prod(gains)), **means)

    def _absent(self) -> Floats:
        return np.full((len(self.samples), len(self.chain)), np.nan)

    def _rates(self, kind: str) -> Floats:
        """Return a kind's rate of every image and step, [images, steps], NaN where absent."""
        rates = self._absent()
        for (i, step), values in self._grouped.get(kind, {}).items():
            known = np.array([v for v in values.values() if v is not None])
            if len(known):
                square = kind in QUADRATIC
                rates[i, step] = np.sqrt((known**2).mean()) if square else known.mean()
        return rates

    @cached_property
    def _grouped(self) -> dict[str, dict[tuple[int, int], dict[int, float | None]]]:
        indices = {sample: i for i, sample in enumerate(self.samples)}
        kinds: dict[str, dict[tuple[int, int], dict[int, float | None]]] = {}
        for row in self.rates:
            cell = kinds.setdefault(row.kind, {}).setdefault((indices[row.sample], row.step), {})
            cell[row.draw] = row.rate
        return kinds

    @cached_property
    def _probed(self) -> dict[tuple[int, int], list[StepProbe]]:
        indices = {sample: i for i, sample in enumerate(self.samples)}
        cells: dict[tuple[int, int], list[StepProbe]] = {}
        for probe in self.probes:
            cells.setdefault((indices[probe.sample], probe.step), []).append(probe)
        return cells

    def _draws(self) -> Floats:
        """Return the transported rates, [images, perturbations, steps]; NaN where absent."""
        cells = self._grouped["transported"]
        count = len(cells[0, 0])
        rates = np.full((len(self.samples), count, len(self.chain)), np.nan)
        for (i, step), values in cells.items():
            for draw, value in values.items():
                rates[i, draw, step] = np.nan if value is None else value
        return rates

    def _factors(self, step: int) -> tuple[float, float]:
        kappa, gamma = self.chain[step].kappa, self.chain[step].gamma
        assert kappa is not None
        assert gamma is not None
        return kappa, gamma

    def _ratios(self, step: int, probes: Sequence[StepProbe]) -> tuple[Floats, Floats]:
        """Return 1 - (gamma / d) v^T J v and ||v - gamma J v||^2 / d of every probe."""
        _, gamma = self._factors(step)
        trace = np.array([probe.trace for probe in probes]) * gamma / self.dimensions
        energy = np.array([probe.energy for probe in probes]) * gamma**2 / self.dimensions
        return 1.0 - trace, 1.0 - 2.0 * trace + energy

    def _errors(self) -> list[tuple[float | None, float | None, float | None]]:
        """Return the standard errors over probes of the means over images, step by step."""
        squares: list[list[list[float]]] = [[[], [], []] for _ in self.chain]
        for (_, step), probes in self._probed.items():
            kappa, _ = self._factors(step)
            line, square = self._ratios(step, probes)
            if len(probes) > 1 and square.mean() > 0:
                squares[step][0].append(
                    kappa**2 * _variance(square) / (4 * square.mean())
                )  # of the root
                squares[step][1].append(kappa**2 * _variance(line))
        for (_, step), values in self._grouped.get("limit", {}).items():
            rates = np.array([v for v in values.values() if v is not None]) ** 2
            if len(rates) > 1 and rates.mean() > 0:
                squares[step][2].append(_variance(rates) / (4 * rates.mean()))
        n = len(self.samples)
        wanted = [[float(np.sqrt(sum(c)) / n) if c else None for c in each] for each in squares]
        return [(a, b, c) for a, b, c in wanted]

    def _mean_eigenvalues(self) -> Floats:
        """Return tr J / d of the noise prediction, [images, steps]."""
        means = self._absent()
        for (i, step), probes in self._probed.items():
            means[i, step] = np.mean([probe.trace for probe in probes]) / self.dimensions
        return means


def _variance(values: Floats) -> float:
    """Return the variance of the mean."""
    return float(values.var(ddof=1) / len(values))


def _within(name: str) -> tuple[float, float]:
    """Return what a quantity of a step cannot leave: an eigenvalue is the only one below 0."""
    return (-math.inf, math.inf) if name == "mean_eigenvalue" else NOT_NEGATIVE


def _mean(values: Floats, within: tuple[float, float]) -> Mean | None:
    """Return the mean over images that have a value; None where none has."""
    known = values[~np.isnan(values)]
    return mean_interval(known, within=within) if len(known) else None


def _deviation(predicted: Mean | None, measured: Mean | None) -> float | None:
    if predicted is None or measured is None or not measured.value > 0.0:
        return None
    return predicted.value / measured.value - 1.0
