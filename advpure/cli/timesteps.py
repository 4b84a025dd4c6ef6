"""``advpure timesteps``: accuracy and compression over the whole range of time steps."""

from typing import TYPE_CHECKING, Annotated

import typer

from advpure.cli import groups as g
from advpure.cli import options as o
from advpure.cli.flatten import defaults, flattened, helps, without

if TYPE_CHECKING:
    from advpure.analysis.timesteps.report import TimestepReport


@flattened
def timesteps(
    *,
    subject: Annotated[g.JudgedSubject, defaults(defense="ddpm"), without("t", "sigma")],
    times: Annotated[
        str, typer.Option(help="Time steps, 1 to 1000, a list.")
    ] = "1,2,5,10,20,50,100,150,200,300,500,750,1000",
    attack_times: Annotated[
        str | None,
        typer.Option(help="Those at which images are attacked, a list. Default: none."),
    ] = None,
    attacked: Annotated[
        g.Attacked,
        without("step_size", "loss"),
        helps(
            attack="pgd, apgd, bpda, or another attack.",
            steps="Gradient steps, 1 or more. Default: the attack's.",
        ),
    ],
    cr_eps: Annotated[
        str, typer.Option(help="Strength of the compression rate's perturbations, e.g. 8/255.")
    ] = "8/255",
    perturbations: Annotated[
        int, typer.Option(help="Perturbations per image and time step, 1 or more.")
    ] = 10,
    running: Annotated[g.Running, helps(plot="Draw both curves: a .png, .svg or .pdf file.")],
) -> None:
    """Print accuracy and compression rate at every time step, under one fixed configuration.

    Example: advpure timesteps --defense reverse --attack-times 1,10,100 -n 20 --plot times.png
    """
    from advpure.analysis.timesteps.run import TimestepStudy
    from advpure.cli.recorded import conclude, measure, prepare

    study = TimestepStudy(
        **subject.settings(), **attacked.settings(), times=o.parse_integers(times, "time step"),
        attack_times=o.parse_integers(attack_times, "attack time") if attack_times else (),
        cr_eps=cr_eps, perturbations=perturbations,
    )  # fmt: skip
    ready = prepare("timesteps", study, running)
    report = measure(ready, "time steps", of_defense=True)
    conclude(ready, report, lambda: _print(report))


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
