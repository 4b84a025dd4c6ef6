"""Running a sweep: nothing twice, nothing lost, failures noted, several processes, shards."""

import dataclasses
import errno
import fcntl
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import BrokenExecutor, Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from processes import workers

from advpure.analysis.compression.study import Compression
from advpure.analysis.study import Session as Sitting
from advpure.base.errors import BadInput
from advpure.runs.records import ALREADY_COMPLETE, RecordStore, StorageFull
from advpure.sweeps.cost import estimate_sweep
from advpure.sweeps.executors import Job, Processes, compute
from advpure.sweeps.index import Attempt, Index
from advpure.sweeps.locks import claimed, give_back, note, take
from advpure.sweeps.overview import overview
from advpure.sweeps.session import DIED, Session, SweepRun, look, prepare_sweep, run_sweep
from advpure.sweeps.status import statuses
from advpure.sweeps.sweep import Sweep, parse_sweep

TINY: dict[str, Any] = {"dataset": "digits", "n": 2, "defense": "none", "perturbations": 2}


def cheap(eps: tuple[float, ...] = (0.1, 0.2, 0.3), **more: Any) -> Sweep:
    """Return a sweep that loads no network: the rate of no purifier is 1."""
    found = {"verb": "cr", "base": {**TINY, **more}, "grid": {"eps": list(eps)}}
    return parse_sweep(found, name="cheap", where="a test")


def begin(root: Path, swept: Sweep, **how: Any) -> SweepRun:
    session = Session(root=root, **{"jobs": 1, **how})
    index, points = prepare_sweep(swept, session)
    return run_sweep(index, points, session)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[Compression]:
    """Note every run that is measured, and fail at epsilon 0.2 when told so."""
    calls: list[Compression] = []
    measure = Compression.measure

    def counting(study: Compression, sitting: Sitting[Any]) -> None:
        calls.append(study)
        measure(study, sitting)

    monkeypatch.setattr(Compression, "measure", counting)
    return calls


def test_a_sweep_computes_every_point_once(tmp_path: Path, counted: list[Compression]) -> None:
    first = begin(tmp_path, cheap())
    assert [run.strengths for run in counted] == [(0.1,), (0.3,), (0.2,)]
    assert not first.failed
    assert not first.left
    second = begin(tmp_path, cheap())
    assert len(counted) == 3
    assert second.index.folder == first.index.folder
    values = [entry["values"]["compression rate"] for entry in overview(second)["points"]]
    assert [value["value"] for value in values] == pytest.approx([1.0] * 3, abs=1e-9)
    assert [value["n"] for value in values] == [2] * 3


def test_a_wider_sweep_and_the_verb_itself_share_runs(
    tmp_path: Path, counted: list[Compression]
) -> None:
    begin(tmp_path, cheap((0.1, 0.2)))
    wider = begin(tmp_path, cheap((0.1, 0.2, 0.4)))
    by_eps = {point.at["eps"]: wider.index.root / point.run for point in wider.points}
    report = Compression.run(Compression(**TINY, eps=0.4), out=by_eps[0.4])
    assert report.notes == (ALREADY_COMPLETE,)
    assert len(list(tmp_path.glob("cr-*"))) == 3


def test_a_point_whose_records_are_gone_is_computed_again(
    tmp_path: Path, counted: list[Compression]
) -> None:
    run = begin(tmp_path, cheap((0.1, 0.2)))
    (tmp_path / run.points[0].run / "records.sqlite").unlink()
    begin(tmp_path, cheap((0.1, 0.2)))
    assert [c.eps[0] for c in counted] == [0.1, 0.2, 0.1]


def test_a_failing_point_is_noted_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counted: list[Compression]
) -> None:
    measure = Compression.measure

    def failing(study: Compression, sitting: Sitting[Any]) -> None:
        if study.strengths == (0.1,):
            raise ArithmeticError("first line\nsecond line")
        if study.strengths == (0.2,):
            raise BadInput("this", "is refused", "mend it")
        measure(study, sitting)

    monkeypatch.setattr(Compression, "measure", failing)
    run = begin(tmp_path, cheap())
    errors = {point.at["eps"]: run.failed.get(point.run) for point in run.points}
    assert errors == {
        0.1: "ArithmeticError: first line second line", 0.2: "this is refused; mend it", 0.3: None,
    }  # fmt: skip
    assert "Traceback" in str(run.index.attempts()[run.points[0].run].trace)
    found = overview(run)
    assert (found["done"], found["failed"], found["left"]) == (1, 2, 0)
    monkeypatch.undo()
    again = begin(tmp_path, cheap())
    assert not again.failed
    with RecordStore.read(run.index.folder) as store:
        assert [row["error"] is None for row in store.rows("attempts")].count(False) == 2
        assert store.count("attempts") == 5


