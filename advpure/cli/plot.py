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
    x: Annotated[
        str | None,
        typer.Option(help="Of a sweep: the value or option along x, such as cr; needs --y."),
    ] = None,
    y: Annotated[
        str | None, typer.Option(help="Of a sweep: the value along y, such as robust_accuracy.")
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(help="Of a sweep with --x: the option that names markers, such as defense."),
    ] = None,
    as_json: o.Json = False,
) -> None:
    """Draw the figure of each folder; nothing is computed, and no network is loaded.

    Of a sweep, --x and --y draw any value against any other, or along an option.

    Example: advpure plot runs/sweep-law-0123456789ab --x cr --y robust_accuracy --by defense
    """
    from advpure.base.errors import BadInput
    from advpure.base.text import several
    from advpure.cli import output
    from advpure.plots.figures import check_ending
    from advpure.sweeps.drawing import draw, draw_plane

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
    if (x is None) != (y is None):
        missing = "--y" if y is None else "--x"
        raise BadInput(f"{missing}", "is missing", "give both --x and --y, or none")
    if by is not None and x is None:
        raise BadInput(f"--by {by}", "groups nothing without --x and --y", "give them, too")

    def drawn(folder: str) -> list[Path]:
        place = base or Path(folder) / "figure"
        if x is None or y is None:
            return draw(folder, place, chosen)
        return draw_plane(folder, place, chosen, x=x, y=y, by=by)

    written = {folder: [str(path) for path in drawn(folder)] for folder in folders}
    if as_json:
        output.print_json({"figures": written})
        return
    for folder, paths in written.items():
        print(f"{folder}: {', '.join(paths)}")


def _ending(text: str) -> str:
    return f".{text.strip().lstrip('.').lower()}"
