"""Every verb prints what it printed before: JSON, rows and notes of commands that take seconds.

Across instruction sets of one processor the recorded values differ by up to 3e-6 (float32
networks, a few hundred terms in a sum), so 2e-5 is the tolerance here. Two commits on one machine
are compared exactly with `golden.record`.
"""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from golden.record import EXPECTED, commands, record

TOLERANCE = 2e-5
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("golden")


@pytest.mark.parametrize("name", commands())
def test_a_verb_prints_what_it_printed(name: str, root: Path) -> None:
    stored = json.loads((EXPECTED / f"{name}.json").read_text())
    now = json.loads(json.dumps(record(name, root)))
    assert now["notes"] == stored["notes"]
    for part in ("values", "rows"):
        before, after = stored.get(part, {}), now.get(part, {})
        assert sorted(after) == sorted(before)
        assert {
            path: (before[path], after[path])
            for path in before
            if not _same(before[path], after[path])
        } == {}


def _same(before: Any, after: Any) -> bool:
    if isinstance(before, float) and isinstance(after, float):
        return math.isclose(before, after, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    return bool(before == after)
