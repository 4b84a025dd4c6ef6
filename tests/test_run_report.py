"""What every report of a recorded run says of its origin."""

import typing
from dataclasses import dataclass
from pathlib import Path

import pytest

from advpure.analysis.report import RunReport
from advpure.analysis.runs import RUNS
from advpure.runs.records import ALREADY_COMPLETE


@dataclass(frozen=True, kw_only=True)
class Found(RunReport):
    """A report of one number."""

    value: float


def test_the_origin_is_told_in_json_values() -> None:
    report = Found(run=Path("runs/x"), settings={"n": 3}, seconds=2.0, notes=("few",), value=0.5)
    told = {"notes": ["few"], "seconds": 2.0, "settings": {"n": 3}, "run": "runs/x"}
    assert report.origin() == told


def test_a_complete_run_says_so_and_changes_nothing_else() -> None:
    report = Found(run=Path("runs/x"), settings={}, notes=("few",), value=0.5)
    again = report.already_complete()
    assert again == Found(
        run=Path("runs/x"), settings={}, notes=("few", ALREADY_COMPLETE), value=0.5
    )
    assert report.notes == ("few",)


@pytest.mark.parametrize("name", RUNS.names())
def test_every_verb_returns_such_a_report(name: str) -> None:
    verb = RUNS.get(name)
    for function in (verb.measure, verb.report):
        assert issubclass(typing.get_type_hints(function)["return"], RunReport)
