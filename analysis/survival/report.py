"""The report of a survival run, computed from its records alone."""

from dataclasses import dataclass
from typing import Any

from advpure.analysis.report import RunReport
from advpure.analysis.survival.cross_check import CROSS_CHECK_SCHEMA, CrossCheck, compare
from advpure.analysis.survival.fit import SURVIVAL_SCHEMA, SurvivalResult
from advpure.runs.records import RecordStore

_PARTS = 8  # S is reported at eighths of the bracket


@dataclass(frozen=True, kw_only=True)
class SurvivalReport(RunReport):
    """The result of a run, computed from its records.

    Attributes:
        result: Rows, survival function and fit.
        checks: Comparisons with other attacks.
    """

    result: SurvivalResult
    checks: tuple[CrossCheck, ...]

    @property
    def top(self) -> float:
        """The end of the bracket, [0, 1] units."""
        return float(self.settings["threat_model"]["top"])

    @property
    def radii(self) -> tuple[float, ...]:
        """The radii at which survival is reported: eighths of the bracket."""
        return tuple(self.top * k / _PARTS for k in range(_PARTS + 1))

    def to_json(self) -> dict[str, Any]:
        """Return one JSON object: accuracy, median, fit, S(eps), and the interval of every image.

        A value `x` has its 95 % interval in `x_interval`.
        """
        return {
            **self.result.to_json(self.radii),
            "top": self.top,
            "rows": [row._asdict() for row in self.result.rows],
            "cross_check": [check._asdict() for check in self.checks],
            **self.origin(),
        }


def report_survival(store: RecordStore, seconds: float = 0.0) -> SurvivalReport:
    """Compute the report of a run from its records alone.

    Raises:
        BadInput: for a run without a row.
    """
    records, settings = store.rows(SURVIVAL_SCHEMA.table), store.settings
    result = SurvivalResult.from_records(records, settings)
    others = store.rows(CROSS_CHECK_SCHEMA.table)
    resolution = settings["threat_model"]["top"] / 2 ** settings["search"]["bisections"]
    checks = tuple(
        compare(result.rows, others, engine, resolution)
        for engine in dict.fromkeys(row["engine"] for row in others)
    )
    clipped = max((row["clipped"] or 0.0 for row in records), default=0.0)
    notes = tuple(_notes(result, settings, resolution, checks, clipped))
    return SurvivalReport(
        run=store.folder, settings=settings, result=result, checks=checks, seconds=seconds,
        notes=notes,
    )  # fmt: skip


def _notes(
    result: SurvivalResult,
    settings: dict[str, Any],
    resolution: float,
    checks: tuple[CrossCheck, ...],
    clipped: float,
) -> list[str]:
    notes = []
    if result.censored:
        notes.append(
            f"{result.censored} of {result.n} images were not fooled up to the end of the bracket; "
            "survival beyond it is unknown, a larger --top would tell"
        )
    blind = sum(row.zero_gradient for row in result.rows)
    if blind:
        notes.append(
            f"{blind} of {result.n} images had an exactly zero first gradient: the attack was "
            "blind there, which is no robustness; try --loss margin"
        )
    if result.misses:
        notes.append(
            f"{result.misses} attacks failed at a radius where a smaller perturbation exists: the "
            "attack is not exhaustive, and the true radii are smaller still"
        )
    if result.resolution > 2 * resolution:
        notes.append(
            f"the widest interval is {result.resolution:.3g}, not {resolution:.3g}: the attack "
            "found less at larger radii than at smaller ones"
        )
    if result.fit is not None and result.resolution > 2 * result.fit.std:
        notes.append(
            f"radii are known to {result.resolution:.3g} only, and the fit spreads them by "
            f"{result.fit.std:.3g}: it is a guess within the intervals; a larger --bisections "
            "would tell"
        )
    if clipped > 0.05:
        notes.append(
            f"anchor points were clipped to [0, 1] by up to {clipped:.3g}; --box free leaves them"
        )
    notes += [
        f"{check.engine} found smaller perturbations on average: the search is too weak here"
        for check in checks
        if check.difference_interval is not None and check.difference_interval.low > 0.0
    ]
    if result.n < settings["n"]:
        notes.append(f"{result.n} of {settings['n']} images are done; the same command goes on")
    return notes
