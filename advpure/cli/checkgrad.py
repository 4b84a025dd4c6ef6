"""``advpure check-grad``: prove that the gradients attacks use are the gradients."""

from typing import TYPE_CHECKING, Annotated

import typer

from advpure.cli import groups as g
from advpure.cli import options as o
from advpure.cli.flatten import flattened, without

if TYPE_CHECKING:
    from advpure.analysis.check_grad.gradients import Agreement


@flattened
def check_grad(
    *,
    defense: Annotated[
        list[str] | None,
        typer.Option("--defense", "-d", help="Purifier; repeats. Default: all of them."),
    ] = None,
    subject: Annotated[g.Subject, without("defense", "n", "subset", "tile", "device")],
    n: Annotated[int, typer.Option("--n", "-n", help="Images, 1 or more.")] = 3,
    directions: Annotated[int, typer.Option(help="Random directions an image, 1 or more.")] = 8,
    running: Annotated[g.Running, without("batch_size", "out", "plot", "dry_run")],
) -> None:
    """Compare recomputed gradients with full autograd, and both with central differences.

    Prints a row per purifier and exits with 1 when a bound is broken. bpda and surrogate are
    approximations: their cosine to the exact gradient is shown and bounded by nothing. t, sigma
    and weights are used by the purifiers that have them; options must fit every one.

    Example: advpure check-grad --defense ddpm --t 20
    """
    import dataclasses

    from advpure.analysis.check_grad.gradients import check_gradients
    from advpure.cli import output
    from advpure.core.randomness import RandomnessConfig
    from advpure.options import check_names
    from advpure.purifiers import PURIFIERS

    dataset = subject.dataset
    names, options = defense or list(PURIFIERS.names()), o.parse_options(subject.option)
    for name in names:
        check_names(PURIFIERS.get(name), options, name)
    xi = RandomnessConfig(subject.seed, subject.scheme)  # type: ignore[arg-type]
    checks = []
    with output.progress("checking", len(names), running.shown) as bar:
        for k, name in enumerate(names):
            checks += check_gradients(
                name, dataset, n=n, directions=directions, t=subject.t, sigma=subject.sigma,
                options=options, weights=subject.weights, xi=xi,
            )  # fmt: skip
            bar(k + 1)
    passed = all(check.passed for check in checks)
    if running.as_json:
        rows = [dataclasses.asdict(check) | {"passed": check.passed} for check in checks]
        output.print_json({"passed": passed, "dataset": dataset, "n": n, "checks": rows})
    else:
        blind = [check for check in checks if check.blind]
        verdict = "all gradients are exact" + (", but some are zero" if blind else "")
        if not passed:
            verdict = "a gradient is WRONG"
        print(f"{dataset}, {n} images, {directions} directions each: {verdict}")
        columns = [
            "defense", "NFE", "ckpt/full", "in float32", "full/diff", "ckpt/diff", "kinks",
            "bpda cos", "surrogate cos", "",
        ]  # fmt: skip
        output.print_table(
            columns,
            [
                [
                    c.defense, str(c.evaluations), _error(c.checkpoint),
                    _error(c.checkpoint_float32), _error(c.full_difference),
                    _error(c.checkpoint_difference), f"{c.kinks} of {c.pairs}",
                    _cosine(c.bpda), _cosine(c.surrogate),
                    "BROKEN" if not c.passed else "blind" if c.blind else "ok",
                ]
                for c in checks
            ],
        )  # fmt: skip
        bounds = checks[0].bounds
        print(
            "relative errors: checkpoint against full autograd (bound "
            f"{bounds.checkpoint:g}; in float32 {bounds.checkpoint_float32:g}), each against "
            f"central differences (bound {bounds.difference:g}); cosines to the exact gradient"
        )
        for c in blind:
            why = "exact but blind" if c.passed else "blind"
            print(f"{c.defense}: zero gradient in {c.blind} of {c.pairs} pairs: {why}")
        if not passed:
            print(
                "ckpt/full differs: the step is not repeatable (own randomness or state) or its "
                "gain is wrong; full/diff differs: the graph is cut (detach) or rows see each other"
            )
    if not passed:
        raise typer.Exit(1)


def _error(agreement: "Agreement") -> str:
    return f"{agreement.error:.1e}"


def _cosine(agreement: "Agreement | None") -> str:
    if agreement is None or agreement.cosine is None:
        return "-"
    return f"{agreement.cosine:.3f}"
