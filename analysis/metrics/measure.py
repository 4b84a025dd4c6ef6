"""Measurements by name as a study: one value or several per image.

A metric is a function of a purifier, bound to its randomness and to the ids of a batch, and of the
images. It runs over a data set in the purifier's compute tile, so that no value depends on the
other images of the batch. A new metric is one file and one line here.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor

from advpure.analysis.robustness.wording import strength_text
from advpure.analysis.study import Columns, LoadedModel, PurifierStudy, Report, Session, silent
from advpure.analysis.target import Given, refuse_fresh
from advpure.base.display import Display, Table, ends, number
from advpure.base.errors import BadInput
from advpure.base.flags import Positional
from advpure.base.registry import Registry
from advpure.base.validation import instance
from advpure.core.given import as_purifier
from advpure.core.purifier import Purifier
from advpure.core.randomness import RandomnessConfig, check_ids
from advpure.core.tiling import tiled
from advpure.data import Images
from advpure.runs.records import RecordStore, collect_context, source_digests
from advpure.runs.schema import Count, Row, Schema
from advpure.statistics.estimates import Estimate
from advpure.statistics.rates import mean_interval

Metric = Callable[[Purifier, Tensor], Tensor]
"""Purifier bound to a batch, images [B, C, H, W] in [0, 1] -> values [B] or [B, places]."""

METRICS: Registry[Metric] = Registry(
    "metric", group="advpure.metrics", adapt="advpure.base.imports:as_function"
)
_HERE = "advpure.analysis.metrics"

METRICS.register("distance", f"{_HERE}.distance:distance", about="L2 distance after every step")

MEASUREMENTS = Schema("measurements", {"sample": Count, "place": Count}, {"value": float})
"""Place counts the values of one image from 0; what they are, the metric says."""


@dataclass(frozen=True, kw_only=True)
class Measurements(Report):
    """The values of a metric.

    Attributes:
        rows: {sample, place, value}, sorted by sample and place.
    """

    rows: list[Row]

    def means(self) -> dict[int, Estimate]:
        """Return the mean over images by place, with n and a 95 % interval (Student's t)."""
        values: dict[int, dict[int, float]] = {}
        for row in self.rows:
            values.setdefault(row["place"], {})[row["sample"]] = row["value"]
        return {
            place: Estimate.of(
                mean_interval(list(own.values())), by_image=own, extra={"place": place}
            )
            for place, own in sorted(values.items())
        }

    def tree(self) -> dict[str, Any]:
        """Return the mean of every place."""
        return {"places": list(self.means().values())}

    def display(self) -> Display:
        """Return the mean of every place."""
        s = self.settings
        seed = "" if s["randomness"] is None else f", seed {s['randomness']['seed']}"
        title = (
            f"{s.get('dataset', 'images')}, metric {s['metric']}, defense {strength_text(s)}{seed}"
        )
        rows = [
            [str(place), number(m.value, ".4f"), number(m.std, ".4f"), ends(m, ".4f"), str(m.n)]
            for place, m in self.means().items()
        ]
        heads = ("place", "mean", "std over images", "95 % interval", "n")
        return Display(title, (Table(heads, rows),))


@dataclass(frozen=True, kw_only=True)
class Measure(PurifierStudy[Measurements]):
    """Measure a purifier on every image; print the mean of every value.

    Example: advpure measure distance --defense ddim --t 100

    Attributes:
        metric: Metric; `advpure models` lists them.
    """

    verb: ClassVar[str] = "measure"
    tables: ClassVar[tuple[Schema, ...]] = (MEASUREMENTS,)
    of_the_images: ClassVar[tuple[str, ...]] = ("n", "subset", "ids", "images")
    columns: ClassVar[Columns] = {"value": {"at": "places.0"}}

    metric: Annotated[str, Positional()]

    def load(self) -> LoadedModel:
        """Load purifier and images."""
        METRICS.get(self.metric)
        purifier, images = self.load_purifier(self.xi), self.load_images()
        loaded = _loaded(self.metric, purifier, images)
        code = METRICS.digest(self.metric)
        own = {} if code is None else {"metric_code": code}
        settings = self.identity(self.verb, images) | loaded.settings | own
        return replace(loaded, settings=settings)

    def measure(self, session: Session[LoadedModel]) -> None:
        """Measure batch after batch."""
        function, loaded = METRICS.get(self.metric), session.loaded
        for batch in session.batches(loaded.images, MEASUREMENTS, size=64):
            values = _values(self.metric, function, loaded.purifier, batch)
            rows = [
                {"sample": sample, "place": place, "value": value}
                for sample, row in zip(batch.ids.tolist(), values, strict=True)
                for place, value in enumerate(row)
            ]
            session.store.append(MEASUREMENTS.table, rows)

    @classmethod
    def report(cls, store: RecordStore) -> Measurements:
        """Read the values of a run."""
        rows = store.rows(MEASUREMENTS.table)
        return Measurements(run=store.folder, settings=store.settings, rows=rows)


def measure(
    metric: str,
    purifier: Given,
    images: Images,
    *,
    out: str | Path | None = None,
    batch_size: int | None = None,
    progress: Callable[[int], None] = silent,
) -> Measurements:
    """Measure a purifier object, going on where an interrupted run stopped.

    Args:
        metric: A name in `METRICS`.
        purifier: What is measured: a purifier with its randomness configuration, a chain, or a
            module or function of images, which draws under seed 0.
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
        ...     values = measure("distance", purifier, load_images("digits", n=2), out=folder)
        >>> len(values.rows), sorted(values.means())
        (4, [0, 1])
    """
    study = Measure(metric=metric)
    METRICS.get(metric)
    instance(images, Images, "images", "pass what load_images returns")
    purifier = as_purifier(purifier, images.images)
    refuse_fresh(purifier.xi)
    check_ids(images.ids, len(images.images))
    purifier.check_steady(images.images)
    loaded = _loaded(metric, purifier, images)
    return study.run(out=out, batch_size=batch_size, progress=progress, loaded=loaded)


def _values(metric: str, function: Metric, purifier: Purifier, batch: Images) -> list[list[float]]:
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
        values = tiled(ask, purifier.tile)(batch.images, batch.ids)
    if not values.numel():
        raise BadInput(f"metric {metric!r}", "has no value here", "measure a purifier with steps")
    finite = values.isfinite().reshape(len(values), -1).all(1).cpu()
    wrong = batch.ids[~finite].tolist()
    if wrong:
        shown = ", ".join(map(str, wrong[:8])) + (", ..." if len(wrong) > 8 else "")
        raise BadInput(
            f"metric {metric!r} of {len(wrong)} of {len(batch.ids)} samples ({shown})",
            "is not finite",
            "leave them out, or let the metric say what it means there",
        )
    columns = values[:, None] if values.ndim == 1 else values
    listed: list[list[float]] = columns.double().tolist()
    return listed


def _loaded(metric: str, purifier: Purifier, images: Images) -> LoadedModel:
    xi = purifier.xi
    settings = {
        "verb": Measure.verb,
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
    context = collect_context(
        device=str(images.images.device),
        tile=purifier.tile,
        weights={"denoiser": denoiser["sha256"]} if "sha256" in denoiser else {},
        sources=source_digests(type(purifier.recipe), type(purifier.denoiser), METRICS.get(metric)),
    )
    return LoadedModel(
        settings=settings,
        context=context,
        samples=images.ids.tolist(),
        model=purifier,
        images=images,
        xi=xi or RandomnessConfig(0),
    )
