"""``advpure predict``: what do compression and survival say about robustness, and what is true?"""

from dataclasses import fields
from typing import TYPE_CHECKING, Annotated, Any

import typer

from advpure.cli import groups as g
from advpure.cli import options as o
from advpure.cli.flatten import Group, flattened, helps, without

if TYPE_CHECKING:
    from advpure.analysis.prediction.predict import Estimated
    from advpure.analysis.prediction.report import PredictionReport

_KINDS = {
    "clean": "clean", "clean_images": "clean, per image", "anchor": "anchor",
    "anchor_images": "anchor, per image",
}  # fmt: skip
_SHOWN = ("clean", "anchor", "anchor_images")


@flattened
def predict(
    *,
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            help="Folders of cr, survival and attack runs: to predict from, or to use beside "
            "--defense."
        ),
    ] = None,
    defense: Annotated[
        str | None,
        typer.Option("--defense", "-d", help="Purifiers, a list. Default: ddpm,reverse,ddim."),
    ] = None,
    t: Annotated[
        str | None,
        typer.Option("--t", help="Strengths in time steps, a list such as 10,20,50,100,150."),
    ] = None,
    sigma: Annotated[
        str | None, typer.Option(help="Strengths as noise levels in [0, 1] units, a list.")
    ] = None,
    subject: Annotated[g.JudgedSubject, without("defense", "t", "sigma", "policy")],
    attacked: Annotated[
        g.Attacked,
        without("loss"),
        helps(
            attack="The attack that is measured: pgd, apgd, bpda ...",
            steps="Gradient steps. Default: the attack's.",
        ),
    ],
    radius_attack: Annotated[
        str | None,
        typer.Option(help="The attack that finds smallest perturbations. Default: the same."),
    ] = None,
    search: Annotated[
        str,
        typer.Option(help="plain: attack every radius afresh. tight: go on from what was found."),
    ] = "plain",
    bisections: o.Bisections = 10,
    top: Annotated[
        str | None, typer.Option(help="End of the search, [0, 1] units. Default: twice the radius.")
    ] = None,
    box: Annotated[
        str, typer.Option(help="unit: anchor points stay in [0, 1]. free: they may leave it.")
    ] = "unit",
    cr_eps: Annotated[
        str | None,
        typer.Option(help="Strength of the noise that measures compression. Default: eps."),
    ] = None,
    perturbations: Annotated[int, typer.Option(help="Perturbations per image, 1 or more.")] = 10,
    running: Annotated[
        g.Running, helps(plot="Draw predictions and measurements: a .png, .svg or .pdf.")
    ],
) -> None:
    """Predict robust accuracy from compression and survival, beside what an attack leaves.

    With run folders alone nothing is computed. With --defense, what is missing is measured; the
    runs that it stands on are kept beside it, and used again.

    Example: advpure predict -d ddpm,reverse,ddim --t 10,50,150 --dataset digits -n 50 --eps 0.15
    """
    from advpure.cli import output

    if runs and defense is None:
        idle = o.given(
            t=t, sigma=sigma, radius_attack=radius_attack, top=top, cr_eps=cr_eps,
            search=None if search == "plain" else search, box=None if box == "unit" else box,
            bisections=None if bisections == 10 else bisections,
            perturbations=None if perturbations == 10 else perturbations,
            **_changed(subject), **_changed(attacked, "eps", "norm"), **_changed(running, "plot"),
        )  # fmt: skip
        report = _predict_from(runs, attacked, running, idle)
        where = "from records, nothing was computed"
    else:
        given = {
            **subject.settings(), **attacked.settings(), "defense": defense or "ddpm,reverse,ddim",
            "t": None if t is None else o.parse_integers(t, "time step"), "sigma": _levels(sigma),
            "radius_attack": radius_attack, "search": search, "bisections": bisections,
            "top": top, "box": box, "cr_eps": cr_eps, "perturbations": perturbations,
        }  # fmt: skip
        report = _measure(given, runs or [], running)
        where = f"records: {report.run}"
    plot = running.plot
    if plot is not None:
        _draw(report, plot)
    if running.as_json:
        output.print_json(report.to_json() | o.given(plot=plot))
        return
    _print(report)
    for text in report.notes:
        output.note(text)
    print(where + (f", picture: {plot}" if plot else ""))


def _changed(group: Group, *meant: str) -> dict[str, object]:
    """Return the options of a group that differ from their defaults, without those meant."""
    from advpure.base.idle import changed

    others = ("as_json", "quiet", "dry_run", "absent", *meant)
    return changed(group, [each.name for each in fields(group) if each.name not in others])


