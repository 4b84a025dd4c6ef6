"""``advpure randomness``: how much of a defense's robustness is its own randomness?"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from advpure.cli import options as o

if TYPE_CHECKING:
    from advpure.analysis.randomness_report import RandomnessReport
    from advpure.analysis.randomness_result import Accuracy
    from advpure.stats import Mean


def randomness(
    defense: o.Defense = "cm",
    dataset: o.Dataset = o.DEFAULT_DATASET,
    n: o.Count = None,
    subset: o.Subset = "test",
    eps: o.Eps = None,
    norm: Annotated[str | None, typer.Option(help="linf or l2. Default: the data set's.")] = None,
    t: o.Strength = None,
    sigma: o.Sigma = None,
    option: o.Options = None,
    attack: Annotated[
        str, typer.Option("--attack", "-a", help="pgd, apgd or bpda, without an average.")
    ] = "pgd",
    steps: Annotated[
        int | None, typer.Option(help="Gradient steps, 1 or more. Default: 40; 100 for apgd.")
    ] = None,
    attack_option: Annotated[
        list[str] | None,
        typer.Option("--attack-option", help="Other setting of the attack, KEY=VALUE; repeats."),
    ] = None,
    seeds: Annotated[
        str, typer.Option(help="Base seeds of the fixed configurations, two or more.")
    ] = "0,1,2",
    eot: Annotated[
        int, typer.Option(help="Draws per gradient of the averaged attack; 0 leaves it out.")
    ] = 15,
    draws: Annotated[
        int, typer.Option(help="Decisions per image under fresh randomness, 1 or more.")
    ] = 10,
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
        str | None,
        typer.Option(help="Draw accuracies and correlations: a .png, .svg or .pdf file."),
    ] = None,
    dry_run: o.DryRun = False,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Print accuracy with fixed, fresh, averaged and transferred randomness, and how they differ.

    Example: advpure randomness --defense ddpm --t 100 -n 20 --plot randomness.png
    """
    from advpure.analysis.randomness_run import (
        RandomnessStudy,
        estimate_randomness,
        measure_randomness,
        prepare_randomness,
    )
    from advpure.cli import output
    from advpure.figures import check_ending

    if plot is not None:
        check_ending(plot)
    study = RandomnessStudy(
        defense=defense, dataset=dataset, subset=subset, n=o.count(n, dataset), t=t, sigma=sigma,
        options=o.parse_options(option), weights=weights, classifier=classifier, attack=attack,
        eps=eps, norm=norm,
        attack_options=o.joined(o.parse_options(attack_option), o.given(steps=steps)),
        seeds=o.parse_integers(seeds, "seed"), eot=eot, draws=draws,
        scheme=scheme, gradient=gradient, policy=policy,  # type: ignore[arg-type]
        tile=tile, device=device,
    )  # fmt: skip
    prepared = prepare_randomness(study)
    if dry_run:
        output.print_estimate(estimate_randomness(prepared), as_json, of_defense=True)
        return
    with output.progress("attacking", prepared.total, not (quiet or as_json)) as bar:
        report = measure_randomness(study, out=out, batch_size=batch_size, progress=bar)
    if plot is not None:
        _draw(report, plot)
    output.print_report(report, lambda: _print(report), as_json, plot=plot)


def _print(report: "RandomnessReport") -> None:
    from advpure.analysis.randomness_layout import EOT
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


def _draw(report: "RandomnessReport", path: str) -> None:
    from advpure.analysis.randomness_figure import randomness_figure
    from advpure.records import RecordStore

    with RecordStore.read(report.run) as store:
        randomness_figure(store, Path(path))
