"""The peak of resident memory, of this process and of no other."""

import subprocess
import sys
from pathlib import Path

import pytest

from advpure.base import peak

MIB = 2**20

_CHILD = """
from advpure.base.peak import peak_resident
before = peak_resident()
held = bytearray(b"x") * (100 * 2**20)
during = peak_resident()
del held
print(before, during, peak_resident())
"""


def _of_a_child() -> tuple[int, ...]:
    done = subprocess.run(
        [sys.executable, "-c", _CHILD], check=True, capture_output=True, text=True
    )
    return tuple(map(int, done.stdout.split()))


def test_a_peak_counts_what_was_held_and_not_what_the_parent_held() -> None:
    held = bytearray(b"x") * (300 * MIB)  # the getrusage of a child would begin here
    before, during, after = _of_a_child()
    assert len(held) < peak.peak_resident()
    assert before < 300 * MIB
    assert 95 * MIB < during - before < 120 * MIB
    assert after > during - MIB  # a high-water mark does not fall; pages are counted in batches


def test_without_the_kernel_s_file_getrusage_answers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    there = peak.peak_resident()
    monkeypatch.setattr(peak, "_STATUS", tmp_path / "absent")
    assert peak.peak_resident() > 0.9 * there
