"""Write a table of records as CSV, JSON, JSON lines or Parquet.

Rows are sorted by key and begin with the name of their run, so files of several runs can be
joined. Numbers keep every digit. What each format does with the values it does not know:

    value       .csv         .json, .jsonl   .parquet
    absent      (empty)      null            null
    NaN         nan          "NaN"           NaN
    infinity    inf, -inf    "Infinity"      inf
    bytes       hexadecimal  hexadecimal     bytes

JSON has no NaN; a text keeps the file valid and NaN apart from what is absent. In CSV an empty
text and an absent one look the same.
"""

import csv
import importlib
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from advpure.base.errors import BadInput
from advpure.base.extras import optional
from advpure.base.storage import atomic_path
from advpure.runs.header import flatten
from advpure.runs.records import FILE_NAME, RecordStore
from advpure.runs.schema import Row


class Exported(NamedTuple):
    """What was written: the file, the table, its rows, and the tables that were not asked for."""

    path: Path
    table: str
    rows: int
    other_tables: tuple[str, ...]


class Checked(NamedTuple):
    """What a check of a run found: whether it is intact, and one line that says so or what is not.

    A run may be intact and unfinished: its verb goes on with it.
    """

    intact: bool
    words: str


class _Content(NamedTuple):
    run: str
    table: str
    columns: dict[str, type]
    rows: list[Row]
    settings: dict[str, Any]
    sessions: list[dict[str, Any]]


def export(
    run_folder: str | Path, to: str | Path, table: str | None = None, *, columns: Sequence[str] = ()
) -> Exported:
    """Write one table of a run; the file appears whole or not at all.

    Args:
        run_folder: The folder of the run, finished or not.
        to: The file; its ending chooses the format.
        table: The table; the run's main one by default.
        columns: Settings, as dotted keys such as "attack.eps", to repeat in every row.

    Returns:
        The path, the table and the number of rows written.

    Raises:
        BadInput: for another ending, an unknown table or setting, or a folder that is no run.
        MissingExtra: for Parquet without pyarrow.
        StorageFull: when there is no room; a file that was there before is kept.
    """
    target = Path(to)
    write = _WRITERS.get(target.suffix.lower())
    if write is None:
        endings = ", ".join(_WRITERS)
        raise BadInput(f"file {to}", "has no known ending", f"use one of {endings}")
    with RecordStore.read(run_folder) as store:
        names = [schema.table for schema in store.schemas]
        if not names:
            raise BadInput(str(run_folder), "has no tables yet", "run it again")
        chosen = names[0] if table is None else table
        content = _collect(store, chosen, columns)
    with atomic_path(target) as scratch:
        write(content, scratch)
    others = tuple(name for name in names if name != chosen)
    return Exported(target, chosen, len(content.rows), others)


def check_run(run_folder: str | Path) -> Checked:
    """Check everything that the records of a run hold against its checksums.

    Raises:
        BadInput: for a folder that holds no run.
    """
    folder = Path(run_folder)
    if not (folder / FILE_NAME).is_file():
        raise BadInput(str(folder), "is no run folder", f"name one that holds {FILE_NAME}")
    try:
        with RecordStore.read(folder) as store:
            counts = store.check()
            listed = ", ".join(f"{count:,} rows of {table}" for table, count in counts.items())
            state = "finished" if store.finished else "unfinished, the same command goes on"
    except BadInput as error:
        return Checked(False, f"{folder} is broken: {error}")
    return Checked(True, f"{folder} is intact: {listed or 'no table yet'} ({state})")


def _collect(store: RecordStore, table: str, columns: Sequence[str]) -> _Content:
    rows = store.rows(table)
    schema = next(schema for schema in store.schemas if schema.table == table)
    known = dict(flatten(store.settings))
    repeated: Row = {"run": store.run}
    for name in columns:
        if name not in known:
            raise BadInput(f"setting {name!r}", "is not in the run", f"known: {', '.join(known)}")
        value = known[name]
        plain = value is None or isinstance(value, str | int | float)
        repeated[name] = value if plain else json.dumps(value)
    kinds = {name: str if value is None else type(value) for name, value in repeated.items()}
    kinds |= {name: kind for name, (kind, _) in schema.columns.items()}
    full = [{**repeated, **row} for row in rows]
    return _Content(store.run, table, kinds, full, store.settings, store.sessions)


def _write_csv(content: _Content, path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(content.columns)
        for row in content.rows:
            writer.writerow([_csv_value(row[name]) for name in content.columns])


def _csv_value(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return value.hex() if isinstance(value, bytes) else str(value)


def _write_json(content: _Content, path: Path) -> None:
    header = {
        "run": content.run,
        "table": content.table,
        "settings": content.settings,
        "sessions": content.sessions,
    }
    with path.open("w", encoding="utf-8") as handle:
        handle.write(json.dumps(header, indent=1, allow_nan=False)[:-2])
        handle.write(',\n "rows": [')
        for index, row in enumerate(content.rows):
            handle.write(f"{',' if index else ''}\n  {_json_row(row)}")
        handle.write("\n ]\n}\n")


def _write_jsonl(content: _Content, path: Path) -> None:
    with path.open("w", encoding="utf-8") as handle:
        for row in content.rows:
            handle.write(f"{_json_row(row)}\n")


def _json_row(row: Row) -> str:
    plain = {name: _json_value(value) for name, value in row.items()}
    return json.dumps(plain, allow_nan=False)


def _json_value(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value.hex() if isinstance(value, bytes) else value


def _write_parquet(content: _Content, path: Path) -> None:
    with optional("pyarrow", "parquet"):
        arrow = importlib.import_module("pyarrow")
        parquet = importlib.import_module("pyarrow.parquet")
    kinds = {
        int: arrow.int64(),
        float: arrow.float64(),
        str: arrow.string(),
        bool: arrow.bool_(),
        bytes: arrow.binary(),
    }
    metadata = {
        "advpure.run": content.run,
        "advpure.table": content.table,
        "advpure.settings": json.dumps(content.settings),
        "advpure.sessions": json.dumps(content.sessions),
    }
    fields = [(name, kinds[kind]) for name, kind in content.columns.items()]
    layout = arrow.schema(fields, metadata=metadata)
    parquet.write_table(arrow.Table.from_pylist(content.rows, schema=layout), path)


_WRITERS: dict[str, Callable[[_Content, Path], None]] = {
    ".csv": _write_csv,
    ".json": _write_json,
    ".jsonl": _write_jsonl,
    ".parquet": _write_parquet,
}
