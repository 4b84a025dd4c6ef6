"""``advpure two-point``: two points under noise, where every purifier has a closed form."""

from typing import TYPE_CHECKING, Annotated

import typer

from advpure.cli import groups as g
from advpure.cli.flatten import flattened, helps, without

if TYPE_CHECKING:
    from advpure.analysis.closed_forms.two_point_run import TwoPointReport
    from advpure.statistics.rates import Mean, Rate


@flattened
def two_point(
    *,
    noise: Annotated[
        str, typer.Option(help="Noise t in units of the points, above 0, a list such as 0.5,1,2.")
    ] = "0.25,0.5,1,2",
    draws: Annotated[int, typer.Option(help="Noisy points at every level, 2 or more.")] = 10_000,
    nodes: Annotated[int, typer.Option(help="Nodes of the ODE's grid, 2 or more.")] = 18,
    seed: Annotated[int, typer.Option(help="Seed of the noise, 0 or more.")] = 0,
    running: Annotated[
        g.Running,
        without("batch_size", "dry_run"),
        helps(plot="Draw both transports: a .png, .svg or .pdf file."),
    ],
) -> None:
    """Print the transport of one-shot denoising and of the ODE: simulated and exact.

    Example: advpure two-point --noise 0.5,1,2 --plot two-point.png
    """
    from advpure.analysis.closed_forms.two_point_run import TwoPointRun
    from advpure.cli.recorded import conclude, measure, prepare

    ready = prepare(
        "two-point", TwoPointRun(noise=noise, draws=draws, nodes=nodes, seed=seed), running
    )
    report = measure(ready, "purifying points")
    conclude(ready, report, lambda: _print(report))


def _print(report: "TwoPointReport") -> None:
    from advpure.cli import output

    rows = []
    for level in report.levels:
        law = level.law
        for name, found, exact in (
            ("one-shot", level.one_shot, law.one_shot),
            ("PF-ODE", level.ode, law.ode),
            ("one-shot, to the nearer point", level.off_one_shot, law.off_manifold),
            ("PF-ODE, to the nearer point", level.off_ode, 0.0),
            ("wrong sign, both", level.wrong, law.wrong),
        ):
            rows.append([f"{level.t:g}", name, _written(found), f"{exact:.4f}"])
    draws = report.settings["draws"]
    print(f"two points at -1 and 1, {draws} draws: mean distances in units of the points")
    output.print_table(["t", "quantity", "simulated", "closed form"], rows)


def _written(found: "Mean | Rate") -> str:
    from advpure.statistics.rates import Rate

    ends = (found.low, found.high) if isinstance(found, Rate) else found.interval
    return f"{found.value:.4f}" + ("" if ends is None else f" [{ends[0]:.4f}, {ends[1]:.4f}]")
