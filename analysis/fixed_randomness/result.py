"""What fixing the randomness changes: accuracies, paired differences, correlations, from records.

Rates over several draws or seeds are means of each image's share, with n = number of images; the
standard deviation over base seeds or pairs of them stands beside, since the paper prints that.
Differences are paired on the same images. Between single decisions they have Tango's interval and
the exact McNemar test; between shares, Student's interval.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from advpure.analysis.fixed_randomness.correlation import Correlation
from advpure.analysis.fixed_randomness.layout import EOT, FRESH, fixed_name
from advpure.runs.schema import Count, Row, Schema
from advpure.statistics.rates import (
    Difference,
    Mean,
    Rate,
    mean_interval,
    paired_difference,
    rate_of_means,
    wilson,
)

OUTCOMES = Schema(
    "randomness_outcomes",
    keys={"part": str, "sample": Count},
    values={
        "draws": Count, "clean": Count, "noise": Count, "attacked": Count,
        "first_clean": bool, "first_noise": bool, "first_attacked": bool, "zero_gradient": bool,
    },
)  # fmt: skip
"""Of each run and image: decisions, how many of them were right, whether the first one was."""

TRANSFERS = Schema(
    "randomness_transfers",
    keys={"source": int, "target": int, "sample": Count},
    values={"prediction": Count, "correct": bool},
)
"""Decision under one base seed on an image that was attacked under another."""

CORRELATIONS = Schema(
    "randomness_correlations",
    keys={"first": str, "second": str, "sample": Count},
    values={"pearson": float | None, "cosine": float | None},
)
"""Correlation of the perturbations of two runs."""

STAGES = ("clean", "noise", "attacked")


class Accuracy(NamedTuple):
    """A rate, and how it scatters over base seeds or pairs of them.

    Attributes:
        rate: The mean over images of each image's share, with n and interval.
        std: Standard deviation over seeds or pairs; None where there is only one.
        repeats: Number of seeds or pairs.
    """

    rate: Rate
    std: float | None
    repeats: int


class Compared(NamedTuple):
    """What another protocol measures beyond fixed randomness.

    Attributes:
        name: ``fresh``, ``fresh-eot`` or ``transfer``.
        decision: Difference of one decision an image: the other minus fixed, first base seed.
        shares: Mean difference of each image's shares, over all draws, seeds and pairs; without
            an interval where all images agree.
    """

    name: str
    decision: Difference
    shares: Mean


class Correlated(NamedTuple):
    """Correlation of the perturbations of two kinds of attack.

    Attributes:
        pair: Their names, ``fixed, fixed`` for two different base seeds.
        pearson: Mean over images of each image's mean over pairs of runs; None without any.
        cosine: The same of the cosine.
        absent: Images without one, since an attack left them unchanged.
    """

    pair: str
    pearson: Mean | None
    cosine: Mean | None
    absent: int


@dataclass(frozen=True)
class RandomnessResult:
    """The records of one comparison, of the images that all its parts have finished.

    Args:
        outcomes: Rows of OUTCOMES.
        transfers: Rows of TRANSFERS.
        correlations: Rows of CORRELATIONS.
        seeds: Base seeds, in the order of the settings.
    """

    outcomes: Sequence[Row]
    transfers: Sequence[Row]
    correlations: Sequence[Row]
    seeds: tuple[int, ...]

    @property
    def parts(self) -> list[str]:
        """The runs that were asked for."""
        return list(self._by_part())

    @property
    def ids(self) -> list[int]:
        """Images that every run has finished, sorted."""
        finished = [set(rows) for rows in self._by_part().values()]
        return sorted(set.intersection(*finished)) if finished else []

    @property
    def blind(self) -> int:
        """Images whose first gradient was exactly zero in some run."""
        return len({row["sample"] for row in self.outcomes if row["zero_gradient"]})

    def fixed(self, stage: str) -> Accuracy:
        """Return an accuracy under fixed randomness, the mean over seeds."""
        return _accuracy([self._shares(fixed_name(seed), stage) for seed in self.seeds])

    def fresh(self, stage: str, part: str = FRESH) -> Accuracy | None:
        """Return an accuracy under fresh randomness, mean over draws; None for no such run."""
        return _accuracy([self._shares(part, stage)]) if part in self.parts else None

    def transfer(self) -> Accuracy | None:
        """Return the accuracy on images that were attacked under another seed; None without."""
        pairs = self._pairs()
        return _accuracy(list(pairs.values())) if pairs else None

    def compared(self) -> list[Compared]:
        """Compare the other protocols with fixed randomness, each on the same images."""
        ids, target = self.ids, self.seeds[0]
        fixed = self._first(fixed_name(target))
        mean_fixed = np.mean([self._shares(fixed_name(s), "attacked") for s in self.seeds], axis=0)
        found = []
        for part in (FRESH, EOT):
            if part in self.parts:
                gain = self._shares(part, "attacked") - mean_fixed
                decision = paired_difference(self._first(part), fixed)
                found.append(Compared(part, decision, _mean_gain(gain)))
        pairs = self._pairs()
        if pairs:
            # One decision of the same function on both sides: only the attack's seed differs.
            source = next(s for s, t in pairs if t == target)
            decision = paired_difference(pairs[source, target], fixed)
            gain = np.mean(list(pairs.values()), axis=0) - mean_fixed
            found.append(Compared("transfer", decision, _mean_gain(gain)))
        return found if ids else []

    def correlated(self) -> list[Correlated]:
        """Return the correlations of table S5, and of fresh with fixed randomness beside them."""
        fixed = {fixed_name(seed) for seed in self.seeds}
        kinds: dict[str, list[Row]] = {}
        for row in self.correlations:
            names = ["fixed" if row[end] in fixed else row[end] for end in ("first", "second")]
            kinds.setdefault(", ".join(names), []).append(row)
        return [
            Correlated(
                pair, _over_images(rows, "pearson"), _over_images(rows, "cosine"),
                len({row["sample"] for row in rows})
                - len({row["sample"] for row in rows if row["cosine"] is not None}),
            )
            for pair, rows in sorted(kinds.items())
        ]  # fmt: skip

    def shares_by_image(self, randomness: str, stage: str) -> dict[int, float] | None:
        """Return each image's share of right decisions, the mean over base seeds.

        Args:
            randomness: ``fixed`` or ``fresh``.
            stage: ``clean``, ``noise`` or ``attacked``; ``attacked_eot`` of the averaged attack.

        Returns:
            By sample id; None where there is no such run.
        """
        parts = [fixed_name(seed) for seed in self.seeds] if randomness == "fixed" else [FRESH]
        if stage == "attacked_eot":
            stage, parts = "attacked", [EOT] if randomness == "fresh" else []
        if stage not in STAGES or not parts or not set(parts) <= set(self.parts):
            return None
        mean = np.mean([self._shares(part, stage) for part in parts], axis=0)
        return dict(zip(self.ids, mean.tolist(), strict=True))

    def transfer_by_image(self) -> dict[int, float] | None:
        """Return each image's share of right decisions on attacks of other seeds, over pairs."""
        pairs = self._pairs()
        if not pairs:
            return None
        mean = np.mean(list(pairs.values()), axis=0)
        return dict(zip(self.ids, mean.tolist(), strict=True))

    def pearson_by_image(self, pair: str) -> dict[int, float]:
        """Return each image's mean correlation for a pair of kinds."""
        fixed = {fixed_name(seed) for seed in self.seeds}
        rows = [
            row
            for row in self.correlations
            if ", ".join("fixed" if row[e] in fixed else row[e] for e in ("first", "second"))
            == pair
        ]
        return _means(rows, "pearson")

    def _by_part(self) -> dict[str, dict[int, Row]]:
        found: dict[str, dict[int, Row]] = {}
        for row in self.outcomes:
            found.setdefault(row["part"], {})[row["sample"]] = row
        return found

    def _shares(self, part: str, stage: str) -> Any:
        rows = self._by_part()[part]
        return np.array([rows[i][stage] / rows[i]["draws"] for i in self.ids])

    def _first(self, part: str) -> list[int]:
        rows = self._by_part()[part]
        return [int(rows[i]["first_attacked"]) for i in self.ids]

    def _pairs(self) -> dict[tuple[int, int], Any]:
        """Return for every finished pair of seeds whether each image was right."""
        found: dict[tuple[int, int], dict[int, bool]] = {}
        for row in self.transfers:
            found.setdefault((row["source"], row["target"]), {})[row["sample"]] = row["correct"]
        ids = self.ids
        return {
            pair: np.array([float(right[i]) for i in ids])
            for pair, right in sorted(found.items())
            if ids and all(i in right for i in ids)
        }


