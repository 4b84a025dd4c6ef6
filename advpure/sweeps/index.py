"""The index of a sweep: which points it has and what became of each attempt.

It is a record store like that of every run (`records.sqlite` in the sweep's folder), so it can be
exported. It holds no result: values are computed from the points' own records.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from advpure.base.errors import BadInput
from advpure.runs.header import default_run_folder
from advpure.runs.records import RecordStore, collect_context
from advpure.runs.schema import Schema
from advpure.sweeps.points import Point, find_run
from advpure.sweeps.sweep import Sweep

ATTEMPTS = Schema(
    "attempts",
    {"point": str, "attempt": int},
    {"seconds": float, "error": str | None, "trace": str | None, "notes": str},
)


class Attempt(NamedTuple):
    """What became of one attempt at a point.

    Attributes:
        run: Name of the run folder.
        seconds: Wall time.
        error: One line; None if the point was finished.
        trace: Where an error that is no user's came from.
        notes: Warnings of the attempt.
        number: Attempts before this one.
    """

    run: str
    seconds: float
    error: str | None = None
    trace: str | None = None
    notes: tuple[str, ...] = ()
    number: int = 0


class Index:
    """One sweep's folder below a root, opened for each look or change, so any process may.

    Args:
        root: The folder of run folders.
        folder: The sweep's own folder.
        settings: What identifies the sweep, with its points.
    """

    def __init__(self, root: Path, folder: Path, settings: dict[str, Any]) -> None:
        """Keep where things are."""
        self.root, self.folder, self.settings = root, folder, settings

    @classmethod
    def of(cls, sweep: Sweep, points: Sequence[Point], root: str | Path) -> "Index":
        """Return the index that a sweep has or will have below a root; nothing is written.

        Raises:
            BadInput: for a root that is no folder.
        """
        if Path(root).exists() and not Path(root).is_dir():
            raise BadInput(str(root), "is no folder", "choose another --out")
        settings = {
            "verb": "sweep",
            "name": sweep.name,
            **sweep.origin,
            "points": [point.to_json() for point in points],
        }
        folder = default_run_folder(root, f"sweep-{sweep.name}", settings)
        return cls(Path(root), folder, settings)

    def begin(self) -> None:
        """Make the folder, or check that it belongs to this sweep.

        Raises:
            BadInput: when the folder cannot be used.
            StorageFull: when there is no room.
        """
        with self._open():
            pass

    @classmethod
    def read(cls, folder: str | Path) -> "Index":
        """Find the sweep of a folder.

        Raises:
            BadInput: for a folder that holds no sweep.
        """
        with RecordStore.read(folder) as store:
            settings = store.settings
        if settings.get("verb") != "sweep":
            verb = settings.get("verb", "another verb")
            raise BadInput(str(folder), f"is a run of {verb}", "name the folder of a sweep")
        return cls(Path(folder).parent, Path(folder), settings)

    @property
    def points(self) -> list[Point]:
        """The points, most informative first."""
        return [Point.from_json(entry) for entry in self.settings["points"]]

    def add(self, attempt: Attempt) -> None:
        """Store what became of an attempt."""
        with self._open() as store, store.batch():
            row = {
                "point": attempt.run,
                "attempt": store.count(ATTEMPTS.table, {"point": attempt.run}),
                "seconds": attempt.seconds,
                "error": attempt.error,
                "trace": attempt.trace,
                "notes": json.dumps(attempt.notes),
            }
            store.append(ATTEMPTS.table, [row])

    def attempts(self) -> dict[str, Attempt]:
        """Return the last attempt at every run that was tried."""
        if not find_run(self.root, self.folder.name):
            return {}
        with RecordStore.read(self.folder) as store:
            rows = store.rows(ATTEMPTS.table)
        return {
            row["point"]: Attempt(
                row["point"],
                row["seconds"],
                row["error"],
                row["trace"],
                tuple(json.loads(row["notes"])),
                row["attempt"],
            )
            for row in rows
        }

    def finished(self) -> set[str]:
        """Return the runs whose last attempt ended well and whose records are there."""
        return {
            run
            for run, last in self.attempts().items()
            if last.error is None and find_run(self.root, run)
        }

    @contextmanager
    def _open(self) -> Iterator[RecordStore]:
        # A session is a look at the clock, not a place of computing: the points say where.
        context = {"advpure": collect_context()["advpure"]}
        with RecordStore.open(
            self.folder, schemas=(ATTEMPTS,), settings=self.settings, context=context
        ) as store:
            yield store
