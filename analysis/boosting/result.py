"""What the records of a boost run say: sets before and after, class by class, and step by step."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from advpure.analysis.boosting.sets import NEIGHBOUR, Change, Ids, groups, set_changes
from advpure.analysis.metrics.choice import METRICS
from advpure.analysis.study import Report
from advpure.base.display import Display, Table, written
from advpure.base.errors import BadInput
from advpure.data import dataset_info
from advpure.runs.records import RecordStore
from advpure.runs.schema import Count, Schema
from advpure.statistics.estimates import Estimate
from advpure.statistics.rates import mean_interval

BOOSTED = Schema(
    "boosted",
    {"sample": Count},
    {
        "label": int | None, "aimed": Count, "predicted": Count, "taken": Count, "moved": float,
        "real_before": float, "real_after": float,
    },
)  # fmt: skip
"""Of every image its given class, the class that it was aimed at, the most likely one before, the
steps that it took, its l2 distance, and the logit of the class aimed at."""

PAIRS = Schema("pairs", {"sample": Count}, {"before": bytes, "after": bytes})
"""Both versions of every image, float32 little-endian [C, H, W] in [0, 1]."""

VECTORS = Schema("vectors", {"features": str, "step": Count, "sample": Count}, {"vector": bytes})
"""Feature vectors after so many steps, float32 little-endian."""

REAL = Schema("real", {"features": str, "place": Count}, {"label": Count, "vector": bytes})
"""Feature vectors of the real images, by their place in the reference."""

SCHEMAS = (BOOSTED, PAIRS, VECTORS, REAL)
SET_KINDS = ("frechet", "score", "precision-recall")
_FIRST = ("fid-2048", "fid-768", "frechet-classifier", "frechet-vgg")
Array = npt.NDArray[np.float64]


class Measured(NamedTuple):
    """A metric before and after.

    Attributes:
        metric: Its name, such as ``frechet-classifier`` or ``precision-vgg``.
        change: Its values, with n and intervals.
        label: The class whose images alone are compared; None for all.
        step: After how many steps; None for all steps.
    """

    metric: str
    change: Change
    label: int | None = None
    step: int | None = None

    def tree(self) -> dict[str, Any]:
        """Return the fields as a report has them."""
        known: dict[str, Any] = {"metric": self.metric}
        known |= {} if self.label is None else {"class": self.label}
        known |= {} if self.step is None else {"step": self.step}
        return {**known, **self.change._asdict()}


@dataclass(frozen=True)
class BoostResult:
    """The results of a run, read from its records as they are asked for.

    Args:
        store: The open records; they have to stay open.
    """

    store: RecordStore

    @cached_property
    def rows(self) -> dict[int, dict[str, Any]]:
        """The boosted images by sample id."""
        return {row["sample"]: row for row in self.store.rows(BOOSTED.table)}

    @property
    def steps(self) -> list[int]:
        """The numbers of steps after which features were kept, from 0."""
        return list(self.store.settings["kept_steps"])

    @property
    def metrics(self) -> list[str]:
        """The metrics, that of the headline first."""
        listed = self.store.settings["metrics"]
        return sorted(listed, key=lambda name: _FIRST.index(name) if name in _FIRST else 99)

    def vectors(self, features: str, step: int) -> dict[int, Array]:
        """Return feature vectors by sample id."""
        rows = self.store.rows(VECTORS.table, {"features": features, "step": step})
        return {row["sample"]: _vector(row["vector"]) for row in rows}

    def real(self, features: str) -> tuple[npt.NDArray[np.int64], Array]:
        """Return the labels and feature vectors of the real images."""
        rows = self.store.rows(REAL.table, {"features": features})
        labels = np.array([row["label"] for row in rows], dtype=np.int64)
        return labels, np.array([_vector(row["vector"]) for row in rows])

    def pictures(self, ids: list[int]) -> tuple[Tensor, Tensor]:
        """Return images before and after, [n, C, H, W]."""
        shape = dataset_info(self.store.settings["dataset"]).shape
        stored = {row["sample"]: row for row in self.store.rows(PAIRS.table)}
        before, after = (
            np.stack([np.frombuffer(stored[i][side], "<f4") for i in ids]).astype(np.float32)
            for side in ("before", "after")
        )
        return (
            torch.from_numpy(before).reshape(-1, *shape),
            torch.from_numpy(after).reshape(-1, *shape),
        )

    def measured(self) -> list[Measured]:
        """Return all metrics of all images."""
        return [
            Measured(name, change)
            for metric in self.metrics
            for name, change in self._changes(metric, self.steps[-1])
        ]

    def by_class(self) -> list[Measured]:
        """Return all metrics class by class, for classes with images enough on both sides."""
        aimed = {i: row["aimed"] for i, row in self.rows.items()}
        least = NEIGHBOUR + 1
        numbers = np.array(list(aimed.values()), dtype=np.int64)
        return [
            Measured(name, change, label)
            for metric in self.metrics
            if METRICS[metric].kind != "score"
            for label in (groups(numbers, least) if len(numbers) else ())
            for name, change in self._changes(metric, self.steps[-1], label)
        ]

    def curve(self) -> list[Measured]:
        """Return the Frechet distances over steps, each with its change from none."""
        return [
            Measured(name, change, step=step)
            for metric in self.metrics
            if METRICS[metric].kind == "frechet"
            for step in self.steps[1:]
            for name, change in self._changes(metric, step)
        ]

    def _changes(
        self, metric: str, step: int, label: int | None = None
    ) -> Iterator[tuple[str, Change]]:
        kind, features = METRICS[metric].kind, METRICS[metric].features
        first, last = self.vectors(features, 0), self.vectors(features, step)
        ids = [i for i in last if i in first and i in self.rows]
        labels, real = self.real(features) if kind != "score" else (np.empty(0), np.empty((0, 1)))
        places = np.arange(len(real))
        if label is not None:
            ids = [i for i in ids if self.rows[i]["aimed"] == label]
            places = places[labels == label]
        if not ids:
            return
        before, after = (np.array([each[i] for i in ids]) for each in (first, last))
        names = Ids(ids, places.tolist(), self.store.settings["reference"]["subset"])
        for part, change in set_changes(kind, real[places], before, after, names).items():
            yield (metric.replace("precision-recall", part) if part else metric), change

    def dimensions(self, metric: str) -> int:
        """Return the length of a metric's feature vectors, 0 where there are none."""
        return len(next(iter(self.vectors(METRICS[metric].features, 0).values()), ()))