def _accuracy(shares: Sequence[Any]) -> Accuracy:
    """Pool shares [repeats][images]; single decisions get Wilson's interval itself."""
    mean = np.mean(shares, axis=0)
    whole = len(shares) == 1 and bool(np.isin(mean, (0.0, 1.0)).all())
    rate = wilson(int(mean.sum()), len(mean)) if whole else rate_of_means(mean)
    each = [float(np.mean(values)) for values in shares]
    return Accuracy(rate, float(np.std(each, ddof=1)) if len(each) > 1 else None, len(each))


def _mean_gain(gain: Any) -> Mean:
    """Average differences; images that all agree leave Student's interval without a width."""
    mean = mean_interval(gain)
    return mean._replace(interval=None) if mean.std == 0.0 else mean


def _means(rows: Sequence[Row], name: str) -> dict[int, float]:
    values: dict[int, list[float]] = {}
    for row in rows:
        if row[name] is not None:
            values.setdefault(row["sample"], []).append(row[name])
    return {i: math.fsum(values[i]) / len(values[i]) for i in sorted(values)}


def _over_images(rows: Sequence[Row], name: str) -> Mean | None:
    means = _means(rows, name)
    return mean_interval(list(means.values())) if means else None


def pairs_of_runs(seeds: Sequence[int], parts: Sequence[str]) -> list[tuple[str, str]]:
    """Return the pairs whose perturbations are correlated.

    Example:
        >>> pairs_of_runs([0, 1], ["fixed-0", "fixed-1", "fresh"])
        [('fixed-0', 'fixed-1'), ('fresh', 'fixed-0'), ('fresh', 'fixed-1')]
    """
    fixed = [fixed_name(seed) for seed in seeds]
    others = [part for part in parts if part not in fixed]
    return [*combinations(fixed, 2), *((other, own) for other in others for own in fixed)]


def correlation_rows(
    first: str, second: str, found: Mapping[int, Correlation]
) -> list[dict[str, Any]]:
    """Return the rows of one pair of runs."""
    return [
        {"first": first, "second": second, "sample": i, **each._asdict()}
        for i, each in found.items()
    ]
