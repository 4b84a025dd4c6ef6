"""``advpure export``: take the rows of a run away, or say whether they are as they were written."""

from typing import Annotated

import typer


def export(
    run: Annotated[str, typer.Argument(help="A run folder.")],
    to: Annotated[str | None, typer.Option(help="File: .csv, .json, .jsonl or .parquet.")] = None,
    table: Annotated[
        str | None, typer.Option(help="Table of the run. Default: its main one.")
    ] = None,
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Check every row against its checksum; exit code 1 if one is broken."
        ),
    ] = False,
) -> None:
    """Write the rows of a run to a file, or check that they are as they were written.

    Example: advpure export runs/attack-0123456789ab --to records.csv
    """
    from advpure.base.errors import BadInput
    from advpure.runs.export import check_run
    from advpure.runs.export import export as write

    if to is None and not check:
        raise BadInput(
            f"run {run}",
            "has nowhere to go",
            "give --to FILE.csv or --check, see advpure export --help",
        )
    if to is None and table is not None:
        fix = "leave it out, or give --to FILE.csv"
        raise BadInput(f"--table {table}", "means nothing to --check, which takes all", fix)
    if check:
        verdict = check_run(run)
        print(verdict.words)
        if not verdict.intact:
            raise typer.Exit(1)
    if to is not None:
        done = write(run, to, table)
        others = f"; other tables: {', '.join(done.other_tables)}" if done.other_tables else ""
        print(f"{done.rows} rows of {done.table} in {done.path}{others}")
