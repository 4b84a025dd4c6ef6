"""``advpure train``: rebuild a shipped network, or train your own from a recipe file."""

from typing import Annotated

import typer

from advpure.cli import options as o


def train(
    recipe: Annotated[
        str | None, typer.Argument(help="Recipe name or TOML file; leave out for a list.")
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(help="Folder for checkpoint, log and weights. Default: runs/train/NAME."),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Steps instead of the recipe's, 1 or more.")
    ] = None,
    until: Annotated[
        int | None,
        typer.Option(help="Stop at this step and write the weights; without it the run goes on."),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(help="Instead of steps: as many as take so many minutes here, above 0."),
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(help="Network to start from instead of the recipe's: shipped name or file."),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="Exported weights of the same recipe to go on from where the folder has no "
            "checkpoint: shipped name or file. The optimiser starts anew.",
        ),
    ] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Ignore the checkpoint.")] = False,
    device: o.Device = "cpu",
    save_seconds: Annotated[
        float, typer.Option(help="Seconds between checkpoints, 0 or more.", min=0)
    ] = 60.0,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Train a network; the same command goes on from the last checkpoint.

    Example: advpure train digits-classifier --out runs/classifier
    """
    from advpure.base.devices import check_device
    from advpure.base.errors import BadInput
    from advpure.cli import output
    from advpure.training import list_recipes
    from advpure.training import train as run

    if recipe is None:
        idle = {"out": out, "steps": steps, "until": until, "minutes": minutes}
        idle |= {"teacher": teacher, "from": weights}
        for name, value in o.given(**idle, restart=restart or None).items():
            option = f"--{name}" if value is True else f"--{name} {value}"
            raise BadInput(option, "means nothing without a recipe", "name one: digits-classifier")
        if as_json:
            output.print_json({"recipes": list_recipes()})
        else:
            output.print_list("recipes", [list(entry) for entry in list_recipes().items()])
        return
    result = run(
        recipe,
        out=out,
        resume=not restart,
        steps=steps,
        until=until,
        minutes=minutes,
        teacher=teacher,
        weights=weights,
        device=check_device(device),
        save_seconds=save_seconds,
        progress=not (quiet or as_json),
    )
    if as_json:
        output.print_json(
            {
                "weights": str(result.weights),
                "log": str(result.log),
                "quality": [rate._asdict() for rate in result.quality],
            }
        )
        return
    for rate in result.quality:
        print(rate)
    print(f"weights: {result.weights}, log: {result.log}")
