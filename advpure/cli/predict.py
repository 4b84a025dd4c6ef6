"""``advpure predict``: what do compression and survival say about robustness, and what is true?"""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from advpure.cli import options as o

if TYPE_CHECKING:
    from advpure.analysis.prediction import Estimated
    from advpure.analysis.prediction_report import PredictionReport

_KINDS = {
    "clean": "clean", "clean_images": "clean, per image", "anchor": "anchor",
    "anchor_images": "anchor, per image",
}  # fmt: skip
_SHOWN = ("clean", "anchor", "anchor_images")


def predict(
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
    dataset: o.Dataset = o.DEFAULT_DATASET,
    n: o.Count = None,
    subset: o.Subset = "test",
    option: o.Options = None,
    eps: o.Eps = None,
    norm: Annotated[str | None, typer.Option(help="linf or l2. Default: the data set's.")] = None,
    attack: Annotated[
        str, typer.Option("--attack", "-a", help="The attack that is measured: pgd, apgd, bpda ...")
    ] = "pgd",
    steps: Annotated[
        int | None, typer.Option(help="Gradient steps. Default: the attack's.")
    ] = None,
    step_size: Annotated[
        str | None, typer.Option(help="Step in [0, 1] units. Default: eps / 30.")
    ] = None,
    attack_option: Annotated[
        list[str] | None,
        typer.Option("--attack-option", help="Other setting of the attack, KEY=VALUE; repeats."),
    ] = None,
    radius_attack: Annotated[
        str | None,
        typer.Option(help="The attack that finds smallest perturbations. Default: the same."),
    ] = None,
    search: Annotated[
        str,
        typer.Option(help="plain: attack every radius afresh. tight: go on from what was found."),
    ] = "plain",
    bisections: Annotated[int, typer.Option(help="Halvings of the bracket, 0 to 30.")] = 10,
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
    seed: o.Seed = 0,
    scheme: o.Scheme = "hash",
    gradient: Annotated[
        str | None, typer.Option(help="full, checkpoint, bpda or surrogate. Default: exact.")
    ] = None,
    weights: o.Weights = None,
    classifier: o.Classifier = None,
    tile: o.Tile = None,
    batch_size: o.BatchSize = None,
    device: o.Device = "cpu",
    out: o.Out = None,
    plot: Annotated[
        str | None, typer.Option(help="Draw predictions and measurements: a .png, .svg or .pdf.")
    ] = None,
    dry_run: o.DryRun = False,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Predict robust accuracy from compression and survival, beside what an attack leaves.

    With run folders alone nothing is computed. With --defense, what is missing is measured; the
    runs that it stands on are kept beside it, and used again.

    Example: advpure predict -d ddpm,reverse,ddim --t 10,50,150 --dataset digits -n 50 --eps 0.15
    """
    from advpure.analysis.prediction_files import predict_from
    from advpure.attacks.settings import choose
    from advpure.cli import output
    from advpure.errors import BadInput
    from advpure.figures import check_ending
    from advpure.units import parse_eps

    if plot is not None:
        check_ending(plot)
    if runs and defense is None:
        if dry_run:
            raise BadInput("a dry run of records", "computes nothing anyway", "leave out --dry-run")
        idle = o.given(
            t=t, sigma=sigma, n=n, option=option, steps=steps, step_size=step_size,
            attack_option=attack_option, radius_attack=radius_attack, top=top, cr_eps=cr_eps,
            gradient=gradient, weights=weights, classifier=classifier, out=out,
        )  # fmt: skip
        for name, value in idle.items():
            raise BadInput(
                f"--{name.replace('_', '-')} {value}", "says nothing about runs that are there",
                "name purifiers with --defense, or leave it out",
            )  # fmt: skip
        size: Any = norm or "linf"
        choose(size, ("linf", "l2"), "norm")
        report = predict_from(runs, eps=None if eps is None else parse_eps(eps, size))
    else:
        given = {
            "defense": defense or "ddpm,reverse,ddim", "dataset": dataset, "subset": subset,
            "n": o.count(n, dataset), "t": None if t is None else o.parse_integers(t, "t"),
            "sigma": _levels(sigma), "options": o.parse_options(option), "weights": weights,
            "classifier": classifier, "gradient": gradient, "scheme": scheme, "seed": seed,
            "tile": tile, "device": device, "eps": eps, "norm": norm, "attack": attack,
            "attack_options": o.joined(
                o.parse_options(attack_option), o.given(steps=steps, step_size=step_size)
            ),
            "radius_attack": radius_attack, "search": search, "bisections": bisections,
            "top": top, "box": box, "cr_eps": cr_eps, "perturbations": perturbations,
        }  # fmt: skip
        measured = _measure(
            given, runs or [], out, batch_size, dry_run, as_json, not (quiet or as_json)
        )
        if measured is None:
            return
        report = measured
    if plot is not None:
        _draw(report, plot)
    if as_json:
        output.print_json(report.to_json() | o.given(plot=plot))
        return
    _print(report)
    for text in report.notes:
        output.note(text)
    where = (
        f"records: {report.run}" if defense or not runs else "from records, nothing was computed"
    )
    print(where + (f", picture: {plot}" if plot else ""))


def _measure(
    given: dict[str, Any],
    runs: list[str],
    out: str | None,
    batch_size: int | None,
    dry_run: bool,
    as_json: bool,
    shown: bool,
) -> "PredictionReport | None":
    from advpure.analysis.prediction_plan import prepare_prediction
    from advpure.analysis.prediction_run import estimate_prediction, measure_prediction
    from advpure.analysis.prediction_settings import PredictionRun
    from advpure.cli import output

    run = PredictionRun(**given)
    prepared = prepare_prediction(run)
    if dry_run:
        output.print_estimate(estimate_prediction(prepared), as_json, of_defense=True)
        return None
    with output.progress("measuring", prepared.total, shown) as bar:
        return measure_prediction(run, out=out, batch_size=batch_size, reuse=runs, progress=bar)


def _levels(sigma: str | None) -> list[float] | None:
    from advpure.units import parse_number

    return None if sigma is None else [parse_number(each, "sigma") for each in sigma.split(",")]


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
    from advpure.analysis.prediction_figure import draw_prediction, prediction_figure
    from advpure.analysis.survival_report import report_survival
    from advpure.records import FILE_NAME, RecordStore

    if (report.run / FILE_NAME).is_file():
        with RecordStore.read(report.run) as store:
            prediction_figure(store, path)
        return
    with RecordStore.read(report.settings["clean"]) as store:
        draw_prediction(report, path, report_survival(store).result)
