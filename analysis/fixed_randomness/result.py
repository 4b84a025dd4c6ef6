"""What fixing the randomness changes: accuracies, paired differences, correlations, from records.

Rates over several draws or seeds are means of each image's share, with n = number of images; the
standard deviation over base seeds or pairs of them stands beside, since the paper prints that.
Differences are paired on the same images. Between single decisions they have Tango's interval and
the exact McNemar test; between shares, Student's interval.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from advpure.analysis.fixed_randomness.correlation import Correlation
from advpure.analysis.fixed_randomness.layout import EOT, FRESH, fixed_name
from advpure.runs.schema import Count, Row, Schema
from advpure.statistics.rates import (
    COSINES,
    Difference,
    Mean,
    Rate,
    mean_interval,
    paired_difference,
    rate_of_means,
    wilson,
)
from advpure.statistics.repeated import means_by_image

OUTCOMES = Schema(
    "randomness_outcomes",
    keys={"part": str, "sample": Count},
    values={
        "draws": Count,
        "clean": Count,
        "noise": Count,
        "attacked": Count,
        "first_clean": bool,
        "first_noise": bool,
        "first_attacked": bool,
        "zero_gradient": bool,
    },
)
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
        by_image: The shares by sample id.
    """

    rate: Rate
    std: float | None
    repeats: int
    by_image: dict[int, float]


class Compared(NamedTuple):
    """What another protocol measures beyond fixed randomness.

    Attributes:
        name: ``fresh``, ``fresh-eot`` or ``transfer``.
        decision: Difference of one decision an image: the other minus fixed, first base seed.
        shares: Mean difference of each image's shares, over all draws, seeds and pairs; without
            an interval where all images agree.
        decisions: The differences behind `decision` by sample id: 1, 0 or -1.
        gains: The differences behind `shares`.
    """

    name: str
    decision: Difference
    shares: Mean
    decisions: dict[int, float]
    gains: dict[int, float]


