"""Who computes which run: the lock on a file `claims/RUN` beside the run's folder.

The system lets go of the lock when its process ends, however that ends, so what was killed is free
at once. The file says how far the run is. A claim is a courtesy, not a guard: the records of a run
stay right even if two processes compute it, as may happen on a file system without locks.
"""

import fcntl
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import IO

from advpure.base.storage import writing


def take(folder: Path) -> IO[bytes] | None:
    """Claim the run of a run folder, until `give_back` or death; None if another session has it."""
    path = _path(folder)
    while True:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            claim = path.open("ab")
        try:
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            claim.close()
            return None
        except OSError:  # no locks here
            return claim
        # Between opening and locking, its last owner may have deleted the file.
        with suppress(FileNotFoundError):
            if os.path.samestat(path.stat(), os.fstat(claim.fileno())):
                claim.truncate(0)
                return claim
        claim.close()


def give_back(claim: IO[bytes]) -> None:
    """Let others have a run."""
    Path(claim.name).unlink(missing_ok=True)
    claim.close()


def note(folder: Path, total: int | None, done: int) -> None:
    """Note in a run's claim how many of its units of work are done."""
    with suppress(OSError), _path(folder).open("r+b") as claim:
        claim.write(json.dumps([done, total]).ljust(64).encode())


def claimed(folder: Path) -> tuple[int, int | None] | None:
    """Return the units of a claimed run that are done, and all if known; None if unclaimed."""
    with suppress(OSError), _path(folder).open("rb") as claim:
        try:
            fcntl.flock(claim, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            done, total = json.loads(claim.read() or b"[0, null]")
            return done, total
    return None


def _path(folder: Path) -> Path:
    return folder.parent / "claims" / folder.name
