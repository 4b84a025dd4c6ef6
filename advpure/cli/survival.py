"""``advpure survival``: how much perturbation does each image survive?"""

from typing import TYPE_CHECKING, Annotated

import typer

from advpure.cli import options as o

if TYPE_CHECKING:
    from advpure.analysis.survival_report import SurvivalReport


def survival(
    defense: o.Defense = "none",
    at: Annotated[
        str,
        typer.Option(
            "--at", help="clean: the defense at clean images; anchor: the classifier at f(x)."
        ),
    ] = "clean",
    dataset: o.Dataset = o.DEFAULT_DATASET,
    n: o.Count = None,
    subset: o.Subset = "test",
    t: o.Strength = None,
    sigma: o.Sigma = None,
    option: o.Options = None,
    norm: Annotated[str | None, typer.Option(help="linf or l2. Default: the data set's.")] = None,
    top: Annotated[
        str | None,
        typer.Option(
            help="End of the search in [0, 1] units, e.g. 16/255. Default: twice the data set's "
            "radius."
        ),
    ] = None,
    attack: Annotated[
        str, typer.Option("--attack", "-a", help="apgd, pgd, bpda or another attack.")
    ] = "apgd",
    steps: Annotated[int | None, typer.Option(help="Gradient steps. Default: 40.")] = None,
    loss: Annotated[str | None, typer.Option(help="ce, margin or dlr. Default: ce.")] = None,
    attack_option: Annotated[
        list[str] | None,
        typer.Option("--attack-option", help="Other setting of the attack, KEY=VALUE; repeats."),
    ] = None,
    bisections: Annotated[int, typer.Option(help="Halvings of the bracket, 0 to 30.")] = 10,
    search: Annotated[
        str,
        typer.Option(help="tight: go on from what was found. plain: attack every radius afresh."),
    ] = "tight",
    box: Annotated[
        str, typer.Option(help="unit: stay in [0, 1]. free: anchor points may leave it.")
    ] = "unit",
    eps: Annotated[
        str | None, typer.Option(help="Where to read survival, a list such as 2/255,4/255.")
    ] = None,
    cross_check: Annotated[
        str | None,
        typer.Option(help="Attacks of foolbox to compare with, a list of fmn and deepfool."),
    ] = None,
    seed: o.Seed = 0,
    scheme: o.Scheme = "hash",
    gradient: Annotated[
        str | None, typer.Option(help="full, checkpoint, bpda or surrogate. Default: exact.")
    ] = None,
    policy: Annotated[
        str | None, typer.Option(help="single, eot:K or majority:K purifications per answer.")
    ] = None,
    weights: o.Weights = None,
    classifier: o.Classifier = None,
    tile: o.Tile = None,
    batch_size: o.BatchSize = None,
    device: o.Device = "cpu",
    out: o.Out = None,
    plot: Annotated[
        str | None, typer.Option(help="Draw the survival function: a .png, .svg or .pdf file.")
    ] = None,
    dry_run: o.DryRun = False,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Print the share of images that survive a perturbation, and its zero-inflated Gaussian fit.

    Searches each image's smallest perturbation that fools the classifier; records go into a run
    folder, and the same command goes on where an interrupted run stopped.

    Example: advpure survival --dataset digits -n 100 --cross-check fmn --plot survival.png
    """
    from advpure.analysis.survival_figure import draw_survival
    from advpure.analysis.survival_run import (
        SurvivalRun,
        estimate_survival,
        measure_survival,
        prepare_survival,
    )
    from advpure.cli import output
    from advpure.figures import check_ending
    from advpure.units import parse_eps

    if plot is not None:
        check_ending(plot)
    run = SurvivalRun(
        defense=defense, at=at, dataset=dataset, subset=subset, n=o.count(n, dataset),  # type: ignore[arg-type]
        t=t, sigma=sigma, options=o.parse_options(option), norm=norm, top=top, attack=attack,
        attack_options=o.joined(o.parse_options(attack_option), o.given(steps=steps, loss=loss)),
        bisections=bisections, search=search, box=box, seed=seed,  # type: ignore[arg-type]
        scheme=scheme, gradient=gradient, policy=policy,  # type: ignore[arg-type]
        weights=weights, classifier=classifier, tile=tile, device=device,
    )  # fmt: skip
    prepared = prepare_survival(run)
    size = prepared.search.settings.norm
    wanted = None if eps is None else [parse_eps(each, size) for each in eps.split(",")]
    engines = [] if cross_check is None else [each.strip() for each in cross_check.split(",")]
    if dry_run:
        output.print_estimate(estimate_survival(prepared), as_json, of_defense=True)
        return
    shown = not (quiet or as_json)
    with output.progress("searching", len(prepared.images.ids), shown) as bar:
        report = measure_survival(
            run, out=out, batch_size=batch_size, engines=engines, progress=bar
        )
    if plot is not None:
        draw_survival([report], plot)
    found = report.to_json()
    if wanted is not None:
        found["survival"] = [report.result.json_at(each) for each in wanted]
    radii = list(report.radii) if wanted is None else wanted
    output.print_report(report, lambda: _print(report, radii), as_json, found, plot=plot)


def _print(report: "SurvivalReport", radii: list[float]) -> None:
    from advpure.analysis.survival_figure import named
    from advpure.cli import output

    s, result = report.settings, report.result
    attack, median = s["attack"], result.median
    ends = "" if median.low is None else f" [{_size(median.low)}, {_size(median.high)}]"
    print(
        f"{s['dataset']}, {named(s)}, {s['threat_model']['norm']}, attack {attack['name']}, "
        f"{s['search']['search']} search up to {report.top:.4g}: median smallest perturbation "
        f"{_size(median.value)}{ends} over {result.n} images, accuracy "
        f"{output.with_interval(result.accuracy)} %"
    )
    rows = []
    for eps in radii:
        known = result.curve.ends or eps <= result.curve.last
        here = result.at(eps) if known else None
        fitted = None if result.fit is None else result.fit.at(eps)
        rows.append(
            [
                f"{eps:.5f} ({255 * eps:.3g}/255)",
                "unknown" if here is None else output.with_interval(here),
                "" if fitted is None else output.with_interval(fitted),
            ]
        )  # fmt: skip
    output.print_table(["epsilon", "survival, %", "fitted, %"], rows)
    fit = result.fit
    if fit is None:
        print("no fit: too few images are fooled within the bracket")
    else:
        low, high = fit.mean_interval
        print(
            f"zero-inflated Gaussian: a = {fit.plateau:.3f}, mean {fit.mean:.4g} "
            f"[{low:.4g}, {high:.4g}], std {fit.std:.3g} [{fit.std_interval.low:.3g}, "
            f"{fit.std_interval.high:.3g}], largest gap to the steps {result.gap:.3f}"
        )
    for check in report.checks:
        gap = check.difference_interval
        print(
            f"{check.engine}: mean {check.theirs:.4g}, ours {check.ours:.4g}, difference "
            f"{check.difference:+.4g}"
            + ("" if gap is None else f" [{gap.low:+.4g}, {gap.high:+.4g}]")
            + f" over {check.n} images; ours is larger on {check.larger}"
            if check.n
            else f"{check.engine}: no image was fooled by both"
        )


def _size(value: float | None) -> str:
    return "beyond the search" if value is None or value == float("inf") else f"{value:.4g}"
