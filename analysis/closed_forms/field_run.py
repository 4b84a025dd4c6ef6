"""One recorded simulation of the Gaussian score field: figure 4b and table S1 of seed 003."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np

from advpure.analysis.closed_forms.gaussian_field_paths import FieldRates, simulate_rates
from advpure.analysis.closed_forms.gaussian_field_table import (
    Deviation,
    FieldSettings,
    FieldTable,
    field_table,
    small_step_reading,
    variance_reading,
)
from advpure.analysis.report import RunReport
from advpure.analysis.runs import Verb
from advpure.analysis.steps.singular_result import mean_json
from advpure.base.budget import check_repeats
from advpure.base.kinds import Natural, Seed
from advpure.runs.cost import Cost
from advpure.runs.records import (
    RecordStore,
    collect_context,
    default_run_folder,
    source_digests,
)
from advpure.runs.schema import Count, Schema
from advpure.statistics.rates import mean_interval

Reading = Literal["printed", "variance", "small_step"]
FIELD = Schema("field", {"draw": Count, "step": Count}, {"rate": float})


@dataclass(frozen=True, kw_only=True)
class FieldRun(FieldSettings):
    """A field as printed, which reading of it to simulate, and how.

    Attributes:
        reading: ``printed``: deviations are deviations; ``variance``: they are variances;
            ``small_step``: the step is multiplied by the deviation across the data.
        draws: Random perturbations.
        eps: Standard deviation of a perturbation's entries.
        seed: Seed of the states, the perturbations and the principal directions.

    Raises:
        BadInput: for values that make no sense, naming the rule.
    """

    reading: Reading = "variance"
    draws: Natural = 16
    eps: Deviation = 0.01
    seed: Seed = 0

    def __post_init__(self) -> None:
        """Check every field, and that what is simulated can be kept."""
        super().__post_init__()
        check_repeats(self.draws * self.steps, "rates")
        check_repeats(self.dimension**2, "entries of a matrix")
        check_repeats(self.draws * self.dimension, "entries of perturbations")

    @property
    def printed(self) -> FieldSettings:
        """The settings as printed."""
        names = [each.name for each in fields(FieldSettings)]
        return FieldSettings(**{name: getattr(self, name) for name in names})

    @property
    def simulated(self) -> FieldSettings:
        """The settings that are simulated."""
        if self.reading == "variance":
            return variance_reading(self.printed)
        return small_step_reading(self.printed) if self.reading == "small_step" else self.printed


@dataclass(frozen=True, kw_only=True)
class FieldReport(RunReport):
    """The result of a simulation, computed from its records.

    Attributes:
        result: Simulated rates and the closed forms.
        table: The printed settings beside the readings that converge.
    """

    result: FieldRates
    table: FieldTable

    def to_json(self) -> dict[str, Any]:
        """Return one JSON object: `rows` by step, `table` by quantity.

        Of a step, `rate` is the mean over perturbations and `rms` the root mean square, which is
        what `predicted` predicts.
        """
        found = self.result
        pooled = found.pooled.tolist()
        rows = [
            {
                "step": k, "rate": mean_json(mean_interval(found.rates[:, k])),
                "rms": pooled[k], "predicted": float(found.predicted[k]),
            }
            for k in range(found.rates.shape[1])
        ]  # fmt: skip
        return {
            "n": len(found.rates),
            "first": rows[0]["rate"],
            "last": rows[-1]["rate"],
            "rows": rows,
            "table": self.table.rows(),
            "on_manifold": found.on_manifold,
            "off_manifold": found.off_manifold,
            "eq_13": found.eq_13,
            **self.origin(),
        }


@dataclass(frozen=True)
class PreparedField:
    """A simulation that is checked."""

    run: FieldRun
    settings: dict[str, Any]


def prepare_field(run: FieldRun) -> PreparedField:
    """Resolve the settings."""
    return PreparedField(run, {"verb": "field", **asdict(run)})


def measure_field(
    run: FieldRun,
    *,
    out: str | Path | None = None,
    batch_size: int | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> FieldReport:
    """Simulate a field and record every rate.

    Args:
        run: Everything that the result depends on.
        out: Run folder; by default one named after the settings, under ``runs``.
        batch_size: Without effect; all perturbations are followed together.
        progress: Called with the number of finished perturbations.

    Returns:
        The report. Its records are in the run folder.

    Raises:
        BadInput: for a run folder of other settings, or states that leave the range of numbers.
        StorageFull: when the disk is full.

    Warns:
        DivergingStep: when the printed settings diverge.
    """
    settings, start = prepare_field(run).settings, time.perf_counter()
    folder = Path(out) if out else default_run_folder("runs", "field", settings)
    context = collect_context(dtype="float64", sources=source_digests(simulate_rates))
    with RecordStore.open(folder, schemas=(FIELD,), settings=settings, context=context) as store:
        fresh = not store.done(FIELD.table)
        if fresh:
            found = simulate_rates(run.simulated, eps=run.eps, draws=run.draws, seed=run.seed)
            rows = np.ndenumerate(found.rates)
            store.append(FIELD.table, [{"draw": k, "step": s, "rate": r} for (k, s), r in rows])
        progress(run.draws)
        store.finish()
        report = report_field(store, time.perf_counter() - start)
    return report if fresh else report.already_complete()


def report_field(store: RecordStore, seconds: float = 0.0) -> FieldReport:
    """Compute the report of a run from its records alone."""
    settings = store.settings
    run = FieldRun(**{name: value for name, value in settings.items() if name != "verb"})
    rates = np.empty((run.draws, run.steps))
    for row in store.rows(FIELD.table):
        rates[row["draw"], row["step"]] = row["rate"]
    table = field_table(run.printed)
    field = run.simulated.field()
    result = FieldRates(
        run.simulated, rates, field.step_rates(run.steps), abs(float(field.factors[0])),
        abs(float(field.factors[-1])), field.approximate,
    )  # fmt: skip
    notes = []
    if len(table.readings) > 1:
        notes.append(
            "as printed the field diverges across the data, and equation 13 gives a negative rate; "
            f"simulated is the reading {run.reading!r}"
        )
    return FieldReport(
        run=store.folder, settings=settings, result=result, table=table, seconds=seconds,
        notes=tuple(notes),
    )  # fmt: skip


def estimate_field(prepared: PreparedField) -> Cost:
    """Return the cost: no network is evaluated."""
    run = prepared.run
    return Cost(run.draws, 0, 0, 1e-8 * run.draws * run.dimension * run.steps, 0)


VERB = Verb(
    FieldRun,
    measure_field,
    total=lambda run: run.draws,
    prepare=prepare_field,
    estimate=estimate_field,
    report=report_field,
)
