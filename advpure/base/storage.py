"""What every writer shares: a file appears whole or not at all, and a full disk is said so.

The trade-off: a file is written beside its target, forced to the disk and renamed, so writing
needs room for both the old and the new file for a moment, and one fsync (some milliseconds).
"""

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path

from advpure.base.errors import BadInput

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

RECORDS_FILE, TRAINING_FILE = "records.sqlite", "checkpoint.pt"
_USES = {RECORDS_FILE: "the records of a run", TRAINING_FILE: "a training"}


def refuse_other_use(folder: Path, own: str) -> None:
    """Refuse a folder that holds what another verb goes on from.

    Args:
        folder: Where to write.
        own: The file that is about to be there, `RECORDS_FILE` or `TRAINING_FILE`.

    Raises:
        BadInput: naming what it holds.
    """
    if (folder / own).exists():
        return
    for name, what in _USES.items():
        if (folder / name).exists():
            raise BadInput(f"folder {folder}", f"holds {what} ({name})", "choose another folder")


def refuse_source(target: Path, sources: Iterable[str | Path]) -> None:
    """Refuse to write over a file that the same command reads.

    Raises:
        BadInput: naming it.
    """
    for source in map(Path, sources):
        if target.resolve() == source.resolve():
            raise BadInput(f"file {target}", "is one of those that are read", "write another")


class StorageFull(RuntimeError):
    """Say that a write found no room, and that what was written before it is kept.

    Args:
        path: The file or folder that was written to.

    Example:
        >>> print(StorageFull("runs/cr-1"))
        no room left to write runs/cr-1; everything before is kept: free space and run it again
    """

    def __init__(self, path: str | Path) -> None:
        """Build the message from the path."""
        self.path = str(path)
        super().__init__(
            f"no room left to write {path}; everything before is kept: free space and run it again"
        )

    def __reduce__(self) -> tuple[type["StorageFull"], tuple[str]]:
        """Let the error cross process borders."""
        return type(self), (self.path,)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn the system's refusals to write a path into the errors that users meet.

    Args:
        path: What the body writes, for the message.

    Raises:
        StorageFull: when the disk, the quota or the size limit is reached.
        BadInput: when the path cannot be written for another reason.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise StorageFull(path) from error
        reason = error.strerror or type(error).__name__
        raise BadInput(str(path), f"cannot be written ({reason})", "choose another path") from error


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Give a scratch path that becomes the target when the body succeeds.

    Args:
        target: The file to create or replace; missing parent folders are made.

    Yields:
        A path in the same folder with the same ending, to be written and closed by the body.

    Raises:
        StorageFull: when there is no room; the target is as it was.
        BadInput: when the target cannot be written.
    """
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.name:
            raise BadInput(f"path {str(target)!r}", "names no file", "name one")
        if target.name == RECORDS_FILE:  # which the store alone writes, in place
            raise BadInput(f"file {target}", f"is {_USES[RECORDS_FILE]}", "write another")
        scratch = target.with_name(f".{target.stem}.{os.getpid()}{target.suffix}")
        _remove_leftovers(target)
        try:
            yield scratch
            with scratch.open("rb+") as handle:
                os.fsync(handle.fileno())
            scratch.replace(target)
        finally:
            with suppress(FileNotFoundError):
                scratch.unlink()


def is_running(pid: int) -> bool:
    """Return whether a process of this machine is there."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _remove_leftovers(target: Path) -> None:
    """Delete what killed processes left of earlier attempts to write a target."""
    before, after = f".{target.stem}.", target.suffix
    for path in target.parent.glob(f"{escape(before)}*{escape(after)}"):
        number = path.name[len(before) : len(path.name) - len(after)]
        if number.isascii() and number.isdigit() and not is_running(int(number)):
            with suppress(OSError):
                path.unlink()
