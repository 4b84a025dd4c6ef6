"""``advpure survival``: how much perturbation does each image survive?"""

from typing import TYPE_CHECKING, Annotated

import typer

from advpure.cli import groups as g
from advpure.cli import options as o
from advpure.cli.flatten import defaults, flattened, helps, without

if TYPE_CHECKING:
    from advpure.analysis.survival.report import SurvivalReport


@flattened
def survival(
    *,
    subject: Annotated[g.JudgedSubject, defaults(defense="none")],
    at: Annotated[
        str,
        typer.Option(
            "--at", help="clean: the defense at clean images; anchor: the classifier at f(x)."
        ),
    ] = "clean",
    attacked: Annotated[
        g.Attacked,
        without("eps", "step_size"),
        defaults(attack="apgd"),
        helps(attack="apgd, pgd, bpda or another attack.", steps="Gradient steps. Default: 40."),
    ],
    top: Annotated[
        str | None,
        typer.Option(
            help="End of the search in [0, 1] units, e.g. 16/255. Default: twice the data set's "
            "radius."
        ),
    ] = None,
    bisections: o.Bisections = 10,
    search: Annotated[
        str,
        typer.Option(help="tight: go on from what was found. plain: attack every radius afresh."),
    ] = "tight",
    box: Annotated[
        str,
        typer.Option(help="unit: stay in [0, 1]. free: the classifier alone may be asked beyond."),
    ] = "unit",
    eps: Annotated[
        str | None, typer.Option(help="Where to read survival, a list such as 2/255,4/255.")
    ] = None,
    cross_check: Annotated[
        str | None,
        typer.Option(help="Attacks of foolbox to compare with, a list of fmn and deepfool."),
    ] = None,
    running: Annotated[
        g.Running, helps(plot="Draw the survival function: a .png, .svg or .pdf file.")
    ],
) -> None:
    """Print the share of images that survive a perturbation, and its zero-inflated Gaussian fit.

    Searches each image's smallest perturbation that fools the classifier; records go into a run
    folder, and the same command goes on where an interrupted run stopped.

    Example: advpure survival --dataset digits -n 100 --cross-check fmn --plot survival.png
    """
    from advpure.analysis.survival.run import SurvivalRun
    from advpure.base.text import several
    from advpure.base.units import parse_eps
    from advpure.cli.recorded import conclude, measure, prepare

    run = SurvivalRun(
        **subject.settings(), **attacked.settings(), at=at, top=top,  # type: ignore[arg-type]
        bisections=bisections, search=search, box=box,  # type: ignore[arg-type]
    )  # fmt: skip
    ready = prepare("survival", run, running)
    size = ready.prepared.search.settings.norm
    wanted = None
    if eps is not None:
        wanted = [*several(eps, lambda one: parse_eps(one, size), "epsilons", "write 2/255,4/255")]
    engines = several(cross_check, str.strip, "engines", "write fmn") if cross_check else ()
    report = measure(ready, "searching", of_defense=True, engines=engines)
    found = report.to_json()
    if wanted is not None:
        found["survival"] = [report.result.json_at(each) for each in wanted]
    radii = list(report.radii) if wanted is None else wanted
    conclude(ready, report, lambda: _print(report, radii), found)


def _print(report: "SurvivalReport", radii: list[float]) -> None:
    from advpure.analysis.survival.figure import named
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
