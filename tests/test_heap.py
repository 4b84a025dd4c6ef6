"""Freed memory is kept where a program asks for it, and nowhere else."""

import multiprocessing
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from advpure.base import memory
from advpure.sweeps import child

PROBE = """
import ctypes, resource, sys
if sys.argv[1] == "kept":
    from advpure.base.heap import keep_freed_memory
    print(keep_freed_memory())
else:
    print(None)
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
def use():
    place = libc.malloc(40 << 20)
    ctypes.memset(place, 1, 40 << 20)
    libc.free(place)
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
use()
before = faults()
for _ in range(9):
    use()
print(faults() - before)
"""
GLIBC = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")


def probe(mode: str, **variables: str) -> tuple[str, int]:
    """Return what the program was told, and its page faults for memory that it had before."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE, mode],
        check=True, capture_output=True, text=True, env={**os.environ, **variables},
    )  # fmt: skip
    told, faults = done.stdout.split()
    return told, int(faults)


@GLIBC
def test_kept_memory_is_not_fetched_again() -> None:
    # 40 MiB are at least 20 pages, however large the system makes them.
    assert probe("given back")[1] >= 9 * 20
    told, faults = probe("kept")
    assert told == "True"
    assert faults < 20


@GLIBC
@pytest.mark.parametrize(
    "variables",
    [{"MALLOC_TRIM_THRESHOLD_": "131072"}, {"GLIBC_TUNABLES": "glibc.malloc.mmap_max=65536"}],
)
def test_the_users_own_choice_counts(variables: dict[str, str]) -> None:
    told, faults = probe("kept", **variables)
    assert told == "False"
    assert faults >= 9 * 20


def test_commands_and_workers_ask_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from advpure import cli
    from advpure.base import heap, memory

    asked = []
    monkeypatch.setattr(memory, "give_steps_memory", lambda: asked.append("graphs"))
    monkeypatch.setattr(heap, "keep_freed_memory", lambda: asked.append("command"))
    monkeypatch.setattr(cli, "run", lambda arguments: 0)
    with pytest.raises(SystemExit):
        cli.main([])

    def tell() -> None:
        asked.append("worker")
        raise KeyboardInterrupt

    monkeypatch.setattr(child, "keep_freed_memory", tell)
    with pytest.raises(KeyboardInterrupt):
        child.begin(multiprocessing.Pipe()[0])
    assert asked == ["command", "graphs", "worker"]


def test_a_command_takes_a_share_of_what_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert memory.available(tmp_path) == 0  # nothing is known
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text(
        "MemTotal:       65536000 kB\nMemAvailable:   33554432 kB\n"
    )
    assert memory.available(tmp_path) == 32 * 2**30
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (group / "memory.max").write_text("max\n")
    (group / "memory.current").write_text(f"{2**30}\n")
    assert memory.available(tmp_path) == 32 * 2**30  # the container has no limit
    (group / "memory.max").write_text(f"{17 * 2**30}\n")
    assert memory.available(tmp_path) == 16 * 2**30
    monkeypatch.setattr(memory, "STEPS", memory.Budget())
    for free, share in ((0, 512), (2**30, 512), (16 * 2**30, 1024), (2**40, 4096)):
        monkeypatch.setattr(memory, "available", lambda free=free: free)
        memory.give_steps_memory()
        assert (memory.STEPS.limit, memory.STEPS.on_devices) == (share * 2**20, 512 * 2**20)


def test_a_device_has_a_budget_of_its_own() -> None:
    budget = memory.Budget()
    assert not budget.take(1)
    budget.limit, budget.on_devices = 10, 4
    assert not budget.take(5, on_device=True)
    assert budget.take(3, on_device=True)
    assert budget.take(7)
    assert not budget.take(1)
    budget.give_back(7)
    assert budget.take(1, on_device=True)
