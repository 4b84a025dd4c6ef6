"""Jobs of a sweep, and where they are computed: one small contract, so that others fit it.

A job is plain data, and `compute(job)` computes it anywhere; results are in the job's run folder
and only there. Whatever runs that function and gives out futures is an executor: submitit for
SLURM, a remote function of Ray, any of `concurrent.futures`.
"""

import os
import signal
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol

from advpure.base.errors import BadInput, MissingExtra
from advpure.options import read_options
from advpure.runs.records import RecordConflict, StorageFull
from advpure.studies import STUDIES
from advpure.sweeps.child import begin
from advpure.sweeps.index import Attempt
from advpure.sweeps.locks import note

_SPAWN = get_context("spawn")


@dataclass(frozen=True, kw_only=True)
class Job:
    """A run to compute or to go on with.

    Attributes:
        verb: The verb's name.
        settings: Its settings, by name.
        folder: The run folder.
        threads: Threads; None for torch's own number.
        batch_size: Rows in memory at once; None for the verb's own.
    """

    verb: str
    settings: Mapping[str, Any]
    folder: Path
    threads: int | None = None
    batch_size: int | None = None


def compute(job: Job) -> Attempt:
    """Compute a job; its error comes back in the attempt, in one line.

    Raises:
        StorageFull: when there is no room; nothing more could be stored.
    """
    start = time.perf_counter()
    error = trace = None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        warnings.filterwarnings("ignore", message=".*torch.jit.script")
        try:
            _run(job)
        except StorageFull:
            raise
        except (BadInput, MissingExtra, RecordConflict) as known:
            error = one_line(known)
        except Exception as unknown:  # whatever it is, the other points can still be computed
            error, trace = f"{type(unknown).__name__}: {one_line(unknown)}", traceback.format_exc()
    notes = tuple(dict.fromkeys(one_line(warning.message) for warning in caught))
    return Attempt(job.folder.name, time.perf_counter() - start, error, trace, notes)


def _run(job: Job) -> None:
    if job.threads is not None:
        import torch

        torch.set_num_threads(job.threads)
    study = read_options(STUDIES.get(job.verb), job.settings, job.verb)
    loaded = study.load()
    progress = partial(note, job.folder, study.total(loaded))
    study.run(out=job.folder, batch_size=job.batch_size, progress=progress, loaded=loaded)


def one_line(message: object) -> str:
    """Return the text of an error or warning on one line."""
    return " ".join(str(message).split()) or "no message"


class Executor(Protocol):
    """Where jobs are computed, `slots` at once."""

    slots: int

    def submit(self, job: Job) -> "Future[Attempt]":
        """Begin a job; of the future, `done` and `result` are used.

        Its result may be raised: `BrokenExecutor` when what computed it died, `StorageFull`, or
        `KeyboardInterrupt` when it was stopped.
        """

    def stop(self) -> None:
        """End what still runs."""


class Here:
    """Computes in this process, within `submit`."""

    slots = 1

    def submit(self, job: Job) -> "Future[Attempt]":
        """Compute a job."""
        future: Future[Attempt] = Future()
        try:
            future.set_result(compute(job))
        except BaseException as error:
            future.set_exception(error)
        return future

    def stop(self) -> None:
        """Do nothing, as nothing runs."""


class Processes:
    """Computes in processes that end with this one, each a job at a time.

    Each is a pool of one: when a process dies, one pool breaks, and no job but its own. Starting
    one takes longer than a small job, so it is used again. The processes are spawned, so the main
    module of a program that calls this does its work under `if __name__ == "__main__"`.
    """

    def __init__(self, slots: int) -> None:
        """Begin with none."""
        self.slots = slots
        self._pools: dict[ProcessPoolExecutor, Future[Attempt]] = {}
        self._watched, self._held = _SPAWN.Pipe(duplex=False)

    def submit(self, job: Job) -> "Future[Attempt]":
        """Begin a job."""
        for pool in [pool for pool, last in self._pools.items() if last.done()]:
            with suppress(BrokenExecutor):
                return self._give(pool, job)
            del self._pools[pool]
        # Python's own helper starts with the pool; it would lift the block of Ctrl-C.
        return self._give(ProcessPoolExecutor(1, _SPAWN, begin, (self._watched,)), job)

    def _give(self, pool: ProcessPoolExecutor, job: Job) -> "Future[Attempt]":
        with _inherited(job.threads):
            future = self._pools[pool] = pool.submit(compute, job)
        return future

    def stop(self) -> None:
        """End what still runs, at once: records are whole after every transaction."""
        self._held.close()
        for pool in self._pools:
            pool.shutdown()
        self._watched.close()


@contextmanager
def _inherited(threads: int | None) -> Iterator[None]:
    """Let processes that start in the body have so many threads, and leave Ctrl-C to this one."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    own = os.environ.get("OMP_NUM_THREADS")
    try:
        if threads is not None:
            os.environ["OMP_NUM_THREADS"] = str(threads)
        yield
    finally:
        os.environ.pop("OMP_NUM_THREADS", None)
        if own is not None:
            os.environ["OMP_NUM_THREADS"] = own
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
