"""Running a sweep: nothing twice, nothing lost, failures noted, several processes, shards."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from advpure.analysis.compression.study import Compression
from advpure.analysis.runs import RUNS, Verb
from advpure.base.errors import BadInput
from advpure.base.registry import Registry
from advpure.runs.records import ALREADY_COMPLETE, RecordStore, StorageFull
from advpure.sweeps import claims as claims_module
from advpure.sweeps.claims import Claims
from advpure.sweeps.cost import estimate_sweep
from advpure.sweeps.index import Attempt, Index
from advpure.sweeps.overview import overview
from advpure.sweeps.session import Session, SweepRun, look, prepare_sweep, run_sweep
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
    verb = RUNS.get("cr")

    def measure(settings: Compression, **how: Any) -> Any:
        calls.append(settings)
        return Compression.run(settings, **how)

    runs: Registry[Verb] = Registry("verb")
    runs.register("cr", dataclasses.replace(verb, measure=measure))
    for module in ("points", "worker", "table", "cost"):
        monkeypatch.setattr(f"advpure.sweeps.{module}.RUNS", runs)
    return calls


def test_a_sweep_computes_every_point_once(tmp_path: Path, counted: list[Compression]) -> None:
    first = begin(tmp_path, cheap())
    assert [run.eps for run in counted] == [0.1, 0.3, 0.2]
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
    assert [c.eps for c in counted] == [0.1, 0.2, 0.1]


def test_a_failing_point_is_noted_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counted: list[Compression]
) -> None:
    from advpure.sweeps import worker

    verb = worker.RUNS.get("cr")

    def measure(settings: Compression, **how: Any) -> Any:
        if settings.eps == 0.1:
            raise ArithmeticError("first line\nsecond line")
        if settings.eps == 0.2:
            raise BadInput("this", "is refused", "mend it")
        return verb.measure(settings, **how)

    broken: Registry[Verb] = Registry("verb")
    broken.register("cr", Verb(verb.settings, measure, verb.total, verb.prepare))
    monkeypatch.setattr(worker, "RUNS", broken)
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
    from advpure.sweeps import worker

    def full(settings: Compression, **how: Any) -> Any:
        raise StorageFull("runs")

    runs: Registry[Verb] = Registry("verb")
    runs.register("cr", Verb(Compression, full))
    monkeypatch.setattr(worker, "RUNS", runs)
    with pytest.raises(StorageFull):
        begin(tmp_path, cheap())
    with Claims(tmp_path) as claims:
        assert not claims.living()


def test_an_interruption_keeps_what_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counted: list[Compression]
) -> None:
    from advpure.sweeps import worker

    verb = worker.RUNS.get("cr")

    def measure(settings: Compression, **how: Any) -> Any:
        if settings.eps == 0.3:
            raise KeyboardInterrupt
        return verb.measure(settings, **how)

    runs: Registry[Verb] = Registry("verb")
    runs.register("cr", Verb(verb.settings, measure, verb.total, verb.prepare))
    monkeypatch.setattr(worker, "RUNS", runs)
    with pytest.raises(KeyboardInterrupt):
        begin(tmp_path, cheap())
    session = Session(root=tmp_path, jobs=1)
    index, points = prepare_sweep(cheap(), session)
    assert [status.state for status in statuses(index, points)] == ["done", "left", "left"]
    with Claims(tmp_path) as claims:
        assert not claims.living()


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


def test_a_claim_is_exclusive_until_given_back(tmp_path: Path) -> None:
    with Claims(tmp_path) as mine, Claims(tmp_path) as yours:
        assert mine.take("cr-1", 10)
        assert not yours.take("cr-1")
        mine.beat("cr-1", 4)
        assert yours.living()["cr-1"].done == 4
        mine.give_back("cr-1")
        assert yours.take("cr-1")


def test_a_claim_of_a_dead_process_is_void(tmp_path: Path) -> None:
    code = f"from advpure.sweeps.claims import Claims; Claims({str(tmp_path)!r}).take('cr-1')"
    subprocess.run([sys.executable, "-c", code], check=True)
    with Claims(tmp_path) as claims:
        assert not claims.living()
        assert claims.take("cr-1")


def test_a_silent_claim_of_another_machine_is_void(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Claims(tmp_path) as claims:
        monkeypatch.setattr(claims_module.platform, "node", lambda: "elsewhere")
        assert claims.take("cr-1")
        monkeypatch.undo()
        assert not claims.take("cr-1")
        now = time.time()
        monkeypatch.setattr(claims_module.time, "time", lambda: now + 61)
        assert claims.take("cr-1")


def test_what_another_process_has_is_left_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counted: list[Compression]
) -> None:
    _, points = prepare_sweep(cheap(), Session(root=tmp_path))
    with Claims(tmp_path) as claims:
        monkeypatch.setattr(claims_module.platform, "node", lambda: "elsewhere")
        claims.take(points[0].run, 100)
        claims.beat(points[0].run, 50)
        monkeypatch.undo()
    run = begin(tmp_path, cheap())
    assert run.left == (points[0].run,)
    first = statuses(run.index, run.points)[0]
    assert (first.state, first.done, first.total) == ("running", 50, 100)


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
        while len(_members(process.pid)) < 3:  # the session and two workers
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
def test_a_worker_that_dies_is_noted_at_its_point(tmp_path: Path) -> None:
    """A worker that is killed leaves its one-line error, and the other points are computed."""
    law = {"verb": "cr", "base": {"dataset": "digits", "n": 4, "tile": 4, "perturbations": 2000}}
    law |= {"grid": {"defense": ["ddpm", "none"]}}
    session = Session(root=tmp_path, jobs=2)
    index, points = prepare_sweep(parse_sweep(law, name="law", where="a test"), session)
    code = (
        "import os, signal, sys, time\n"
        "from advpure.sweeps.claims import Claims\n"
        f"root, run = {str(tmp_path)!r}, {points[0].run!r}\n"
        "claims, end = Claims(root), time.monotonic() + 1200\n"
        "while time.monotonic() < end:\n"
        "    claim = claims.living().get(run)\n"
        "    if claim: os.kill(claim.pid, signal.SIGKILL); break\n"
        "    time.sleep(0.02)\n"
    )
    killer = subprocess.Popen([sys.executable, "-c", code])
    run = run_sweep(index, points, session)
    killer.wait()
    assert list(run.failed) == [points[0].run]
    assert "ended with signal 9" in run.failed[points[0].run]
    assert points[1].run in index.finished()
