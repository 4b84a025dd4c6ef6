"""Sweeps on clusters: a local one of Ray, submitit's local jobs, and a SLURM that is a script."""

import os
import signal
import stat
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from advpure.base.errors import BadInput, MissingExtra
from advpure.cli import run
from advpure.cli.sweep import Sweeping
from advpure.runs.records import RecordStore
from advpure.sweeps.array import array_script
from advpure.sweeps.executors import Executor
from advpure.sweeps.on_ray import OnRay, RayOptions
from advpure.sweeps.on_slurm import Slurm, SlurmOptions
from advpure.sweeps.session import Session, SweepRun, prepare_sweep, run_sweep
from advpure.sweeps.sweep import parse_sweep

TINY: dict[str, Any] = {"dataset": "digits", "n": 2, "defense": "none", "perturbations": 2}


def on(executor: Executor, root: Path, eps: list[float], **base: Any) -> SweepRun:
    """Run a sweep of compression rates on an executor."""
    swept = {"verb": "cr", "base": {**TINY, **base}, "grid": {"eps": eps}}
    session = Session(root=root, threads=1)
    index, points = prepare_sweep(parse_sweep(swept, name="law", where="a test"), session)
    return run_sweep(index, points, session, executor)


def rates(run: SweepRun, root: Path) -> list[list[float]]:
    """Return the rows of every point."""
    every = []
    for point in run.points:
        with RecordStore.read(root / point.run) as store:
            every.append([row["rate"] for row in store.rows("compression")])
    return every


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"on": "slurm", "cluster": {"minutes": "0"}}, "minutes"),
        ({"on": "slurm", "cluster": {"minuts": "5"}}, "minutes"),
        ({"on": "ray", "cluster": {"partition": "gpu"}}, "partition"),
        ({"cluster": {"minutes": "5"}}, "add --on slurm or --on ray"),
        ({"on": "pbs"}, "slurm"),
    ],
)
def test_what_a_cluster_does_not_have_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        Sweeping(file="law.yaml", **options)


@pytest.mark.parametrize(("package", "kind"), [("submitit", "slurm"), ("ray", "ray")])
def test_an_absent_package_names_its_extra(
    package: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=r"advpure\[cluster\]"):
        Sweeping(file="law.yaml", out=str(tmp_path), on=kind).executor([])  # type: ignore[arg-type]


def test_an_array_script_has_every_shard_and_is_requeued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("law.yaml").write_text(
        "verb: cr\nbase: {dataset: digits, n: 2, defense: none}\ngrid: {eps: [0.1, 0.2, 0.3]}\n"
    )
    assert run(["sweep", "law.yaml", "--array", "job.sh", "--jobs", "2"]) == 0
    script = Path("job.sh").read_text()
    assert "#SBATCH --array=1-2\n" in script
    assert "#SBATCH --requeue" in script
    assert '--shard "$SLURM_ARRAY_TASK_ID/2"' in script
    assert Path("job.sh").stat().st_mode & stat.S_IXUSR
    assert run(["sweep", "law.yaml", "--array", "job.sh", "--shard", "1/2"]) == 2
    assert run(["sweep", "law.yaml", "--array", "job.sh", "--on", "ray"]) == 2
    asked = SlurmOptions(minutes=90, cpus=4, gpus=1, memory_gb=16, partition="long", account="me")
    lines = array_script(["advpure", "sweep", "a file.yaml"], 3, asked).splitlines()
    for name, value in {
        "time": 90, "cpus-per-task": 4, "gpus": 1, "mem": "16G", "partition": "long",
        "account": "me",
    }.items():  # fmt: skip
        assert f"#SBATCH --{name}={value}" in lines
    assert any("'a file.yaml'" in line for line in lines)


