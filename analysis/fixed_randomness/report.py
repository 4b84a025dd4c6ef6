"""The report of a comparison of fixed with fresh randomness, from its records alone."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from advpure.analysis.fixed_randomness.layout import EOT, FRESH, fixed_name
from advpure.analysis.fixed_randomness.result import (
    CORRELATIONS,
    OUTCOMES,
    STAGES,
    TRANSFERS,
    Accuracy,
    RandomnessResult,
)
from advpure.analysis.report import RunReport
from advpure.base.errors import BadInput
from advpure.runs.records import RecordStore
from advpure.statistics.rates import Mean

TABLES = (OUTCOMES, TRANSFERS, CORRELATIONS)


@dataclass(frozen=True, kw_only=True)
class RandomnessReport(RunReport):
    """The result of a comparison, computed from its records.

    Attributes:
        result: Accuracies, differences, correlations.
    """

    result: RandomnessResult

    def to_json(self) -> dict[str, Any]:
        """Return one JSON object; every estimate is a mapping with value, n and interval."""
        result = self.result
        transfer = result.transfer()
        return {
            "n": len(result.ids),
            "rows": [
                {"randomness": "fresh", **self._stages("fresh")},
                {"randomness": "fixed", **self._stages("fixed")},
            ],
            "transfer": None if transfer is None else accuracy_json(transfer),
            "correlations": [
                {
                    "pair": each.pair, "pearson": _mean_json(each.pearson),
                    "cosine": _mean_json(each.cosine), "absent": each.absent,
                }
                for each in result.correlated()
            ],
            "differences": [
                {"what": f"{each.name} - fixed", **each.decision._asdict(),
                 "shares": _mean_json(each.shares)}
                for each in result.compared()
            ],
            "zero_gradient": result.blind,
            **self.origin(),
        }  # fmt: skip

    def _stages(self, randomness: str) -> dict[str, Any]:
        result = self.result
        if randomness == "fixed":
            return {
                **{stage: accuracy_json(result.fixed(stage)) for stage in STAGES},
                "attacked_eot": None,
            }
        found = {stage: result.fresh(stage) for stage in STAGES}
        eot = result.fresh("attacked", EOT)
        return {name: each and accuracy_json(each) for name, each in found.items()} | {
            "attacked_eot": eot and accuracy_json(eot)
        }


def accuracy_json(found: Accuracy) -> dict[str, Any]:
    """Return an accuracy as a mapping; std is that over base seeds or pairs."""
    rate = found.rate
    return {
        "value": rate.value, "n": rate.n, "interval": [rate.low, rate.high], "std": found.std,
        "repeats": found.repeats,
    }  # fmt: skip


def _mean_json(mean: Mean | None) -> dict[str, Any] | None:
    if mean is None:
        return None
    return {**mean._asdict(), "interval": list(mean.interval) if mean.interval else None}


def report_randomness(store: RecordStore, seconds: float = 0.0) -> RandomnessReport:
    """Compute the report of a comparison from its records alone.

    Raises:
        BadInput: when no image has been through all runs yet.
    """
    outcomes, transfers, correlations = (store.rows(table.table) for table in TABLES)
    result = RandomnessResult(outcomes, transfers, correlations, tuple(store.settings["seeds"]))
    wanted = {fixed_name(seed) for seed in result.seeds} | {FRESH}
    if not result.ids or not wanted <= set(result.parts):
        raise BadInput(f"run {store.folder}", "has finished no image yet", "run it again")
    report = RandomnessReport(
        run=store.folder, settings=store.settings, result=result, seconds=seconds
    )
    return replace(report, notes=tuple(_notes(report)))


def _notes(report: RandomnessReport) -> Iterator[str]:
    result, n = report.result, len(report.result.ids)
    if result.blind:
        yield (
            f"{result.blind} of {n} images had an exactly zero gradient in some run: the attack "
            "was blind there, which is no robustness"
        )
    if report.settings["attack"].get("stop") == "success":
        yield (
            "attacks stopped at success: they transfer badly and their perturbations are of unlike "
            "length; leave out the option stop"
        )
    asked = report.settings["n"]
    if n < asked:
        yield f"{n} of {asked} images are done; the same command goes on"
