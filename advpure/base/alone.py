"""A folder that one process writes at a time; without torch, for a quick start."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from advpure.base.errors import BadInput
from advpure.base.storage import writing


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold a folder, made if need be; the system lets go of it when the process ends.

    Where the file system has no locks, it is not held.

    Raises:
        BadInput: where another holds it.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            fix = "wait for its end, or choose another folder"
            raise BadInput(f"folder {folder}", "is being written by another process", fix) from None
        except OSError:  # no locks here
            pass
        yield
    finally:
        os.close(handle)
