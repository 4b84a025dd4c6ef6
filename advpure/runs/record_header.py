"""The header of a file of records: what identifies its run, who computed, which tables it has."""

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from advpure.base.errors import BadInput
from advpure.base.validation import whole
from advpure.runs.database import mark_as_ours, plain_errors, snapshot
from advpure.runs.header import check_context, check_settings
from advpure.runs.integrity import TABLE, Ledger, Values, damaged
from advpure.runs.meta import STATEMENT, Meta, read_json
from advpure.runs.schema import Schema

_TABLES = (
    TABLE,
    STATEMENT,
    "CREATE TABLE _sessions (id INTEGER PRIMARY KEY, started TEXT NOT NULL, context TEXT NOT NULL, "
    "_batch INTEGER NOT NULL)",
    "CREATE TABLE _blobs (name TEXT PRIMARY KEY, shape TEXT NOT NULL, data BLOB NOT NULL, "
    "_batch INTEGER NOT NULL)",
)


class RecordHeader:
    """The header of an open file.

    Args:
        connection: The database.
        path: Its file, for messages.

    Attributes:
        ledger: The checksums of the file's batches.
        schemas: The layouts of its tables, by name; the first is the main one.
        samples: The ids of the run's images; None for any.

    Raises:
        BadInput: when the header is damaged.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        """Read what rows are checked by."""
        self._connection, self._path = connection, path
        self._meta = Meta(connection, path)
        self.ledger = Ledger(connection, path)
        self.schemas = self._read_schemas()
        ids = self._meta.read("samples", list)
        if any(type(i) is not int for i in ids):
            raise damaged(path, "its samples cannot be read")
        self.samples: frozenset[int] | None = frozenset(ids) or None

    @property
    def settings(self) -> dict[str, Any]:
        """The resolved settings that identify the run."""
        with plain_errors(self._path):
            settings: dict[str, Any] = self._meta.read("settings", dict)
        return settings

    @property
    def sessions(self) -> list[dict[str, Any]]:
        """The context of every session, in order, each with the time (UTC) it `started`."""
        with plain_errors(self._path):
            self.ledger.check("_sessions", ("id", "started", "context"), ("id",))
            rows = self._connection.execute("SELECT started, context FROM _sessions ORDER BY id")
            return [
                {"started": started, **read_json(context, dict, "a session", self._path)}
                for started, context in rows.fetchall()
            ]

    def check(self) -> None:
        """Check what every reader of the run needs: its tables are tables, its sessions whole.

        Raises:
            BadInput: when views or triggers were put in, or a session was edited or lost.
        """
        self._refuse_foreign()
        if not self.sessions:
            raise damaged(self._path, "its sessions are lost")

    def _refuse_foreign(self) -> None:
        """Refuse views, which pass for tables, and triggers, which change what is written."""
        foreign = self._connection.execute(
            "SELECT type, name FROM sqlite_master WHERE type IN ('view', 'trigger') ORDER BY name"
        ).fetchall()
        if foreign:
            kind, name = foreign[0]
            raise damaged(self._path, f"{name} is a {kind}, which no run has")

    @property
    def finished(self) -> bool:
        """Whether the run was complete once."""
        with plain_errors(self._path), snapshot(self._connection):
            batches: int = self._meta.read("finished", int)
            if self.ledger.count < batches:
                raise damaged(self._path, "batches are lost")
        return batches > 0

    def finish(self) -> None:
        """Note that the run is complete, within a transaction."""
        if not self.finished:
            self._meta.write("finished", str(self.ledger.count))

    def begin_session(
        self, settings: str, context: str, samples: Iterable[int] | None, schemas: Sequence[Schema]
    ) -> None:
        """Check that a session belongs to the run, and note it, within a transaction.

        Args:
            settings: Canonical JSON of its settings.
            context: Canonical JSON of where it computes.
            samples: The ids of its images, sorted; None for any.
            schemas: The tables that it uses.

        Raises:
            BadInput: when settings, images, weights, data or layouts are not those of the run, or
                views or triggers were put in.
        """
        self._refuse_foreign()
        folder = self._path.parent
        check_settings(self.settings, json.loads(settings), folder)
        ids = None if samples is None else frozenset(samples)
        if ids is not None and self.samples is not None and ids != self.samples:
            rule = f"are not those of the run in {folder}"
            raise BadInput(f"{len(ids)} images", rule, "choose another --out")
        earlier = self.sessions
        if earlier:
            check_context(earlier[0], json.loads(context), folder)
        self._add_tables(schemas)
        started = datetime.now(UTC).isoformat(timespec="seconds")
        self.add("_sessions", (len(earlier) + 1, started, context))

    def add(self, table: str, row: Values) -> None:
        """Add one row of a table of the header as a batch of its own, within a transaction."""
        batch, marks = self.ledger.next(), ", ".join("?" * (len(row) + 1))
        self._connection.execute(f"INSERT INTO {table} VALUES ({marks})", (*row, batch))
        self.ledger.enter(batch, table, [row])

    def _read_schemas(self) -> dict[str, Schema]:
        entries: list[Mapping[str, Any]] = self._meta.read("schemas", list)
        try:
            schemas = [Schema.from_json(entry) for entry in entries]
        except (ValueError, KeyError, TypeError, AttributeError):
            raise damaged(self._path, "its schemas cannot be read") from None
        return {schema.table: schema for schema in schemas}

    def _add_tables(self, schemas: Sequence[Schema]) -> None:
        """Create the tables that the run does not have yet; refuse those of another layout."""
        before = len(self.schemas)
        for schema in schemas:
            known = self.schemas.setdefault(schema.table, schema)
            if known is schema:
                self._connection.execute(schema.statement)
            elif known.to_json() != schema.to_json():
                subject = f"table {schema.table} of {self._path.parent}"
                raise BadInput(subject, "has other columns", "choose another --out")
        if len(self.schemas) > before:
            entries = [schema.to_json() for schema in self.schemas.values()]
            self._meta.write("schemas", json.dumps(entries))


def create_tables(
    connection: sqlite3.Connection, path: Path, settings: str, samples: Sequence[int] | None
) -> None:
    """Write the header of a new file, within a transaction.

    Args:
        connection: The database.
        path: Its file.
        settings: Canonical JSON of the run's settings.
        samples: The ids of the run's images, sorted; None for any.
    """
    for statement in _TABLES:
        connection.execute(statement)
    meta = Meta(connection, path)
    meta.write("settings", settings)
    meta.write("schemas", "[]")
    meta.write("samples", json.dumps(samples or []))
    meta.write("finished", "0")
    mark_as_ours(connection)


def distinct_samples(samples: Iterable[int] | None) -> list[int] | None:
    """Return sample ids, sorted; None stays None.

    Raises:
        BadInput: for truth values, negative or fractional numbers, and repetitions.

    Example:
        >>> distinct_samples([3, 1])
        [1, 3]
    """
    if samples is None:
        return None
    ids = sorted(whole(sample, "sample id") for sample in samples)
    for one, following in pairwise(ids):
        if one == following:
            raise BadInput(f"sample id {one}", "stands twice", "give each image once")
    return ids
