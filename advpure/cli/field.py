"""``advpure field``: compression in a Gaussian score field, printed, exact and simulated."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from advpure.cli import groups as g
from advpure.cli import options as o
from advpure.cli.flatten import flattened, helps, without

if TYPE_CHECKING:
    from advpure.analysis.closed_forms.field_run import FieldReport

_PUBLISHED = "Default: the published one."


@flattened
def field(
    *,
    dimension: Annotated[
        int | None, typer.Option(help=f"Dimension d, 2 or more. {_PUBLISHED}")
    ] = None,
    intrinsic_dimension: Annotated[
        int | None, typer.Option(help=f"Directions along the data, 1 to d - 1. {_PUBLISHED}")
    ] = None,
    std_on: Annotated[
        float | None, typer.Option(help=f"Standard deviation along the data. {_PUBLISHED}")
    ] = None,
    std_off: Annotated[
        float | None, typer.Option(help=f"Standard deviation across the data. {_PUBLISHED}")
    ] = None,
    step: Annotated[float | None, typer.Option(help=f"Step size, above 0. {_PUBLISHED}")] = None,
    steps: Annotated[int | None, typer.Option(help=f"Steps, 1 or more. {_PUBLISHED}")] = None,
    reading: Annotated[
        str,
        typer.Option(
            help="What is simulated: printed, variance (deviations are variances) or small_step."
        ),
    ] = "variance",
    draws: Annotated[int, typer.Option(help="Random perturbations, 1 or more.")] = 16,
    seed: Annotated[int, typer.Option(help="Seed of the simulation, 0 to 2^64 - 1.")] = 0,
    running: Annotated[
        g.Running,
        without("batch_size", "quiet"),
        helps(plot="Draw paths and rates: a .png, .svg or .pdf file."),
    ],
) -> None:
    """Print table S1 of seed 003 with what follows from it, and simulate figure 4b.

    Example: advpure field --reading small_step --plot field.png
    """
    from advpure.analysis.closed_forms.field_run import FieldRun
    from advpure.cli.recorded import conclude, measure, prepare
    from advpure.sweeps.published import published

    printed = {str(row["name"]): row["value"] for row in published("003").tables["S1"].rows}
    own = o.given(
        dimension=dimension, intrinsic_dimension=intrinsic_dimension, std_on_manifold=std_on,
        std_off_manifold=std_off, step=step, steps=steps,
    )  # fmt: skip
    run = FieldRun(**{**printed, **own}, reading=reading, draws=draws, seed=seed)  # type: ignore[arg-type]
    ready = prepare("field", run, running)
    report = measure(ready, "simulating")
    conclude(ready, report, lambda: _print(report))


def _print(report: "FieldReport") -> None:
    from advpure.cli import output

    found = report.to_json()
    first, last = found["first"], found["last"]
    print(
        f"Gaussian score field, {report.settings['dimension']} dimensions, reading "
        f"{report.settings['reading']}: simulated rate {first['value']:.5f} at the first step, "
        f"{last['value']:.5f} at the last, over {found['n']} perturbations"
    )
    names = [reading.name for reading in report.table.readings]
    rows = [
        [row["quantity"].replace("_", " "), *(_number(row[name]) for name in names)]
        for row in found["table"]
    ]
    output.print_table(["quantity", *names], rows)
    count = len(found["rows"])
    shown = [found["rows"][k] for k in sorted({0, count // 5, count // 2, count - 1})]
    simulated = [
        [
            str(row["step"]), f"{row['rate']['value']:.5f}",
            "" if (i := row["rate"]["interval"]) is None else f"[{i[0]:.5f}, {i[1]:.5f}]",
            f"{row['rms']:.5f}", f"{row['predicted']:.5f}", str(row["rate"]["n"]),
        ]
        for row in shown
    ]  # fmt: skip
    heads = ["step", "mean rate", "95 %", "root mean square", "closed form", "perturbations"]
    output.print_table(heads, simulated)


def _number(value: Any) -> str:
    return ("yes" if value else "no") if isinstance(value, bool) else f"{value:.6g}"
