"""The SQLite file under the records: opening it, transactions, and its refusals as our errors.

One connection per store, in autocommit, with explicit transactions; see `advpure.runs.records` for
what is promised about durability.
"""

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from advpure.base.errors import BadInput
from advpure.base.storage import StorageFull

BUSY_SECONDS = 30.0
_APPLICATION = 0x61647670  # "advp" in ASCII marks the file as ours
_RESTORE = "restore it, or delete it and run again"
_FORMAT = 3  # 1 had no checksums, 2 other names in the settings of a run


def connect(path: Path, *, create: bool) -> sqlite3.Connection:
    """Open a database file for a run that computes (`create`) or for one that is looked at.

    What lies on a read-only disk and has no log left to fold in is opened as it stands.

    Raises:
        BadInput: for a folder, a pipe or a device of that name, on which SQLite could wait forever.
    """
    if path.exists() and not path.is_file():
        raise BadInput(str(path), "is no file that could hold records", "choose another folder")
    mode = "rwc" if create else "rw"
    if not create and not os.access(path.parent, os.W_OK):
        log = path.with_name(f"{path.name}-wal")
        mode = "ro" if log.is_file() and log.stat().st_size else "ro&immutable=1"
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    with plain_errors(path):
        return sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None)


def is_fresh(connection: sqlite3.Connection, path: Path) -> bool:
    """Return True if the file is still empty; refuse other programs' files and other formats."""
    # One snapshot for the three, or another process that is creating the tables looks foreign.
    connection.execute("SAVEPOINT look")
    try:
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (tables,) = connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
    finally:
        connection.execute("RELEASE look")
    if application == 0 and tables == 0:
        return True
    if application != _APPLICATION:
        raise BadInput(str(path), "is a database of another program", "choose another folder")
    if version < _FORMAT:
        rule = f"was made by an earlier version of advpure (format {version}, now {_FORMAT})"
        raise BadInput(str(path.parent), rule, "delete the folder or give a new --out")
    if version > _FORMAT:
        rule = f"has records of format {version}, this advpure reads format {_FORMAT}"
        raise BadInput(str(path), rule, "use the advpure that wrote it")
    return False


def use_write_ahead_log(connection: sqlite3.Connection) -> None:
    """Let readers look while a writer writes, and force each transaction to the disk."""
    # Two processes that switch a new file at once get an immediate refusal, without the wait
    # that every other statement gets: hence the loop.
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            break
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
    connection.execute("PRAGMA synchronous = FULL")


def mark_as_ours(connection: sqlite3.Connection) -> None:
    """Sign the file and its format, within the transaction that creates its tables."""
    connection.execute(f"PRAGMA application_id = {_APPLICATION}")
    connection.execute(f"PRAGMA user_version = {_FORMAT}")


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All or nothing; within another transaction, a part of it that can fail alone."""
    nested = connection.in_transaction
    connection.execute("SAVEPOINT part" if nested else "BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("RELEASE part" if nested else "COMMIT")
    except BaseException:
        # A full disk may have rolled everything back already.
        if connection.in_transaction and nested:
            connection.execute("ROLLBACK TO part")
            connection.execute("RELEASE part")
        elif connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextmanager
def snapshot(connection: sqlite3.Connection) -> Iterator[None]:
    """Let all queries of the body see the file at one moment, whatever others write meanwhile."""
    if connection.in_transaction:
        yield
        return
    connection.execute("BEGIN")
    try:
        yield
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


@contextmanager
def plain_errors(path: Path) -> Iterator[None]:
    """Turn SQLite's refusals into the errors that users meet."""
    try:
        yield
    except UnicodeDecodeError as error:  # SQLite's own message quotes the damaged bytes
        raise BadInput(str(path), "cannot be read (broken text)", _RESTORE) from error
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
        primary = code & 0xFF
        if primary == sqlite3.SQLITE_FULL or code in (
            sqlite3.SQLITE_IOERR_WRITE,
            sqlite3.SQLITE_IOERR_SHMSIZE,
        ):
            raise StorageFull(path) from error
        if primary in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
            raise BadInput(str(path), f"is not a readable database ({error})", _RESTORE) from error
        if primary == sqlite3.SQLITE_BUSY:
            rule = f"has been locked by another process for {BUSY_SECONDS:.0f} s"
            raise BadInput(str(path), rule, "wait for it, or choose another --out") from error
        if primary in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
            fix = "check the folder's permissions, or choose another folder"
            raise BadInput(str(path), f"cannot be opened or written ({error})", fix) from error
        if isinstance(error, sqlite3.ProgrammingError):  # a mistake of ours, not of the file
            raise
        raise BadInput(str(path), f"cannot be read ({error})", _RESTORE) from error
