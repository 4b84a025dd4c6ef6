"""A recorded run of randomness against input: resumed, reported from records, printed and drawn."""

import errno
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from held import UP_TO

from advpure.analysis import signal_to_noise
from advpure.analysis.variability.result import SNR_SCHEMA, SnrRow
from advpure.analysis.variability.study import Snr
from advpure.base.errors import BadInput
from advpure.cli import run
from advpure.data import load_images
from advpure.loading import load_purifier
from advpure.runs.records import ALREADY_COMPLETE, RecordStore, StorageFull
from advpure.runs.row_file import RowFile

Cli = Callable[..., tuple[int, str, str]]
QUICK: dict[str, Any] = {
    "defense": "ddpm", "t": 4, "dataset": "digits", "n": 5, "perturbations": 6,
    "configurations": 7, "tile": 16, "eps": "8/255",
}  # fmt: skip
LINE = (
    "snr", "-d", "ddpm", "--t", "4", "--dataset", "digits", "-n", "5", "--perturbations", "6",
    "--configurations", "7", "--tile", "16", "--eps", "8/255",
)  # fmt: skip


def everything(folder: Path) -> dict[str, Any]:
    with RecordStore.read(folder) as store:
        found: dict[str, Any] = {name: store.get_blob(name).tolist() for name in store.blobs()}
        return found | {"rows": store.rows("snr"), "settings": store.settings}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    folder = tmp_path_factory.mktemp("snr") / "whole"
    Snr.run(Snr(**QUICK), out=folder)
    return folder


def test_the_run_gives_the_rows_of_the_function(whole: Path) -> None:
    images, _, ids = load_images("digits", n=5)
    direct = signal_to_noise(
        load_purifier("ddpm", "digits", t=4, tile=16), images, ids=ids, perturbations=6,
        configurations=7,
    )  # fmt: skip
    with RecordStore.read(whole) as store:
        report = Snr.report(store)
        assert report.result.rows == direct.rows
        for row in direct.rows:
            distances = store.get_blob(f"distances/{row.id}").double().mean((1, 2))
            wanted = (row.vary_input, row.vary_randomness, row.vary_both)
            assert distances.tolist() == pytest.approx(wanted, rel=1e-6)
            maps = store.get_blob(f"variances/{row.id}").double().mean((1, 2, 3))
            assert maps.tolist() == pytest.approx((row.plain.input, row.plain.internal), rel=1e-6)
    assert not (whole / "unfinished").exists()


def test_json_is_flat_and_holds_intervals(whole: Path) -> None:
    with RecordStore.read(whole) as store:
        found = Snr.report(store).to_json()
    assert json.loads(json.dumps(found)) == found
    for name in (
        "total", "input", "internal", "snr_mean_of_ratios", "snr_ratio_of_means", "initial",
        "centroid_vary_input", "centroid_vary_randomness", "centroid_vary_both",
        "correlation_vary_randomness", "correlation_vary_input", "internal_to_input",
    ):  # fmt: skip
        low, high = found[f"{name}_interval"]
        assert low < found[name] < high
    assert found["n"] == len(found["rows"]) == 5
    assert found["total"] == pytest.approx(found["input"] + found["internal"], rel=1e-12)
    assert found["settings"]["configurations"] == 7
    assert found["correlation_vary_input"] > found["correlation_vary_randomness"]
    assert found["centroid_vary_both"] > found["centroid_vary_randomness"]


class Stop(Exception):
    """Stands for any end in the middle."""


@pytest.mark.parametrize("batch_size", [16, 80])
def test_a_run_goes_on_within_an_image(tmp_path: Path, whole: Path, batch_size: int) -> None:
    settings, done = Snr(**QUICK), []

    def stop(count: int) -> None:
        done.append(count)
        if count >= 64:  # one image of 42 cells, and a part of the next
            raise Stop

    with pytest.raises(Stop):
        Snr.run(settings, out=tmp_path / "mine", batch_size=16, progress=stop)
    assert done == [0, 16, 32, 48, 64]
    assert [file.name for file in (tmp_path / "mine" / "unfinished").iterdir()] == ["1.rows"]
    seen: list[int] = []
    report = Snr.run(settings, out=tmp_path / "mine", batch_size=batch_size, progress=seen.append)
    assert seen[0] == 42  # what is recorded
    assert seen[1] == 64 + batch_size
    assert seen[-1] == settings.total(settings.load()) == 5 * 42
    assert report.notes == ()
    assert everything(tmp_path / "mine") == everything(whole)
    assert not (tmp_path / "mine" / "unfinished").exists()
    again = Snr.run(settings, out=tmp_path / "mine")
    assert again.notes == ("already complete, reported from records; nothing was computed",)
    assert again.result == report.result


