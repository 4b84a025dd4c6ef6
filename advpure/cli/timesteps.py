"""``advpure timesteps``: accuracy and compression over the whole range of time steps."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from advpure.cli import options as o

if TYPE_CHECKING:
    from advpure.analysis.timesteps_report import TimestepReport


def timesteps(
    defense: o.Defense = "ddpm",
    times: Annotated[
        str, typer.Option(help="Time steps, 1 to 1000, a list.")
    ] = "1,2,5,10,20,50,100,150,200,300,500,750,1000",
    attack_times: Annotated[
        str | None,
        typer.Option(help="Those at which images are attacked, a list. Default: none."),
    ] = None,
    dataset: o.Dataset = o.DEFAULT_DATASET,
    n: o.Count = None,
    subset: o.Subset = "test",
    eps: o.Eps = None,
    norm: Annotated[str | None, typer.Option(help="linf or l2. Default: the data set's.")] = None,
    option: o.Options = None,
    attack: Annotated[
        str, typer.Option("--attack", "-a", help="pgd, apgd, bpda, or another attack.")
    ] = "pgd",
    steps: Annotated[
        int | None, typer.Option(help="Gradient steps, 1 or more. Default: the attack's.")
    ] = None,
    attack_option: Annotated[
        list[str] | None,
        typer.Option("--attack-option", help="Other setting of the attack, KEY=VALUE; repeats."),
    ] = None,
    cr_eps: Annotated[
        str, typer.Option(help="Strength of the compression rate's perturbations, e.g. 8/255.")
    ] = "8/255",
    perturbations: Annotated[
        int, typer.Option(help="Perturbations per image and time step, 1 or more.")
    ] = 10,
    seed: o.Seed = 0,
    scheme: o.Scheme = "hash",
    gradient: Annotated[
        str | None, typer.Option(help="full, checkpoint, bpda or surrogate. Default: exact.")
    ] = None,
    policy: Annotated[
        str | None, typer.Option(help="single, eot:K or majority:K purifications per answer.")
    ] = None,
    weights: o.Weights = None,
    classifier: o.Classifier = None,
    tile: o.Tile = None,
    batch_size: o.BatchSize = None,
    device: o.Device = "cpu",
    out: o.Out = None,
    plot: Annotated[
        str | None, typer.Option(help="Draw both curves: a .png, .svg or .pdf file.")
    ] = None,
    dry_run: o.DryRun = False,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Print accuracy and compression rate at every time step, under one fixed configuration.

    Example: advpure timesteps --defense reverse --attack-times 1,10,100 -n 20 --plot times.png
    """
    from advpure.analysis.timesteps import (
        TimestepStudy,
        estimate_timesteps,
        measure_timesteps,
        prepare_timesteps,
    )
    from advpure.cli import output
    from advpure.figures import check_ending

    if plot is not None:
        check_ending(plot)
    study = TimestepStudy(
        defense=defense, dataset=dataset, subset=subset, n=o.count(n, dataset),
        options=o.parse_options(option), weights=weights, classifier=classifier,
        times=o.parse_integers(times, "time step"),
        attack_times=o.parse_integers(attack_times, "attack time") if attack_times else (),
        attack=attack,
        attack_options=o.joined(o.parse_options(attack_option), o.given(steps=steps)),
        eps=eps, norm=norm, cr_eps=cr_eps, perturbations=perturbations, seed=seed,
        scheme=scheme, gradient=gradient, policy=policy,  # type: ignore[arg-type]
        tile=tile, device=device,
    )  # fmt: skip
    prepared = prepare_timesteps(study)
    if dry_run:
        output.print_estimate(estimate_timesteps(prepared), as_json, of_defense=True)
        return
    with output.progress("time steps", prepared.total, not (quiet or as_json)) as bar:
        report = measure_timesteps(study, out=out, batch_size=batch_size, progress=bar)
    if plot is not None:
        _draw(report, plot)
    output.print_report(report, lambda: _print(report), as_json, plot=plot)


def _print(report: "TimestepReport") -> None:
    from advpure.cli import output

    s, steps = report.settings, report.steps
    model = s["threat_model"]
    best = max(steps, key=lambda step: -1 if step.rate is None else -step.rate.value)
    told = "" if best.rate is None else f"lowest compression rate {best.rate.value:.4f} at {best.t}"
    print(
        f"{s['dataset']}, {model['norm']} {model['eps']:.4g}, defense {s['defense']['purifier']}, "
        f"fixed randomness (seed {s['randomness']['seed']}), t = {steps[0].t} to {steps[-1].t}: "
        f"{told or 'no compression rate'}"
    )
    rows = [
        [
            str(step.t), output.with_interval(step.clean), output.with_interval(step.noise),
            "" if step.attacked is None else output.with_interval(step.attacked),
            "" if step.rate is None else f"{step.rate.value:.4f}",
            "" if step.rate is None or step.rate.interval is None
            else f"[{step.rate.interval.low:.4f}, {step.rate.interval.high:.4f}]",
            str(step.clean.n),
        ]
        for step in steps
    ]  # fmt: skip
    attacked = f"{s['attack']['name']} %" if s["attack"] else "attacked %"
    output.print_table(
        ["t", "clean %", "noise %", attacked, "compression rate", "95 % of the mean", "n"], rows
    )


def _draw(report: "TimestepReport", path: str) -> None:
    from advpure.analysis.timesteps_figure import timesteps_figure
    from advpure.records import RecordStore

    with RecordStore.read(report.run) as store:
        timesteps_figure(store, Path(path))