def test_a_full_disk_stops_the_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(study: Compression, sitting: Sitting[Any]) -> None:
        raise StorageFull("runs")

    monkeypatch.setattr(Compression, "measure", full)
    with pytest.raises(StorageFull):
        begin(tmp_path, cheap())
    assert not list((tmp_path / "claims").iterdir())


def test_an_interruption_keeps_what_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counted: list[Compression]
) -> None:
    measure = Compression.measure

    def failing(study: Compression, sitting: Sitting[Any]) -> None:
        if study.strengths == (0.3,):
            raise KeyboardInterrupt
        measure(study, sitting)

    monkeypatch.setattr(Compression, "measure", failing)
    with pytest.raises(KeyboardInterrupt):
        begin(tmp_path, cheap())
    session = Session(root=tmp_path, jobs=1)
    index, points = prepare_sweep(cheap(), session)
    assert [status.state for status in statuses(index, points)] == ["done", "left", "left"]
    assert not list((tmp_path / "claims").iterdir())


def test_shards_are_disjoint_and_complete(tmp_path: Path, counted: list[Compression]) -> None:
    runs = [begin(tmp_path, cheap(), shard=(i, 2)) for i in (1, 2)]
    chosen = [{point.run for point in run.points} for run in runs]
    assert len(chosen[0] | chosen[1]) == len(chosen[0]) + len(chosen[1]) == 3
    assert runs[0].index.folder == runs[1].index.folder
    assert len(counted) == 3
    with pytest.raises(BadInput, match="shard 4/4 has none of 3 points"):
        begin(tmp_path, cheap(), shard=(4, 4))


