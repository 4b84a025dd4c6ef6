"""``advpure data`` and ``advpure export``: look around, and take rows away."""

from typing import Annotated

import typer

from advpure.cli import options as o


def data(as_json: o.Json = False) -> None:
    """List the data sets with their images and default threat models."""
    from advpure.cli import output
    from advpure.data import DATASETS

    infos = [DATASETS.get(name).info for name in DATASETS.names()]
    if as_json:
        output.print_json(
            {
                i.name: {
                    "classes": list(i.classes), "shape": list(i.shape), "splits": dict(i.splits),
                    "norm": i.norm, "eps": i.eps, "tile": i.tile, "about": i.description,
                }
                for i in infos
            }
        )  # fmt: skip
        return
    rows = [
        [
            i.name, "x".join(map(str, i.shape)),
            ", ".join(f"{count:,} {split}" for split, count in i.splits.items()),
            f"{i.norm} {i.eps:.4g}", i.description,
        ]
        for i in infos
    ]  # fmt: skip
    output.print_table(["data set", "shape", "images", "threat model", "what"], rows)


def export(
    run: Annotated[str, typer.Argument(help="A run folder.")],
    to: Annotated[str, typer.Option(help="File: .csv, .json, .jsonl or .parquet.")],
    table: Annotated[
        str | None, typer.Option(help="Table of the run. Default: its main one.")
    ] = None,
) -> None:
    """Write the rows of a run to a file.

    Example: advpure export runs/attack-0123456789ab --to records.csv
    """
    from advpure.export import export as write

    done = write(run, to, table)
    others = f"; other tables: {', '.join(done.other_tables)}" if done.other_tables else ""
    print(f"{done.rows} rows of {done.table} in {done.path}{others}")
