"""A run that is killed or interrupted goes on where it stopped, and ends with the same records."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from held import COMMAND

from advpure.analysis.compression.study import Compression
from advpure.analysis.robustness.protocol import ATTACKS, DECISIONS
from advpure.analysis.robustness.study import Robustness
from advpure.base.errors import BadInput
from advpure.cli import output, run
from advpure.runs.records import ALREADY_COMPLETE, RecordStore
from advpure.runs.schema import Row

MAIN = "from advpure.cli import main; main()"
BATCHES = 6
"""What a held run may do, in batches of three `append`s: ten runs stay below COUNT images."""
JOB = (
    "attack",
    "--defense",
    "cm",
    "--fix-random",
    "--steps",
    "8",
    "--step-size",
    "0.05",
    "--out",
    "mine",
    "--quiet",
)
COUNT = 256
SETTINGS: dict[str, Any] = {"attack_options": {"steps": 8, "step_size": 0.05}}


def tables(folder: Path) -> dict[str, list[Row]]:
    with RecordStore.read(folder) as store:
        return {schema.table: store.rows(schema.table) for schema in store.schemas}


def start(folder: Path, *arguments: str, held: int | None = None) -> "subprocess.Popen[str]":
    code = [MAIN] if held is None else [COMMAND, str(3 * held)]
    command = [sys.executable, "-c", *code, *arguments]
    return subprocess.Popen(
        command, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def wait_for_rows(folder: Path, process: "subprocess.Popen[str]", more_than: int) -> int:
    """Wait until the run has more decisions than before, or the process has ended."""
    while True:
        count = 0
        with suppress(BadInput), RecordStore.read(folder) as store:  # not begun yet
            if "decisions" in {schema.table for schema in store.schemas}:
                count = store.count(DECISIONS.table)
        if count > more_than or process.poll() is not None:
            return count
        time.sleep(0.005)


def check_whole_samples(folder: Path) -> int:
    """Assert that every sample in the records is there with all its rows; return their number."""
    found = tables(folder)
    decided = [row["sample"] for row in found["decisions"]]
    attacked = [row["sample"] for row in found["attacks"]]
    samples = sorted(set(decided))
    assert all(decided.count(i) == 3 and attacked.count(i) == 2 for i in samples)
    assert sorted(set(attacked)) == samples
    return len(samples)


@pytest.mark.slow
def test_killed_at_ten_moments_a_run_ends_with_the_same_records(tmp_path: Path) -> None:
    generator = np.random.default_rng(20)
    folder, kept, killed = tmp_path / "mine", 0, 0
    for _ in range(10):
        size = str(generator.integers(1, 4))
        line = (*JOB, "-n", str(COUNT), "--batch-size", size)
        process = start(tmp_path, *line, held=BATCHES)
        wait_for_rows(folder, process, 3 * kept)
        time.sleep(float(generator.uniform(0, 0.25)))
        process.kill()
        process.communicate()
        killed += process.returncode == -signal.SIGKILL
        before, kept = kept, check_whole_samples(folder)
        assert kept >= before
    assert killed == 10
    assert kept < COUNT
    process = start(tmp_path, *JOB, "-n", str(COUNT))
    _, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    Robustness.run(Robustness(randomness="fixed", n=COUNT, **SETTINGS), out=tmp_path / "whole")
    assert tables(folder) == tables(tmp_path / "whole")


@pytest.mark.slow
def test_killed_before_the_first_row_a_run_begins_again(tmp_path: Path) -> None:
    job = (
        "attack",
        "-n",
        "3",
        "--fix-random",
        "--steps",
        "8",
        "--step-size",
        "0.05",
        "--out",
        "mine",
    )
    for wait in (0.0, 0.3):
        process = start(tmp_path, *job)
        while not (tmp_path / "mine").is_dir() and process.poll() is None:
            time.sleep(0.001)
        time.sleep(wait / 10)
        process.kill()
        process.communicate()
    process = start(tmp_path, *job)
    process.communicate()
    assert process.returncode == 0
    Robustness.run(Robustness(randomness="fixed", n=3, **SETTINGS), out=tmp_path / "whole")
    assert tables(tmp_path / "mine") == tables(tmp_path / "whole")


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_finished(tmp_path: Path) -> None:
    line = (*JOB, "-n", str(COUNT), "--batch-size", "1")
    process = start(tmp_path, *line, held=COUNT // 2)
    wait_for_rows(tmp_path / "mine", process, 0)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert process.returncode == 130
    assert out == ""
    assert err == (
        "advpure: interrupted; everything finished so far is kept, the same command goes on\n"
    )
    kept = check_whole_samples(tmp_path / "mine")
    assert 0 < kept < COUNT
    process = start(tmp_path, *JOB, "-n", str(COUNT))
    _, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    Robustness.run(Robustness(randomness="fixed", n=COUNT, **SETTINGS), out=tmp_path / "whole")
    assert tables(tmp_path / "mine") == tables(tmp_path / "whole")


@pytest.mark.slow
def test_two_processes_may_share_a_run(tmp_path: Path) -> None:
    both = [start(tmp_path, *JOB, "-n", "40", "--batch-size", str(size)) for size in (3, 8)]
    for process in both:
        _, err = process.communicate()
        assert process.returncode == 0
        assert err in ("", f"note: {ALREADY_COMPLETE}\n")  # one may end before the other begins
    Robustness.run(Robustness(randomness="fixed", n=40, **SETTINGS), out=tmp_path / "whole")
    assert tables(tmp_path / "mine") == tables(tmp_path / "whole")


class Stop(Exception):
    """Stands for any end in the middle."""


@pytest.mark.parametrize("randomness", ["fixed", "fresh"])
def test_a_run_goes_on_with_another_batch_size(tmp_path: Path, randomness: Any) -> None:
    settings = Robustness(
        n=7, randomness=randomness, draws=None if randomness == "fixed" else 2,
        attack_options={"steps": 2},
    )  # fmt: skip
    Robustness.run(settings, out=tmp_path / "whole")
    done: list[int] = []

    def stop(count: int) -> None:
        done.append(count)
        if len(done) == 3:
            raise Stop

    with pytest.raises(Stop):
        Robustness.run(settings, out=tmp_path / "mine", batch_size=2, progress=stop)
    assert done == [0, 2, 4]
    seen: list[int] = []
    Robustness.run(settings, out=tmp_path / "mine", batch_size=5, progress=seen.append)
    assert seen == [4, 7]
    assert tables(tmp_path / "mine") == tables(tmp_path / "whole")
    seen.clear()
    Robustness.run(settings, out=tmp_path / "mine", progress=seen.append)
    assert seen == [7]


def test_a_compression_run_goes_on(tmp_path: Path) -> None:
    settings = Compression(n=20, perturbations=5, seeds=[0, 4])
    whole = Compression.run(settings, out=tmp_path / "whole")
    done: list[int] = []

    def stop(count: int) -> None:
        done.append(count)
        if len(done) == 3:
            raise Stop

    with pytest.raises(Stop):
        Compression.run(settings, out=tmp_path / "mine", batch_size=32, progress=stop)
    assert 0 < done[-1] < 200
    seen: list[int] = []
    again = Compression.run(settings, out=tmp_path / "mine", progress=seen.append)
    assert (seen[0], seen[-1]) == (done[-1], 200)
    assert tables(tmp_path / "mine") == tables(tmp_path / "whole")
    assert again.result.pooled == whole.result.pooled


def test_ctrl_c_is_one_line_and_code_130(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    job = [*JOB, "-n", "3", "--batch-size", "1"]
    evaluate = sys.modules["advpure.analysis.robustness.study"].evaluate

    def interrupted(*arguments: Any, progress: Any, **more: Any) -> None:
        def press(done: int) -> None:
            if done == 2:
                os.kill(os.getpid(), signal.SIGINT)

        evaluate(*arguments, progress=press, **more)

    with monkeypatch.context() as patch:
        patch.setattr("advpure.analysis.robustness.study.evaluate", interrupted)
        assert run(job) == 130
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("advpure: interrupted; everything finished so far is kept")
    with RecordStore.read("mine") as store:
        assert store.done(ATTACKS.table, "sample") == {(0,), (1,)}
    assert run(job) == 0
    assert len(tables(tmp_path / "mine")["decisions"]) == 9


def test_a_progress_bar_is_for_terminals_only(capsys: pytest.CaptureFixture[str]) -> None:
    with output.progress("attacking", 3, shown=True) as bar:
        bar(2)
    assert capsys.readouterr() == ("", "")
