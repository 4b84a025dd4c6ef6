"""``advpure certified-accuracy``: what runs and logs of certificates say, read again."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from advpure.cli import options as o

if TYPE_CHECKING:
    from advpure.analysis.certification.accuracy import CertifiedImages

DRAWN = "Draw accuracy over the radius: a .png, .svg or .pdf file."
DEFAULT_RADII = (0.0, 0.25, 0.5, 0.75, 1.0)


def certified_accuracy(
    sources: Annotated[
        list[str],
        typer.Argument(help="Run folders of certify, their shards, and certification logs."),
    ],
    radii: Annotated[
        str | None,
        typer.Option(help="Radii in [0, 1] units. Default: the run's; 0,0.25,0.5,0.75,1 for logs."),
    ] = None,
    alpha: Annotated[
        float | None,
        typer.Option(
            help="Read runs, or logs (needs --log-samples), at this alpha, between 0 and 1."
        ),
    ] = None,
    procedure: Annotated[
        str | None,
        typer.Option("--procedure", "-p", help="Read runs by fixed, anytime, cascade or predict."),
    ] = None,
    samples: Annotated[
        int | None, typer.Option("--samples", "-N", help="Read runs with this many samples.")
    ] = None,
    joint: Annotated[
        bool, typer.Option("--joint", help="Read runs with alpha for all sigmas together.")
    ] = False,
    sigma: Annotated[
        str | None,
        typer.Option(help="Noise levels of the logs, in order. Default: what their paths say."),
    ] = None,
    emulate: Annotated[
        int | None,
        typer.Option(help="Read logs as if made with this many samples; needs --log-samples."),
    ] = None,
    log_samples: Annotated[
        int | None, typer.Option(help="Samples that the logs were made with, e.g. 100000.")
    ] = None,
    log_alpha: Annotated[
        float | None,
        typer.Option(
            help="Alpha that the logs were made with, between 0 and 1, which no log says. Without "
            "it nothing is said of wrong certificates, and --emulate assumes 0.001."
        ),
    ] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="The first against each other, paired by image.")
    ] = False,
    log: Annotated[
        str | None, typer.Option(help="Write the certificates as logs, a .tsv file a sigma.")
    ] = None,
    plot: Annotated[str | None, typer.Option(help=DRAWN)] = None,
    as_json: o.Json = False,
) -> None:
    """Print certified accuracy at any radius, per sigma and best over sigma (an oracle).

    Example: advpure certified-accuracy sigma_0.25.tsv sigma_0.50.tsv --radii 0,0.25,0.5 --json
    """
    from advpure.analysis.certification.accuracy import compare as compare_curves
    from advpure.analysis.certification.emulation import emulate as emulate_samples
    from advpure.analysis.certification.radius import check_credible, read_radii
    from advpure.analysis.certification.report import any_json, curve_json, summary_json
    from advpure.analysis.certification.sources import read_sources, threshold_notes
    from advpure.base.errors import BadInput
    from advpure.base.units import parse_sigma
    from advpure.base.validation import whole
    from advpure.cli import output
    from advpure.plots.figures import check_ending

    if plot is not None:
        check_ending(plot)
    asked = None if radii is None else read_radii(radii)
    levels = [] if sigma is None else [parse_sigma(each.strip()) for each in sigma.split(",")]
    changes = o.given(alpha=alpha, procedure=procedure, samples=samples, radii=asked)
    for level in (alpha, log_alpha):
        if level is not None:
            check_credible(level)
    for option, count in o.given(samples=samples, emulate=emulate, log_samples=log_samples).items():
        whole(count, option.replace("_", " "), 1)
    found = read_sources(
        sources, sigmas=levels, log_alpha=log_alpha, **changes, **({"joint": True} if joint else {})
    )
    curves = list(found.curves)
    at = asked or found.radii or DEFAULT_RADII
    notes = [*found.notes, *threshold_notes(curves, at)]
    if len(found.logs) == len(curves):
        _refuse_for_logs(procedure=procedure, samples=samples, joint=joint or None)
    if not found.logs and log_alpha is not None:
        raise BadInput(
            f"--log-alpha {log_alpha:g}", "is for logs, and these are runs", "leave it out"
        )
    if log_samples is not None and emulate is None and (alpha is None or not found.logs):
        rule = "changes nothing without --emulate, or --alpha for logs"
        raise BadInput(f"--log-samples {log_samples}", rule, "add one of them, or leave it out")
    if emulate is not None or (alpha is not None and found.logs):
        why = "--emulate" if emulate is not None else f"alpha {alpha:g} for logs"
        if not found.logs:
            raise BadInput(why, "is for logs", "read a run with fewer samples by --samples")
        if log_samples is None:
            raise BadInput(why, "needs the samples of the logs", "add --log-samples 100000")
        if log_alpha is None:
            notes.append("alpha 0.001 of the logs is assumed; --log-alpha says another")
        for k, curve in enumerate(curves):
            if curve.name in found.logs:
                curves[k] = emulate_samples(
                    curve, samples=log_samples, to=log_samples if emulate is None else emulate,
                    alpha=0.001 if log_alpha is None else log_alpha, to_alpha=alpha,
                )  # fmt: skip
                notes.append(curves[k].notes[-1])
    if compare and len(curves) < 2:
        raise BadInput("one set of certificates", "compares with nothing", "name two")
    differences = {
        other.name: compare_curves(curves[0], other, at) for other in curves[1:] if compare
    }
    logs = write_logs(curves, log) if log is not None else []
    by_name = {curve.name: curve for curve in curves}
    together = {name: [by_name[each] for each in members] for name, members in found.joint}
    if plot is not None:
        from advpure.analysis.certification.figure import draw_curves

        draw_curves(curves, Path(plot))
    if as_json:
        output.print_json(
            summary_json(curves, at)
            | {
                "curves": [curve_json(curve) for curve in curves],
                "any_sigma": {name: any_json(group, at) for name, group in together.items()},
                "notes": notes,
            }
            | o.given(
                differences=_differences_json(curves[0].name, differences) if compare else None,
                plot=plot, logs=[*map(str, logs)] or None,
            )
        )  # fmt: skip
        return
    print_accuracies(curves, at, {}, together)
    if compare:
        _print_differences(curves[0].name, differences)
    for text in notes:
        output.note(text)
    for path in [*logs, *([plot] if plot else [])]:
        print(f"written: {path}")


def _refuse_for_logs(**given: object) -> None:
    """Refuse ways to read runs, where there are none."""
    from advpure.base.errors import BadInput

    for name in o.given(**given):
        raise BadInput(
            f"--{name}", "is for runs, and these are logs", "leave it out, or see --emulate"
        )


def write_logs(curves: "Sequence[CertifiedImages]", path: str) -> list[Path]:
    """Write each set of certificates; of several, the name goes before the ending."""
    from advpure.analysis.certification.logs import write_log

    target = Path(path)
    if len(curves) == 1:
        return [write_log(curves[0], target)]
    written: list[Path] = []
    for curve in curves:
        label = f"sigma_{curve.sigma:g}" if curve.sigma is not None else "cascade"
        place = target.with_name(f"{target.stem}_{label}{target.suffix}")
        if place in written:
            place = target.with_name(f"{target.stem}_{len(written)}_{label}{target.suffix}")
        written.append(write_log(curve, place))
    return written


def print_accuracies(
    curves: "Sequence[CertifiedImages]",
    radii: Sequence[float],
    used: Mapping[str, float],
    joint: "Mapping[str, Sequence[CertifiedImages]]",
) -> None:
    """Print one column per set of certificates, and the best of them.

    Args:
        curves: Certificates.
        radii: [0, 1] units.
        used: Noise samples per image, by name, where known.
        joint: Name of a run and its certificates, where those of all noise levels hold at once.
    """
    from advpure.analysis.certification.accuracy import (
        abstention,
        average_certified_radius,
        best_over,
        most_wrong,
    )
    from advpure.analysis.certification.accuracy import certified_accuracy as accuracy
    from advpure.analysis.certification.radius import round_down
    from advpure.analysis.certification.report import any_of
    from advpure.cli import output

    if not curves:
        print("no image is decided yet")
        return
    best = [output.with_interval(each.rate) for each in best_over(curves, radii)]
    rows = [
        [f"{radius:g}", *(output.with_interval(accuracy(curve, radius)) for curve in curves), top]
        for radius, top in zip(radii, best, strict=True)
    ]
    means = [round_down(average_certified_radius(curve).value, 3) for curve in curves]
    rows.append(["abstained", *(output.with_interval(abstention(each)) for each in curves), ""])
    rows.append(["average radius", *means, ""])
    rows.append(["images", *(str(len(curve)) for curve in curves), ""])
    wrong = [most_wrong(curve) for curve in curves]
    if any(count is not None for count in wrong):
        shown = ["unknown" if count is None else str(count) for count in wrong]
        rows.append(["wrong by chance, at most (95 %)", *shown, ""])
    if used:
        rows.append(["samples an image", *(f"{used[curve.name]:,.0f}" for curve in curves), ""])
    columns = ["certified % at radius", *(curve.name for curve in curves), "best (oracle)"]
    if len(curves) == 1:
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    for name, group in joint.items():
        columns.append(f"{name}, any sigma (joint)")
        shares = [output.with_interval(any_of(group, radius)) for radius in radii]
        rows = [[*row, shares[k] if k < len(shares) else ""] for k, row in enumerate(rows)]
    output.print_table(columns, rows)


def _differences_json(first: str, differences: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {"first": first, "second": name, "radius": radius, **difference._asdict()}
        for name, rows in differences.items()
        for radius, difference in rows
    ]


def _print_differences(first: str, differences: Mapping[str, Any]) -> None:
    from advpure.cli import output

    rows = [
        [
            f"{first} - {name}", f"{radius:g}", f"{100 * d.value:+.1f}",
            f"[{100 * d.low:+.1f}, {100 * d.high:+.1f}]", f"{d.p_value:.2g}", str(d.n),
        ]
        for name, found in differences.items()
        for radius, d in found
    ]  # fmt: skip
    columns = ["difference, paired", "radius", "points", "95 %", "p", "images"]
    output.print_table(columns, rows)
