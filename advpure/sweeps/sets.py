"""Frechet distances of two runs on the same images, compared with the images in common.

A distance between sets is no mean over images, so it has no value per image to pair. Its influence
function has: the interval of a difference comes from the infinitesimal jackknife in which an image
counts in all four sets at once, see `advpure.analysis.distances.compare`.
"""

import re
from pathlib import Path

import numpy as np

from advpure.analysis.distances.compare import frechet_difference
from advpure.analysis.distances.result import DistancesResult
from advpure.analysis.metrics.choice import METRICS
from advpure.runs.records import RecordStore
from advpure.sweeps.comparisons import Difference
from advpure.sweeps.table import Cell

_PATH = re.compile(r"rows\.(?P<place>\d+)\.(?P<metric>\w+)_after$")


def subtract_sets(root: Path, first: Cell, second: Cell, level: float) -> Difference | None:
    """Compare two Frechet distances to the same clean images; None for other cells.

    Args:
        root: Where run folders are.
        first: A cell of a finished run.
        second: Another, of a run with the same features of the same clean images.
        level: Confidence level of the interval in (0, 1).
    """
    path = _PATH.match(first.at)
    if path is None or first.at != second.at:
        return None
    metric = METRICS.get(path["metric"].replace("_", "-"))
    verbs = {first.point.verb, second.point.verb}
    if metric is None or metric.kind != "frechet" or verbs != {"distances"}:
        return None
    sets = [_sets(root, cell, metric.features, int(path["place"])) for cell in (first, second)]
    ids = sorted(set.intersection(*(set(each[0]) & set(each[1]) for each in sets)))
    if len(ids) < 3:
        return None
    clean, other, one, two = (
        np.array([vectors[i] for i in ids], dtype=np.float64)
        for vectors in (sets[0][0], sets[1][0], sets[0][1], sets[1][1])
    )
    if not np.array_equal(clean, other):  # other networks, or other images
        return None
    a, b, interval = frechet_difference(clean, one, two, level=level)
    return Difference(a - b, interval, len(ids))


def _sets(root: Path, cell: Cell, features: str, index: int) -> tuple[dict[int, np.ndarray], ...]:
    """Return the features of clean and of purified images by sample id."""
    with RecordStore.read(root / cell.point.run) as store:
        result = DistancesResult(store)
        label = result.labels[index]
        return (
            result.features(features, "clean", "clean"),
            result.features(features, label, "after"),
        )
