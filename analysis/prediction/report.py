"""The report of a prediction: every purifier's row, and what holds across purifiers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

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
from advpure.analysis.robustness.wording import attack_text, strength_text
from advpure.analysis.study import Report
from advpure.base.display import Display, Table, percent_interval, written
from advpure.base.imports import names_code
from advpure.purifiers import PURIFIERS
from advpure.statistics.estimates import Estimate
from advpure.statistics.rates import Interval, Rate, wilson

_NAMES = {
    "clean": "clean",
    "clean_images": "clean, per image",
    "anchor": "anchor",
    "anchor_images": "anchor, per image",
}
_SHOWN = ("clean", "anchor", "anchor_images")


@dataclass(frozen=True, kw_only=True)
class PredictionReport(Report):
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

    def tree(self) -> dict[str, Any]:
        """Return `rows` with flat names, and what holds across them.

        What was not measured, or cannot be fitted, is None.
        """
        fit, clean = self.sigmoid, self.outcomes[0].setting
        right = dict(zip(clean.ids.tolist(), (clean.clean > 0.0).tolist(), strict=True))
        sigmoid: dict[str, Estimated | None] = dict.fromkeys((*Sigmoid._fields, "at_zero"))
        if fit is not None:
            sigmoid = {name: fit.parameter(name) for name in Sigmoid._fields}
            sigmoid["at_zero"] = fit.at(0.0)
        return {
            "eps": self.eps,
            "n": self.n,
            "rows": [_row(outcome, self.eps) for outcome in self.outcomes],
            "classifier_accuracy": Estimate.of(self.classifier, right, style="beside"),
            **{f"error_{kind}": self._across(self.errors.get(kind)) for kind in KINDS},
            **{f"sigmoid_{name}": self._across(value) for name, value in sigmoid.items()},
            "sigmoid_rms": fit and fit.rms,
            "error_left_out": self.left_out_error,
            "left_out": [
                {
                    "purifier": entry.purifier,
                    "settings": list(entry.settings),
                    "predicted": list(entry.predicted),
                    "measured": list(entry.measured),
                    "error": self._across(entry.error),
                    "bias": self._across(entry.bias),
                }
                for entry in self.left_out
            ],
        }

    def _across(self, value: Estimated | None) -> Estimate | None:
        return value and _estimate(value, self.n)

    def display(self) -> Display:
        """Return predictions beside measurements, and what holds across purifiers."""
        s = self.settings
        attack = f", attack {attack_text(s)}" if s.get("attack") else ""
        if "randomness" in s:
            attack += f", fixed randomness (seed {s['randomness']['seed']})"
        about = f"{s['dataset']}, {s['threat_model']['norm']} " if "dataset" in s else ""
        what = "robust accuracy predicted and measured"
        headline = f"{about}{self.eps:.4g}, {self.n} images{attack}: {what}"
        best = self.outcomes[0].best
        shown = (_NAMES[kind] for kind in _SHOWN)
        heads = ("purifier", "CR", *shown, "measured", f"{best} - measured")
        rows = [_shown(outcome) for outcome in self.outcomes]
        parts: list[Table | str] = [Table(heads, rows)]
        errors = [f"{_NAMES[kind]} {_points(each, '')}" for kind, each in self.errors.items()]
        if errors:
            parts.append(f"mean |predicted - measured|, percentage points: {', '.join(errors)}")
        parts += [
            f"{left.purifier} by the sigmoid through the others: off by {_points(left.error, '')} "
            f"points, on average {_points(left.bias)}"
            for left in self.left_out
        ]
        fit = self.sigmoid
        if fit is not None:
            words = ", ".join(
                f"{name} {written(fit.parameter(name), '.3f')}"
                for name in ("plateau", "middle", "width")
            )
            if fit.astray:
                words = "plateau, middle and width are not determined by these points"
            parts += [
                f"sigmoid through {fit.points} settings: {words}; off by {100 * fit.rms:.1f} "
                "points (rms)",
                f"at compression 0 it says {percent_interval(fit.at(0.0))} %, the classifier alone "
                f"has {percent_interval(self.classifier)} %",
            ]
        return Display(f"{headline}, %", parts)


def _shown(outcome: Outcome) -> list[str]:
    predicted = outcome.predicted
    error = predicted[outcome.best].error
    return [
        strength_of(outcome),
        f"{outcome.cr.value:.3f}",
        *(percent_interval(predicted[k].accuracy) if k in predicted else "" for k in _SHOWN),
        percent_interval(outcome.measured),
        "" if error is None else _points(error),
    ]


def strength_of(outcome: Outcome) -> str:
    """Return the name of a purifier with its strength, that of a shipped one also by default.

    Code of a user's is named as it is, since a report runs none, and so is what a package that is
    not here once registered.
    """
    setting = outcome.setting
    described = {"purifier": setting.purifier, "t": setting.t, "sigma": setting.sigma}
    is_known = setting.purifier in PURIFIERS and not names_code(setting.purifier)
    kind = PURIFIERS.get(setting.purifier) if is_known else None
    names = {each.name for each in fields(kind)} if kind is not None else set()
    if names & {"t", "sigma"}:
        return strength_text(described | dict.fromkeys(names & {"schedule"}))
    return strength_text({k: v for k, v in described.items() if v is not None})


def _points(value: Estimated, sign: str = "+") -> str:
    return written(value, f"{sign}.1f", scale=100)


def make_report(
    settings: Sequence[PredictionInput],
    eps: float,
    *,
    run: Path,
    described: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
) -> PredictionReport:
    """Predict every setting, on the images that all of them share, and fit across them.

    Args:
        settings: At least one setting.
        eps: Radius of the attack, [0, 1] units.
        run: The folder that holds the records.
        described: Settings of the run.
        notes: Sentences to pass on.

    Raises:
        BadInput: where they share no image, or a prediction asks for more than was searched.
    """
    shared = common(settings)
    outcomes = tuple(predict_robustness(each, eps) for each in shared)
    every, most = list(notes), max(each.n for each in settings)
    if shared[0].n < most:
        every.append(f"{shared[0].n} of {most} images are in every run; the others are left out")
    fit = fit_sigmoid(shared)
    if fit is None and len(shared) > 1:
        every.append("no sigmoid: it takes four measured settings whose robust accuracies differ")
    if fit is not None and fit.astray:
        every.append(
            f"the sigmoid is not determined by these points: {fit.astray} of "
            f"{1 + len(fit.draws)} fits found no minimum near them"
        )
    errors = {kind: mean_error(shared, kind, eps) for kind in KINDS}
    return PredictionReport(
        run=run,
        settings=dict(described or {}),
        eps=eps,
        outcomes=outcomes,
        sigmoid=fit,
        errors={kind: error for kind, error in errors.items() if error is not None},
        left_out=tuple(leave_one_out(shared)),
        notes=tuple(every),
    )


def _row(outcome: Outcome, eps: float) -> dict[str, Any]:
    """Return a purifier's values at one strength, with the images behind them."""
    setting, n = outcome.setting, outcome.setting.n

    def by_image(values: Any) -> dict[int, float]:
        return dict(zip(setting.ids.tolist(), values.astype(float).tolist(), strict=True))

    row: dict[str, Any] = {
        "purifier": setting.purifier,
        "t": setting.t,
        "sigma": setting.sigma,
        "n": n,
        "cr": _estimate(outcome.cr, n, by_image(setting.cr), std=outcome.cr_std, is_mean=True),
    }
    for kind in KINDS:
        prediction = outcome.predicted.get(kind)
        row[f"predicted_{kind}"] = row[f"error_{kind}"] = None
        if prediction is not None:
            standing = stands(setting, kind, eps)
            row[f"predicted_{kind}"] = _estimate(prediction.accuracy, n, by_image(standing))
            if prediction.error is not None and setting.robust is not None:
                gaps = by_image(standing.astype(int) - setting.robust)
                row[f"error_{kind}"] = _estimate(prediction.error, n, gaps)
    for name, rate, right in (
        ("pgd_fix", outcome.measured, setting.robust),
        ("accuracy", outcome.accuracy, setting.accurate),
    ):
        row[name] = rate and Estimate.of(rate, by_image(right), style="beside")
    return row


def _estimate(
    value: Estimated, n: int, by_image: Mapping[int, float] | None = None, **more: Any
) -> Estimate:
    interval = Interval(value.low, value.high)
    return Estimate(
        value=value.value, n=n, interval=interval, by_image=by_image, style="beside", **more
    )
