"""Ctrl-C and SIGTERM at any moment: one line, exit code 130 or 143, everything finished is kept."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from processes import workers

from advpure.base.stopping import STOPPED, deferred, stoppable
from advpure.base.storage import atomic_path
from advpure.runs.records import RecordStore

MAIN = "from advpure.entry import main; main()"
JOB = ("attack", "-d", "cm", "--fix-random", "--steps", "20", "-n", "0", "--batch-size", "1")
SIGNALS = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]


@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_both_signals_interrupt_the_body_and_handlers_come_back(number: int, code: int) -> None:
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    with stoppable() as asked:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
        assert (asked.number, asked.code) == (number, code)
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before


def test_an_interruption_in_a_destructor_is_not_lost() -> None:
    class Closing:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)

    with stoppable() as asked, pytest.raises(KeyboardInterrupt):  # noqa: PT012
        Closing()
        time.sleep(60)
    assert asked.number == signal.SIGINT


@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_a_deferred_signal_comes_after_the_body(number: int, code: int) -> None:
    done = []
    with stoppable() as asked, pytest.raises(KeyboardInterrupt):  # noqa: PT012
        with deferred() as stop:
            signal.raise_signal(number)
            done.append(stop.number)
        stop.interrupt()
    assert (done, asked.code) == ([number], code)


def test_a_second_signal_is_not_deferred() -> None:
    with stoppable(), deferred(), pytest.raises(KeyboardInterrupt):  # noqa: PT012
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)


def test_what_a_killed_process_left_of_a_file_is_removed(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    stale = tmp_path / f".out.{ended.pid}.txt"
    living = tmp_path / f".out.{os.getppid()}.txt"
    foreign = tmp_path / ".out.notes.txt"
    for path in (stale, living, foreign):
        path.write_text("half")
    with atomic_path(tmp_path / "out.txt") as scratch:
        scratch.write_text("whole")
    assert sorted(tmp_path.iterdir()) == sorted([living, foreign, tmp_path / "out.txt"])


# --- real processes ---------------------------------------------------------------------


def _start(folder: Path, *arguments: str, group: bool = False) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", MAIN, *arguments], cwd=folder, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=group,
    )  # fmt: skip


def _catches(pid: int) -> bool:
    """Return whether a process has a handler for SIGTERM, which Python alone does not set."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("SigCgt:"):
            return bool(int(line.split()[1], 16) >> (signal.SIGTERM - 1) & 1)
    return False


def _wait(what: Any) -> None:
    deadline = time.monotonic() + 180
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def _ended(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    out, err = process.communicate(timeout=180)
    return process.returncode, out, err


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_stopped_during_start_up_it_is_one_line(tmp_path: Path, number: int, code: int) -> None:
    for delay in (0.0, 0.2, 0.7, 1.5, 2.5):
        process = _start(tmp_path, *JOB, "--quiet", "--out", "mine")
        _wait(lambda process=process: _catches(process.pid))
        time.sleep(delay)
        process.send_signal(number)
        assert _ended(process) == (code, "", f"advpure: {STOPPED}\n")


def _rows(folder: Path) -> int:
    if not (folder / "records.sqlite").is_file():
        return 0
    try:
        with RecordStore.read(folder) as store:
            return store.count(store.schemas[0].table)
    except (ValueError, IndexError):  # not begun yet
        return 0


@pytest.mark.slow
def test_sigterm_keeps_what_is_finished(tmp_path: Path) -> None:
    process = _start(tmp_path, *JOB, "--quiet", "--out", "mine")
    _wait(lambda: _rows(tmp_path / "mine") > 3)
    process.send_signal(signal.SIGTERM)
    assert _ended(process) == (143, "", f"advpure: {STOPPED}\n")
    assert _rows(tmp_path / "mine") % 3 == 0
    assert list((tmp_path / "mine").iterdir()) == [tmp_path / "mine" / "records.sqlite"]


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_a_stopped_sweep_takes_its_workers_with_it(tmp_path: Path, number: int, code: int) -> None:
    law = {
        "verb": "attack", "grid": {"eps": [0.1, 0.2, 0.3]},
        "base": {"n": 400, "defense": "cm", "attack_options": {"steps": 20}},
    }  # fmt: skip
    (tmp_path / "law.yaml").write_text(json.dumps(law))
    line = ("sweep", "law.yaml", "--jobs", "2", "--quiet", "--batch-size", "1", "--out", "runs")
    process = _start(tmp_path, *line)
    _wait(lambda: sum(_rows(each) > 3 for each in (tmp_path / "runs").glob("attack-*")) == 2)
    children = workers(process.pid)
    process.send_signal(number)
    assert _ended(process) == (code, "", f"advpure: {STOPPED}\n")
    assert len(children) == 2
    assert not any(Path(f"/proc/{child}").exists() for child in children)


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0.0, 1.0])
def test_ctrl_c_at_a_terminal_reaches_the_workers_too(tmp_path: Path, delay: float) -> None:
    """The whole group gets the signal, also while its workers start; still it is one line."""
    law = {"verb": "attack", "grid": {"eps": [0.1, 0.2]}, "base": {"dataset": "digits", "n": 40}}
    (tmp_path / "law.yaml").write_text(json.dumps(law))
    process = _start(tmp_path, "sweep", "law.yaml", "--jobs", "2", "--quiet", group=True)
    _wait(lambda: len(workers(process.pid)) == 2)
    children = workers(process.pid)
    time.sleep(delay)
    os.killpg(process.pid, signal.SIGINT)
    assert _ended(process) == (130, "", f"advpure: {STOPPED}\n")
    assert not any(Path(f"/proc/{child}").exists() for child in children)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_a_stopped_training_is_saved(tmp_path: Path, number: int, code: int) -> None:
    process = _start(tmp_path, "train", "digits-classifier", "--out", "mine", "--quiet")
    log = tmp_path / "mine"
    _wait(lambda: list(log.glob("**/log.csv")) or process.poll() is not None)
    process.send_signal(number)
    assert _ended(process) == (code, "", f"advpure: {STOPPED}\n")
    assert list(log.glob("**/checkpoint.pt"))


# --- what a measurement leaves ----------------------------------------------------------

SNR = ("snr", "-d", "ddpm", "--t", "4", "-n", "2", "--perturbations", "40")
SNR += ("--configurations", "40", "--quiet", "--out", "mine")
LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop(1)), resource.RLIM_INFINITY))
from advpure.entry import main
main()
"""


@pytest.mark.slow
def test_a_full_disk_in_snr_is_one_line_and_it_goes_on(tmp_path: Path) -> None:
    command = [sys.executable, "-c", LIMITED, str(200 * 1024), *SNR]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "advpure: no room left to write mine/unfinished/0.rows; everything before is kept: "
        "free space and run it again\n"
    )
    left = list((tmp_path / "mine" / "unfinished").iterdir())
    assert [path.name for path in left] == ["0.rows"]
    code, _, err = _ended(_start(tmp_path, *SNR))
    assert (code, err) == (0, "")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["records.sqlite"]