def start(folder: Path, *arguments: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", "from advpure.cli import main; main()", *arguments]
    return subprocess.Popen(
        command, cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


@pytest.mark.slow
def test_killed_again_and_again_a_run_ends_with_the_same_records(tmp_path: Path) -> None:
    job = ("snr", "-d", "ddpm", "--t", "30", "--dataset", "digits", "-n", "3", "--perturbations",
           "16", "--configurations", "16", "--tile", "16", "--eps", "8/255",
           "--out", "mine", "--quiet")  # fmt: skip
    killed = 0
    settings = {**QUICK, "t": 30, "n": 3, "perturbations": 16, "configurations": 16}
    for attempt in range(4):
        code = (
            "from advpure.analysis.variability.study import Snr\n"
            f"Snr.run(Snr(**{settings!r}), out='mine', batch_size=16,\n"
            f"    progress={UP_TO.format(done=150 * (attempt + 1))})\n"  # of 3 x 272 cells
        )
        process = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path)
        folder, before = tmp_path / "mine" / "unfinished", _bytes(tmp_path / "mine")
        while process.poll() is None and _bytes(tmp_path / "mine") <= before + 16 * 260:
            time.sleep(0.002)
        process.kill()
        process.wait()
        killed += process.returncode == -signal.SIGKILL
        assert folder.is_dir()
    assert killed == 4
    process = start(tmp_path, *job)
    _, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    Snr.run(Snr(**settings), out=tmp_path / "whole")
    assert everything(tmp_path / "mine") == everything(tmp_path / "whole")


def _bytes(run: Path) -> int:
    """Bytes of unfinished images, and what the finished ones had."""
    folder = run / "unfinished"
    files = list(folder.iterdir()) if folder.is_dir() else []
    most = max((int(file.stem) for file in files), default=0)
    return most * 16 * 17 * 260 + sum(file.stat().st_size for file in files if file.exists())


@pytest.mark.slow
def test_two_processes_may_share_a_run(tmp_path: Path) -> None:
    job = (*LINE, "--out", "mine", "--quiet")
    both = [start(tmp_path, *job, "--batch-size", str(size)) for size in (16, 48)]
    for process in both:
        _, err = process.communicate()
        assert process.returncode == 0
        assert err in ("", f"note: {ALREADY_COMPLETE}\n")  # one may end before the other begins
    Snr.run(Snr(**QUICK), out=tmp_path / "whole")
    assert everything(tmp_path / "mine") == everything(tmp_path / "whole")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"defense": "dpm2"}, "'dpm2' is not known"),
        ({"device": "cuda:99"}, "device 'cuda:99' is"),
        ({"distribution": "cauchy"}, "distribution 'cauchy' is not known"),
        ({"configurations": 1}, "configurations 1 is not a whole number of 2 or more"),
        ({"perturbations": 0}, "perturbations 0 is not a whole number of 2 or more"),
        ({"eps": "8"}, "ambiguous"),
        ({"n": 451}, "does not fit"),
        ({"seed": 2**32 - 2}, "does not fit"),
    ],
)
def test_what_cannot_be_measured_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        Snr.load(Snr(**{**QUICK, **change}))


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Return a runner in an empty folder: arguments to (exit code, output, errors)."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run(arguments)
        return code, *capsys.readouterr()

    return call


