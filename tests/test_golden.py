"""Every verb prints what it printed before: JSON, rows and notes of commands that take seconds.

Across instruction sets of one processor the recorded values differ by up to 3e-6 (float32
networks, a few hundred terms in a sum), so 2e-5 is the tolerance here. Two commits on one machine
are compared exactly with `golden.record`.
"""

import json
import math
import re
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest
from golden.record import EXPECTED, commands, record

TOLERANCE = 2e-5
_NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?(?!\w)")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("golden")


@pytest.mark.slow
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
    if isinstance(before, str) and isinstance(after, str):
        pairs = zip_longest(_NUMBER.split(before), _NUMBER.split(after))
        values = zip_longest(_NUMBER.findall(before), _NUMBER.findall(after), fillvalue="nan")
        return all(a == b for a, b in pairs) and all(
            a == b or _same(float(a), float(b)) for a, b in values
        )
    return bool(before == after)


@pytest.mark.parametrize(
    ("before", "after", "is_same"),
    [
        ("by up to 4.3e-08 of it", "by up to 4.4e-08 of it", True),
        ("12 % of 3", "13 % of 3", False),
        ("1.5 of 3", "1.5 of them", False),
        ("a1e-9", "a2e-9", False),
        (1.0, 1.0 + 1e-7, True),
        (1.0, 1.0 + 1e-4, False),
    ],
)
def test_rounding_alone_is_let_pass(before: Any, after: Any, is_same: bool) -> None:
    assert _same(before, after) == is_same
