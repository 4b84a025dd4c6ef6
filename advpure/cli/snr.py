"""``advpure snr``: how much of a purifier's variability is its own randomness?"""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from advpure.cli import groups as g
from advpure.cli import options as o
from advpure.cli.flatten import flattened, helps

if TYPE_CHECKING:
    from advpure.analysis.variability.run import SnrReport


@flattened
def snr(
    *,
    subject: Annotated[
        g.Subject, helps(seed="First base seed; configurations are seed, seed + 1, ...")
    ],
    eps: Annotated[
        str, typer.Option(help="Strength of the perturbations in [0, 1] units, e.g. 8/255.")
    ] = "8/255",
    distribution: o.Distribution = "uniform",
    perturbations: Annotated[
        int, typer.Option(help="Perturbed inputs of every image, 2 or more.")
    ] = 50,
    configurations: Annotated[
        int, typer.Option(help="Configurations of the purifier's randomness, 2 or more.")
    ] = 50,
    clip: Annotated[bool, typer.Option("--clip", help="Clip perturbed images to [0, 1].")] = False,
    running: Annotated[
        g.Running, helps(plot="Draw correlations, distances and maps: a .png, .svg or .pdf file.")
    ],
) -> None:
    """Print the variance that inputs cause over the variance that the purifier's noise causes.

    Example: advpure snr --defense ddpm --t 100 -n 50 --plot snr.png
    """
    from advpure.analysis.variability.run import SnrRun
    from advpure.cli.recorded import conclude, measure, prepare

    run = SnrRun(
        **subject.settings(), eps=eps, distribution=distribution,  # type: ignore[arg-type]
        perturbations=perturbations, configurations=configurations, clip=clip,
    )  # fmt: skip
    ready = prepare("snr", run, running)
    report = measure(ready, "purifying")
    found = report.to_json()
    conclude(ready, report, lambda: _print(report, found), found)


# Quantity, its name in the result, the factor that is printed, and the name without bias.
_ROWS = (
    ("total variance per pixel, 1e-3", "total", 1e3, "total_unbiased"),
    ("input variance per pixel, 1e-3", "input", 1e3, "input_unbiased"),
    ("internal variance per pixel, 1e-3", "internal", 1e3, "internal_unbiased"),
    ("interaction (within input), 1e-3", None, 1e3, "interaction_unbiased"),
    ("input variance, sum over pixels", "input_summed", 1.0, None),
    ("internal variance, sum over pixels", "internal_summed", 1.0, None),
    ("SNR, mean of ratios", "snr_mean_of_ratios", 1.0, "snr_mean_of_ratios_unbiased"),
    ("SNR, ratio of means", "snr_ratio_of_means", 1.0, "snr_ratio_of_means_unbiased"),
    ("internal / input variance", "internal_to_input", 1.0, "internal_to_input_unbiased"),
    ("L2 of the perturbation", "initial", 1.0, None),
    ("L2 to centroid, inputs", "initial_centroid", 1.0, None),
    ("L2 to centroid, vary input", "centroid_vary_input", 1.0, None),
    ("L2 to centroid, vary randomness", "centroid_vary_randomness", 1.0, None),
    ("L2 to centroid, vary both", "centroid_vary_both", 1.0, None),
    ("correlation of directions, vary randomness", "correlation_vary_randomness", 1.0, None),
    ("correlation of directions, vary input", "correlation_vary_input", 1.0, None),
)


def _print(report: "SnrReport", found: dict[str, Any]) -> None:
    from advpure.cli import output

    s, first = report.settings, report.result.rows[0]
    times = found["internal_to_input"]
    print(
        f"{s['dataset']}, {s['distribution']} noise {s['eps']:.4g}, defense {s['purifier']}, "
        f"{found['n']} images x {first.perturbations} perturbations x {first.configurations} "
        f"configurations: SNR {_number(found, 'snr_mean_of_ratios') or 'absent'}"
        f"{' ' + _interval(found, 'snr_mean_of_ratios') if times else ''}"
        + (f", internal variance {times:.4g} times the input variance" if times else "")
    )
    rows = [
        [
            label,
            _number(found, name, scale),
            _number(found, f"{name}_std", scale),
            _interval(found, name, scale),
            _number(found, unbiased, scale),
            _interval(found, unbiased, scale),
            str(found[f"{name or unbiased}_n"]),
        ]
        for label, name, scale, unbiased in _ROWS
    ]
    plain = ["plain", "std over images", "95 % of it"]
    columns = ["", *plain, "unbiased", "95 % of it", "images"]
    output.print_table(columns, rows)
    print(
        f"plain: averages over the table, as seed 003 takes them; input is low by "
        f"1/{first.perturbations} of itself, internal by 1/{first.configurations} of itself but "
        f"high by 1/{first.perturbations} of the interaction; unbiased are the variances, and "
        "ratios are of those"
    )


def _number(found: dict[str, Any], name: str | None, scale: float = 1.0) -> str:
    value = None if name is None else found.get(name)
    return "" if value is None else f"{scale * value:.4g}"


def _interval(found: dict[str, Any], name: str | None, scale: float = 1.0) -> str:
    ends = None if name is None else found[f"{name}_interval"]
    return "" if ends is None else f"[{scale * ends[0]:.4g}, {scale * ends[1]:.4g}]"
