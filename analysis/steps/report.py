"""The report of a run over steps: what to say of its records, in values and in sentences."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from advpure.analysis.robustness.wording import strength_text
from advpure.analysis.steps.result import (
    STEP_CHAIN,
    STEP_PROBES,
    STEP_RATES,
    StepsResult,
    StepSummary,
)
from advpure.analysis.steps.singular_result import SINGULAR, SPECTRA, SingularResult
from advpure.analysis.study import Report
from advpure.base.display import Display, Table, ends, number, written
from advpure.runs.records import RecordStore
from advpure.statistics.estimates import Estimate

_SHOWN = 12  # steps in the table
_WHOLE = {
    "measured": "measured, whole chain",
    "linear": "its limit for small perturbations",
    "forward": "factor of the forward phase, exact",
    "isotropic": "product of measured isotropic rates",
    "exact": "product predicted, Frobenius norm",
    "first_order": "product predicted, first order (eq. 16)",
}
_STEP_HEADS = (
    "step",
    "t",
    "transported",
    "isotropic",
    "predicted",
    "eq. 16",
    "along",
    "across",
    "kappa",
    "product so far",
    "images",
)
_SINGULAR_HEADS = (
    "singular value",
    "mean",
    "95 %",
    "images",
    "largest bound",
    "converged",
    "share along data",
)


class Agreement(NamedTuple):
    """How far a prediction is from the rates that were measured, over steps.

    Attributes:
        steps: Steps with both.
        mean: Mean of predicted / measured - 1.
        largest: The one farthest from 0.
        at: The place of that step.
        expected: Root mean square of the deviation that probes and directions alone would cause;
            None where there is one of them.
    """

    steps: int
    mean: float
    largest: float
    at: int
    expected: float | None


@dataclass(frozen=True, kw_only=True)
class StepsReport(Report):
    """The result of a run, computed from its records.

    Attributes:
        result: Rates, predictions and summaries.
        singular: Leading singular values, where they were asked for.
    """

    result: StepsResult
    singular: SingularResult | None

    @classmethod
    def of(cls, store: RecordStore) -> "StepsReport":
        """Compute the report of a run from its records alone."""
        settings = store.settings
        result = StepsResult.from_records(
            store.rows(STEP_CHAIN.table),
            store.rows(STEP_RATES.table),
            store.rows(STEP_PROBES.table),
            settings,
        )
        singular = None
        if settings["singular"] and (spectra := store.rows(SPECTRA.table)):
            components = settings["components"] if settings["reference"] else None
            singular = SingularResult(
                store.rows(SINGULAR.table), spectra, settings["dimensions"], components
            )
        return cls(
            run=store.folder,
            settings=settings,
            result=result,
            singular=singular,
            notes=tuple(_notes(result, singular)),
        )

    @property
    def n(self) -> int:
        """Images that were measured; all of them for a chain without steps."""
        return len(self.result.samples) if self.result.chain else int(self.settings["n"])

    def tree(self) -> dict[str, Any]:
        """Return the result: `whole` chain, `rows` by step, `agreement`, `singular`."""
        summaries = self.result.steps()
        deviations = agreements(summaries)
        return {
            "n": self.n,
            "whole": self._whole(),
            "agreement": {name: one and one._asdict() for name, one in deviations.items()},
            "rows": [self._row(each) for each in summaries],
            "singular": self.singular and self.singular.tree(),
        }

    def _whole(self) -> dict[str, Any] | None:
        whole, result = self.result.whole(), self.result
        if whole is None:
            return None
        means = {
            name: Estimate.of(getattr(whole, name), partial(result.named, values))
            for name, values in result.products.items()
        }
        return {**means, "forward": whole.forward}

    def _row(self, summary: StepSummary) -> dict[str, Any]:
        """Return a step: its own values, then every quantity, absent where it has none."""
        result, k = self.result, summary.info.step
        means = {
            **summary.rates,
            "exact": summary.exact,
            "first_order": summary.first_order,
            "mean_eigenvalue": summary.mean_eigenvalue,
            "cumulative": summary.cumulative,
        }
        row: dict[str, Any] = {**summary.info._asdict(), "n": summary.cumulative.n}
        for name, mean in means.items():
            values = partial(result.named, result.by_image[name][:, k])
            row[name] = Estimate.of(mean, values, style="beside")
        for name in ("exact", "first_order", "limit"):
            row[f"{name}_error"] = getattr(summary, f"{name}_error")
        for name in ("exact_deviation", "first_order_deviation"):
            row[name] = getattr(summary, name)
        return row

    def display(self) -> Display:
        """Return the whole chain, some of its steps, and singular values."""
        s, tree = self.settings, self.tree()
        start = (
            f"{s['dataset']}, {s['distribution']} noise {s['eps']:.4g}, defense "
            f"{strength_text(s)}, seed {s['seed']}"
        )
        if tree["whole"] is None:
            return Display(f"{start}: no steps")
        headline = (
            f"{start}, {len(tree['rows'])} steps: compression rate "
            f"{_sentence(tree['whole']['measured'])}"
        )
        parts: list[Table | str] = [
            Table(
                ("whole chain", "rate", "95 %", "images"),
                [[label, *_cells(tree["whole"][name])] for name, label in _WHOLE.items()],
            ),
            _steps_table(tree["rows"]),
        ]
        for name, label in (
            ("exact", "with the Frobenius norm"),
            ("first_order", "to first order"),
        ):
            if (a := tree["agreement"][name]) is not None:
                alone = a["expected"]
                parts.append(
                    f"predicted {label} against measured, {a['steps']} steps: mean "
                    f"{100 * a['mean']:+.2f} %, largest {100 * a['largest']:+.2f} % at step "
                    f"{a['at']}"
                    + ("" if alone is None else f"; probing alone: {100 * alone:.2f} %")
                )
        if tree["singular"] is not None:
            parts += _singular_parts(tree["singular"])
        return Display(headline, parts)


def _steps_table(rows: list[dict[str, Any]]) -> Table:
    networks = [row for row in rows if row["form"] != "scalar"]
    count = len(networks)
    indices = {round(k * (count - 1) / (_SHOWN - 1)) for k in range(_SHOWN)} if count else set()
    shown = [row for k, row in enumerate(networks) if k in indices]
    names = ("transported", "limit", "exact", "first_order", "along", "across", "kappa")
    table = [
        [
            f"{row['step']} {row['name']}",
            str(row["time"]),
            *(_plain(row.get(name)) for name in names),
            _plain(row["cumulative"]),
            str(row["n"]),
        ]
        for row in shown
    ]
    title = None if count <= _SHOWN else f"{len(shown)} of {count} steps with a network"
    return Table(_STEP_HEADS, table, title)


def _singular_parts(tree: dict[str, Any]) -> list[Table | str]:
    times = tree["worst_over_rms"]
    headline = (
        f"worst direction: {_sentence(tree['sigma_max'])}, mean direction (root mean square) "
        f"{_sentence(tree['rms_rate'])}" + ("" if times is None else f", {times.value:.2f} times")
    )
    rows = [
        [
            f"{row['rank']}",
            *_cells(row["sigma"]),
            f"{row['bound']:.1e}",
            f"{row['converged']} of {tree['n']}",
            number(row["along"] and row["along"].value, ".3f"),
        ]
        for row in tree["rows"]
    ]
    parts: list[Table | str] = [headline, Table(_SINGULAR_HEADS, rows)]
    if tree["along_by_chance"] is not None:
        parts.append(f"share along the data by chance: {tree['along_by_chance']:.3f}")
    return parts


def _sentence(estimate: Estimate) -> str:
    return f"{written(estimate, '.4f')} over {estimate.n} images"


def _cells(estimate: Estimate | float | None) -> tuple[str, str, str]:
    if estimate is None:
        return "absent", "", ""
    if isinstance(estimate, float):
        return f"{estimate:.4g}", "", ""
    return f"{estimate.value:.4g}", ends(estimate, ".4f"), str(estimate.n)


def _plain(value: Estimate | float | None) -> str:
    return number(value.value if isinstance(value, Estimate) else value, ".4f")


def agreements(summaries: Iterable[StepSummary]) -> dict[str, Agreement | None]:
    """Compare both predictions with the measured limit, over the steps that have them."""
    both = [
        each for each in summaries if each.exact_deviation is not None and "limit" in each.rates
    ]
    both = [each for each in both if each.info.form == "epsilon"]
    return {
        "exact": _agreement(both, "exact_deviation", "exact_error"),
        "first_order": _agreement(both, "first_order_deviation", "first_order_error"),
    }


def _agreement(summaries: list[StepSummary], name: str, error: str) -> Agreement | None:
    if not summaries:
        return None
    deviations = np.array([getattr(each, name) for each in summaries])
    noise = []
    for each in summaries:
        own, limit = getattr(each, error), each.limit_error
        if own is not None and limit is not None:
            noise.append((own**2 + limit**2) / each.rates["limit"].value ** 2)
    far = int(np.abs(deviations).argmax())
    return Agreement(
        len(deviations),
        mean=float(deviations.mean()),
        largest=float(deviations[far]),
        at=summaries[far].info.step,
        expected=float(np.sqrt(np.mean(noise))) if noise else None,
    )


def _notes(result: StepsResult, singular: SingularResult | None) -> Iterable[str]:
    settings = result.settings
    others = sorted({info.name for info in result.chain if info.form == "other"})
    if not result.chain:
        yield "this purifier has no steps; it leaves every perturbation as it is"
    if others:
        yield (
            f"steps {', '.join(others)} are not kappa (x - gamma epsilon(x)) + noise (they clip, "
            "evaluate the network more than once, or learn the variance): they are measured, and "
            "the chain has no predicted product"
        )
    if settings.get("purifier") in ("cm", "cm-ft"):
        yield (
            "epsilon of a consistency model is (x - f(x)) / sigma, the same form but no estimate "
            "of a score"
        )
    if settings.get("every", 1) > 1:
        yield f"derivatives at one of every {settings['every']} steps, so products are absent"
    if not settings.get("reference"):
        yield "no reference images, so no directions along and across the data"
    done = len(result.samples)
    asked = settings.get("n", done)
    if result.chain and done < asked:
        yield f"{done} of {asked} images are done; the same command goes on"
    if any(row.rate is None for row in result.rates):
        yield "some perturbations vanished on the way; later steps have no rate for them"
    if singular is not None:
        missed = sum(not row["converged"] for row in singular.values)
        if missed:
            yield (
                f"{missed} of {len(singular.values)} singular values did not meet the tolerance; "
                "their bounds say how far they may be off; a larger basis helps"
            )