@dataclass(frozen=True, kw_only=True)
class BoostReport(Report):
    """Sets of images before and after boosting.

    Attributes:
        n: Images that are done.
        measured: Metrics of all images; the first is that of the headline.
        by_class: Metrics of single classes.
        curve: Frechet distances over steps.
        moved: l2 distance from an image to its boosted version, [0, 1] units.
        taken: Steps that an image took before it was left alone.
        binary: l_BCE of the class aimed at, before and after.
        agreement: Share of images whose most likely class was the one aimed at.
    """

    n: int
    measured: tuple[Measured, ...]
    by_class: tuple[Measured, ...]
    curve: tuple[Measured, ...]
    moved: Estimate | None
    taken: Estimate | None
    binary: Change | None
    agreement: Estimate | None

    @classmethod
    def of(cls, store: RecordStore) -> "BoostReport":
        """Compute the report of a run from its records alone."""
        result = BoostResult(store)
        rows = result.rows
        report = cls(
            run=store.folder,
            settings=store.settings,
            n=len(rows),
            measured=tuple(result.measured()),
            by_class=tuple(result.by_class()),
            curve=tuple(result.curve()),
            moved=_mean({i: row["moved"] for i, row in rows.items()}),
            taken=_mean({i: float(row["taken"]) for i, row in rows.items()}),
            binary=_binary(rows),
            agreement=_mean(
                {i: float(row["predicted"] == row["aimed"]) for i, row in rows.items()}
            ),
        )
        return report.with_notes(*_notes(result, report))

    def tree(self) -> dict[str, Any]:
        """Return before, after and difference of the first metric, and everything else."""
        first = self.measured[0].tree() if self.measured else {}
        return {
            **first,
            "n": self.n,
            "metrics": [each.tree() for each in self.measured],
            "by_class": [each.tree() for each in self.by_class],
            "curve": [each.tree() for each in self.curve],
            "moved": self.moved,
            "steps_taken": self.taken,
            "binary_loss": None if self.binary is None else self.binary._asdict(),
            "l0": self.settings["boost"]["l0"],
            "aimed_at_most_likely": self.agreement,
        }

    def display(self) -> Display:
        """Return the metrics before and after."""
        s = self.settings
        how = s["boost"]
        source = s["images"]["name"] if "images" in s else f"{s['model']}, {s['model_steps']} step"
        drift = "" if self.moved is None else f", moved by l2 {written(self.moved)}"
        what = how["method"] if how["method"] == "sgld" else f"{how['method']}, loss {how['loss']}"
        headline = (
            f"{s['dataset']}, {self.n} images of {source}, boosted by {how['name']} ({what}, "
            f"{how['steps']} steps of {how['step_size']:g}){drift}"
        )
        lines = [
            [each.metric, *(written(side) for side in each.change), str(each.change.before.n)]
            for each in self.measured
        ]
        heads = ("metric", "before", "after", "after - before", "n")
        parts: list[Table | str] = [Table(heads, lines)]
        if self.binary is not None:
            level = "" if how["l0"] is None else f", l0 {how['l0']:.4g}"
            before, after, _ = (written(side) for side in self.binary)
            parts.append(f"l_BCE of the class aimed at: {before} before, {after} after{level}")
        if len(self.curve) > len({each.metric for each in self.curve}):
            steps = [
                [each.metric, str(each.step), written(each.change.after),
                 written(each.change.difference)]
                for each in self.curve
            ]  # fmt: skip
            parts.append(Table(("metric", "steps", "distance", "from none"), steps))
        return Display(headline, tuple(parts))


