"""Checksums of records: whether a file holds what was written to it.

Whatever is added in one call is a batch: its rows carry the number of the batch in their column
`_batch`, and the table `_batches` holds how many rows it has and the SHA-256 of their values, in
the order of their keys. Rows and checksum are written in one transaction, so a killed process
leaves both or neither. Every read of a table begins with a check of all its batches: a value
that was changed, a row that was added by hand or lost, a batch that is gone, are refused. A
checksum is no signature: it tells damage and careless editing, not a forger who computes it anew.

Cost: about 4 microseconds a row written, 8 a row checked.
"""

import hashlib
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from advpure.base.errors import BadInput
from advpure.runs.database import snapshot

TABLE = (
    'CREATE TABLE _batches (id INTEGER PRIMARY KEY, "table" TEXT NOT NULL, '
    "rows INTEGER NOT NULL, sha256 TEXT NOT NULL)"
)
Values = tuple[Any, ...]


def damaged(path: Path, how: str) -> BadInput:
    """Return the error for a file that is not as it was written.

    Example:
        >>> print(damaged(Path("runs/a/records.sqlite"), "2 rows are lost"))
        runs/a/records.sqlite is damaged (2 rows are lost); restore it, or delete it and run again
    """
    return BadInput(str(path), f"is damaged ({how})", "restore it, or delete it and run again")


def checksum(rows: Iterable[Values]) -> str:
    """Return the SHA-256 of rows of numbers, texts, bytes and None, in their order.

    Example:
        >>> checksum([(1, 0.5, None)]) == checksum([(1, 0.5, None)]) != checksum([(1, -0.5, None)])
        True
    """
    digest = hashlib.sha256()
    for row in rows:
        digest.update(_line(row))
    return digest.hexdigest()


def _line(row: Values) -> bytes:
    # Python's own text of these types has every digit and tells 1, 1.0 and "1" apart.
    return f"{row!a}\n".encode()


class Ledger:
    """The batches of one connection: it enters new ones and checks those that are there.

    Args:
        connection: The database.
        path: Its file, for messages.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        """Begin with nothing checked."""
        self._connection, self._path = connection, path
        self._checked: dict[str, int] = {}

    @property
    def count(self) -> int:
        """Number of batches.

        Raises:
            BadInput: when one of them is gone.
        """
        count, last = self._connection.execute(
            "SELECT COUNT(*), COALESCE(MAX(id), 0) FROM _batches"
        ).fetchone()
        if count != last:
            raise damaged(self._path, f"{last - count} of {last} checksums are lost")
        return int(count)

    def next(self) -> int:
        """Return the number of the batch that the current transaction adds."""
        (last,) = self._connection.execute("SELECT MAX(id) FROM _batches").fetchone()
        return int(last or 0) + 1

    def enter(self, batch: int, table: str, rows: Sequence[Values]) -> None:
        """Add the checksum of a batch, given its rows in the order of their keys."""
        self._connection.execute(
            "INSERT INTO _batches VALUES (?, ?, ?, ?)", (batch, table, len(rows), checksum(rows))
        )

    def check(
        self,
        table: str,
        columns: Sequence[str],
        keys: Sequence[str],
        problem: Callable[[Values], str] = lambda row: "",
    ) -> None:
        """Check every batch of a table, unless it is unchanged since the last check.

        Args:
            table: The table.
            columns: Its columns without `_batch`, in the order of its rows.
            keys: The columns by which its rows are sorted.
            problem: Says what is wrong with a row whose checksum is right; empty for nothing.

        Raises:
            BadInput: naming the first batch or row that is not as it was written.
        """
        with snapshot(self._connection):
            (version,) = self._connection.execute("PRAGMA data_version").fetchone()
            if self._checked.get(table) == version:
                return
            wrong = self._compare(table, columns, keys, problem)
        if wrong:
            raise damaged(self._path, wrong)
        self._checked[table] = version

    def check_row(self, table: str, row: Values, batch: int) -> None:
        """Check a row that is a batch of its own.

        Raises:
            BadInput: when it is not what was written.
        """
        known = self._connection.execute(
            'SELECT "table", rows, sha256 FROM _batches WHERE id = ?', (batch,)
        ).fetchone()
        if known != (table, 1, checksum([row])):
            name = table.removeprefix("_")
            raise damaged(self._path, f"{row[0]} of {name} is not what was written")

    def _compare(
        self,
        table: str,
        columns: Sequence[str],
        keys: Sequence[str],
        problem: Callable[[Values], str],
    ) -> str:
        """Return the first thing that is wrong with a table, in words."""
        total = self.count
        batches = self._connection.execute(
            'SELECT id, rows, sha256 FROM _batches WHERE "table" = ?', (table,)
        )
        expected = {batch: (count, digest) for batch, count, digest in batches}
        digests: dict[Any, tuple[int, Any]] = {}
        wrong = ""
        for record in self._connection.execute(
            f'SELECT {_listed(columns)}, _batch FROM "{table}" ORDER BY {_listed(keys)}'
        ):
            row, batch = record[:-1], record[-1]
            count, digest = digests.get(batch) or (0, hashlib.sha256())
            digest.update(_line(row))
            digests[batch] = (count + 1, digest)
            wrong = wrong or problem(row)
        name = table.removeprefix("_")
        for batch in digests:
            if batch not in expected:
                return f"{name} have rows that no checksum knows"
        for batch, (count, digest) in expected.items():
            there, own = digests.get(batch) or (0, hashlib.sha256())
            if there != count:
                return f"batch {batch} of {total} has {there} of {count} rows of {name}"
            if own.hexdigest() != digest:
                return f"a value in batch {batch} of {total}, {name}, is not what was written"
        return f"a row of {name} {wrong}" if wrong else ""


def _listed(columns: Sequence[str]) -> str:
    return ", ".join(f'"{column}"' for column in columns)
