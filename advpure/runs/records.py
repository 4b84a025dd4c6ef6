"""Records: every result is a row in one SQLite file per run folder; aggregates are computed.

A run folder holds `records.sqlite`: the settings that identify the run, one row of context per
session, and the run's tables, whose rows are named by their key columns. Rows are only ever
added. Rows come back sorted by key, so neither the order nor the batch in which they were
computed shows. Every batch has a checksum, and whatever is read is checked before, see
`advpure.runs.integrity`.

Durability, and its price: write-ahead log, one transaction per batch, `synchronous=FULL`. A
process killed at any moment keeps every batch that `append` returned from, whole; so does a
machine that loses power, for one fsync (some milliseconds) a batch, which is small beside a
batch of network evaluations. SQLite's write-ahead log needs a local disk, not a network share.

Several processes may write to one run at once: SQLite lets one transaction through at a time
and the others wait (up to `database.BUSY_SECONDS`). Rows that two of them both add must be equal.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from advpure.base.errors import BadInput
from advpure.base.storage import RECORDS_FILE, StorageFull, refuse_other_use, writing
from advpure.runs.database import (
    connect,
    is_fresh,
    plain_errors,
    snapshot,
    transaction,
    use_write_ahead_log,
)
from advpure.runs.header import (
    canonical_json,
    check_folder,
    collect_context,
    default_run_folder,
    run_id,
    source_digests,
)
from advpure.runs.integrity import Values, damaged
from advpure.runs.record_header import RecordHeader, create_tables, distinct_samples
from advpure.runs.schema import Row, Schema

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "ALREADY_COMPLETE",
    "RecordConflict",
    "RecordStore",
    "Row",
    "Schema",
    "StorageFull",
    "canonical_json",
    "collect_context",
    "default_run_folder",
    "run_id",
    "source_digests",
]

FILE_NAME = RECORDS_FILE
ALREADY_COMPLETE = "already complete, reported from records; nothing was computed"
_BLOBS = ("_blobs", ("name", "shape", "data"), ("name",))


class RecordConflict(RuntimeError):
    """Say that a key is stored with other values; the stored ones stay."""


class RecordStore:
    """The records of one run. Use `open` to compute, `read` to look; close it after use.

    Not to be shared between threads or across a fork: open one store in each.
    """

    def __init__(self, folder: Path, connection: sqlite3.Connection) -> None:
        """Take over a checked connection; `open` and `read` make one."""
        self.folder = folder
        self._connection = connection
        self._header = RecordHeader(connection, self._path)
        self._ledger = self._header.ledger

    @classmethod
    def open(
        cls,
        folder: str | Path,
        *,
        schemas: Sequence[Schema],
        settings: Mapping[str, Any],
        context: Mapping[str, Any],
        samples: Iterable[int] | None = None,
    ) -> Self:
        """Begin a run, or go on with it.

        Args:
            folder: The run folder; made if absent.
            schemas: The tables that this session uses; the first one is the run's main table.
            settings: Resolved settings, which identify the run.
            context: Where this session computes, as from `collect_context`.
            samples: The ids of the run's images; rows of others are refused. None for any.

        Returns:
            A writable store. Killed in the middle, this leaves nothing or a usable run.

        Raises:
            BadInput: when the folder belongs to a run of other settings, images, weights, data or
                table layouts, to another format, or holds a file that is not ours or is damaged.
            StorageFull: when there is no room.

        Warns:
            RuntimeWarning: when the context changed in a way that may change the last bits.
        """
        folder = Path(folder)
        wanted, header = canonical_json(settings), canonical_json(context)
        ids = distinct_samples(samples)
        path = folder / FILE_NAME
        refuse_other_use(folder, FILE_NAME)
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        connection = connect(path, create=True)
        try:
            with plain_errors(path):
                fresh = is_fresh(connection, path)
                use_write_ahead_log(connection)
                with transaction(connection):
                    if fresh and is_fresh(connection, path):
                        create_tables(connection, path, wanted, ids)
                    store = cls(folder, connection)
                    store._header.begin_session(wanted, header, ids, schemas)
        except BaseException:
            connection.close()
            raise
        return store

    @classmethod
    def read(cls, folder: str | Path) -> Self:
        """Look at a run without being able to change it, also while it is being written.

        Raises:
            BadInput: when the folder holds no run, one that cannot be read, or another one than its
                name says.
        """
        folder = Path(folder)
        path = folder / FILE_NAME
        if not path.is_file():
            raise BadInput(str(folder), "is no run folder", f"name one that holds {FILE_NAME}")
        connection = connect(path, create=False)
        try:
            with plain_errors(path):
                connection.execute("PRAGMA query_only = ON")
                if is_fresh(connection, path):
                    raise BadInput(str(folder), "holds a run that never began", "run it again")
                store = cls(folder, connection)
                check_folder(folder, store.run)
                store._header.check()
                return store
        except BaseException:
            connection.close()
            raise

    @property
    def settings(self) -> dict[str, Any]:
        """The resolved settings that identify the run."""
        return self._header.settings

    @property
    def samples(self) -> frozenset[int] | None:
        """The ids of the run's images, of a shard its own; None for any."""
        return self._header.samples

    @property
    def context(self) -> dict[str, Any]:
        """The context of the first session."""
        return self.sessions[0]

    @property
    def sessions(self) -> list[dict[str, Any]]:
        """The context of every session, in order, each with the time (UTC) it `started`."""
        return self._header.sessions

    @property
    def run(self) -> str:
        """The name of the run: 12 hexadecimal digits of its settings' sha256."""
        return run_id(self.settings)

    @property
    def finished(self) -> bool:
        """Whether the run once was complete; see `finish`."""
        return self._header.finished

    @property
    def batches(self) -> int:
        """How many batches of rows and of tensors were added so far."""
        with plain_errors(self._path):
            return self._ledger.next() - 1

    def finish(self) -> None:
        """Note that nothing of what the run's settings ask for is missing.

        Raises:
            StorageFull: when there is no room.
        """
        with self.batch():
            self._header.finish()

    def check(self) -> dict[str, int]:
        """Check everything: settings, sessions, rows, tensors, and the file's own structure.

        Returns:
            The number of rows of each table.

        Raises:
            BadInput: naming the first thing that is not as it was written.
        """
        problems = self._query("PRAGMA integrity_check(1)")
        if problems != [("ok",)]:
            raise damaged(self._path, " ".join(str(problems[0][0]).split()))
        canonical_json(self.settings)
        for what in (self.sessions, self.finished, self.blobs()):
            del what
        return {table: self.count(table) for table in self._header.schemas}

    @property
    def schemas(self) -> tuple[Schema, ...]:
        """The layouts of the run's tables; the first is the main one."""
        return tuple(self._header.schemas.values())

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Make everything added in the body one transaction: all of it is kept, or none.

        Example: `with store.batch(): store.append("attack", rows); store.put_blob(name, image)`.

        Raises:
            StorageFull: when there is no room.
        """
        with plain_errors(self._path), transaction(self._connection):
            yield

    def append(self, table: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add rows in one transaction.

        A row that is stored already with the same values is passed over, so a batch may be
        repeated; NaN equals NaN here.

        Args:
            table: The table.
            rows: One mapping per row, from every column to a value of its type (numbers of
                numpy or torch too). Optional columns may be left out.

        Raises:
            RecordConflict: when a key is stored with other values; none of the rows is added.
            BadInput: when a row does not fit the table's layout; none is added.
            StorageFull: when there is no room; none is added, everything before is kept.
        """
        schema = self._schema(table)
        encoded = [schema.encode(row, self._header.samples) for row in rows]
        marks = ", ".join("?" * (len(schema.columns) + 1))
        insert = f'INSERT INTO "{table}" VALUES ({marks}) ON CONFLICT DO NOTHING'
        with self.batch():
            batch, width = self._ledger.next(), len(schema.keys)
            added = self._connection.executemany(insert, [(*row, batch) for row in encoded])
            if encoded and added.rowcount < len(encoded):
                encoded = [row for row in dict.fromkeys(encoded) if self._is_of(schema, row, batch)]
            if encoded:
                self._ledger.enter(batch, table, sorted(encoded, key=lambda row: row[:width]))

    def done(self, table: str, *columns: str) -> set[tuple[Any, ...]]:
        """Return the distinct values of some key columns (all of them by default)."""
        schema = self._checked(table)
        chosen = columns or tuple(schema.keys)
        for column in chosen:
            schema.check_column(column)
        names = ", ".join(f'"{column}"' for column in chosen)
        rows = self._query(f'SELECT DISTINCT {names} FROM "{table}"')
        return {tuple(map(schema.decode, chosen, row)) for row in rows}

    def rows(self, table: str, where: Mapping[str, Any] | None = None) -> list[Row]:
        """Return rows as mappings, sorted by key.

        Args:
            table: The table.
            where: Columns and the values that they must equal; everything by default.
        """
        schema = self._checked(table)
        condition, values = _condition(schema, where or {})
        order = ", ".join(f'"{key}"' for key in schema.keys)
        names = tuple(schema.columns)
        listed = ", ".join(f'"{name}"' for name in names)
        query = f'SELECT {listed} FROM "{table}" {condition} ORDER BY {order}'
        return [
            dict(zip(names, map(schema.decode, names, row), strict=True))
            for row in self._query(query, values)
        ]

    def count(self, table: str, where: Mapping[str, Any] | None = None) -> int:
        """Count rows, all of them or those `where` some columns have given values."""
        condition, values = _condition(self._checked(table), where or {})
        rows = self._query(f'SELECT COUNT(*) FROM "{table}" {condition}', values)
        return int(rows[0][0])

    def put_blob(self, name: str, tensor: "Tensor") -> None:
        """Store a float32 tensor, such as images, under a name.

        Raises:
            RecordConflict: when the name holds another tensor.
            BadInput: when the tensor is not float32.
            StorageFull: when there is no room.
        """
        if str(tensor.dtype) != "torch.float32":
            raise BadInput(f"blob {name} of {tensor.dtype}", "is not float32", "convert it first")
        data = tensor.detach().cpu().contiguous().numpy().astype("<f4", copy=False).tobytes()
        shape = json.dumps(list(tensor.shape))
        with self.batch():
            stored = self._query("SELECT shape, data FROM _blobs WHERE name = ?", (name,))
            if stored and stored != [(shape, data)]:
                raise RecordConflict(f"blob {name} holds another tensor; nothing was overwritten")
            if not stored:
                self._header.add("_blobs", (name, shape, data))

    def get_blob(self, name: str) -> "Tensor":
        """Return the float32 tensor stored under a name, on the CPU.

        Raises:
            BadInput: when there is none, or not the one that was written.
        """
        import torch

        query = "SELECT name, shape, data, _batch FROM _blobs WHERE name = ?"
        with plain_errors(self._path), snapshot(self._connection):
            row = self._connection.execute(query, (name,)).fetchone()
            if row is None:
                raise BadInput(f"blob {name!r}", f"is not in {self.folder}", "see blobs()")
            self._ledger.check_row("_blobs", row[:-1], row[-1])
        shape, data = json.loads(row[1]), bytearray(row[2])
        if not data:
            return torch.empty(shape, dtype=torch.float32, device="cpu")
        flat = torch.frombuffer(data, dtype=torch.float32)
        return flat.reshape(shape)

    def blobs(self) -> list[str]:
        """Return the names of the stored tensors, sorted."""
        with plain_errors(self._path):
            self._ledger.check(*_BLOBS)
        return [name for (name,) in self._query("SELECT name FROM _blobs ORDER BY name")]

    def close(self) -> None:
        """Fold the write-ahead log into the file and let go of it; harmless when repeated."""
        self._connection.close()

    def __enter__(self) -> Self:
        """Return the store."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the store."""
        self.close()

    @property
    def _path(self) -> Path:
        return self.folder / FILE_NAME

    def _query(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with plain_errors(self._path):
            return self._connection.execute(query, values).fetchall()

    def _schema(self, table: str) -> Schema:
        if table not in self._header.schemas:
            known = ", ".join(self._header.schemas) or "none"
            raise BadInput(f"table {table!r}", f"is not in {self.folder}", f"known: {known}")
        return self._header.schemas[table]

    def _checked(self, table: str) -> Schema:
        """Return a table's layout, after its rows have been checked."""
        schema = self._schema(table)

        def problem(row: Values) -> str:
            return schema.problem(row, self._header.samples)

        with plain_errors(self._path):
            self._ledger.check(table, tuple(schema.columns), tuple(schema.keys), problem)
        return schema

    def _is_of(self, schema: Schema, row: Values, batch: int) -> bool:
        """Return whether a stored row came with a batch; refuse one with other values."""
        keys = list(schema.keys)
        condition = " AND ".join(f'"{key}" = ?' for key in keys)
        query = f'SELECT * FROM "{schema.table}" WHERE {condition}'
        *stored, origin = self._query(query, row[: len(keys)])[0]
        for column, there, here in zip(schema.columns, stored, row, strict=True):
            if there != here:
                key = ", ".join(f"{name}={value}" for name, value in zip(keys, row, strict=False))
                raise RecordConflict(
                    f"{schema.table}({key}) is stored with {column} = {there}, now {here}; "
                    "results are never overwritten"
                )
        return bool(origin == batch)


def _condition(schema: Schema, where: Mapping[str, Any]) -> tuple[str, list[Any]]:
    values = [schema.encode_value(column, value) for column, value in where.items()]
    terms = " AND ".join(f'"{column}" IS ?' for column in where)
    return (f"WHERE {terms}" if terms else ""), values
