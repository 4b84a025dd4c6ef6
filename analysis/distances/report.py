"""The report of a distances run: everything that its records say, with n and intervals."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from advpure.analysis.distances.result import (
    FEATURES,
    NEIGHBOUR,
    STATES,
    Distances,
    DistancesResult,
    Measured,
)
from advpure.analysis.metrics.choice import METRICS
from advpure.analysis.report import RunReport
from advpure.runs.records import RecordStore


@dataclass(frozen=True, kw_only=True)
class DistancesReport(RunReport):
    """The result of a run, computed from its records.

    Attributes:
        n: Perturbation to number of images.
        distances: Norm (``l2``, ``linf``) to perturbation to its distances along the chain.
        measured: Metrics before and after purification.
    """

    n: dict[str, int]
    distances: dict[str, dict[str, Distances]]
    measured: list[Measured]

    def to_json(self) -> dict[str, Any]:
        """Return one JSON object.

        `rows` has one object a perturbation: `l2_initial`, `l2_largest`, `l2_final`, the same for
        `linf`, and NAME_before, NAME_after and, for values per image, NAME_reduction of every
        metric, each with `_n`, `_std` and `_interval`. The first one's values are on top too.
        """
        rows = [self._row(entry) for entry in self.settings["perturbations"]
                if entry["label"] in self.n]  # fmt: skip
        return {
            **(rows[0] if rows else {}),
            "rows": rows,
            **self.origin(),
        }

    def _row(self, entry: dict[str, Any]) -> dict[str, Any]:
        label = entry["label"]
        row: dict[str, Any] = {
            "perturbation": label, "kind": entry["kind"], "attack": entry["attack"],
            "eps": entry["eps"], "n": self.n[label],
        }  # fmt: skip
        for norm, by_label in self.distances.items():
            for place, mean in by_label[label]._asdict().items():
                _put(row, f"{norm}_{place}", mean)
        for each in self.measured:
            if each.perturbation == label:
                for stage in ("before", "after", "reduction"):
                    _put(row, f"{each.name.replace('-', '_')}_{stage}", getattr(each, stage))
        return row


def _put(row: dict[str, Any], name: str, found: Any) -> None:
    """Add a value with its n, deviation and interval, where there is one."""
    if found is None:
        return
    row[name], row[f"{name}_n"], row[f"{name}_std"] = found.value, found.n, found.std
    row[f"{name}_interval"] = None if found.interval is None else list(found.interval)


def report_distances(
    store: RecordStore, seconds: float = 0.0, reasons: Sequence[str] | None = None
) -> DistancesReport:
    """Compute the report of a run from its records alone.

    Args:
        store: The records.
        seconds: Wall time of the session.
        reasons: Sentences that say why metrics are missing; None where nobody looked.

    Returns:
        The report. Cost: no network; for every Frechet distance a decomposition of min(n, d) rows
        of d features.
    """
    result = DistancesResult(store)
    n = {label: found.initial.n for label, found in result.distances["l2"].items()}
    return DistancesReport(
        run=store.folder, settings=store.settings, n=n, distances=result.distances,
        measured=result.measured, seconds=seconds, notes=tuple(_notes(store, n, reasons)),
    )  # fmt: skip


def _notes(store: RecordStore, n: dict[str, int], reasons: Sequence[str] | None) -> list[str]:
    notes, settings = [], store.settings
    least, asked = min(n.values(), default=0), settings["n"]
    unfinished = [p["label"] for p in settings["perturbations"] if n.get(p["label"], 0) < asked]
    if unfinished:
        notes.append(f"{', '.join(unfinished)}: not all {asked} images are done; run it again")
    few = []
    for metric in settings["metrics"]:
        if METRICS[metric].kind == "frechet":
            dims = _dims(store, METRICS[metric].features)
            few += [f"{metric} ({dims})"] if dims and least <= dims else []
    if few:
        notes.append(
            f"{least} images are not more than the dimensions of {', '.join(few)}: these distances "
            "are biased upwards and compare at equal n only"
        )
    if least <= NEIGHBOUR and any(
        METRICS[m].kind == "precision-recall" for m in settings["metrics"]
    ):
        notes.append(f"precision and recall need more than {NEIGHBOUR} images")
    if reasons is not None:
        notes += reasons
    elif settings["missing"]:
        notes.append(f"not measured, their network was missing: {', '.join(settings['missing'])}")
    return notes


def _dims(store: RecordStore, features: str) -> int:
    """Return the length of the stored vectors, 0 where there are none."""
    for row in store.rows(
        FEATURES.table, {"features": features, "stage": "clean", "sample": _first(store)}
    ):
        return len(row["vector"]) // 4
    return 0


def _first(store: RecordStore) -> int:
    return min((i for (i,) in store.done(STATES.table, "sample")), default=0)
