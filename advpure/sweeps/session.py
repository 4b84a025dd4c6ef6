"""Run a sweep: here, or in several processes; what is finished is kept, whatever happens."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, Annotated, Any

from annotated_types import Ge, Le

from advpure.base.errors import BadInput
from advpure.base.storage import StorageFull
from advpure.base.validation import validate, whole
from advpure.sweeps.claims import Claims
from advpure.sweeps.index import Attempt, Index
from advpure.sweeps.points import Point, plan
from advpure.sweeps.sweep import Sweep
from advpure.sweeps.verification import Verdict, verify
from advpure.sweeps.worker import NO_ROOM, STOPPED, WORKER, Order, unfinished, work

Processes = Annotated[int, Ge(1), Le(1024)]
"""More than any machine runs at once."""
_LOOK_SECONDS = 0.2
_LEAVE_SECONDS = 20.0


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
    jobs: Processes | None = None
    threads: Processes | None = None
    shard: tuple[int, int] = (1, 1)
    batch_size: Annotated[int, Ge(1)] | None = None

    def __post_init__(self) -> None:
        """Check the counts."""
        object.__setattr__(self, "root", Path(self.root))
        validate(self)
        i, k = (whole(each, "shard", 0) for each in self.shard)
        if not 1 <= i <= k:
            raise BadInput(f"shard {i}/{k}", "is none of 1/k to k/k", f"use 1/{max(k, 1)}")

    def select(self, points: Sequence[Point]) -> list[Point]:
        """Return the points of this shard."""
        return list(points[self.shard[0] - 1 :: self.shard[1]])

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
    sweep: Sweep,
    session: Session,
    watch: Callable[[int, int], None] = lambda done, total: None,
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
    points = plan(sweep, watch)
    chosen = session.select(points)
    if not chosen:
        i, k = session.shard
        raise BadInput(f"shard {i}/{k}", f"has none of {len(points)} points", "use fewer shards")
    return Index.of(sweep, points, session.root), chosen


def run_sweep(index: Index, points: Sequence[Point], session: Session) -> SweepRun:
    """Compute the points that are not finished; the same call goes on after an interruption.

    Args:
        index: The sweep, from `prepare_sweep`.
        points: Its points, or those of a shard.
        session: How to run it.

    Returns:
        What became of the points.

    Raises:
        StorageFull: when there is no room; everything before is kept.
        KeyboardInterrupt: when the user stops it, after the workers have stopped.
    """
    session = session.resolved(points)
    index.begin()
    _look_again(index, points)
    before = {run: last.number + 1 for run, last in index.attempts().items()}
    runs = list(dict.fromkeys(point.run for point in points))
    # More than once: a run that another sweep had claimed may have been left behind by it.
    while todo := _free(index, unfinished(index, runs, before)):
        order = Order(
            runs=todo, before=before, batch_size=session.batch_size, threads=session.threads
        )
        if session.jobs == 1 and session.threads is None:
            work(index, order)
        else:
            _in_processes(index, order, min(session.jobs or 1, len(todo)))
    return look(index, points)


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


def _look_again(index: Index, points: Sequence[Point]) -> None:
    """Note which finished runs lack rows, so that their verbs go on with them."""
    for run, verdict in _verdicts(index, points).items():
        if verdict.state == "incomplete":
            index.add(Attempt(run, 0.0, verdict.error))


def _free(index: Index, runs: Sequence[str]) -> list[str]:
    with Claims(index.root) as claims:
        taken = claims.living()
    return [run for run in runs if run not in taken]


def _in_processes(index: Index, order: Order, jobs: int) -> None:
    """Start workers, replace those that die in the middle of a point, and wait for all."""
    with tempfile.TemporaryFile(mode="w+") as said:
        workers = [_start(index, order, said) for _ in range(jobs)]
        try:
            while workers:
                time.sleep(_LOOK_SECONDS)
                for worker, code in [(each, _ended(each)) for each in workers]:
                    if code is None:
                        continue
                    if code in STOPPED:  # it has given back what it had, and others stop, too
                        raise KeyboardInterrupt
                    if code not in (0, NO_ROOM):
                        _note_death(index, worker.pid, code, said)
                        workers.append(_start(index, order, said))
                    worker.wait()
                    workers.remove(worker)
                    if code == NO_ROOM:
                        raise StorageFull(index.root)
        finally:
            _stop(index, workers)


def _start(index: Index, order: Order, said: IO[str]) -> "subprocess.Popen[str]":
    threads = {"OMP_NUM_THREADS": str(order.threads)} if order.threads else {}
    worker = subprocess.Popen(
        [sys.executable, "-m", "advpure.sweeps.worker", str(index.folder)],
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=said, text=True,
        env={**os.environ, **threads, WORKER: str(os.getpid())},
    )  # fmt: skip
    assert worker.stdin is not None
    json.dump(_plain(order), worker.stdin)
    worker.stdin.close()
    return worker


def _plain(order: Order) -> dict[str, Any]:
    return asdict(order)


def _ended(worker: "subprocess.Popen[str]") -> int | None:
    """Return the exit code of a worker that has ended, None of one that still runs.

    Its process id stays taken until it is waited for: so its claim counts, and no other worker
    takes its point, until its death is noted there. (Some systems cannot look without waiting.)
    """
    if not hasattr(os, "waitid"):
        return worker.poll()
    found = os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    if found is None:
        return None
    return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status


def _note_death(index: Index, pid: int, code: int, said: IO[str]) -> None:
    """Note that a worker died at the point that it had claimed, and only then void the claim.

    Raises:
        RuntimeError: when it had claimed none: another one would die, too.
    """
    with Claims(index.root) as claims:
        held = claims.of_process(pid)
    how = f"with signal {-code} (was memory short?)" if code < 0 else f"with exit code {code}"
    said.seek(0)
    words = said.read()
    last = words.strip().splitlines()[-1:] if code > 0 else []
    for run in held:
        error = ": ".join([f"the process that computed it ended {how}", *last])
        index.add(Attempt(run, 0.0, error, words or None))
    if not held:
        raise RuntimeError(f"a worker of the sweep ended {how} before it began: {words}")
    with Claims(index.root) as claims:
        claims.drop_process(pid)


def _stop(index: Index, workers: Sequence["subprocess.Popen[str]"]) -> None:
    """End what still runs, after an interruption; records keep every finished batch."""
    for worker in workers:
        with suppress(ProcessLookupError):
            worker.terminate()
    deadline = time.monotonic() + _LEAVE_SECONDS
    for worker in workers:
        try:
            worker.wait(max(deadline - time.monotonic(), 0.1))
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()
        with Claims(index.root) as claims:
            claims.drop_process(worker.pid)


def _cores() -> int:
    with suppress(AttributeError):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
