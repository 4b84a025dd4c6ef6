"""The report of a run over steps: what to say of its records, in JSON and in sentences."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from advpure.analysis.report import RunReport
from advpure.analysis.steps.result import (
    STEP_CHAIN,
    STEP_PROBES,
    STEP_RATES,
    StepsResult,
    StepSummary,
)
from advpure.analysis.steps.singular_result import SINGULAR, SPECTRA, SingularResult, mean_json
from advpure.runs.records import RecordStore


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
class StepsReport(RunReport):
    """The result of a run, computed from its records.

    Attributes:
        result: Rates, predictions and summaries.
        singular: Leading singular values, where they were asked for.
    """

    result: StepsResult
    singular: SingularResult | None

    @property
    def n(self) -> int:
        """Images that were measured; all of them for a chain without steps."""
        return len(self.result.samples) if self.result.chain else int(self.settings["n"])

    def to_json(self) -> dict[str, Any]:
        """Return one JSON object: `whole` chain, `rows` by step, `agreement`, `singular`."""
        whole, summaries = self.result.whole(), self.result.steps()
        chain = None
        if whole is not None:
            chain = {
                name: value if isinstance(value, float) else value and mean_json(value)
                for name, value in whole._asdict().items()
            }
        return {
            "n": self.n,
            "whole": chain,
            "agreement": {
                name: found and found._asdict() for name, found in agreements(summaries).items()
            },
            "rows": [_row(each) for each in summaries],
            "singular": self.singular and self.singular.to_json(),
            **self.origin(),
        }


def report_steps(store: RecordStore, seconds: float = 0.0) -> StepsReport:
    """Compute the report of a run from its records alone."""
    settings = store.settings
    result = StepsResult.from_records(
        store.rows(STEP_CHAIN.table), store.rows(STEP_RATES.table), store.rows(STEP_PROBES.table),
        settings,
    )  # fmt: skip
    singular = None
    if settings["singular"] and (spectra := store.rows(SPECTRA.table)):
        components = settings["components"] if settings["reference"] else None
        singular = SingularResult(
            store.rows(SINGULAR.table), spectra, settings["dimensions"], components
        )
    notes = tuple(_notes(result, singular))
    return StepsReport(
        run=store.folder, settings=settings, result=result, singular=singular, seconds=seconds,
        notes=notes,
    )  # fmt: skip


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
    found = np.array([getattr(each, name) for each in summaries])
    noise = []
    for each in summaries:
        own, limit = getattr(each, error), each.limit_error
        if own is not None and limit is not None:
            noise.append((own**2 + limit**2) / each.rates["limit"].value ** 2)
    far = int(np.abs(found).argmax())
    return Agreement(
        len(found), float(found.mean()), float(found[far]), summaries[far].info.step,
        float(np.sqrt(np.mean(noise))) if noise else None,
    )  # fmt: skip


def _row(summary: StepSummary) -> dict[str, Any]:
    """Flatten a step: its own values, then one column for every quantity and its interval."""
    row: dict[str, Any] = {**summary.info._asdict(), "n": summary.cumulative.n}
    means = {
        **summary.rates, "exact": summary.exact, "first_order": summary.first_order,
        "mean_eigenvalue": summary.mean_eigenvalue, "cumulative": summary.cumulative,
    }  # fmt: skip
    for name, mean in means.items():
        row[name] = None if mean is None else mean.value
        interval = None if mean is None else mean.interval
        row[f"{name}_low"], row[f"{name}_high"] = interval or (None, None)
    for name in ("exact", "first_order", "limit"):
        row[f"{name}_error"] = getattr(summary, f"{name}_error")
    for name in ("exact_deviation", "first_order_deviation"):
        row[name] = getattr(summary, name)
    return row


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
