"""What a file of records says of itself: JSON values by name, each with a checksum."""

import json
import sqlite3
from pathlib import Path
from typing import Any

from advpure.runs.integrity import checksum, damaged

STATEMENT = (
    "CREATE TABLE _meta (name TEXT PRIMARY KEY, value TEXT NOT NULL, sha256 TEXT NOT NULL) "
    "WITHOUT ROWID"
)


def read_json(text: str, kind: type, what: str, path: Path) -> Any:
    """Parse JSON of a file of ours.

    Args:
        text: The text.
        kind: What it must hold: dict, list, int or bool.
        what: What to call it in messages.
        path: The file.

    Raises:
        BadInput: when it holds anything else.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if type(value) is not kind:
        raise damaged(path, f"{what} cannot be read")
    return value


class Meta:
    """The table `_meta` of a connection.

    Args:
        connection: The database.
        path: Its file, for messages.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        """Read nothing yet."""
        self._connection, self._path = connection, path

    def text(self, name: str) -> str:
        """Return the text of a value.

        Raises:
            BadInput: when it is not there or not what was written.
        """
        row = self._connection.execute(
            "SELECT value, sha256 FROM _meta WHERE name = ?", (name,)
        ).fetchone()
        if row is None or row[1] != checksum([(name, row[0])]):
            raise damaged(self._path, f"its {name} are not what was written")
        return str(row[0])

    def read(self, name: str, kind: type) -> Any:
        """Return a value of a given kind.

        Raises:
            BadInput: when it is not there or not what was written.
        """
        return read_json(self.text(name), kind, f"its {name}", self._path)

    def write(self, name: str, text: str) -> None:
        """Set a value, given its JSON."""
        self._connection.execute(
            "INSERT OR REPLACE INTO _meta VALUES (?, ?, ?)", (name, text, checksum([(name, text)]))
        )
