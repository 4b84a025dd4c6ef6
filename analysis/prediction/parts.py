"""What a prediction reads from the records of other runs: rates, radii and decisions by image."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from advpure.analysis.compression.noising import uniform_noise_norm
from advpure.analysis.compression.result import COMPRESSION_SCHEMA
from advpure.analysis.prediction.predict import PredictionInput
from advpure.analysis.robustness.protocol import DECISIONS
from advpure.analysis.survival.fit import SURVIVAL_SCHEMA, SurvivalResult
from advpure.analysis.survival.minimum_radius import RadiusRow
from advpure.base.errors import BadInput
from advpure.data import Source, dataset_info
from advpure.runs.records import RecordStore
from advpure.runs.schema import Count, Row, Schema
from advpure.statistics.repeated import means_by_image

PREDICTION_SCHEMA = Schema(
    "prediction",
    keys={"point": Count, "id": Count},
    values={
        "cr": float,
        "clean_lower": float,
        "clean_upper": float | None,
        "anchor_lower": float,
        "anchor_upper": float | None,
        "robust": bool,
        "accurate": bool,
    },
)
CLEAN, ADVERSARIAL = "clean", "adversarial"


class Radius(NamedTuple):
    """The interval of one image's r*; upper is None where the search found nothing."""

    lower: float
    upper: float | None


class Verdict(NamedTuple):
    """Whether one defended image is right, without and with the attack."""

    accurate: bool
    robust: bool


def noise_strength(eps: float, norm: str, dataset: Source) -> float:
    """Return the strength of the uniform noise whose compression belongs to a radius.

    Args:
        eps: Radius of the attack, [0, 1] units.
        norm: ``linf``: the radius itself. ``l2``: for which the noise has that norm (in the root
            mean square).
        dataset: Name of the data set, for the number of pixels.

    Example:
        >>> noise_strength(0.15, "linf", "digits"), round(noise_strength(0.9, "l2", "digits"), 4)
        (0.15, 0.1949)
    """
    if norm == "linf":
        return eps
    return eps / uniform_noise_norm(1.0, math.prod(dataset_info(dataset).shape))


def read_rates(store: RecordStore, eps: float, seed: int) -> dict[int, float]:
    """Return each image's mean compression rate at one strength and base seed."""
    rows = store.rows(COMPRESSION_SCHEMA.table, {"eps": eps, "seed": seed})
    return means_by_image((row["id"], row["rate"]) for row in rows)


def read_radii(store: RecordStore) -> dict[int, Radius]:
    """Return each image's interval."""
    rows = store.rows(SURVIVAL_SCHEMA.table)
    return {row["id"]: Radius(row["lower"], row["upper"]) for row in rows}


def read_verdicts(store: RecordStore) -> dict[int, Verdict]:
    """Return the one decision of each image that has both stages."""
    right: dict[str, dict[int, bool]] = {}
    for stage in (CLEAN, ADVERSARIAL):
        rows = store.rows(DECISIONS.table, {"stage": stage, "draw": 0})
        right[stage] = {row["sample"]: row["correct"] for row in rows}
    both = right[CLEAN].keys() & right[ADVERSARIAL].keys()
    return {i: Verdict(right[CLEAN][i], right[ADVERSARIAL][i]) for i in sorted(both)}


def join(
    rates: Mapping[int, float],
    clean: Mapping[int, Radius],
    anchor: Mapping[int, Radius],
    verdicts: Mapping[int, Verdict],
    point: int,
) -> list[Row]:
    """Return the records of one point: every image that all four parts know.

    Images whose perturbations were all clipped away have no rate and take no part.
    """
    shared = sorted(rates.keys() & clean.keys() & anchor.keys() & verdicts.keys())
    return [
        {
            "point": point,
            "id": i,
            "cr": rates[i],
            "clean_lower": clean[i].lower,
            "clean_upper": clean[i].upper,
            "anchor_lower": anchor[i].lower,
            "anchor_upper": anchor[i].upper,
            **verdicts[i]._asdict(),
        }
        for i in shared
    ]


def to_setting(rows: list[Row], described: Mapping[str, Any]) -> PredictionInput:
    """Return one point's records as arrays.

    Args:
        rows: Records of `PREDICTION_SCHEMA` of one point.
        described: Its purifier, t, sigma and top.
    """
    if not rows:
        raise BadInput(
            f"{described['purifier']}", "shares no image between its runs", "measure all"
        )
    return PredictionInput(
        purifier=described["purifier"],
        t=described["t"],
        sigma=described["sigma"],
        ids=np.array([row["id"] for row in rows]),
        cr=np.array([row["cr"] for row in rows]),
        clean=_upper(rows, "clean"),
        anchor=_upper(rows, "anchor"),
        robust=np.array([row["robust"] for row in rows], dtype=bool),
        accurate=np.array([row["accurate"] for row in rows], dtype=bool),
        top=(described["top"], described["top"]),
    )


def to_survival(rows: list[Row], side: str) -> SurvivalResult:
    """Return the survival function at clean images or anchor points of one point's records."""
    return SurvivalResult(
        tuple(
            RadiusRow(row["id"], row[f"{side}_lower"], row[f"{side}_upper"], 0, 0, 0, 0, False)
            for row in rows
        )
    )


def _upper(rows: list[Row], side: str) -> Any:
    ends = [row[f"{side}_upper"] for row in rows]
    return np.array([math.inf if end is None else end for end in ends])
