"""``advpure certify``: within which radius can no attack change the answer?"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from advpure.cli import options as o

if TYPE_CHECKING:
    from advpure.analysis.certification.report import CertificationReport


def certify(
    defense: o.Defense = "cm",
    sigma: Annotated[
        str,
        typer.Option(
            help="Smoothing noise in [0, 1] units, above 0, a list such as 0.25,0.5,1.0; also the "
            "purifier's strength."
        ),
    ] = "0.25",
    dataset: o.Dataset = o.DEFAULT_DATASET,
    n: o.Count = None,
    subset: o.Subset = "test",
    samples: Annotated[
        int,
        typer.Option("--samples", "-N", help="Noise samples per image and sigma, 10 or more."),
    ] = 10_000,
    selection: Annotated[
        int, typer.Option(help="Noise samples that select the class, 1 or more.")
    ] = 100,
    alpha: Annotated[
        float, typer.Option(help="Probability of a wrong certificate, between 0 and 1.")
    ] = 0.001,
    procedure: Annotated[
        str,
        typer.Option(
            "--procedure",
            "-p",
            help="fixed (Cohen), anytime (stops when decided), cascade (largest sigma first) or "
            "predict (no radius). With --core: composed.",
        ),
    ] = "fixed",
    core: Annotated[
        str | None,
        typer.Option(
            help="Accurate classifier that answers where an entropy selector does not choose the "
            "certified one: shipped name or weights file."
        ),
    ] = None,
    select_entropy: Annotated[
        float,
        typer.Option(help="Of --core: entropy, 0 or more nats, up to which the selector chooses."),
    ] = 0.5,
    joint: Annotated[
        bool, typer.Option("--joint", help="alpha for all sigmas of an image together.")
    ] = False,
    radii: Annotated[
        str, typer.Option(help="Radii asked for, l2, in [0, 1] units, such as 0,0.25,0.5.")
    ] = "0,0.25,0.5,0.75,1.0",
    option: o.Options = None,
    policy: Annotated[
        str | None,
        typer.Option(help="Votes per sample: single, eot:K or majority:K. Default: the defense's."),
    ] = None,
    shard: Annotated[
        str | None, typer.Option(help="Compute part i of k only: 1/4, 2/4, ... in any order.")
    ] = None,
    counts: Annotated[
        list[str] | None,
        typer.Option(help="Run folder whose counts are taken over, as far as they fit; repeats."),
    ] = None,
    block: Annotated[
        int | None, typer.Option(help="Samples per row of the records. Default: 1000; 64 anytime.")
    ] = None,
    futility: Annotated[
        float, typer.Option(help="Of anytime: smaller gives up on a radius later, below 1.")
    ] = 0.05,
    seed: o.Seed = 0,
    scheme: o.Scheme = "counter",
    weights: o.Weights = None,
    classifier: o.Classifier = None,
    tile: o.Tile = None,
    batch_size: o.BatchSize = None,
    device: o.Device = "cpu",
    out: o.Out = None,
    log: Annotated[
        str | None,
        typer.Option(help="Also write idx label predict radius correct time, a .tsv file a sigma."),
    ] = None,
    plot: Annotated[
        str | None, typer.Option(help="Draw accuracy over the radius: a .png, .svg or .pdf file.")
    ] = None,
    dry_run: o.DryRun = False,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Certify the smoothed classifier of a defense by randomized smoothing.

    Example: advpure certify --defense cm --sigma 0.25,0.5,1.0 -n 100 --procedure anytime
    """
    from advpure.analysis.certification.run import (
        VERB,
        estimate_certification,
        measure_certification,
    )
    from advpure.analysis.certification.settings import CertificationRun, prepare_certification
    from advpure.cli import output
    from advpure.cli.certified_accuracy import write_logs
    from advpure.figures import check_ending

    run = CertificationRun(
        defense=defense, dataset=dataset, subset=subset, n=o.count(n, dataset), sigmas=sigma,
        options=o.parse_options(option), weights=weights, classifier=classifier, policy=policy,
        samples=samples, selection=selection, alpha=alpha, core=core,
        select_entropy=select_entropy, joint=joint, radii=radii,
        procedure="composed" if core and procedure == "fixed" else procedure,  # type: ignore[arg-type]
        futility=futility, block=block, shard=shard, seed=seed,
        scheme=scheme, tile=tile, device=device,  # type: ignore[arg-type]
    )  # fmt: skip
    if plot is not None:
        check_ending(plot)
    prepared = prepare_certification(run)
    if dry_run:
        for text in prepared.reading.notes():
            output.note(text)
        output.print_estimate(estimate_certification(prepared), as_json, of_defense=False)
        return
    for text in prepared.reading.notes():
        output.note(text)
    assert VERB.total is not None
    with output.progress("classifying", VERB.total(run), not (quiet or as_json)) as bar:
        report = measure_certification(
            run, out=out, batch_size=batch_size, progress=bar, counts=counts or ()
        )
    curves = [curve.images for curve in report.curves]
    logs = write_logs(curves, log) if log is not None else []
    if plot is not None and curves:
        from advpure.analysis.certification.figure import draw_curves

        draw_curves(curves, Path(plot), title=f"{defense} on {dataset}")
    if as_json:
        output.print_json(report.to_json() | o.given(plot=plot, logs=[*map(str, logs)] or None))
        return
    _print(report)
    told = set(prepared.reading.notes())
    for text in report.notes:
        if text not in told:
            output.note(text)
    written = "".join(f", {path}" for path in [*logs, *([plot] if plot else [])])
    print(f"records: {report.run}{written}")


def _print(report: "CertificationReport") -> None:
    from advpure.cli.certified_accuracy import print_accuracies

    s, reading = report.settings, report.reading
    print(
        f"{s['dataset']}, defense {s['defense']['purifier']}, {reading.name} certificates, alpha "
        f"{reading.alpha:g}{' for all sigmas together' if reading.joint else ''}, "
        f"{'at most ' if reading.name == 'anytime' else ''}{reading.samples:,} samples an image"
    )
    used = {c.images.name: c.samples / len(c.images) for c in report.curves}
    print_accuracies([curve.images for curve in report.curves], reading.radii, used)
