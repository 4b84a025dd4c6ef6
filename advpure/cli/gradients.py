"""``advpure gradients``: how noisy is a random defense's gradient, and how many draws mend it?"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from advpure.cli import options as o

if TYPE_CHECKING:
    from advpure.analysis.gradient_result import Enough
    from advpure.analysis.gradients_run import GradientReport
    from advpure.stats import Mean


def gradients(
    defense: o.Defense = "cm",
    dataset: o.Dataset = o.DEFAULT_DATASET,
    n: o.Count = None,
    subset: o.Subset = "test",
    t: o.Strength = None,
    sigma: o.Sigma = None,
    option: o.Options = None,
    draws: Annotated[
        int, typer.Option(help="Most draws that are averaged, a power of two from 2 on.")
    ] = 64,
    reference: Annotated[
        int, typer.Option(help="Draws of the held-out mean, a power of two from 2 on.")
    ] = 64,
    loss: Annotated[str, typer.Option(help="ce, margin or dlr.")] = "ce",
    point: Annotated[
        str,
        typer.Option(help="Where: at clean images, or at a random start of an attack (start)."),
    ] = "clean",
    eps: Annotated[
        str | None,
        typer.Option(help="Radius of the start's ball, e.g. 8/255. Default: the data set's."),
    ] = None,
    norm: Annotated[
        str | None, typer.Option(help="Its norm, linf or l2. Default: the data set's.")
    ] = None,
    target: Annotated[
        float, typer.Option(help="Cosine to the exact mean that is enough, between 0 and 1.")
    ] = 0.9,
    agreement: Annotated[
        float, typer.Option(help="Share of equal signs that is enough, between 0.5 and 1.")
    ] = 0.85,
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
        str | None,
        typer.Option(help="Draw the curves over the draws: a .png, .svg or .pdf file."),
    ] = None,
    dry_run: o.DryRun = False,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Print the signal-to-noise ratio of the loss gradient, and how many draws are enough.

    Example: advpure gradients --defense ddpm --t 100 -n 20 --plot gradients.png
    """
    from advpure.analysis.gradient_result import check_enough
    from advpure.analysis.gradients_run import (
        GradientStudy,
        estimate_gradients,
        measure_gradients,
        prepare_gradients,
    )
    from advpure.cli import output
    from advpure.figures import check_ending

    if plot is not None:
        check_ending(plot)
    check_enough(target, "cosine")
    check_enough(agreement, "agreement")
    study = GradientStudy(
        defense=defense, dataset=dataset, subset=subset, n=o.count(n, dataset), t=t, sigma=sigma,
        options=o.parse_options(option), weights=weights, classifier=classifier, draws=draws,
        reference=reference, loss=loss, point=point, eps=eps, norm=norm,  # type: ignore[arg-type]
        seed=seed, scheme=scheme, gradient=gradient, policy=policy,  # type: ignore[arg-type]
        tile=tile, device=device,
    )  # fmt: skip
    prepared = prepare_gradients(study)
    if dry_run:
        output.print_estimate(estimate_gradients(prepared), as_json, of_defense=True)
        return
    total = len(prepared.images.ids) * prepared.draws.total
    with output.progress("gradients", total, not (quiet or as_json)) as bar:
        report = measure_gradients(study, out=out, batch_size=batch_size, progress=bar)
    if plot is not None:
        _draw(report, plot, target)
    output.print_report(
        report, lambda: _print(report, target, agreement), as_json,
        report.to_json(target, agreement), plot=plot,
    )  # fmt: skip


def _print(report: "GradientReport", target: float, agreement: float) -> None:
    from advpure.cli import output

    s, result = report.settings, report.result
    where = "clean images" if s["point"] == "clean" else "random starts"
    median = result.median_snr()
    ratio = "absent"
    if median is not None:
        ends = [f"{end:.3g}" if end is not None else "-" for end in (median.low, median.high)]
        ratio = f"{median.value:.3g} (median, 95 % [{', '.join(ends)}], n = {median.n})"
    print(
        f"{s['dataset']}, defense {s['defense']['purifier']}, gradients of loss {s['loss']} at "
        f"{where}, {len(result.images)} images x {s['draws'] + s['reference']} draws: "
        f"signal-to-noise ratio {ratio}"
    )
    rows = [
        [
            str(p.draws), _mean(p.cosine), _plain(p.expected_cosine), _mean(p.gain),
            _mean(p.agreement), _plain(p.expected_agreement), _mean(p.single),
            "0" if p.cosine is None else str(p.cosine.n),
        ]
        for p in result.curve()
    ]  # fmt: skip
    output.print_table(
        ["draws", "cosine to mean", "closed form", "sign-step gain", "sign agreement",
         "closed form", "cosine to one draw", "n"], rows,
    )  # fmt: skip
    for answer in (result.enough(target), result.enough(agreement, "agreement")):
        print(_enough(answer, result.sizes[-1] if result.sizes else 0))


def _enough(answer: "Enough", most: int) -> str:
    name = "cosine" if answer.measure == "cosine" else "sign agreement"
    measured = f"more than {most}" if answer.measured is None else f"{answer.measured}"
    closed = "absent" if answer.expected is None else str(answer.expected)
    if answer.low is not None:
        closed += f" [{answer.low}, {answer.high if answer.high is not None else 'unbounded'}]"
    halves = ""
    if answer.median is not None and answer.most is not None:
        halves = (
            f"; half of the images need at most {_count(answer.median.value)}, "
            f"90 % at most {_count(answer.most.value)}"
        )
    return (
        f"enough for a mean {name} of {answer.target:g}: {measured} as measured (powers of two), "
        f"{closed} by the closed form{halves}"
    )


def _count(value: float) -> str:
    return "more than can be told" if value == float("inf") else f"{value:.0f}"


def _mean(mean: "Mean | None") -> str:
    if mean is None:
        return ""
    ends = "" if mean.interval is None else f" [{mean.interval.low:.2f}, {mean.interval.high:.2f}]"
    return f"{mean.value:.3f}{ends}"


def _plain(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _draw(report: "GradientReport", path: str, target: float) -> None:
    from advpure.analysis.gradients_figure import gradients_figure
    from advpure.records import RecordStore

    with RecordStore.read(report.run) as store:
        gradients_figure(store, Path(path), target)
