"""The value of every image behind a value of the table, so that comparisons can be paired.

Different purifiers are measured on the same images, and the same image is easy or hard for all of
them. Paired differences leave that out; see `advpure.sweeps.comparisons`.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from advpure.analysis.certification.accuracy import certified_at
from advpure.analysis.certification.study import Certification
from advpure.analysis.compression.result import COMPRESSION_SCHEMA, CompressionResult
from advpure.analysis.distances.result import DistancesResult
from advpure.analysis.metrics.choice import METRICS
from advpure.analysis.robustness.protocol import DECISIONS
from advpure.analysis.transport.result import TRANSPORT, TransportResult
from advpure.analysis.variability.result import MEANS, SNR_SCHEMA, SnrResult
from advpure.base.text import digits
from advpure.runs.records import RecordStore
from advpure.sweeps.table import Cell

Samples = Mapping[int, float]
_ROW = re.compile(r"rows(?:\.(?P<place>\d+)|\[(?P<key>\w+)=(?P<value>[^\]]+)\])\.(?P<name>\w+)$")
_SHORT = {"clean_accuracy": "clean", "noise_accuracy": "noise", "robust_accuracy": "adversarial"}
_CERTIFIED = re.compile(r"(?P<what>best|rows|curves)\[(?P<where>[^\]]+)\](?:\.(?P<name>\w+))?$")
_TRANSPORT = re.compile(
    r"rows\[sigma=(?P<sigma>[^\]]+)\]\.(?:markov\[multiple=(?P<multiple>[^\]]+)\]\.)?(?P<name>\w+)$"
)
_KINDS = ("one_shot", "mean", "worst")


def samples_of(root: Path, cell: Cell) -> Samples | None:
    """Return sample id to value for a cell, None where it is no mean over images.

    Args:
        root: Where run folders are.
        cell: The cell, of a finished run.
    """
    read = READERS.get(cell.point.verb)
    if read is None:
        return None
    with RecordStore.read(root / cell.point.run) as store:
        return read(store, cell.at)


def _compression(store: RecordStore, at: str) -> Samples | None:
    name, _, place = at.partition(".")
    number = digits(place) if at else 0
    if (at and name != "rows") or number is None:
        return None
    result = CompressionResult.from_records(store.rows(COMPRESSION_SCHEMA.table))
    return result.image_means(result.eps[number])


def _attack(store: RecordStore, at: str) -> Samples | None:
    """Return the share of right decisions of each image; one decision under fixed randomness."""
    stage, kind = _SHORT.get(at), "mean"
    if stage is None:
        parts = at.split(".")
        if len(parts) != 3 or parts[0] != "stages" or parts[2] not in _KINDS:
            return None
        _, stage, kind = parts
    right: dict[int, list[bool]] = {}
    for row in store.rows(DECISIONS.table, {"stage": stage}):
        right.setdefault(row["sample"], []).append(row["correct"])
    return {sample: _share(decisions, kind) for sample, decisions in right.items()}


def _share(decisions: list[bool], kind: str) -> float:
    if kind == "one_shot":
        return float(decisions[0])
    return float(all(decisions)) if kind == "worst" else sum(decisions) / len(decisions)


def _distances(store: RecordStore, at: str) -> Samples | None:
    """Return a distance along the chain, or a metric of pairs, of each image."""
    found, result = _ROW.match(at), DistancesResult(store)
    if found is None:
        return None
    label = found["value"] or result.labels[int(found["place"])]
    norm, _, place = found["name"].partition("_")
    if norm in ("l2", "linf"):
        ids, *norms = result.states(label)
        values = norms[norm == "linf"]
        chosen = {"initial": values[:, 0], "final": values[:, -1], "largest": values.max(axis=1)}
        return dict(zip(ids, chosen[place].tolist(), strict=True)) if place in chosen else None
    metric, _, stage = found["name"].rpartition("_")
    metric = metric.replace("_", "-")
    if metric not in store.settings["metrics"] or stage not in ("before", "after"):
        return None
    if METRICS[metric].kind not in ("pair", "response", "cosine"):  # of sets, not of images
        return None
    pairs = result.pairs(label, metric)
    return {i: pair[stage == "after"] for i, pair in pairs.items()}


def _snr(store: RecordStore, at: str) -> Samples | None:
    if at not in MEANS:
        return None
    return SnrResult.from_records(store.rows(SNR_SCHEMA.table)).of_images(at)


def _certify(store: RecordStore, at: str) -> Samples | None:
    """Return whether each image is certified at a radius, or 0, or its radius if it is right.

    For the best over noise levels, the images are those of the level that the report chose.
    """
    found = _CERTIFIED.match(at)
    known = (None, "value", "average_certified_radius", "clean")
    if found is None or found["name"] not in known:
        return None
    wanted = {k: float(v) for k, _, v in (w.partition("=") for w in found["where"].split(","))}
    report, chosen = Certification.report(store), wanted.get("sigma")
    if found["what"] == "best":
        names = {each.radius: each.name for each in report.best()}
        curves = [c.images for c in report.curves if c.images.name == names[wanted["radius"]]]
    else:
        curves = [c.images for c in report.curves if c.images.sigma == chosen]
    if len(curves) != 1:
        return None
    (images,) = curves
    if found["name"] == "clean":
        values = certified_at(images, 0.0).astype(float)
    elif found["what"] == "curves":
        values = np.where(images.correct, images.radii, 0.0)
    else:
        values = certified_at(images, wanted["radius"]).astype(float)
    return dict(zip(images.ids.tolist(), values.tolist(), strict=True))


def _transport(store: RecordStore, at: str) -> Samples | None:
    """Return an image's mean distance or share of right classes, or its part of either bound."""
    found = _TRANSPORT.match(at)
    if found is None:
        return None
    sigma = float(found["sigma"])
    result = TransportResult(store.rows(TRANSPORT.table, {"sigma": sigma}))
    if found["multiple"] is None:
        whole = {"transport": result.distances, "accuracy": result.right}.get(found["name"])
        return None if whole is None else whole(sigma)
    radius = result.radius(sigma, float(found["multiple"]))
    if found["name"] == "exceeds":
        return result.beyond(sigma, radius)
    if found["name"] != "bound" or radius <= 0.0:
        return None
    return {i: away / radius for i, away in result.distances(sigma).items()}


READERS: dict[str, Callable[[RecordStore, str], Samples | None]] = {
    "cr": _compression,
    "attack": _attack,
    "certify": _certify,
    "distances": _distances,
    "snr": _snr,
    "transport": _transport,
}
"""Verb to a function of (records, path of the column); None for paths that are no such mean."""