class Correlated(NamedTuple):
    """Correlation of the perturbations of two kinds of attack.

    Attributes:
        pair: Their names, ``fixed, fixed`` for two different base seeds.
        pearson: Mean over images of each image's mean over pairs of runs; None without any.
        cosine: The same of the cosine.
        absent: Images without one, since an attack left them unchanged.
        by_image: Of ``pearson`` and ``cosine`` the value of each image by sample id.
    """

    pair: str
    pearson: Mean | None
    cosine: Mean | None
    absent: int
    by_image: dict[str, dict[int, float]]


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
        return self._accuracy([self._shares(fixed_name(seed), stage) for seed in self.seeds])

    def fresh(self, stage: str, part: str = FRESH) -> Accuracy | None:
        """Return an accuracy under fresh randomness, mean over draws; None for no such run."""
        return self._accuracy([self._shares(part, stage)]) if part in self.parts else None

    def transfer(self) -> Accuracy | None:
        """Return the accuracy on images that were attacked under another seed; None without."""
        pairs = self._pairs()
        return self._accuracy(list(pairs.values())) if pairs else None

    def compared(self) -> list[Compared]:
        """Compare the other protocols with fixed randomness, each on the same images."""
        if not self.ids:
            return []
        target = self.seeds[0]
        fixed = np.mean([self._shares(fixed_name(s), "attacked") for s in self.seeds], axis=0)
        first = self._first(fixed_name(target))
        compared = [
            self._compare(part, self._first(part), first, self._shares(part, "attacked") - fixed)
            for part in (FRESH, EOT)
            if part in self.parts
        ]
        pairs = self._pairs()
        if pairs:
            # One decision of the same function on both sides: only the attack's seed differs.
            source = next(s for s, t in pairs if t == target)
            gain = np.mean(list(pairs.values()), axis=0) - fixed
            compared.append(self._compare("transfer", pairs[source, target], first, gain))
        return compared

    def _compare(self, name: str, one: Any, fixed: Any, gain: Any) -> Compared:
        """Compare decisions [images] with those under fixed randomness."""
        mean = mean_interval(gain, within=COSINES)
        if mean.std == 0.0:  # images that all agree leave Student's interval without a width
            mean = mean._replace(interval=None)
        difference = paired_difference(one, fixed)
        return Compared(name, difference, mean, self._named(one - fixed), self._named(gain))

    def correlated(self) -> list[Correlated]:
        """Return the correlations of table S5, and of fresh with fixed randomness beside them."""
        fixed = {fixed_name(seed) for seed in self.seeds}
        kinds: dict[str, list[Row]] = {}
        for row in self.correlations:
            names = ["fixed" if row[end] in fixed else row[end] for end in ("first", "second")]
            kinds.setdefault(", ".join(names), []).append(row)
        return [_correlated(pair, rows) for pair, rows in sorted(kinds.items())]

    def _by_part(self) -> dict[str, dict[int, Row]]:
        parts: dict[str, dict[int, Row]] = {}
        for row in self.outcomes:
            parts.setdefault(row["part"], {})[row["sample"]] = row
        return parts

    def _shares(self, part: str, stage: str) -> Any:
        rows = self._by_part()[part]
        return np.array([rows[i][stage] / rows[i]["draws"] for i in self.ids])

    def _first(self, part: str) -> Any:
        rows = self._by_part()[part]
        return np.array([float(rows[i]["first_attacked"]) for i in self.ids])

    def _named(self, values: Any) -> dict[int, float]:
        """Return values [images] by sample id."""
        return dict(zip(self.ids, values.tolist(), strict=True))

    def _accuracy(self, shares: Sequence[Any]) -> Accuracy:
        """Pool shares [repeats][images]; single decisions get Wilson's interval itself."""
        mean = np.mean(shares, axis=0)
        whole = len(shares) == 1 and bool(np.isin(mean, (0.0, 1.0)).all())
        rate = wilson(int(mean.sum()), len(mean)) if whole else rate_of_means(mean)
        each = [float(np.mean(values)) for values in shares]
        std = float(np.std(each, ddof=1)) if len(each) > 1 else None
        return Accuracy(rate, std, len(each), self._named(mean))

    def _pairs(self) -> dict[tuple[int, int], Any]:
        """Return for every finished pair of seeds whether each image was right."""
        decided: dict[tuple[int, int], dict[int, bool]] = {}
        for row in self.transfers:
            decided.setdefault((row["source"], row["target"]), {})[row["sample"]] = row["correct"]
        ids = self.ids
        return {
            pair: np.array([float(right[i]) for i in ids])
            for pair, right in sorted(decided.items())
            if ids and all(i in right for i in ids)
        }


def _correlated(pair: str, rows: Sequence[Row]) -> Correlated:
    """Average the rows of one kind of pairs, image by image first."""
    by_image = {
        name: means_by_image((row["sample"], row[name]) for row in rows)
        for name in ("pearson", "cosine")
    }
    means = {
        name: mean_interval(list(values.values()), within=COSINES) if values else None
        for name, values in by_image.items()
    }
    absent = len({row["sample"] for row in rows}) - len(by_image["cosine"])
    return Correlated(pair, means["pearson"], means["cosine"], absent, by_image)


def pairs_of_runs(seeds: Sequence[int], parts: Sequence[str]) -> list[tuple[str, str]]:
    """Return the pairs whose perturbations are correlated.

    Example:
        >>> pairs_of_runs([0, 1], ["fixed-0", "fixed-1", "fresh"])
        [('fixed-0', 'fixed-1'), ('fresh', 'fixed-0'), ('fresh', 'fixed-1')]
    """
    fixed = [fixed_name(seed) for seed in seeds]
    others = [part for part in parts if part not in fixed]
    return [*combinations(fixed, 2), *((other, own) for other in others for own in fixed)]


def correlation_rows(first: str, second: str, by_image: Mapping[int, Correlation]) -> list[Row]:
    """Return the rows of one pair of runs."""
    return [
        {"first": first, "second": second, "sample": i, **each._asdict()}
        for i, each in by_image.items()
    ]