def test_the_command_prints_a_table_with_intervals(cli: Cli, whole: Path) -> None:
    code, out, err = cli(*LINE, "--out", str(whole), "--plot", "deep/snr.png")
    assert code == 0
    assert err == "note: already complete, reported from records; nothing was computed\n"
    first = out.splitlines()[0]
    assert first.startswith("digits, uniform noise 0.03137, defense ddpm t=4, 5 images x ")
    assert "times the input variance" in first
    for label in ("internal variance per pixel, 1e-3", "L2 to centroid, vary both",
                  "correlation of directions, vary input", "SNR, ratio of means"):  # fmt: skip
        (line,) = [line for line in out.splitlines() if line.startswith(label)]
        assert line.rstrip().endswith("  5")
        assert "[" in line
    assert "input is low by 1/6 of itself, internal by 1/7 of itself" in out
    assert "picture: deep/snr.png" in out
    assert Path("deep/snr.png").is_file()


def test_the_command_says_where_randomness_is_missing(cli: Cli) -> None:
    line = ("snr", "-d", "none", "--dataset", "digits", "-n", "3", "--perturbations", "2",
            "--configurations", "2", "--out", "mine", "--plot", "none.svg")  # fmt: skip
    code, out, err = cli(*line)
    assert code == 0
    assert "SNR absent" in out
    assert err == "note: 3 of 3 images have no internal variance, so no signal-to-noise ratio\n"


@pytest.mark.slow
def test_the_memory_of_a_run_does_not_grow_with_its_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1]))
    from benchmarks import randomness  # which also measures the time of a run, with `make bench`

    few, many = randomness.memory((2, 4, 4), t=2), randomness.memory((6, 40, 40), t=2)
    assert many < 1024
    assert many - few < 32  # 300 times the cells


def test_a_run_makes_the_network_calls_of_its_full_tiles_and_no_others(tmp_path: Path) -> None:
    study = Snr(**QUICK)
    loaded = study.load()
    calls: list[int] = []
    denoiser: Any = loaded.purifier.denoiser
    handle = denoiser.network.register_forward_hook(lambda m, x, y: calls.append(len(x[0])))
    study.run(out=tmp_path, loaded=loaded)
    handle.remove()
    assert study.cost(loaded).evaluations == 4 * 14 * 16
    assert calls == [16] * (4 * 14)  # 210 cells fill 14 tiles of 16, four evaluations each


def test_internal_variance_that_is_lost_in_the_interaction_is_told(tmp_path: Path) -> None:
    # The interaction explains more than the columns' mean square: (1 - 8) / 2 is below 0.
    lost = SnrRow(0, 2, 2, 1, 1.0, 1.0, 9.0, *[1.0] * 5, None, None)
    rows = [lost, lost._replace(id=1, squares_columns=20.0)]
    with RecordStore.open(tmp_path, schemas=(SNR_SCHEMA,), settings={}, context={}) as store:
        store.append(SNR_SCHEMA.table, [row._asdict() for row in rows])
        report = Snr.report(store)
    assert report.to_json()["snr_mean_of_ratios_unbiased_n"] == 1
    assert len(report.notes) == 1
    assert "internal variance of 1 of 2 images is not above 0" in report.notes[0]


def test_what_a_kill_left_of_a_finished_image_is_removed(tmp_path: Path, whole: Path) -> None:
    shutil.copytree(whole, tmp_path / "mine")
    left = tmp_path / "mine" / "unfinished"
    left.mkdir()
    (left / "3.rows").write_bytes(b"rows of image 3")
    (left / "4.rows").write_bytes(b"rows of image 4")
    with RowFile(left / "4.rows", 4, "f4"):  # another process has it
        Snr.run(Snr(**QUICK), out=tmp_path / "mine")
        assert [path.name for path in left.iterdir()] == ["4.rows"]
    Snr.run(Snr(**QUICK), out=tmp_path / "mine")
    assert not left.exists()


def test_closing_a_full_file_says_nothing_more(tmp_path: Path, monkeypatch: Any) -> None:
    rows = RowFile(tmp_path / "rows", 2, np.float32)

    class Full:
        def __getattr__(self, name: str) -> Any:
            raise OSError(errno.ENOSPC, "No space left on device")

    rows._handle.close()
    rows._handle = Full()  # type: ignore[assignment]
    with pytest.raises(StorageFull):
        rows.append([[1.0, 2.0]])
    rows.close()
