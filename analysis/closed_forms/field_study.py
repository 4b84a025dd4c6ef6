"""The Gaussian score field as a study: figure 4b and table S1 of [Wei2025]."""

from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from advpure.analysis.closed_forms.gaussian_field_paths import (
    FieldRates,
    SimulationSettings,
    check_simulation,
    simulate_rates,
)
from advpure.analysis.closed_forms.gaussian_field_table import (
    FieldSettings,
    FieldTable,
    field_table,
    small_step_reading,
    variance_reading,
)
from advpure.analysis.study import Columns, Loaded, Report, Session, Study
from advpure.base.display import Display, Table, ends, number
from advpure.base.errors import BadInput
from advpure.base.validation import fields_of
from advpure.runs.cost import Cost
from advpure.runs.records import RecordStore, collect_context, source_digests
from advpure.runs.schema import Count, Schema
from advpure.statistics.estimates import Estimate
from advpure.statistics.rates import NOT_NEGATIVE, mean_interval

FIELD = Schema("field", {"draw": Count, "step": Count}, {"rate": float})
_HEADS = ("step", "mean rate", "95 %", "root mean square", "closed form", "perturbations")


@dataclass(frozen=True, kw_only=True)
class FieldReport(Report):
    """The result of a simulation, computed from its records.

    Attributes:
        result: Simulated rates and the closed forms.
        printed: The printed settings beside the readings that converge.
    """

    result: FieldRates
    printed: FieldTable

    def tree(self) -> dict[str, Any]:
        """Return the rates: `rows` by step, `table` by quantity.

        Of a step, `rate` is the mean over perturbations and `rms` the root mean square, which is
        what `predicted` predicts.
        """
        result, n, pooled = self.result, len(self.result.rates), self.result.pooled.tolist()
        rates = [
            Estimate.of(mean_interval(column, within=NOT_NEGATIVE)) for column in result.rates.T
        ]
        rows = [
            {
                "step": k,
                "rate": rate,
                "rms": Estimate(value=pooled[k], n=n, style="alone"),
                "predicted": float(result.predicted[k]),
            }
            for k, rate in enumerate(rates)
        ]
        return {
            "n": n,
            "first": rates[0],
            "last": rates[-1],
            "rows": rows,
            "table": self.printed.rows(),
            "on_manifold": result.on_manifold,
            "off_manifold": result.off_manifold,
            "eq_13": result.eq_13,
        }

    def display(self) -> Display:
        """Return table S1 with what follows from it, and some of the steps."""
        tree, s = self.tree(), self.settings
        headline = (
            f"Gaussian score field, {s['dimension']} dimensions, reading {s['reading']}: simulated "
            f"rate {tree['first'].value:.5f} at the first step, {tree['last'].value:.5f} at the "
            f"last, over {tree['n']} perturbations"
        )
        names = [reading.name for reading in self.printed.readings]
        quantities = [
            [row["quantity"].replace("_", " "), *(_cell(row[name]) for name in names)]
            for row in tree["table"]
        ]
        count = len(tree["rows"])
        steps = [
            [
                str(k),
                number(row["rate"].value, ".5f"),
                ends(row["rate"], ".5f"),
                number(row["rms"].value, ".5f"),
                number(row["predicted"], ".5f"),
                str(row["rate"].n),
            ]
            for k, row in enumerate(tree["rows"])
            if k in (0, count // 5, count // 2, count - 1)
        ]
        return Display(headline, (Table(("quantity", *names), quantities), Table(_HEADS, steps)))


def _cell(value: float | bool) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else f"{value:.6g}"


@dataclass(frozen=True, kw_only=True)
class ScoreField(SimulationSettings, FieldSettings, Study[Loaded, FieldReport]):
    """Print table S1 of [Wei2025] with what follows from it, and simulate figure 4b.

    Example: advpure field --reading small_step --plot field.png

    Attributes:
        reading: What is simulated: printed, variance (deviations are variances) or small_step (the
            step is multiplied by the deviation across the data).
    """

    verb: ClassVar[str] = "field"
    doing: ClassVar[str] = "simulating"
    tables: ClassVar[tuple[Schema, ...]] = (FIELD,)
    figure: ClassVar[str] = "advpure.analysis.closed_forms.field_figure:field_figure"
    columns: ClassVar[Columns] = {"first step": {"at": "first"}, "last step": {"at": "last"}}

    reading: Literal["printed", "variance", "small_step"] = "variance"

    def __post_init__(self) -> None:
        """Check every field, and that what is simulated can be kept."""
        FieldSettings.__post_init__(self)
        check_simulation(self, self)

    @property
    def printed(self) -> FieldSettings:
        """The settings as printed."""
        return FieldSettings(**fields_of(FieldSettings, self))

    @property
    def simulated(self) -> FieldSettings:
        """The settings that are simulated."""
        if self.reading == "variance":
            return variance_reading(self.printed)
        return small_step_reading(self.printed) if self.reading == "small_step" else self.printed

    def load(self) -> Loaded:
        """Resolve the settings."""
        return Loaded(
            settings={"verb": self.verb, **asdict(self)},
            context=collect_context(dtype="float64", sources=source_digests(simulate_rates)),
        )

    def total(self, loaded: Loaded) -> int:
        """Return the number of perturbations."""
        return self.draws

    def cost(self, loaded: Loaded) -> Cost:
        """Return the cost: no network is evaluated."""
        return Cost(self.draws, 0, 0, 1e-8 * self.draws * self.dimension * self.steps, 0)

    def measure(self, session: Session[Loaded]) -> None:
        """Follow all perturbations together, and record one after the other."""
        done = session.store.done(FIELD.table, "draw")
        session.progress(len(done))
        if len(done) == self.draws:
            return
        own = SimulationSettings(**fields_of(SimulationSettings, self))
        for draw, rates in enumerate(simulate_rates(self.simulated, own).rates.tolist()):
            if (draw,) not in done:
                rows = [{"draw": draw, "step": k, "rate": rate} for k, rate in enumerate(rates)]
                session.store.append(FIELD.table, rows)
                session.progress(draw + 1)

    @classmethod
    def report(cls, store: RecordStore) -> FieldReport:
        """Compute the report of a run from its records alone."""
        study = cls(**{name: value for name, value in store.settings.items() if name != "verb"})
        rows = store.rows(FIELD.table)
        if not rows:
            raise BadInput(str(store.folder), "has no rows yet", "run it first")
        rates = np.reshape([row["rate"] for row in rows], (-1, study.steps))
        table = field_table(study.printed)
        diverges = (
            "as printed the field diverges across the data, and equation 13 gives a negative rate; "
            f"simulated is the reading {study.reading!r}"
        )
        return FieldReport(
            run=store.folder,
            settings=store.settings,
            result=FieldRates.of(study.simulated, rates),
            printed=table,
            notes=(diverges,) if len(table.readings) > 1 else (),
        )