def _vector(stored: bytes) -> Array:
    return np.frombuffer(stored, "<f4").astype(np.float64)


def _mean(values: Mapping[int, float]) -> Estimate | None:
    return Estimate.of(mean_interval(list(values.values())), dict(values)) if values else None


def _binary(rows: Mapping[int, Mapping[str, Any]]) -> Change | None:
    if not rows:
        return None
    sides = [
        {i: float(np.logaddexp(0.0, row[side])) for i, row in rows.items()}
        for side in ("real_before", "real_after")
    ]
    change = {i: sides[1][i] - sides[0][i] for i in rows}
    before, after, difference = (_mean(each) for each in (*sides, change))
    assert before is not None
    assert after is not None
    assert difference is not None
    return Change(before, after, difference)


def _notes(result: BoostResult, report: BoostReport) -> Iterator[str]:
    settings = report.settings
    yield from report.to_do(report.n)
    few = [
        f"{metric} ({result.dimensions(metric)})"
        for metric in result.metrics
        if METRICS[metric].kind == "frechet" and 0 < report.n <= result.dimensions(metric)
    ]
    if few:
        yield (
            f"{report.n} images are not more than the dimensions of {', '.join(few)}: these "
            "distances are biased upwards and compare at equal n only"
        )
    if report.by_class and any(METRICS[m].kind == "frechet" for m in result.metrics):
        yield (
            "distances of single classes are of few images: they are biased upwards, and their "
            "intervals are rough"
        )
    if settings["missing"]:
        listed = ", ".join(settings["missing"])
        yield f"not measured, their network was missing: {listed}"
    if settings["boost"].get("printed"):
        yield "the signs are those that are printed, which lead away from real images"


def no_images(folder: object) -> BadInput:
    """Return what to say of a run without images."""
    return BadInput(str(folder), "holds no boosted images", "run it")
