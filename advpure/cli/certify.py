"""``advpure certify``: within which radius can no attack change the answer?"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from advpure.cli import groups as g
from advpure.cli import options as o
from advpure.cli.certified_accuracy import DRAWN, print_accuracies, write_logs
from advpure.cli.flatten import defaults, flattened, helps, without

if TYPE_CHECKING:
    from advpure.analysis.certification.report import CertificationReport


@flattened
def certify(
    *,
    subject: Annotated[
        g.JudgedSubject,
        without("t", "sigma", "gradient"),
        defaults(scheme="counter"),
        helps(policy="Votes per sample: single, eot:K or majority:K. Default: the defense's."),
    ],
    sigma: Annotated[
        str,
        typer.Option(
            help="Smoothing noise in [0, 1] units, above 0, a list such as 0.25,0.5,1.0; also the "
            "purifier's strength."
        ),
    ] = "0.25",
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
            help="Accurate classifier that answers where a selector does not choose the certified "
            "one: shipped name or weights file."
        ),
    ] = None,
    select_entropy: Annotated[
        float,
        typer.Option(help="Of --core: entropy, 0 or more nats, up to which the selector chooses."),
    ] = 0.5,
    selector: Annotated[
        str | None,
        typer.Option(help="Of --core: trained selector instead of entropy: shipped name or file."),
    ] = None,
    joint: Annotated[
        bool, typer.Option("--joint", help="alpha for all sigmas of an image together.")
    ] = False,
    radii: Annotated[
        str, typer.Option(help="Radii asked for, l2, in [0, 1] units, such as 0,0.25,0.5.")
    ] = "0,0.25,0.5,0.75,1.0",
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
    log: Annotated[
        str | None,
        typer.Option(help="Also write idx label predict radius correct time, a .tsv file a sigma."),
    ] = None,
    running: Annotated[g.Running, helps(plot=DRAWN)],
) -> None:
    """Certify the smoothed classifier of a defense by randomized smoothing.

    Example: advpure certify --defense cm --sigma 0.25,0.5,1.0 -n 100 --procedure anytime
    """
    from advpure.analysis.certification.settings import CertificationRun
    from advpure.cli import output
    from advpure.cli.recorded import measure, prepare

    run = CertificationRun(
        **subject.settings(), sigmas=sigma, samples=samples, selection=selection, alpha=alpha,
        core=core, select_entropy=select_entropy, selector=selector, joint=joint, radii=radii,
        procedure="composed" if core and procedure == "fixed" else procedure,  # type: ignore[arg-type]
        futility=futility, block=block, shard=shard,
    )  # fmt: skip
    ready = prepare("certify", run, running)
    told = ready.prepared.reading.notes()
    for text in told:
        output.note(text)
    report = measure(ready, "classifying", counts=counts or ())
    curves = [curve.images for curve in report.curves]
    logs = write_logs(curves, log) if log is not None else []
    plot = running.plot
    if plot is not None and curves:
        from advpure.analysis.certification.figure import draw_curves

        draw_curves(curves, Path(plot), title=f"{subject.defense} on {subject.dataset}")
    if running.as_json:
        output.print_json(report.to_json() | o.given(plot=plot, logs=[*map(str, logs)] or None))
        return
    _print(report)
    for text in report.notes:
        if text not in told:
            output.note(text)
    written = "".join(f", {path}" for path in [*logs, *([plot] if plot else [])])
    print(f"records: {report.run}{written}")


def _print(report: "CertificationReport") -> None:
    s, reading = report.settings, report.reading
    print(
        f"{s['dataset']}, defense {s['defense']['purifier']}, {reading.name} certificates, alpha "
        f"{reading.alpha:g}{' for all sigmas together' if reading.joint else ''}, "
        f"{'at most ' if reading.name == 'anytime' else ''}{reading.samples:,} samples an image"
    )
    used = {c.images.name: c.samples / len(c.images) for c in report.curves}
    group = report.joint()
    joint = {s["defense"]["purifier"]: group} if group else {}
    print_accuracies([curve.images for curve in report.curves], reading.radii, used, joint)
