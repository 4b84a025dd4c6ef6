"""One worker of a sweep: claims a run, computes it, notes how it ended, and takes the next.

As a process of its own: `python -m advpure.sweeps.worker SWEEP_FOLDER`, started by
`advpure.sweeps.session`, which tells it what to do on its standard input. It ends when its parent
is gone.
"""

import json
import os
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from advpure.analysis.runs import RUNS
from advpure.base.errors import BadInput, MissingExtra
from advpure.base.heap import keep_freed_memory
from advpure.base.stopping import stoppable
from advpure.runs.records import RecordConflict, StorageFull
from advpure.sweeps.claims import Claims
from advpure.sweeps.index import Attempt, Index
from advpure.sweeps.points import Point

STOPPED = (130, 143)
"""Exit codes after Ctrl-C and after SIGTERM."""
NO_ROOM = 3
WORKER = "ADVPURE_SWEEP_WORKER"
"""In the environment of a worker: the id of the process that started it."""
_BEAT_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a worker is told.

    Attributes:
        runs: Which runs, in which order; None for all of the sweep.
        before: Attempts at each run before this session. A run that has more by now was tried in
            this session and is not tried again.
        batch_size: Rows in memory at once; None for each verb's own.
        threads: Threads of the worker; None for torch's default.
    """

    runs: Sequence[str] | None = None
    before: Mapping[str, int] = field(default_factory=dict)
    batch_size: int | None = None
    threads: int | None = None


def work(index: Index, order: Order) -> None:
    """Compute what nobody else has finished or claimed, in order.

    A point that fails is noted with its one-line error; the others go on.

    Args:
        index: The sweep.
        order: What to do.

    Raises:
        StorageFull: when there is no room; nothing more could be stored.
        KeyboardInterrupt: in a process of its own whose session is gone.
    """
    points = {point.run: point for point in index.points}
    with Claims(index.root) as claims:
        for run in points if order.runs is None else order.runs:
            if orphaned():
                raise KeyboardInterrupt
            if not claims.take(run, units(points[run])):
                continue
            try:
                if run in unfinished(index, [run], order.before):
                    with _beating(index.root, run) as progress:
                        attempt = _attempt(index, points[run], order.batch_size, progress)
                    index.add(attempt)
            finally:
                claims.give_back(run)


def unfinished(index: Index, runs: Iterable[str], before: Mapping[str, int]) -> list[str]:
    """Return the runs that are not finished and were not tried in this session.

    Args:
        index: The sweep.
        runs: Which runs to look at.
        before: Attempts at each run before this session.
    """
    last = index.attempts()
    done = index.finished()
    tried = {run for run, attempt in last.items() if attempt.number + 1 > before.get(run, 0)}
    return [run for run in runs if run not in done | tried]


def units(point: Point) -> int | None:
    """Count the units of work of a point, None where its verb cannot say."""
    total = RUNS.get(point.verb).total
    return None if total is None else total(point.settings)


class Progress:
    """How many units of a run are finished; called by the verb, read by the one who beats."""

    done = 0

    def __call__(self, done: int) -> None:
        """Note the count."""
        self.done = done


def _attempt(index: Index, point: Point, batch_size: int | None, progress: Progress) -> Attempt:
    start = time.perf_counter()
    error = trace = None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        warnings.filterwarnings("ignore", message=".*torch.jit.script")
        try:
            RUNS.get(point.verb).measure(
                point.settings, out=index.root / point.run, batch_size=batch_size,
                progress=progress,
            )  # fmt: skip
        except StorageFull:
            raise
        except (BadInput, MissingExtra, RecordConflict) as found:
            error = one_line(found)
        except Exception as found:  # whatever it is, the other points can still be computed
            error, trace = f"{type(found).__name__}: {one_line(found)}", traceback.format_exc()
    notes = tuple(dict.fromkeys(one_line(warning.message) for warning in caught))
    return Attempt(point.run, time.perf_counter() - start, error, trace, notes)


def one_line(message: object) -> str:
    r"""Return the text of an error or warning on one line.

    Example:
        >>> one_line(ValueError("one\n  two"))
        'one two'
    """
    return " ".join(str(message).split()) or "no message"


def orphaned() -> bool:
    """Say whether this process is a worker whose session is gone."""
    return WORKER in os.environ and os.environ[WORKER] != str(os.getppid())


@contextmanager
def _beating(root: Path, run: str) -> Iterator[Progress]:
    """Tell the claims database every second that the run is alive, from a thread of its own."""
    progress, ended = Progress(), threading.Event()

    def beat() -> None:
        with Claims(root) as claims:
            while not ended.wait(_BEAT_SECONDS):
                claims.beat(run, progress.done)
                if orphaned():
                    os._exit(STOPPED[0])  # records are whole after every transaction

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield progress
    finally:
        ended.set()
        thread.join()


def main(arguments: Sequence[str]) -> int:
    """Work on a sweep as a process of its own; the order comes as JSON on standard input."""
    with stoppable() as asked:
        try:
            order = Order(**json.load(sys.stdin))
            keep_freed_memory()
            import torch

            if order.threads is not None:
                torch.set_num_threads(order.threads)
            work(Index.read(arguments[0]), order)
        except KeyboardInterrupt:
            return asked.code
        except StorageFull as error:
            print(one_line(error), file=sys.stderr)
            return NO_ROOM
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
