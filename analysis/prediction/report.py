"""The report of a prediction: every purifier's row, and what holds across purifiers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from advpure.analysis.prediction.parts import PREDICTION_SCHEMA, to_setting
from advpure.analysis.prediction.predict import (
    KINDS,
    Estimated,
    Outcome,
    PredictionInput,
    common,
    mean_error,
    predict_robustness,
    stands,
)
from advpure.analysis.prediction.sigmoid import (
    LeftOut,
    Sigmoid,
    SigmoidFit,
    fit_sigmoid,
    leave_one_out,
)
from advpure.analysis.report import RunReport
from advpure.runs.records import RecordStore
from advpure.statistics.rates import Rate, wilson


@dataclass(frozen=True, kw_only=True)
class PredictionReport(RunReport):
    """Predictions beside measurements.

    Attributes:
        run: The run folder; of a report made of other runs' records, the folder that holds these.
        eps: Radius of the attack, [0, 1] units.
        outcomes: One for each purifier and strength.
        errors: Mean over settings of |predicted - measured| by kind of prediction, see
            `advpure.analysis.prediction.predict.KINDS`; only kinds that were measured.
        sigmoid: Robust accuracy against compression rate; None for too few points.
        left_out: Each purifier predicted by the sigmoid through the others.
    """

    eps: float
    outcomes: tuple[Outcome, ...]
    errors: Mapping[str, Estimated]
    sigmoid: SigmoidFit | None
    left_out: tuple[LeftOut, ...]

    @property
    def n(self) -> int:
        """Number of images, the same ones for every purifier."""
        return self.outcomes[0].setting.n

    @property
    def classifier(self) -> Rate:
        """Accuracy of the classifier alone, at clean images."""
        clean = self.outcomes[0].setting.clean
        return wilson(int((clean > 0.0).sum()), len(clean))

    @property
    def left_out_error(self) -> float | None:
        """Mean over settings of the error of the sigmoid that did not see their purifier."""
        gaps = [entry.error.value for entry in self.left_out for _ in entry.settings]
        return sum(gaps) / len(gaps) if gaps else None

    def to_json(self) -> dict[str, Any]:
        """Return one JSON object: `rows` with flat names, and what holds across them.

        A value `x` has its 95 % interval in `x_interval`. What was not measured, or cannot be
        fitted, is null.
        """
        fit, accuracy = self.sigmoid, self.classifier
        found: dict[str, Any] = {
            "eps": self.eps,
            "n": self.n,
            "rows": [_row(outcome) for outcome in self.outcomes],
            "classifier_accuracy": accuracy.value,
            "classifier_accuracy_interval": [accuracy.low, accuracy.high],
        }
        for kind in KINDS:
            found |= _pair(f"error_{kind}", self.errors.get(kind))
        for name in Sigmoid._fields:
            found |= _pair(f"sigmoid_{name}", None if fit is None else fit.parameter(name))
        return {
            **found,
            **_pair("sigmoid_at_zero", None if fit is None else fit.at(0.0)),
            "sigmoid_rms": None if fit is None else fit.rms,
            "error_left_out": self.left_out_error,
            "left_out": [
                {"purifier": entry.purifier, "settings": list(entry.settings),
                 "predicted": list(entry.predicted), "measured": list(entry.measured),
                 **_pair("error", entry.error), **_pair("bias", entry.bias)}
                for entry in self.left_out
            ],
            **self.origin(),
        }  # fmt: skip


def make_report(
    settings: Sequence[PredictionInput],
    eps: float,
    *,
    run: Path,
    described: Mapping[str, Any] | None = None,
    seconds: float = 0.0,
    notes: Sequence[str] = (),
) -> PredictionReport:
    """Predict every setting, on the images that all of them share, and fit across them.

    Args:
        settings: At least one setting.
        eps: Radius of the attack, [0, 1] units.
        run: The folder that holds the records.
        described: Settings of the run.
        seconds: Wall time.
        notes: Sentences to pass on.

    Raises:
        BadInput: where they share no image, or a prediction asks for more than was searched.
    """
    shared = common(settings)
    outcomes = tuple(predict_robustness(each, eps) for each in shared)
    told, most = list(notes), max(each.n for each in settings)
    if shared[0].n < most:
        told.append(f"{shared[0].n} of {most} images are in every run; the others are left out")
    fit = fit_sigmoid(shared)
    if fit is None and len(shared) > 1:
        told.append("no sigmoid: it takes four measured settings whose robust accuracies differ")
    if fit is not None and fit.astray:
        told.append(
            f"the sigmoid is not determined by these points: {fit.astray} of "
            f"{1 + len(fit.draws)} fits found no minimum near them"
        )
    errors = {kind: mean_error(shared, kind, eps) for kind in KINDS}
    return PredictionReport(
        run=run, settings=dict(described or {}), eps=eps, outcomes=outcomes, sigmoid=fit,
        errors={kind: error for kind, error in errors.items() if error is not None},
        left_out=tuple(leave_one_out(shared)), seconds=seconds, notes=tuple(told),
    )  # fmt: skip


def report_prediction(store: RecordStore, seconds: float = 0.0) -> PredictionReport:
    """Compute the report of a run from its records alone.

    Raises:
        BadInput: for a run without a finished point.
    """
    s, known = store.settings, read_inputs(store)
    missing = len(s["points"]) - len(known)
    notes = [f"{missing} of {len(s['points'])} settings are to do; the same command goes on"]
    return make_report(
        known, s["threat_model"]["eps"], run=store.folder, described=s, seconds=seconds,
        notes=notes if missing else (),
    )  # fmt: skip


def read_inputs(store: RecordStore) -> list[PredictionInput]:
    """Return what a run knows of every finished purifier and strength.

    Raises:
        BadInput: for a run without a finished point.
    """
    s, rows = store.settings, store.rows(PREDICTION_SCHEMA.table)
    done = sorted({row["point"] for row in rows}) or [0]
    return [
        to_setting([row for row in rows if row["point"] == k], {**s["points"][k], "top": s["top"]})
        for k in done
    ]


def image_values(known: PredictionInput, name: str, eps: float) -> dict[int, float] | None:
    """Return the value of every image whose mean is a value of a row, by sample id.

    Args:
        known: A purifier at one strength.
        name: Name of the value in `PredictionReport.to_json`'s rows.
        eps: Radius of the attack, [0, 1] units.

    Returns:
        Values by id; None for what was not measured, or is no mean over images.
    """
    what, _, kind = name.partition("_")
    found: Any = {"cr": known.cr, "pgd_fix": known.robust, "accuracy": known.accurate}.get(name)
    if what in ("predicted", "error") and kind in known.kinds:
        found = stands(known, kind, eps)
        if what == "error":
            found = None if known.robust is None else found.astype(int) - known.robust
    return (
        None if found is None else dict(zip(known.ids.tolist(), found.astype(float), strict=True))
    )


def _row(outcome: Outcome) -> dict[str, Any]:
    setting = outcome.setting
    row: dict[str, Any] = {
        "purifier": setting.purifier, "t": setting.t, "sigma": setting.sigma, "n": setting.n,
        **_pair("cr", outcome.cr), "cr_std": outcome.cr_std,
    }  # fmt: skip
    for kind in KINDS:
        found = outcome.predicted.get(kind)
        row |= _pair(f"predicted_{kind}", None if found is None else found.accuracy)
        row |= _pair(f"error_{kind}", None if found is None else found.error)
    return row | _pair("pgd_fix", outcome.measured) | _pair("accuracy", outcome.accuracy)


def _pair(name: str, found: Estimated | Rate | None) -> dict[str, Any]:
    value, interval = (None, None) if found is None else (found.value, [found.low, found.high])
    return {name: value, f"{name}_interval": interval}
