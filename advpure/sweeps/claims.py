"""Who computes which run: claims in one small database per root, so that no two do the same.

A worker claims a run before it computes and gives it back afterwards; meanwhile it says from time
to time that it is alive and how far it is. A claim is void when its process is gone (on the same
machine), or when it has not been heard of for `SILENT_SECONDS`. So a sweep that was killed goes on
at once. A claim is a courtesy, not a guard: the records of a run stay right even if two processes
compute it.
"""

import os
import platform
import sqlite3
import time
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from advpure.base.storage import is_running, writing
from advpure.runs.database import (
    connect,
    mark_as_ours,
    plain_errors,
    transaction,
    use_write_ahead_log,
)

FILE_NAME = "claims.sqlite"
SILENT_SECONDS = 60.0
_TABLE = (
    "CREATE TABLE IF NOT EXISTS claims (run TEXT PRIMARY KEY, host TEXT NOT NULL, "
    "pid INTEGER NOT NULL, beat REAL NOT NULL, done INTEGER NOT NULL, total INTEGER) WITHOUT ROWID"
)


class Claim(NamedTuple):
    """A run that a living process computes.

    Attributes:
        run: Name of the run folder.
        host: The machine.
        pid: The process.
        beat: When it was last heard of, seconds since the epoch.
        done: Finished units of work.
        total: Units of work; None where the verb cannot say.
    """

    run: str
    host: str
    pid: int
    beat: float
    done: int
    total: int | None

    @property
    def alive(self) -> bool:
        """Whether the claim counts."""
        if time.time() - self.beat > SILENT_SECONDS:
            return False
        return self.host != platform.node() or is_running(self.pid)


class Claims:
    """The claims below a root folder; one object per thread and process."""

    def __init__(self, root: str | Path) -> None:
        """Open the database, or create it.

        Raises:
            BadInput: when the folder cannot be written.
            StorageFull: when there is no room.
        """
        self._path = Path(root) / FILE_NAME
        with writing(self._path.parent):
            self._path.parent.mkdir(parents=True, exist_ok=True)
        self._connection = connect(self._path, create=True)
        with plain_errors(self._path):
            use_write_ahead_log(self._connection)
            self._connection.execute("PRAGMA synchronous = NORMAL")  # a lost claim costs nothing
            with transaction(self._connection):
                self._connection.execute(_TABLE)
                mark_as_ours(self._connection)

    def take(self, run: str, total: int | None = None) -> bool:
        """Claim a run for this process; False if a living one has it."""
        with plain_errors(self._path), transaction(self._connection):
            found = self._find(run)
            if found is not None and found.alive:
                return False
            self._connection.execute(
                "INSERT OR REPLACE INTO claims VALUES (?, ?, ?, ?, 0, ?)",
                (run, platform.node(), os.getpid(), time.time(), total),
            )
            return True

    def beat(self, run: str, done: int) -> None:
        """Say that this process still computes a run, and how far it is."""
        with plain_errors(self._path):
            self._connection.execute(
                "UPDATE claims SET beat = ?, done = ? WHERE run = ? AND pid = ? AND host = ?",
                (time.time(), done, run, os.getpid(), platform.node()),
            )

    def give_back(self, run: str) -> None:
        """Let go of a run that this process had claimed."""
        self._drop("run = ? AND pid = ? AND host = ?", run, os.getpid(), platform.node())

    def of_process(self, pid: int) -> list[str]:
        """Return the runs that a process of this machine has claimed, living or not."""
        return [c.run for c in self._all() if c.pid == pid and c.host == platform.node()]

    def drop_process(self, pid: int) -> None:
        """Void the claims of a process of this machine that has ended."""
        self._drop("pid = ? AND host = ?", pid, platform.node())

    def living(self) -> dict[str, Claim]:
        """Return the claims that count, by run."""
        return {claim.run: claim for claim in self._all() if claim.alive}

    def close(self) -> None:
        """Close the database."""
        self._connection.close()

    def __enter__(self) -> Self:
        """Return the claims."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the database."""
        self.close()

    def _all(self) -> list[Claim]:
        with plain_errors(self._path):
            return [Claim(*row) for row in self._connection.execute("SELECT * FROM claims")]

    def _find(self, run: str) -> Claim | None:
        found: sqlite3.Cursor = self._connection.execute(
            "SELECT * FROM claims WHERE run = ?", (run,)
        )
        row = found.fetchone()
        return Claim(*row) if row else None

    def _drop(self, condition: str, *values: object) -> None:
        with plain_errors(self._path):
            self._connection.execute(f"DELETE FROM claims WHERE {condition}", values)
