"""Run a sweep: here, or in several processes; what is finished is kept, whatever happens."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import BrokenExecutor, Future
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, Annotated, NamedTuple

from annotated_types import Ge, Le

from advpure.base.errors import BadInput
from advpure.base.validation import validate, whole
from advpure.sweeps.executors import Executor, Here, Job, Processes
from advpure.sweeps.index import Attempt, Index
from advpure.sweeps.locks import claimed, give_back, take
from advpure.sweeps.points import Point, plan
from advpure.sweeps.sweep import Sweep
from advpure.sweeps.verification import Verdict, verify

Count = Annotated[int, Ge(1), Le(1024)]
"""More processes or threads than any machine runs at once."""
DIED = "the process that computed it died"
_LOOK_SECONDS = 0.1


@dataclass(frozen=True, kw_only=True)
class Session:
    """How a sweep is run; none of it changes a result.

    Attributes:
        root: Where run folders are and come.
        jobs: Processes; None for one per core, at most 8, and 1 where a point computes on a GPU.
        threads: Threads of each process; None to share the cores among them.
        shard: (i, k): only every k-th point, beginning with the i-th, counted from 1.
        batch_size: Rows in memory at once; None for each verb's own.
    """

    root: Path = field(default_factory=lambda: Path("runs"))
    jobs: Count | None = None
    threads: Count | None = None
    shard: tuple[int, int] = (1, 1)
    batch_size: Annotated[int, Ge(1)] | None = None

    def __post_init__(self) -> None:
        """Check the counts."""
        object.__setattr__(self, "root", Path(self.root))
        validate(self)
        i, k = (whole(each, "shard", 0) for each in self.shard)
        if not 1 <= i <= k:
            raise BadInput(f"shard {i}/{k}", "is none of 1/k to k/k", f"use 1/{max(k, 1)}")

    def resolved(self, points: Sequence[Point]) -> "Session":
        """Return the session with its numbers of processes and threads for given points."""
        on_gpu = any(getattr(point.settings, "device", "cpu") != "cpu" for point in points)
        wanted = self.jobs or (1 if on_gpu else min(_cores(), 8))
        jobs = max(1, min(wanted, len({point.run for point in points})))
        threads = self.threads or (max(1, _cores() // jobs) if jobs > 1 else None)
        return replace(self, jobs=jobs, threads=threads)


@dataclass(frozen=True)
class SweepRun:
    """A sweep that was run or looked at.

    Attributes:
        index: Its folder and what became of its points.
        points: The points of this session, most informative first.
        done: Runs that are finished, and whose records were checked.
        failed: The error of every run whose last attempt failed, or whose records are broken.
        broken: Those of them that once were finished.
        left: Runs that are neither finished nor failed, as another process has them.
        notes: Warnings of the points, in sentences.
    """

    index: Index
    points: tuple[Point, ...]
    done: frozenset[str]
    failed: Mapping[str, str]
    broken: frozenset[str]
    left: tuple[str, ...]
    notes: tuple[str, ...]


def prepare_sweep(
    sweep: Sweep, session: Session, watch: Callable[[int, int], None] = lambda done, total: None
) -> tuple[Index, list[Point]]:
    """Check every point; nothing is written.

    Args:
        sweep: The sweep.
        session: How to run it.
        watch: Called with the number of checked points and of all.

    Returns:
        The sweep's index and the points of the session's shard.

    Raises:
        BadInput: for the first point that cannot be computed.
    """
    points, (i, k) = plan(sweep, watch), session.shard
    chosen = points[i - 1 :: k]
    if not chosen:
        raise BadInput(f"shard {i}/{k}", f"has none of {len(points)} points", "use fewer shards")
    return Index.of(sweep, points, session.root), chosen


def run_sweep(
    index: Index, points: Sequence[Point], session: Session, executor: Executor | None = None
) -> SweepRun:
    """Compute the points that are not finished; the same call goes on after an interruption.

    Args:
        index: The sweep, from `prepare_sweep`.
        points: Its points, or those of a shard.
        session: How to run it.
        executor: Where to compute; None for this process, or processes as the session says.

    Returns:
        What became of the points.

    Raises:
        StorageFull: when there is no room; everything before is kept.
        KeyboardInterrupt: when the user stops it, after the executor has stopped.
    """
    session = session.resolved(points)
    index.begin()
    for run, verdict in _verdicts(index, points).items():
        if verdict.state == "incomplete":  # so that its verb goes on with it
            index.add(Attempt(run, 0.0, verdict.error))
    here = session.jobs == 1 and session.threads is None
    executor = executor or (Here() if here else Processes(session.jobs or 1))
    before = {run: last.number + 1 for run, last in index.attempts().items()}
    flights: dict[str, _Flight] = {}
    try:
        # More than once: a run that another session had claimed may have been left behind by it.
        while todo := _free(index, points, before):
            for point in todo:
                _land(index, executor, flights, executor.slots - 1)
                if (claim := take(index.root / point.run)) is None:
                    continue
                if _unfinished(index, [point], before):
                    job = _job(index, point, session)
                    flights[point.run] = _Flight(claim, job, executor.submit(job))
                else:
                    give_back(claim)
            _land(index, executor, flights, 0)
    finally:
        executor.stop()
        for flight in flights.values():
            give_back(flight.claim)
    return look(index, points)


class _Flight(NamedTuple):
    claim: IO[bytes]
    job: Job
    future: "Future[Attempt]"
    again: bool = False


def _job(index: Index, point: Point, session: Session) -> Job:
    return Job(
        verb=point.verb,
        settings=asdict(point.settings),
        folder=index.root / point.run,
        threads=session.threads,
        batch_size=session.batch_size,
    )


def _land(index: Index, executor: Executor, flights: dict[str, _Flight], most: int) -> None:
    """Store the attempts that end, until at most so many jobs are under way."""
    while True:
        for run, flight in [each for each in flights.items() if each[1].future.done()]:
            try:
                attempt = flight.future.result()
            except BrokenExecutor:
                if not flight.again:
                    future = executor.submit(flight.job)
                    flights[run] = flight._replace(future=future, again=True)
                    continue
                attempt = Attempt(run, 0.0, f"{DIED} twice (was memory short?)")
            if flight.again and attempt.error is None:
                attempt = attempt._replace(notes=(*attempt.notes, f"{DIED} once; it went on"))
            index.add(attempt)
            give_back(flights.pop(run).claim)
        if len(flights) <= most:
            return
        time.sleep(_LOOK_SECONDS)


def _unfinished(
    index: Index, points: Sequence[Point], before: Mapping[str, int]
) -> dict[str, Point]:
    """Return the points, by run, that are not finished and were not tried in this session."""
    last, done = index.attempts(), index.finished()
    tried = {run for run, attempt in last.items() if attempt.number + 1 > before.get(run, 0)}
    return {point.run: point for point in points if point.run not in done | tried}


def _free(index: Index, points: Sequence[Point], before: Mapping[str, int]) -> list[Point]:
    unfinished = _unfinished(index, points, before)
    return [point for run, point in unfinished.items() if claimed(index.root / run) is None]


def look(index: Index, points: Sequence[Point]) -> SweepRun:
    """Return what has become of points so far; the records of finished ones are checked."""
    last, verdicts = index.attempts(), _verdicts(index, points)
    runs = list(dict.fromkeys(point.run for point in points))
    failed = {run: str(last[run].error) for run in runs if run in last and last[run].error}
    broken = {run: each.error for run, each in verdicts.items() if each.state == "broken"}
    done = frozenset(run for run, each in verdicts.items() if each.state == "whole")
    failed |= broken
    left = tuple(run for run in runs if run not in done and run not in failed)
    notes = dict.fromkeys(note for run in runs if run in last for note in last[run].notes)
    return SweepRun(index, tuple(points), done, failed, frozenset(broken), left, tuple(notes))


def look_unbroken(index: Index) -> SweepRun:
    """Return what has become of a sweep's points, to draw them.

    Raises:
        BadInput: for the first finished point whose records are broken.
    """
    run = look(index, index.points)
    for name in sorted(run.broken):
        raise BadInput(f"point {name} of {index.folder}", "is broken", run.failed[name])
    return run


def _verdicts(index: Index, points: Sequence[Point]) -> dict[str, Verdict]:
    """Check the records of the runs that are finished, by run."""
    finished = index.finished()
    return {
        run: verify(index.root, point)
        for run, point in {point.run: point for point in points}.items()
        if run in finished
    }


def _cores() -> int:
    with suppress(AttributeError):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
