"""``advpure randomness``: how much of a defense's robustness is its own randomness?"""

from typing import TYPE_CHECKING, Annotated

import typer

from advpure.cli import groups as g
from advpure.cli import options as o
from advpure.cli.flatten import flattened, helps, without

if TYPE_CHECKING:
    from advpure.analysis.fixed_randomness.report import RandomnessReport
    from advpure.analysis.fixed_randomness.result import Accuracy
    from advpure.statistics.rates import Mean


@flattened
def randomness(
    *,
    subject: Annotated[g.JudgedSubject, without("seed")],
    attacked: Annotated[
        g.Attacked,
        without("step_size", "loss"),
        helps(attack="pgd, apgd or bpda, without an average."),
    ],
    seeds: Annotated[
        str, typer.Option(help="Base seeds of the fixed configurations, two or more.")
    ] = "0,1,2",
    eot: Annotated[
        int, typer.Option(help="Draws per gradient of the averaged attack; 0 leaves it out.")
    ] = 15,
    draws: Annotated[
        int, typer.Option(help="Decisions per image under fresh randomness, 1 or more.")
    ] = 10,
    running: Annotated[
        g.Running, helps(plot="Draw accuracies and correlations: a .png, .svg or .pdf file.")
    ],
) -> None:
    """Print accuracy with fixed, fresh, averaged and transferred randomness, and how they differ.

    Example: advpure randomness --defense ddpm --t 100 -n 20 --plot randomness.png
    """
    from advpure.analysis.fixed_randomness.run import RandomnessStudy
    from advpure.cli.recorded import conclude, measure, prepare

    study = RandomnessStudy(
        **subject.settings(), **attacked.settings(), seeds=o.parse_integers(seeds, "seed"),
        eot=eot, draws=draws,
    )  # fmt: skip
    ready = prepare("randomness", study, running)
    report = measure(ready, "attacking", of_defense=True)
    conclude(ready, report, lambda: _print(report))


def _print(report: "RandomnessReport") -> None:
    from advpure.analysis.fixed_randomness.layout import EOT
    from advpure.cli import output

    s, result = report.settings, report.result
    model, attack = s["threat_model"], s["attack"]["name"]
    first = result.compared()[0]
    low, high = 100 * first.decision.low, 100 * first.decision.high
    points = 100 * first.decision.value
    told = f"fixed randomness lowers measured robustness by {points:.1f} points"
    if low <= 0:
        told = f"fixed randomness is not shown to lower measured robustness: {points:.1f} points"
    print(
        f"{s['dataset']}, {model['norm']} {model['eps']:.4g}, defense {s['defense']['purifier']}, "
        f"attack {attack}: {told} [{low:.1f}, {high:.1f}] (one decision, paired on "
        f"{first.decision.n} images, p = {first.decision.p_value:.2g})"
    )
    transfer = result.transfer()
    rows = [
        _row(f"fixed, {attack}", [result.fixed(each) for each in ("clean", "noise", "attacked")]),
        _row(f"fresh, {attack}", [result.fresh(e) for e in ("clean", "noise", "attacked")]),
    ]
    if EOT in result.parts:
        stages = [result.fresh(each, EOT) for each in ("clean", "noise", "attacked")]
        rows.append(_row(f"fresh, {attack}, {s['eot']} draws a gradient", stages))
    rows.append(_row(f"fixed, {attack} of another seed", [None, None, transfer]))
    output.print_table(
        ["randomness, attack", "clean %", "noise %", "attacked %", "std over seeds", "n"], rows
    )
    output.print_table(
        ["minus fixed randomness", "points, one decision", "p (McNemar)", "points, all draws", "n"],
        [
            [
                each.name,
                _points(each.decision.value, each.decision.low, each.decision.high),
                f"{each.decision.p_value:.2g}",
                _points(each.shares.value, *(each.shares.interval or (None, None))),
                str(each.shares.n),
            ]
            for each in result.compared()
        ],
    )
    output.print_table(
        ["perturbations", "Pearson", "std over images", "cosine", "n", "unchanged"],
        [
            [
                each.pair, _mean(each.pearson),
                "" if each.pearson is None or each.pearson.std is None
                else f"{each.pearson.std:.4f}",
                _mean(each.cosine), str(each.cosine.n if each.cosine else 0), str(each.absent),
            ]
            for each in result.correlated()
        ],
    )  # fmt: skip


def _row(name: str, found: "list[Accuracy | None]") -> list[str]:
    from advpure.cli import output

    last = found[-1]
    std = "" if last is None or last.std is None else f"{100 * last.std:.1f} ({last.repeats})"
    cells = ["" if each is None else output.with_interval(each.rate) for each in found]
    return [name, *cells, std, "" if last is None else str(last.rate.n)]


def _points(value: float, low: float | None, high: float | None) -> str:
    ends = "" if low is None or high is None else f" [{100 * low:.1f}, {100 * high:.1f}]"
    return f"{100 * value:.1f}{ends}"


def _mean(mean: "Mean | None") -> str:
    if mean is None:
        return ""
    ends = "" if mean.interval is None else f" [{mean.interval.low:.3f}, {mean.interval.high:.3f}]"
    return f"{mean.value:.4f}{ends}"
