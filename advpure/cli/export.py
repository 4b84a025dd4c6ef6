"""``advpure export``: take the rows of a run away."""

from typing import Annotated

import typer


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
