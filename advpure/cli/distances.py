"""``advpure distances``: how far are images from their originals, before, during and after?"""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from advpure.cli import groups as g
from advpure.cli import options as o
from advpure.cli.flatten import flattened, helps

if TYPE_CHECKING:
    from advpure.analysis.distances.compare import Contrast
    from advpure.analysis.distances.report import DistancesReport
    from advpure.analysis.distances.run import PreparedDistances


@flattened
def distances(
    *,
    subject: g.JudgedSubject,
    perturb: Annotated[
        str,
        typer.Option(
            help="List of none, uniform:EPS, gaussian:EPS, sign:EPS, attack:NAME or "
            "attack:NAME:EPS, such as uniform:8/255,uniform:32/255,attack:pgd."
        ),
    ] = "uniform:8/255",
    metrics: Annotated[
        str,
        typer.Option(
            help="List of compression[-linf], ssim, lpips, clip, fid-768, fid-2048, "
            "frechet-classifier, frechet-vgg, inception-score, classifier-score, "
            "precision-recall[-classifier|-vgg]; none; or all that can be had."
        ),
    ] = "all",
    clip: Annotated[
        bool, typer.Option("--clip", help="Clip random perturbations to [0, 1].")
    ] = False,
    norm: Annotated[
        str | None, typer.Option(help="Norm of attacks: linf or l2. Default: the data set's.")
    ] = None,
    attack_option: Annotated[
        list[str] | None,
        typer.Option(
            "--attack-option",
            help="Setting of the attacks, KEY=VALUE, or of one, e.g. pgd.steps=10; repeats.",
        ),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(help="Folder of another distances run on the same images: compare, paired."),
    ] = None,
    resamples: Annotated[
        int,
        typer.Option(
            help="Bootstrap resamples for the Frechet distances of --against, such as 200; "
            "0: jackknife, at once."
        ),
    ] = 0,
    running: Annotated[
        g.Running, helps(plot="Draw the distance after every step: a .png, .svg or .pdf file.")
    ],
) -> None:
    """Print distances to the clean image along the chain, and metrics before and after it.

    Example: advpure distances --defense ddpm --t 100 --perturb uniform:8/255,attack:pgd -n 50
    """
    from advpure.analysis.distances.run import DistancesRun
    from advpure.cli.recorded import conclude, measure, prepare

    if against is None and resamples:
        from advpure.base.errors import BadInput

        rule = "means nothing without another run to compare with"
        raise BadInput(f"resamples {resamples}", rule, "add --against FOLDER, or leave it out")
    run = DistancesRun(
        **subject.settings(), perturb=perturb, metrics=metrics,
        norm=norm,  # type: ignore[arg-type]
        attack_options=o.parse_options(attack_option), clip=clip,
    )  # fmt: skip
    ready = prepare("distances", run, running)
    report = measure(ready, "purifying", of_defense=True)
    contrasts = None if against is None else _compare(report, against, resamples, running.shown)
    more = {} if contrasts is None else {"against": [each.to_json() for each in contrasts]}

    def show() -> None:
        _print(report, ready.prepared)
        if contrasts is not None:
            _print_contrasts(contrasts, str(report.run), str(against))

    conclude(ready, report, show, report.to_json() | more)


def _compare(
    report: "DistancesReport", against: str, resamples: int, shown: bool
) -> "list[Contrast]":
    from advpure.analysis.distances.compare import compare_distances
    from advpure.analysis.metrics.choice import METRICS
    from advpure.cli import output
    from advpure.runs.records import RecordStore

    sets = sum(METRICS[name].kind == "frechet" for name in report.settings["metrics"])
    total = resamples * sets * len(report.n)
    with (
        RecordStore.read(report.run) as first,
        RecordStore.read(against) as second,
        output.progress("resampling", total, shown and total > 0) as bar,
    ):
        return compare_distances(first, second, resamples=resamples, progress=bar)


def _print(report: "DistancesReport", prepared: "PreparedDistances") -> None:
    from advpure.cli import output

    s = report.settings
    chain = prepared.purifier.chain
    label = next(iter(report.n))
    far = report.distances["l2"][label]
    how = f"fixed randomness (seed {s['randomness']['seed']})"
    if not chain.is_random:
        how = "no randomness"
    print(
        f"{s['dataset']}, defense {s['defense']['purifier']}, {how}, {len(chain)} steps: "
        f"{label} starts at l2 {far.initial.value:.4g} and ends at {far.final.value:.4g} "
        f"from the clean image, over {report.n[label]} images"
    )
    rows = [
        [
            each,
            *(_mean(mean) for norm in ("l2", "linf") for mean in report.distances[norm][each][:3]),
            str(count),
        ]
        for each, count in report.n.items()
    ]
    heads = [f"{norm} {place}" for norm in ("l2", "l-inf") for place in ("initial", "max", "end")]
    output.print_table(["perturbation, mean ± std", *heads, "n"], rows)
    if report.measured:
        lines = [
            [
                each.perturbation,
                each.name,
                *(_estimate(found) for found in (each.before, each.after, each.reduction)),
                "" if each.after is None else str(each.after.n),
            ]
            for each in report.measured
        ]
        columns = ["perturbation", "metric", "before", "after", "before - after", "n"]
        output.print_table(columns, lines)


def _mean(mean: Any) -> str:
    return f"{mean.value:.4g}" + ("" if mean.std is None else f" ± {mean.std:.2g}")


def _estimate(found: Any) -> str:
    if found is None:
        return ""
    ends = found.interval
    return f"{found.value:.4g}" + ("" if ends is None else f" [{ends.low:.4g}, {ends.high:.4g}]")


def _print_contrasts(contrasts: "list[Contrast]", first: str, second: str) -> None:
    from advpure.cli import output

    rows = [
        [
            each.perturbation, each.name, f"{each.first:.5g}", f"{each.second:.5g}",
            f"{each.difference:.4g}",
            "" if each.interval is None
            else f"[{each.interval.low:.4g}, {each.interval.high:.4g}]",
            str(each.n), each.method,
        ]
        for each in contrasts
    ]  # fmt: skip
    print(f"after purification, this run ({first}) against {second}, on the same images")
    columns = ["perturbation", "metric", "this", "other", "difference", "95 %", "n", "method"]
    output.print_table(columns, rows)
