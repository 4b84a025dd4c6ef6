"""The museum: every planted mistake is flagged by the check that should, no sound room by any."""

import json
from pathlib import Path

import pytest
from museum.cases import PLANTED, SOUND, Case
from museum.record import PAGE, VERDICTS, audited, renewed

QUICK = ("three steps", "training mode", "images counted twice", "8/255 divided by 255 again")


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=case.name, marks=() if case.name in QUICK else pytest.mark.slow)
        for case in PLANTED
    ],
)
def test_a_planted_mistake_is_flagged_by_its_check(case: Case, tmp_path: Path) -> None:
    room = audited(case, tmp_path / "audit", only=(case.check,))
    assert room["verdict"] == "fail", room["words"]


@pytest.mark.slow
@pytest.mark.parametrize("case", SOUND, ids=[case.name for case in SOUND])
def test_a_sound_evaluation_fails_no_check(case: Case, tmp_path: Path) -> None:
    room = audited(case, tmp_path / "audit")
    assert room["fails"] == []
    if case.truth is not None:
        assert room["robust"] == pytest.approx(case.truth, abs=0.1)


def test_the_page_says_what_was_recorded_and_that_is_of_all_rooms() -> None:
    rooms = json.loads(VERDICTS.read_text())
    assert [room["name"] for room in rooms] == [case.name for case in (*PLANTED, *SOUND)]
    assert len(PLANTED) >= 24
    assert len(SOUND) >= 12
    for room in rooms:
        assert room["check"] in room["fails"] if room["check"] else not room["fails"]
    text = PAGE.read_text()
    assert renewed(text) == text
