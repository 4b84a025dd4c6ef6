"""``advpure plot``: draw runs, sweeps and experiments again, from their records alone."""

from pathlib import Path
from typing import Annotated

import typer

from advpure.cli import options as o

_ENDINGS = "svg,png"


def plot(
    folders: Annotated[
        list[str], typer.Argument(help="Run folders, or folders of sweeps (runs/sweep-...).")
    ],
    to: Annotated[
        str | None,
        typer.Option(
            help="Where to, for one folder: FIGURE.png, .svg or .pdf, or without an ending for all "
            "of --endings. Default: FOLDER/figure."
        ),
    ] = None,
    endings: Annotated[
        str | None,
        typer.Option(help="Which files to write, a list of svg, pdf and png. Default: svg,png."),
    ] = None,
    as_json: o.Json = False,
) -> None:
    """Draw the figure of each folder; nothing is computed, and no network is loaded.

    Example: advpure plot runs/sweep-003-table-2-small-0123456789ab --to law
    """
    from advpure.base.errors import BadInput
    from advpure.base.text import several
    from advpure.cli import output
    from advpure.plots.figures import check_ending
    from advpure.sweeps.drawing import draw

    if to is not None and len(folders) > 1:
        raise BadInput(f"--to {to}", f"is one place for {len(folders)} figures", "leave it out")
    if to is not None and not Path(to).name:
        raise BadInput(f"--to {to!r}", "names no file", "write --to figure.svg")
    listed = several(endings or _ENDINGS, _ending, "endings", "write svg,png")
    chosen, base = list(listed), None if to is None else Path(to)
    if base is not None and base.suffix:
        check_ending(base)
        if endings is not None:
            raise BadInput(f"--to {to} beside --endings", "says twice which file", "leave one out")
        chosen, base = [base.suffix.lower()], base.with_suffix("")
    elif base is not None and base.exists():
        raise BadInput(f"--to {to}", "is there, and is no picture", f"write --to {to}.svg")
    written = {
        folder: [str(path) for path in draw(folder, base or Path(folder) / "figure", chosen)]
        for folder in folders
    }
    if as_json:
        output.print_json({"figures": written})
        return
    for folder, paths in written.items():
        print(f"{folder}: {', '.join(paths)}")


def _ending(text: str) -> str:
    return f".{text.strip().lstrip('.').lower()}"
