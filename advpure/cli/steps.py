"""``advpure steps``: which steps of a purifier compress, and does the theory predict it?"""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from advpure.cli import groups as g
from advpure.cli import options as o
from advpure.cli.flatten import defaults, flattened, helps

if TYPE_CHECKING:
    from advpure.analysis.steps.report import StepsReport

_SHOWN = 12


@flattened
def steps(
    *,
    subject: Annotated[
        g.Subject,
        defaults(defense="ddpm"),
        helps(n="Images, 1 or more; 0 for all. Default: 10 of a whole split, else all."),
    ],
    eps: Annotated[
        str, typer.Option(help="Strength of perturbations in [0, 1] units, e.g. 8/255.")
    ] = "8/255",
    distribution: o.Distribution = "uniform",
    perturbations: Annotated[
        int, typer.Option(help="Perturbations followed through the chain, per image, 1 or more.")
    ] = 4,
    probes: Annotated[
        int, typer.Option(help="Probes of the noise prediction at every step, 1 or more.")
    ] = 8,
    directions: Annotated[
        int, typer.Option(help="Directions along the data, and as many across, 1 or more.")
    ] = 3,
    method: Annotated[str, typer.Option(help="Derivatives of the probes: vjp or jvp.")] = "vjp",
    every: Annotated[
        int, typer.Option(help="Derivatives at every so many-th step only, 1 or more.")
    ] = 1,
    reference: Annotated[
        str,
        typer.Option(
            help="Images that span the data: auto, none or a subset, e.g. train/first-5000."
        ),
    ] = "auto",
    span: Annotated[
        str,
        typer.Option(help="principal directions of the nearest images, or differences to them."),
    ] = "principal",
    neighbours: Annotated[int, typer.Option(help="Nearest reference images, 1 or more.")] = 50,
    components: Annotated[
        int, typer.Option(help="Dimension of the span along the data, below the neighbours.")
    ] = 10,
    singular: Annotated[
        int, typer.Option(help="Leading singular values of the whole chain; 0 for none, e.g. 5.")
    ] = 0,
    singular_basis: Annotated[
        int, typer.Option(help="Most products with the Jacobian, and with its transpose.")
    ] = 60,
    singular_tolerance: Annotated[
        float, typer.Option(help="Residual at which to stop, share of the largest, in (0, 1).")
    ] = 1e-3,
    running: Annotated[
        g.Running, helps(plot="Draw rates and products: a .png, .svg or .pdf file.")
    ],
) -> None:
    """Print the compression of every step, measured and predicted from the noise prediction.

    A prediction needs steps of the form kappa (x - gamma epsilon(x)) + noise; other steps are
    measured alone.

    Example: advpure steps --defense ddim --t 50 --singular 3 --plot steps.png
    """
    from advpure.analysis.steps.run import StepsRun
    from advpure.cli.recorded import conclude, measure, prepare

    chosen = subject.settings() | {
        "n": o.count(subject.n, subject.dataset, subject.subset, first=10)
    }
    run = StepsRun(
        **chosen, eps=eps,
        distribution=distribution, perturbations=perturbations,  # type: ignore[arg-type]
        probes=probes, directions=directions, method=method, every=every,  # type: ignore[arg-type]
        reference=reference, span=span, neighbours=neighbours,  # type: ignore[arg-type]
        components=components, singular=singular, singular_basis=singular_basis,
        singular_tolerance=singular_tolerance,
    )  # fmt: skip
    ready = prepare("steps", run, running)
    report = measure(ready, "measuring steps")
    conclude(ready, report, lambda: _print(report))


def _print(report: "StepsReport") -> None:
    from advpure.cli import output

    found, s = report.to_json(), report.settings
    start = f"{s['dataset']}, {s['distribution']} noise {s['eps']:.4g}, defense {s['purifier']}"
    whole = found["whole"]
    if whole is None:
        print(f"{start}: no steps")
        return
    print(f"{start}, {len(found['rows'])} steps: compression rate {_mean(whole['measured'])}")
    names = {
        "measured": "measured, whole chain",
        "linear": "its limit for small perturbations",
        "forward": "factor of the forward phase, exact",
        "isotropic": "product of measured isotropic rates",
        "exact": "product predicted, Frobenius norm",
        "first_order": "product predicted, first order (eq. 16)",
    }
    rows = [[label, *_cells(whole[name])] for name, label in names.items()]
    output.print_table(["whole chain", "rate", "95 %", "images"], rows)
    _print_steps(found["rows"])
    for name, label in (("exact", "with the Frobenius norm"), ("first_order", "to first order")):
        if (a := found["agreement"][name]) is not None:
            print(
                f"predicted {label} against measured, {a['steps']} steps: mean "
                f"{100 * a['mean']:+.2f} %, largest {100 * a['largest']:+.2f} % at step {a['at']}"
                + ("" if a["expected"] is None else f"; probing alone: {100 * a['expected']:.2f} %")
            )
    if found["singular"] is not None:
        _print_singular(found["singular"])


def _print_steps(rows: list[dict[str, Any]]) -> None:
    from advpure.cli import output

    networks = [row for row in rows if row["form"] != "scalar"]
    count = len(networks)
    places = {round(k * (count - 1) / (_SHOWN - 1)) for k in range(_SHOWN)} if count else set()
    shown = [row for k, row in enumerate(networks) if k in places]
    columns = ["transported", "limit", "exact", "first_order", "along", "across", "kappa"]
    table = [
        [
            f"{row['step']} {row['name']}", str(row["time"]),
            *(_number(row.get(name)) for name in columns), _number(row["cumulative"]),
            str(row["n"]),
        ]
        for row in shown
    ]  # fmt: skip
    heads = [
        "step", "t", "transported", "isotropic", "predicted", "eq. 16", "along", "across",
        "kappa", "product so far", "images",
    ]  # fmt: skip
    title = None if count <= _SHOWN else f"{len(shown)} of {count} steps with a network"
    output.print_table(heads, table, title=title)


def _print_singular(found: dict[str, Any]) -> None:
    from advpure.cli import output

    times = found["worst_over_rms"]
    print(
        f"worst direction: {_mean(found['sigma_max'])}, mean direction (root mean square) "
        f"{_mean(found['rms_rate'])}" + ("" if times is None else f", {times['value']:.2f} times")
    )
    rows = [
        [
            f"{row['rank']}", *_cells(row["sigma"]), f"{row['bound']:.1e}",
            f"{row['converged']} of {found['n']}",
            "" if row["along"] is None else f"{row['along']['value']:.3f}",
        ]
        for row in found["rows"]
    ]  # fmt: skip
    heads = [
        "singular value", "mean", "95 %", "images", "largest bound", "converged", "share along data"
    ]  # fmt: skip
    output.print_table(heads, rows)
    if found["along_by_chance"] is not None:
        print(f"share along the data by chance: {found['along_by_chance']:.3f}")


def _mean(mean: dict[str, Any]) -> str:
    _, interval, n = _cells(mean)
    return f"{mean['value']:.4f}" + (f" {interval}" if interval else "") + f" over {n} images"


def _cells(mean: dict[str, Any] | float | None) -> tuple[str, str, str]:
    if mean is None:
        return "absent", "", ""
    if isinstance(mean, float):
        return f"{mean:.4g}", "", ""
    low_high = mean["interval"]
    interval = f"[{low_high[0]:.4f}, {low_high[1]:.4f}]" if low_high else ""
    return f"{mean['value']:.4g}", interval, str(mean["n"])


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