def _predict_from(
    runs: list[str], attacked: g.Attacked, running: g.Running, idle: dict[str, object]
) -> "PredictionReport":
    from advpure.analysis.prediction.files import predict_from
    from advpure.base.errors import BadInput
    from advpure.base.units import parse_eps
    from advpure.base.validation import choose
    from advpure.plots.figures import check_ending

    if running.plot is not None:
        check_ending(running.plot)
    if running.dry_run:
        raise BadInput("a dry run of records", "computes nothing anyway", "leave out --dry-run")
    for name, value in idle.items():
        raise BadInput(
            f"--{name.replace('_', '-')} {value}", "says nothing about runs that are there",
            "name purifiers with --defense, or leave it out",
        )  # fmt: skip
    size: Any = attacked.norm or "linf"
    choose(size, ("linf", "l2"), "norm")
    return predict_from(runs, eps=None if attacked.eps is None else parse_eps(attacked.eps, size))


def _measure(given: dict[str, Any], runs: list[str], running: g.Running) -> "PredictionReport":
    from advpure.analysis.prediction.settings import PredictionRun
    from advpure.cli.recorded import measure, prepare

    ready = prepare("predict", PredictionRun(**given), running)
    report: PredictionReport = measure(ready, "measuring", of_defense=True, reuse=runs)
    return report


def _levels(sigma: str | None) -> list[float] | None:
    from advpure.base.text import several
    from advpure.base.units import parse_sigma

    if sigma is None:
        return None
    return list(several(sigma, parse_sigma, "noise levels", "write 0.25,0.5"))


def _print(report: "PredictionReport") -> None:
    from advpure.cli import output

    s, n = report.settings, report.n
    about = f"{s['dataset']}, {s['threat_model']['norm']} " if "dataset" in s else ""
    print(f"{about}{report.eps:.4g}, {n} images: robust accuracy predicted and measured, %")
    rows = []
    for outcome in report.outcomes:
        setting, found = outcome.setting, outcome.predicted
        strength = setting.sigma if setting.t is None else setting.t
        error = found[outcome.best].error
        rows.append(
            [
                setting.purifier, "" if strength is None else f"{strength:g}",
                f"{outcome.cr.value:.3f}",
                *(output.with_interval(found[kind].accuracy) if kind in found else ""
                  for kind in _SHOWN),
                "" if outcome.measured is None else output.with_interval(outcome.measured),
                "" if error is None else _points(error),
            ]
        )  # fmt: skip
    has_sigma = any(outcome.setting.sigma is not None for outcome in report.outcomes)
    columns = ["purifier", "sigma" if has_sigma else "t", "CR", *(_KINDS[kind] for kind in _SHOWN)]
    output.print_table([*columns, "measured", f"{report.outcomes[0].best} - measured"], rows)
    errors = [f"{_KINDS[kind]} {_points(each, '')}" for kind, each in report.errors.items()]
    if errors:
        print(f"mean |predicted - measured|, percentage points: {', '.join(errors)}")
    for left in report.left_out:
        print(
            f"{left.purifier} by the sigmoid through the others: off by "
            f"{_points(left.error, '')} points, on average {_points(left.bias)}"
        )
    if report.sigmoid is not None:
        _print_sigmoid(report)


def _print_sigmoid(report: "PredictionReport") -> None:
    from advpure.cli import output

    fit = report.sigmoid
    assert fit is not None
    told = [(name, fit.parameter(name)) for name in ("plateau", "middle", "width")]
    words = ", ".join(f"{k} {e.value:.3f} [{e.low:.3f}, {e.high:.3f}]" for k, e in told)
    print(
        f"sigmoid through {fit.points} settings: {words}; off by {100 * fit.rms:.1f} points (rms)"
    )
    print(
        f"at compression 0 it says {output.with_interval(fit.at(0.0))} %, the classifier alone has "
        f"{output.with_interval(report.classifier)} %"
    )


def _points(found: "Estimated", sign: str = "+") -> str:
    value, low, high = (f"{100 * each:{sign}.1f}" for each in found)
    return f"{value} [{low}, {high}]"


def _draw(report: "PredictionReport", path: str) -> None:
    from advpure.analysis.prediction.figure import draw_prediction, prediction_figure
    from advpure.analysis.survival.study import Survival
    from advpure.runs.records import FILE_NAME, RecordStore

    if (report.run / FILE_NAME).is_file():
        with RecordStore.read(report.run) as store:
            prediction_figure(store, path)
        return
    with RecordStore.read(report.settings["clean"]) as store:
        draw_prediction(report, path, Survival.report(store).result)
