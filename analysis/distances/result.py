"""What the records of a distances run say: distances along the chain, and metrics before and after.

Every number is computed from rows: one a state, one a pair of images, one a feature vector. Sets
are compared over the images whose rows are complete, and a set metric has its n beside it.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from advpure.analysis.metrics.choice import METRICS
from advpure.analysis.metrics.frechet import frechet_estimate
from advpure.analysis.metrics.inception_score import inception_score
from advpure.analysis.metrics.precision_recall import precision_recall
from advpure.base.errors import BadInput
from advpure.runs.records import RecordStore
from advpure.runs.schema import Count, Schema
from advpure.statistics.estimates import Estimate
from advpure.statistics.rates import Interval, mean_interval

STATES = Schema(
    "states", {"perturbation": str, "sample": Count, "step": Count}, {"l2": float, "linf": float}
)
"""Distances of every state to the clean image, [0, 1] units; step 0 is before the chain."""

STEPS = Schema("steps", {"step": Count}, {"name": str, "phase": str, "time": int})
"""The steps of the chain, from 1."""

PAIRS = Schema(
    "pairs",
    {"perturbation": str, "metric": str, "sample": Count},
    {"before": float, "after": float},
)
"""Metrics of an image and its original, before and after purification."""

FEATURES = Schema(
    "features",
    {"features": str, "perturbation": str, "stage": str, "sample": Count},
    {"vector": bytes},
)
"""Feature vectors, float32 little-endian; stage is before or after, of clean images clean."""

SCHEMAS = (STATES, STEPS, PAIRS, FEATURES)
CLEAN = "clean"
NEIGHBOUR = 3
Array = npt.NDArray[np.float64]
_ANYWHERE = (-math.inf, math.inf)


class AlongChain(NamedTuple):
    """Distances along the chain of one perturbation, over images.

    Attributes:
        initial: Before purification.
        largest: The largest of an image's states.
        final: After purification.
        noised: After the last forward step; None where there is none.
    """

    initial: Estimate
    largest: Estimate
    final: Estimate
    noised: Estimate | None


class Measured(NamedTuple):
    """One quantity of one perturbation before and after purification.

    Attributes:
        perturbation: Its label.
        name: Quantity, such as ``ssim``, ``frechet-vgg`` or ``recall-vgg``.
        before: Of the perturbed images; None where it cannot be computed.
        after: Of the purified images.
        reduction: Before minus after of the same images, for values per image.
    """

    perturbation: str
    name: str
    before: Estimate | None
    after: Estimate | None
    reduction: Estimate | None


@dataclass(frozen=True)
class DistancesResult:
    """The results of a run, read from its records as they are asked for.

    Args:
        store: The open records; they have to stay open.
    """

    store: RecordStore

    @property
    def labels(self) -> list[str]:
        """The perturbations that have rows, in the order of the settings."""
        there = {label for (label,) in self.store.done(STATES.table, "perturbation")}
        return [p["label"] for p in self.store.settings["perturbations"] if p["label"] in there]

    def states(self, label: str) -> tuple[list[int], Array, Array]:
        """Return the sample ids, and the l2 and l-inf distances [n, steps + 1].

        Raises:
            BadInput: for a perturbation without rows.
        """
        rows = self.store.rows(STATES.table, {"perturbation": label})
        if not rows:
            known = f"known: {', '.join(self.labels) or 'none yet'}"
            raise BadInput(f"perturbation {label!r}", "was not measured", known)
        ids = list(dict.fromkeys(row["sample"] for row in rows))
        l2, linf = (
            np.array([row[name] for row in rows]).reshape(len(ids), -1) for name in ("l2", "linf")
        )
        return ids, l2, linf

    @cached_property
    def distances(self) -> dict[str, dict[str, AlongChain]]:
        """Norm to perturbation to its distances; norms are ``l2`` and ``linf``."""
        distances: dict[str, dict[str, AlongChain]] = {"l2": {}, "linf": {}}
        forward = [row["step"] for row in self.store.rows(STEPS.table, {"phase": "forward"})]
        for label in self.labels:
            ids, *norms = self.states(label)
            for name, values in zip(distances, norms, strict=True):
                initial, largest, final = (
                    _mean(dict(zip(ids, column.tolist(), strict=True)))
                    for column in (values[:, 0], values.max(axis=1), values[:, -1])
                )
                noised = None
                if forward:
                    noised = _mean(dict(zip(ids, values[:, max(forward)].tolist(), strict=True)))
                distances[name][label] = AlongChain(initial, largest, final, noised)
        return distances

    @cached_property
    def measured(self) -> list[Measured]:
        """All metrics of all perturbations."""
        return [
            each
            for label in self.labels
            for metric in self.store.settings["metrics"]
            for each in self._measure(label, metric)
        ]

    def features(self, name: str, label: str, stage: str) -> dict[int, npt.NDArray[np.float32]]:
        """Return feature vectors by sample id, ascending."""
        rows = self.store.rows(
            FEATURES.table, {"features": name, "perturbation": label, "stage": stage}
        )
        return {row["sample"]: np.frombuffer(row["vector"], "<f4") for row in rows}

    def dimensions(self, name: str) -> int:
        """Return the length of the feature vectors, 0 where there are none."""
        return len(next(iter(self.features(name, CLEAN, CLEAN).values()), ()))

    def paired_features(self, name: str, label: str) -> dict[str, Array]:
        """Return the features of the same images, stage (clean, before, after) to [n, d]."""
        sets = {
            stage: self.features(name, CLEAN if stage == CLEAN else label, stage)
            for stage in (CLEAN, "before", "after")
        }
        ids = [i for i in sets["after"] if i in sets[CLEAN] and i in sets["before"]]
        return {
            stage: np.array([vectors[i] for i in ids], dtype=np.float64)
            for stage, vectors in sets.items()
        }

    def pairs(self, label: str, metric: str) -> dict[int, tuple[float, float]]:
        """Return (before, after) of a metric per image, by sample id."""
        if METRICS[metric].kind == "cosine":
            sets = self.paired_features(METRICS[metric].features, label)
            ids = self.features(METRICS[metric].features, label, "after")
            values = [_cosine_distance(sets[CLEAN], sets[stage]) for stage in ("before", "after")]
            return dict(zip(ids, zip(*(v.tolist() for v in values), strict=True), strict=True))
        rows = self.store.rows(PAIRS.table, {"perturbation": label, "metric": metric})
        return {row["sample"]: (row["before"], row["after"]) for row in rows}

    def _measure(self, label: str, metric: str) -> Iterator[Measured]:
        kind = METRICS[metric].kind
        if kind in ("pair", "response", "cosine"):
            pairs = self.pairs(label, metric)
            if not pairs:  # no perturbation, no rate
                yield Measured(label, metric, None, None, None)
                return
            # A distance is at least 0, and similarities are at most 1.
            within = (-1.0, 1.0) if metric == "ssim" else (0.0, math.inf)
            before, after = ({i: pair[k] for i, pair in pairs.items()} for k in (0, 1))
            less = _mean({i: one - two for i, (one, two) in pairs.items()})
            yield Measured(label, metric, _mean(before, within), _mean(after, within), less)
            return
        sets = self.paired_features(METRICS[metric].features, label)
        stages = [_compare(kind, sets[CLEAN], sets[stage]) for stage in ("before", "after")]
        for part in dict.fromkeys((*stages[0], *stages[1])):
            name = metric.replace("precision-recall", part) if part else metric
            yield Measured(label, name, stages[0].get(part), stages[1].get(part), None)
        if not stages[0] and not stages[1]:
            yield Measured(label, metric, None, None, None)


def _compare(kind: str, clean: Array, other: Array) -> dict[str, Estimate]:
    """Return the values of a set metric by the part of its name that they replace."""
    n = len(other)
    if kind == "score":
        if n < 2:
            return {}
        score = inception_score(other)
        return {"": _of_set(score.value, n, score.interval)}
    if kind == "frechet":
        if n < 2:
            return {}
        frechet = frechet_estimate(clean, other)
        return {"": _of_set(frechet.value, n, frechet.interval)}
    if n <= NEIGHBOUR:
        return {}
    rates = precision_recall(clean, other, NEIGHBOUR)
    return {
        name: _of_set(rate.value, n, Interval(rate.low, rate.high))
        for name, rate in (("precision", rates.precision), ("recall", rates.recall))
    }


def _mean(by_image: dict[int, float], within: tuple[float, float] = _ANYWHERE) -> Estimate:
    mean = mean_interval(list(by_image.values()), within=within)
    return Estimate.of(mean, by_image, style="beside")


def _of_set(value: float, n: int, interval: Interval | None) -> Estimate:
    return Estimate(value=value, n=n, interval=interval, style="beside", is_mean=True)


def _cosine_distance(a: Array, b: Array) -> Array:
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    distances: Array = 1.0 - (a * b).sum(axis=1) / lengths
    return distances