@pytest.mark.parametrize(
    "how",
    [
        {"jobs": 0},
        {"threads": 0},
        {"batch_size": 0},
        {"shard": (0, 2)},
        {"shard": (3, 2)},
        {"jobs": True},
        {"jobs": 10**6},
        {"shard": (True, 2)},
        {"threads": 2**70},
        {"jobs": "2"},
    ],
)
def test_a_session_that_cannot_be_is_refused(how: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        Session(**how)


def test_jobs_and_threads_share_the_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from advpure.sweeps import session

    monkeypatch.setattr(session, "_cores", lambda: 6)
    _, points = prepare_sweep(cheap(), Session(root=tmp_path))
    found = Session(root=tmp_path).resolved(points)
    assert (found.jobs, found.threads) == (3, 2)
    found = Session(root=tmp_path, jobs=1).resolved(points)
    assert (found.jobs, found.threads) == (1, None)
    found = Session(root=tmp_path, jobs=2, threads=5).resolved(points)
    assert (found.jobs, found.threads) == (2, 5)


def test_the_cost_counts_what_is_left(tmp_path: Path) -> None:
    begin(tmp_path, cheap((0.1, 0.2)))
    index, points = prepare_sweep(cheap((0.1, 0.2)), Session(root=tmp_path))
    assert estimate_sweep(index, points, 1).done == 2
    swept = cheap((0.1, 0.3), defense="onestep-ddpm", tile=2)
    index, points = prepare_sweep(swept, Session(root=tmp_path))
    cost = estimate_sweep(index, points, 2)
    # Two images and two perturbations of each, in tiles of two, at two strengths.
    assert cost.evaluations == 2 * (2 + 4)
    assert cost.to_json()["done"] == 0
    assert not index.folder.exists()


def test_a_run_is_claimed_by_one_until_it_is_given_back(tmp_path: Path) -> None:
    run = tmp_path / "cr-1"
    assert claimed(run) is None
    claim = take(run)
    assert claim is not None
    assert take(run) is None
    assert claimed(run) == (0, None)
    note(run, 10, 4)
    assert claimed(run) == (4, 10)
    give_back(claim)
    assert claimed(run) is None
    claim = take(run)
    assert claim is not None


def test_a_claim_of_a_dead_process_is_void(tmp_path: Path) -> None:
    code = (
        "import os, pathlib\n"
        "from advpure.sweeps.locks import note, take\n"
        f"run = pathlib.Path({str(tmp_path / 'cr-1')!r})\n"
        "claim = take(run)\n"
        "note(run, 9, 5)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    assert (tmp_path / "claims" / "cr-1").is_file()
    assert claimed(tmp_path / "cr-1") is None
    again = take(tmp_path / "cr-1")
    assert again is not None
    assert claimed(tmp_path / "cr-1") == (0, None)


def test_a_claim_whose_file_was_deleted_meanwhile_is_taken_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The owner gives a run back between our opening of its file and our lock on it."""
    first = take(tmp_path / "cr-1")
    assert first is not None
    flock = fcntl.flock

    def late(handle: Any, how: int) -> None:
        monkeypatch.undo()
        give_back(first)
        flock(handle, how)

    monkeypatch.setattr("advpure.sweeps.locks.fcntl.flock", late)
    second = take(tmp_path / "cr-1")
    assert second is not None
    assert take(tmp_path / "cr-1") is None


def test_a_sweep_runs_where_the_file_system_has_no_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counted: list[Compression]
) -> None:
    def refuse(handle: Any, how: int) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr("advpure.sweeps.locks.fcntl.flock", refuse)
    assert len(begin(tmp_path, cheap()).done) == len(counted) == 3


def test_what_another_session_has_is_left_to_it(tmp_path: Path, counted: list[Compression]) -> None:
    _, points = prepare_sweep(cheap(), Session(root=tmp_path))
    claim = take(tmp_path / points[0].run)
    assert claim is not None
    note(tmp_path / points[0].run, 100, 50)
    run = begin(tmp_path, cheap())
    assert run.left == (points[0].run,)
    first = statuses(run.index, run.points)[0]
    assert (first.state, first.done, first.total) == ("running", 50, 100)
    give_back(claim)
    assert not begin(tmp_path, cheap()).left
    assert len(counted) == 3


def test_an_index_says_whose_it_is(tmp_path: Path) -> None:
    run = begin(tmp_path, cheap((0.1, 0.2)))
    again = Index.read(run.index.folder)
    assert [point.run for point in again.points] == [point.run for point in run.points]
    assert look(again, again.points).failed == {}
    with pytest.raises(BadInput, match="is a run of cr; name the folder of a sweep"):
        Index.read(tmp_path / run.points[0].run)


def test_attempts_are_counted(tmp_path: Path) -> None:
    index = begin(tmp_path, cheap((0.1, 0.2))).index
    run = index.points[0].run
    index.add(Attempt(run, 0.0, "broken"))
    assert index.attempts()[run] == Attempt(run, 0.0, "broken", number=1)
    assert run not in index.finished()


@pytest.mark.slow
def test_processes_share_the_points_and_survive_a_kill(tmp_path: Path) -> None:
    """Kill a sweep and its workers; the same command ends with the records of a whole one."""
    law = {"base": {"dataset": "digits", "n": 4, "tile": 4, "perturbations": 40}}
    law |= {"verb": "cr", "grid": {"defense": ["ddpm", "ddim"], "t": [30, 60]}}
    swept = parse_sweep(law, name="law", where="a test")
    whole = begin(tmp_path / "whole", swept, jobs=2)
    process = _start_sweep(law, tmp_path / "killed")
    try:
        while not list((tmp_path / "killed").glob("cr-*/records.sqlite")):
            assert process.poll() is None
            time.sleep(0.05)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    resumed = begin(tmp_path / "killed", swept, jobs=2)
    assert not resumed.failed
    assert not resumed.left
    for point in whole.points:
        rows = []
        for root in ("whole", "killed"):
            with RecordStore.read(tmp_path / root / point.run) as store:
                rows.append(store.rows("compression"))
        assert rows[0] == rows[1]


@pytest.mark.slow
def test_workers_end_with_the_session_that_started_them(tmp_path: Path) -> None:
    """Kill a session alone while its workers start: none of them goes on with its points."""
    law = {"verb": "cr", "base": {"dataset": "digits", "n": 2, "tile": 4, "perturbations": 4}}
    law |= {"grid": {"defense": ["cm", "none"], "eps": [k / 255 for k in range(1, 21)]}}
    process = _start_sweep(law, tmp_path)
    try:
        while len(workers(process.pid)) < 2:
            assert process.poll() is None
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        begun = len(list(tmp_path.glob("cr-*/records.sqlite")))
        while _members(process.pid):
            time.sleep(0.1)
        assert len(list(tmp_path.glob("cr-*/records.sqlite"))) <= begun + 2  # of 40
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _start_sweep(law: dict[str, Any], root: Path) -> "subprocess.Popen[bytes]":
    """Start a session of two workers, in a process group of its own."""
    code = (
        "from pathlib import Path\n"
        "from advpure.sweeps.session import *\n"
        "from advpure.sweeps.sweep import parse_sweep\n"
        f"session = Session(root=Path({str(root)!r}), jobs=2)\n"
        f"found = prepare_sweep(parse_sweep({law!r}, name='law', where='a test'), session)\n"
        "run_sweep(*found, session)\n"
    )
    return subprocess.Popen([sys.executable, "-c", code], start_new_session=True)


def _members(group: int) -> list[int]:
    """Return the processes of a group that are alive, by the kernel's list."""
    members = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has just ended
            state, _, own = (folder / "stat").read_text().rpartition(")")[2].split()[:3]
            if int(own) == group and state != "Z":
                members.append(int(folder.name))
    return members


@pytest.mark.slow
@pytest.mark.parametrize("kills", [1, 2])
def test_a_worker_that_dies_is_started_again_and_then_noted(tmp_path: Path, kills: int) -> None:
    """One death costs nothing; after two the point has its error, and the others are computed."""
    law = {"verb": "cr", "base": {"dataset": "digits", "n": 4, "tile": 4, "perturbations": 39}}
    law |= {"grid": {"defense": ["ddpm", "ddim"], "t": [50]}}
    session = Session(root=tmp_path, jobs=1, threads=1)
    index, points = prepare_sweep(parse_sweep(law, name="law", where="a test"), session)

    def kill() -> None:
        for _ in range(kills):
            begun = tmp_path / points[0].run / "records.sqlite"
            while not (begun.exists() and (found := workers(os.getpid()))):
                time.sleep(0.02)
            os.kill(found[0], signal.SIGKILL)
            while found[0] in workers(os.getpid()):
                time.sleep(0.02)

    killer = threading.Thread(target=kill)
    killer.start()
    run = run_sweep(index, points, session)
    killer.join()
    assert points[1].run in run.done
    if kills == 1:
        assert not run.failed
        assert run.notes == ("the process that computed it died once; it went on",)
    else:
        told = "the process that computed it died twice (was memory short?)"
        assert run.failed == {points[0].run: told}
    assert not workers(os.getpid())


@pytest.mark.slow
def test_two_sessions_below_one_root_compute_each_point_once(tmp_path: Path) -> None:
    law = {"verb": "cr", "base": {"dataset": "digits", "n": 4, "tile": 4, "perturbations": 20}}
    law |= {"grid": {"defense": ["ddpm", "ddim"], "t": [5, 10, 15, 20]}}
    both = [_start_sweep(law, tmp_path) for _ in range(2)]
    assert [each.wait() for each in both] == [0, 0]
    run = begin(tmp_path, parse_sweep(law, name="law", where="a test"))
    assert len(run.done) == 8
    with RecordStore.read(run.index.folder) as store:
        assert [row["attempt"] for row in store.rows("attempts")] == [0] * 8
    for point in run.points:
        with RecordStore.read(tmp_path / point.run) as store:
            assert len(store.sessions) == 1
    assert not list((tmp_path / "claims").iterdir())


class Elsewhere:
    """An executor as others would write one: jobs travel as bytes, and futures come back."""

    slots = 2

    def __init__(self, lost: float | None) -> None:
        """Lose the jobs of one epsilon."""
        self._pool, self._lost, self.stopped = ThreadPoolExecutor(1), lost, False

    def submit(self, job: Job) -> "Future[Attempt]":
        """Send a job."""
        return self._pool.submit(self._run, pickle.dumps(job))

    def _run(self, sent: bytes) -> Attempt:
        job = pickle.loads(sent)
        if job.settings["eps"] == (self._lost,):
            raise BrokenExecutor("the node is gone")
        found: Attempt = pickle.loads(pickle.dumps(compute(job)))
        return found

    def stop(self) -> None:
        """Wait for all."""
        self._pool.shutdown()
        self.stopped = True


@pytest.mark.parametrize("lost", [None, 0.3])
def test_any_executor_that_computes_jobs_will_do(
    tmp_path: Path, lost: float | None, counted: list[Compression]
) -> None:
    session, executor = Session(root=tmp_path), Elsewhere(lost)
    index, points = prepare_sweep(cheap(), session)
    run = run_sweep(index, points, session, executor)
    assert executor.stopped
    errors = {point.at["eps"]: run.failed.get(point.run) for point in points}
    assert errors[0.1] is errors[0.2] is None
    assert errors[0.3] == (None if lost is None else f"{DIED} twice (was memory short?)")
    assert len(counted) == len(run.done) == (3 if lost is None else 2)


@pytest.mark.slow
def test_processes_report_errors_and_a_full_disk(tmp_path: Path) -> None:
    """What a job raises crosses the border of its process, and the process takes the next job."""
    broken = Job(verb="cr", settings={**TINY, "eps": -1}, folder=tmp_path / "cr-1", threads=1)
    whole = dataclasses.replace(broken, settings={**TINY, "eps": 0.1}, folder=tmp_path / "cr-2")
    processes = Processes(1)
    try:
        assert "eps" in str(processes.submit(broken).result().error)
        (worker,) = workers(os.getpid())
        assert processes.submit(whole).result().error is None
        assert workers(os.getpid()) == [worker]
    finally:
        processes.stop()
    assert not workers(os.getpid())