@pytest.mark.slow
def test_the_array_script_computes_the_whole_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each task runs as SLURM would run it; afterwards nothing is left to compute."""
    import subprocess

    monkeypatch.chdir(tmp_path)
    Path("law.yaml").write_text(
        "verb: cr\nbase: {dataset: digits, n: 2, defense: none}\ngrid: {eps: [0.1, 0.2]}\n"
    )
    _command(tmp_path, "advpure", f'exec "{sys.executable}" -m advpure "$@"')
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert run(["sweep", "law.yaml", "--array", "job.sh"]) == 0
    for task in ("1", "2"):
        variables = {**os.environ, "SLURM_ARRAY_TASK_ID": task, "SLURM_JOB_ID": "1"}
        subprocess.run(["sh", "job.sh"], env=variables, check=True, capture_output=True)
    swept = {"verb": "cr", "base": {**TINY, "perturbations": 10}, "grid": {"eps": [0.1, 0.2]}}
    _, points = prepare_sweep(parse_sweep(swept, name="law", where="a test"), Session())
    for point in points:
        with RecordStore.read(Path("runs") / point.run) as store:
            assert store.finished


def _command(folder: Path, name: str, body: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


@pytest.mark.slow
def test_jobs_of_submitit_compute_a_sweep_and_report_errors(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    executor = Slurm(tmp_path, 2, SlurmOptions(cluster="local", minutes=5))
    run = on(executor, tmp_path, [0.1, 0.2])
    assert not run.failed
    here = on_here(tmp_path / "here", [0.1, 0.2])
    assert rates(run, tmp_path) == rates(here, tmp_path / "here")


def on_here(root: Path, eps: list[float], **base: Any) -> SweepRun:
    """Run the same sweep in this process."""
    from advpure.sweeps.executors import Here

    return on(Here(), root, eps, **base)


@pytest.mark.slow
def test_slurm_is_asked_as_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An sbatch that is a script runs the job at once; what submitit wrote into it is kept."""
    pytest.importorskip("submitit")
    variables = "SLURM_JOB_ID=7 SLURM_JOB_NODELIST=here SLURM_NTASKS=1 SLURM_LOCALID=0"
    variables += " SLURM_NODEID=0 SLURM_PROCID=0 SLURM_JOB_NUM_NODES=1"
    kept = tmp_path / "submitted.sh"
    _command(
        tmp_path,
        "sbatch",
        f'for last; do :; done\ncp "$last" {kept}\n({variables} sh "$last" '
        f"> {tmp_path}/log 2>&1 &)\necho Submitted batch job 7",
    )
    _command(tmp_path, "srun", 'while [ "${1#-}" != "$1" ]; do\ncase "$1" in *=*|--unbuffered) '
             'shift;; *) shift 2;; esac\ndone\nexec "$@"')  # fmt: skip
    _command(tmp_path, "sacct", "echo 'JobID|State|NodeList'; echo '7|RUNNING|here'")
    _command(tmp_path, "scancel", "exit 0")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    asked = SlurmOptions(minutes=90, gpus=1, partition="long", account="me", memory_gb=16)
    run = on(Slurm(tmp_path, 1, asked), tmp_path, [0.1])
    assert not run.failed, (tmp_path / "log").read_text()
    script = kept.read_text()
    for line in (
        "--time=90",
        "--gpus-per-node=1",
        "--partition=long",
        "--account=me",
        "--mem=16GB",
    ):
        assert f"#SBATCH {line}" in script


@pytest.mark.slow
def test_ray_computes_a_sweep_though_one_of_two_workers_is_killed(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    eps, base = [0.1, 0.2], {"n": 40, "perturbations": 60, "defense": "ddpm", "t": 20}
    executor = OnRay(2, RayOptions())
    killed: list[int] = []

    def kill() -> None:
        deadline = time.monotonic() + 120
        while not killed and time.monotonic() < deadline:
            for pid in _ray_workers():
                if any((tmp_path).glob("cr-*/records.sqlite")):
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)
                    return
            time.sleep(0.05)

    watcher = threading.Thread(target=kill)
    watcher.start()
    run = on(executor, tmp_path, eps, **base)
    watcher.join()
    assert killed
    assert not run.failed
    assert len(run.done) == 2
    assert any("died once; it went on" in note for note in run.notes)


def _ray_workers() -> list[int]:
    """Return the processes in which Ray computes a job just now."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes()
        except OSError:
            continue
        if line.startswith(b"ray::_attempt"):
            found.append(int(path.parent.name))
    return found
