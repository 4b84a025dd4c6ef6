"""The report of a distances run: everything that its records say, with n and intervals."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from advpure.analysis.distances.compare import Contrast
from advpure.analysis.distances.result import (
    NEIGHBOUR,
    STEPS,
    AlongChain,
    DistancesResult,
    Measured,
)
from advpure.analysis.metrics.choice import METRICS
from advpure.analysis.robustness.wording import strength_text
from advpure.analysis.study import Report
from advpure.base.display import Display, Table, number, written
from advpure.runs.records import RecordStore
from advpure.statistics.estimates import Estimate

_STAGES = ("before", "after", "reduction")
_COMPARED = ("perturbation", "metric", "this", "other", "difference", "95 %", "n", "method")


@dataclass(frozen=True, kw_only=True)
class DistancesReport(Report):
    """The result of a run, computed from its records.

    Attributes:
        n: Perturbation to number of images.
        distances: Norm (``l2``, ``linf``) to perturbation to its distances along the chain.
        measured: Metrics before and after purification.
        steps: Steps of the chain.
        is_random: Whether the purifier draws noise.
        against: Folder of the run that this one is compared with; None for none.
        contrasts: What differs from it.
    """

    n: Mapping[str, int]
    distances: Mapping[str, Mapping[str, AlongChain]]
    measured: Sequence[Measured]
    steps: int
    is_random: bool = True
    against: str | None = None
    contrasts: Sequence[Contrast] = ()

    @classmethod
    def of(cls, store: RecordStore) -> "DistancesReport":
        """Compute the report of a run from its records alone."""
        result = DistancesResult(store)
        n = {label: each.initial.n or 0 for label, each in result.distances["l2"].items()}
        return cls(
            run=store.folder,
            settings=store.settings,
            n=n,
            distances=result.distances,
            measured=result.measured,
            steps=store.count(STEPS.table),
            is_random=store.settings.get("is_random", True),
            notes=tuple(_notes(result, n)),
        )

    def notes_beside_missing(self) -> tuple[str, ...]:
        """Return the notes but the one that names missing metrics, for who knows why they are."""
        return tuple(note for note in self.notes if note != _missing(self.settings))

    def tree(self) -> dict[str, Any]:
        """Return one row a perturbation; the first one's values are on top too.

        A row has `l2_initial`, `l2_largest`, `l2_final`, the same for `linf`, and NAME_before,
        NAME_after and, for values per image, NAME_reduction of every metric.
        """
        entries = self.settings["perturbations"]
        rows = [self._row(entry) for entry in entries if entry["label"] in self.n]
        tree = {**(rows[0] if rows else {}), "rows": rows}
        if self.against is not None:
            tree["against"] = [each.estimate() for each in self.contrasts]
        return tree

    def _row(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        label = entry["label"]
        known = {key: entry[key] for key in ("kind", "attack", "eps")}
        row: dict[str, Any] = {"perturbation": label, **known, "n": self.n[label]}
        estimates: dict[str, Estimate | None] = {
            f"{norm}_{stage}": each
            for norm, by_label in self.distances.items()
            for stage, each in by_label[label]._asdict().items()
        }
        for quantity in (each for each in self.measured if each.perturbation == label):
            name = quantity.name.replace("-", "_")
            estimates |= {f"{name}_{stage}": getattr(quantity, stage) for stage in _STAGES}
        return row | {name: each for name, each in estimates.items() if each is not None}

    def display(self) -> Display:
        """Return distances along the chain, and metrics before and after it."""
        s, label = self.settings, next(iter(self.n))
        far = self.distances["l2"][label]
        how = f"fixed randomness (seed {s['randomness']['seed']})"
        if not self.is_random:
            how = "no randomness"
        headline = (
            f"{s['dataset']}, defense {strength_text(s['defense'])}, {how}, {self.steps} steps: "
            f"{label} starts at l2 {number(far.initial.value)} and ends at "
            f"{number(far.final.value)} from the clean image, over {self.n[label]} images"
        )
        rows = [
            [each, *(_spread(m) for by in self.distances.values() for m in by[each][:3]), str(n)]
            for each, n in self.n.items()
        ]
        heads = [f"{norm} {at}" for norm in ("l2", "l-inf") for at in ("initial", "max", "end")]
        parts: list[Table | str] = [Table(("perturbation, mean ± std", *heads, "n"), rows)]
        if self.measured:
            lines = [
                [
                    each.perturbation,
                    each.name,
                    *(written(getattr(each, stage)) for stage in _STAGES),
                    "" if each.after is None else str(each.after.n),
                ]
                for each in self.measured
            ]
            columns = ("perturbation", "metric", "before", "after", "before - after", "n")
            parts.append(Table(columns, lines))
        if self.against is not None:
            parts += [
                f"after purification, this run ({self.run}) against {self.against}, on the same "
                "images",
                Table(_COMPARED, [each.cells() for each in self.contrasts]),
            ]
        return Display(headline, parts)


def _spread(mean: Estimate) -> str:
    return number(mean.value) + ("" if mean.std is None else f" ± {mean.std:.2g}")


def _notes(result: DistancesResult, n: Mapping[str, int]) -> Iterator[str]:
    settings = result.store.settings
    metrics, least, asked = settings["metrics"], min(n.values(), default=0), settings["n"]
    unfinished = [p["label"] for p in settings["perturbations"] if n.get(p["label"], 0) < asked]
    if unfinished:
        yield f"{', '.join(unfinished)}: not all {asked} images are done; run it again"
    few = []
    for metric in (each for each in metrics if METRICS[each].kind == "frechet"):
        dimensions = result.dimensions(METRICS[metric].features)
        if dimensions and least <= dimensions:
            few.append(f"{metric} ({dimensions})")
    if few:
        yield (
            f"{least} images are not more than the dimensions of {', '.join(few)}: these distances "
            "are biased upwards and compare at equal n only"
        )
    if least <= NEIGHBOUR and any(METRICS[m].kind == "precision-recall" for m in metrics):
        yield f"precision and recall need more than {NEIGHBOUR} images"
    if settings["missing"]:
        yield _missing(settings)


def _missing(settings: Mapping[str, Any]) -> str:
    return f"not measured, their network was missing: {', '.join(settings['missing'])}"
