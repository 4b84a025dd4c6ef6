"""``advpure cr``: how much does a purifier compress the neighbourhood of an image?"""

from typing import TYPE_CHECKING, Annotated

import typer

from advpure.cli import groups as g
from advpure.cli import options as o
from advpure.cli.flatten import flattened, helps, without

if TYPE_CHECKING:
    from advpure.analysis.compression.run import CompressionReport


@flattened
def cr(
    *,
    subject: Annotated[g.Subject, without("seed")],
    eps: Annotated[
        str, typer.Option(help="Strengths in [0, 1] units, a list such as 2/255,8/255.")
    ] = "8/255",
    distribution: o.Distribution = "uniform",
    perturbations: Annotated[
        int, typer.Option(help="Perturbations per image, seed and strength, 1 or more.")
    ] = 10,
    seeds: Annotated[str, typer.Option(help="Base seeds, a list such as 0,123,295.")] = "0",
    clip: Annotated[
        bool, typer.Option("--clip", help="Clip perturbed images to [0, 1]; realised norms count.")
    ] = False,
    limit: Annotated[
        bool, typer.Option("--limit", help="Also the limit of vanishing strength, by derivatives.")
    ] = False,
    running: Annotated[
        g.Running, helps(plot="Draw a histogram over images: a .png, .svg or .pdf file.")
    ],
) -> None:
    """Print the expected compression rate ||f(x+e) - f(x)|| / ||e|| under fixed randomness.

    Example: advpure cr --defense ddim --t 100 --eps 2/255,8/255,32/255 --plot cr.png
    """
    from advpure.analysis.compression.run import CompressionRun, compression_limit
    from advpure.cli.recorded import conclude, measure, prepare

    run = CompressionRun(
        **subject.settings(), eps=eps, distribution=distribution,  # type: ignore[arg-type]
        perturbations=perturbations, seeds=o.parse_integers(seeds, "seed"), clip=clip,
    )  # fmt: skip
    ready = prepare("cr", run, running)
    report = measure(ready, "purifying")
    found = report.to_json()
    if limit:
        found["limit"] = compression_limit(run).summary()._asdict()
    random = ready.prepared.purifier.chain.is_random
    conclude(ready, report, lambda: _print(report, found, random), found)


def _print(report: "CompressionReport", found: dict[str, object], is_random: bool) -> None:
    from advpure.cli import output

    s, result = report.settings, report.result
    first = result.pooled[0]
    spread = (
        "" if first.interval is None else f" [{first.interval.low:.4f}, {first.interval.high:.4f}]"
    )
    how = f"fixed randomness (seeds {', '.join(map(str, s['seeds']))})"
    if not is_random:
        how = "no randomness"
    print(
        f"{s['dataset']}, {s['distribution']} noise {first.eps:.4g}, defense {s['purifier']}, "
        f"{how}: compression rate "
        f"{first.mean:.4f}{spread} over {first.n} images"
    )
    pooled = result.pooled
    shown = pooled if len(result.seeds) == 1 else [*result.summaries, *pooled]
    seeds = ", ".join(map(str, result.seeds))
    rows = [
        [
            f"{r.eps:.5f} ({255 * r.eps:.3g}/255)", seeds if r.seed is None else str(r.seed),
            f"{r.mean:.4f}", "" if r.std is None else f"{r.std:.4f}",
            "" if r.interval is None else f"[{r.interval.low:.4f}, {r.interval.high:.4f}]",
            str(r.n), str(r.rates),
        ]
        for r in shown
    ]  # fmt: skip
    limit = found.get("limit")
    if isinstance(limit, dict):
        low_high = limit.get("interval")
        rows.append(
            [
                "limit 0", "all", f"{limit['value']:.4f}",
                "" if limit["std"] is None else f"{limit['std']:.4f}",
                "" if low_high is None else f"[{low_high[0]:.4f}, {low_high[1]:.4f}]",
                str(limit["n"]), "",
            ]
        )  # fmt: skip
    columns = ["epsilon", "seed", "mean", "std over images", "95 % of the mean", "images", "rates"]
    output.print_table(columns, rows)
    absent = sum(r.absent for r in pooled)
    if absent:
        output.note(f"{absent} perturbations were clipped away whole and have no rate")
