"""Measurements by name, one value or several per image, recorded row by row.

A metric is a function of a purifier, bound to its randomness and to the ids of a batch, and of the
images. `measure` runs it over a data set in the purifier's compute tile, so that no value depends
on the company of its image, and passes over what is stored already. A new metric is one file and
one line here.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from advpure.analysis.target import refuse_fresh
from advpure.base.errors import BadInput
from advpure.base.registry import Registry
from advpure.base.validation import instance
from advpure.core.purifier import Purifier
from advpure.core.randomness import check_ids
from advpure.core.tiling import check_rows, tiled
from advpure.data import Images
from advpure.runs.records import (
    ALREADY_COMPLETE,
    RecordStore,
    collect_context,
    default_run_folder,
    source_digests,
)
from advpure.runs.schema import Count, Row, Schema
from advpure.statistics.rates import Mean, mean_interval

Metric = Callable[[Purifier, Tensor], Tensor]
"""Purifier bound to a batch, images [B, C, H, W] in [0, 1] -> values [B] or [B, places]."""

METRICS: Registry[Metric] = Registry("metric")
_HERE = "advpure.analysis.metrics"

METRICS.register("distance", f"{_HERE}.distance:distance", about="L2 distance after every step")

MEASUREMENTS = Schema("measurements", {"sample": Count, "place": Count}, {"value": float})
"""Place counts the values of one image from 0; what they are, the metric says."""


@dataclass(frozen=True)
class Measurements:
    """What `measure` found.

    Attributes:
        run: The run folder.
        settings: What identifies the run, JSON values.
        rows: {sample, place, value}, sorted by sample and place.
        notes: What a careful reader should know, in sentences.
    """

    run: Path
    settings: dict[str, Any]
    rows: list[Row]
    notes: tuple[str, ...] = ()

    def means(self) -> dict[int, Mean]:
        """Return the mean over images by place, with n and a 95 % interval (Student's t)."""
        found: dict[int, list[float]] = {}
        for row in self.rows:
            found.setdefault(row["place"], []).append(row["value"])
        return {place: mean_interval(found[place]) for place in sorted(found)}

    def to_json(self) -> dict[str, Any]:
        """Return one JSON object."""
        places = [
            {"place": place, **mean._asdict(), "interval": mean.interval and list(mean.interval)}
            for place, mean in self.means().items()
        ]
        return {
            "places": places,
            "notes": list(self.notes),
            "settings": self.settings,
            "run": str(self.run),
        }


def measure(
    metric: str,
    purifier: Purifier,
    images: Images,
    *,
    out: str | Path | None = None,
    batch_size: int = 64,
    progress: Callable[[int], None] = lambda done: None,
) -> Measurements:
    """Measure every image, going on where an interrupted run stopped.

    Args:
        metric: A name in `METRICS`.
        purifier: What is measured, with its randomness configuration.
        images: Images in [0, 1], labels, ids.
        out: Run folder; by default one named after the settings, under ``runs``.
        batch_size: Images in memory at once; changes no result of a tiled purifier.
        progress: Called with the number of finished images.

    Returns:
        The rows and their means. No gradient flows.

    Raises:
        BadInput: for an unknown metric, values of the wrong shape or not finite, or a run folder
            of other settings.
        StorageFull: when the disk is full; what was stored is kept.

    Example:
        >>> import tempfile
        >>> from advpure import RandomnessConfig, load_images, load_purifier
        >>> purifier = load_purifier("onestep-edm", "digits", xi=RandomnessConfig(0))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     found = measure("distance", purifier, load_images("digits", n=2), out=folder)
        >>> len(found.rows), sorted(found.means())
        (4, [0, 1])
    """
    function = METRICS.get(metric)
    instance(purifier, Purifier, "purifier", "pass a Purifier")
    instance(images, Images, "images", "pass what load_images returns")
    refuse_fresh(purifier.xi)
    batch_size = check_rows(batch_size)
    listed = check_ids(images.ids, len(images.images))
    purifier.check_steady(images.images)
    settings, context = _describe(metric, function, purifier, images)
    folder = Path(out) if out else default_run_folder("runs", "measure", settings)
    with RecordStore.open(
        folder, schemas=(MEASUREMENTS,), settings=settings, context=context, samples=listed
    ) as store:
        done = {sample for (sample,) in store.done(MEASUREMENTS.table, "sample")}
        todo = [k for k, sample in enumerate(listed) if sample not in done]
        progress(len(listed) - len(todo))
        for start in range(0, len(todo), batch_size):
            chosen = todo[start : start + batch_size]
            values = _values(metric, function, purifier, images, chosen)
            rows = [
                {"sample": listed[k], "place": place, "value": value}
                for k, row in zip(chosen, values, strict=True)
                for place, value in enumerate(row)
            ]
            store.append(MEASUREMENTS.table, rows)
            progress(len(listed) - len(todo) + start + len(chosen))
        store.finish()
        notes = () if todo else (ALREADY_COMPLETE,)
        return Measurements(folder, settings, store.rows(MEASUREMENTS.table), notes)


def _values(
    metric: str, function: Metric, purifier: Purifier, images: Images, rows: list[int]
) -> list[list[float]]:
    def ask(x: Tensor, ids: Tensor) -> Tensor:
        view = purifier.at(ids=ids)
        view.tile = None  # x is a tile already
        values = function(view, x)
        shape = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        if not isinstance(values, Tensor) or values.ndim not in (1, 2) or len(values) != len(x):
            raise BadInput(
                f"metric {metric!r} of shape {shape} for {len(x)} images",
                f"is not [{len(x)}] or [{len(x)}, places]",
                "return one row of values per image",
            )
        return values

    with torch.no_grad():  # a measurement, not a gradient
        found = tiled(ask, purifier.tile)(images.images[rows], images.ids[rows])
    if not found.numel():
        raise BadInput(f"metric {metric!r}", "has no value here", "measure a purifier with steps")
    finite = found.isfinite().reshape(len(rows), -1).all(1).tolist()
    wrong = [int(images.ids[k]) for k, good in zip(rows, finite, strict=True) if not good]
    if wrong:
        shown = ", ".join(map(str, wrong[:8])) + (", ..." if len(wrong) > 8 else "")
        raise BadInput(
            f"metric {metric!r} of {len(wrong)} of {len(rows)} samples ({shown})",
            "is not finite",
            "leave them out, or let the metric say what it means there",
        )
    values: list[list[float]] = (found[:, None] if found.ndim == 1 else found).double().tolist()
    return values


def _describe(
    metric: str, function: Metric, purifier: Purifier, images: Images
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what identifies the run, and where it is computed."""
    xi = purifier.xi
    settings = {
        "verb": "measure",
        "metric": metric,
        **purifier.settings,
        "tile": purifier.tile,
        "ids": images.ids.tolist(),
        "images": hashlib.sha256(images.images.cpu().contiguous().numpy().tobytes()).hexdigest(),
        "randomness": None
        if xi is None
        else {"seed": xi.seed, "scheme": xi.scheme, "scope": xi.scope, "path": list(xi.path)},
    }
    denoiser = purifier.settings.get("denoiser") or {}
    weights = {"denoiser": denoiser["sha256"]} if "sha256" in denoiser else {}
    return settings, collect_context(
        device=str(images.images.device), tile=purifier.tile, weights=weights,
        sources=source_digests(type(purifier.recipe), type(purifier.denoiser), function),
    )  # fmt: skip
