"""``advpure gradients``: how noisy is a random defense's gradient, and how many draws mend it?"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from advpure.cli import groups as g
from advpure.cli.flatten import flattened, helps

if TYPE_CHECKING:
    from advpure.analysis.gradient_noise.result import Enough
    from advpure.analysis.gradient_noise.run import GradientReport
    from advpure.statistics.rates import Mean


@flattened
def gradients(
    *,
    subject: g.JudgedSubject,
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
    running: Annotated[
        g.Running, helps(plot="Draw the curves over the draws: a .png, .svg or .pdf file.")
    ],
) -> None:
    """Print the signal-to-noise ratio of the loss gradient, and how many draws are enough.

    Example: advpure gradients --defense ddpm --t 100 -n 20 --plot gradients.png
    """
    from advpure.analysis.gradient_noise.result import check_enough
    from advpure.analysis.gradient_noise.run import GradientStudy
    from advpure.cli.recorded import conclude, measure, prepare

    check_enough(target, "cosine")
    check_enough(agreement, "agreement")
    study = GradientStudy(
        **subject.settings(), draws=draws, reference=reference, eps=eps,
        norm=norm,  # type: ignore[arg-type]
        loss=loss, point=point,  # type: ignore[arg-type]
    )  # fmt: skip
    ready = prepare("gradients", study, running)
    report = measure(ready, "gradients", of_defense=True)
    conclude(
        ready, report, lambda: _print(report, target, agreement),
        report.to_json(target, agreement), draw=lambda path: _draw(report, path, target),
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


def _draw(report: "GradientReport", path: Path, target: float) -> None:
    from advpure.analysis.gradient_noise.figure import gradients_figure
    from advpure.runs.records import RecordStore

    with RecordStore.read(report.run) as store:
        gradients_figure(store, path, target)
