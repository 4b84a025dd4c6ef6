"""The museum: every planted mistake is flagged by the check that should, no sound room by any."""

import json
from pathlib import Path
from typing import Any

import pytest
from museum.cases import PIXELS, PLANTED, SOUND, Case
from museum.record import PAGE, PAIRS, SHIPPED, VERDICTS, audited, renewed
from museum.truth import true_robustness

from advpure.purifiers import PURIFIERS
from advpure.sweeps.claims import published_claims

FEW = 8.0
"""Points by which 24 images, 6 of them close to the border, and 5 decisions of each may miss the
mean: five standard deviations of 1.6, of 6 variances of at most 1/4 over 10 draws, or 5."""
THOROUGH = {
    "linear, PGD": (
        *("radius-ladder", "binarization", "noise-search-long", "doubled-restarts"),
        "decisions-alone",
    ),
    "keyed noise, fresh, 16 draws a gradient": ("radius-ladder", "fixed-first", "binarization"),
}
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
    truth = true_robustness(case)
    assert truth is not None
    assert room["robust"] == pytest.approx(truth, abs=FEW if "draws" in case.settings else 0.1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "case",
    [each for each in (*PLANTED, *SOUND) if each.truth == PIXELS],
    ids=lambda each: each.name,
)
def test_the_true_robustness_of_the_page_is_found_again(case: Case) -> None:
    (room,) = [each for each in json.loads(VERDICTS.read_text()) if each["name"] == case.name]
    assert room["truth"] == pytest.approx(true_robustness(case))


def test_no_attack_of_a_room_is_better_than_the_optimum_but_for_noise() -> None:
    for room, case in zip(json.loads(VERDICTS.read_text()), (*PLANTED, *SOUND), strict=True):
        assert (room["truth"] is None) == (case.truth is None)
        is_attacked = room["robust"] is not None and room["truth"] is not None
        if is_attacked and case.check not in ("ball-used", "labels"):
            assert room["robust"] >= room["truth"] - (FEW if "draws" in case.settings else 0.1)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["linear, PGD", "keyed noise, fresh, 16 draws a gradient"])
def test_a_sound_evaluation_fails_no_thorough_check_either(name: str, tmp_path: Path) -> None:
    (case,) = [each for each in SOUND if each.name == name]
    changes: dict[str, Any] = {"thorough": True, "passes": None, "only": THOROUGH[name]}
    assert audited(case, tmp_path / "audit", **changes)["fails"] == []


def test_the_page_says_what_was_recorded_and_that_is_of_all_rooms() -> None:
    rooms = json.loads(VERDICTS.read_text())
    assert [room["name"] for room in rooms] == [case.name for case in (*PLANTED, *SOUND)]
    assert len(PLANTED) >= 24
    assert len(SOUND) >= 12
    for room in rooms:
        assert room["check"] in room["fails"] if room["check"] else not room["fails"]
    text = PAGE.read_text()
    assert renewed(text) == text


def test_every_purifier_that_ships_has_a_verdict_under_both_attacks() -> None:
    known = {(each["defense"], each["protocol"]) for each in json.loads(SHIPPED.read_text())}
    names = {*PURIFIERS.names(), "cm, joint"}
    assert known == {(name, protocol) for name in names for protocol in ("paper", "standard")}


def test_what_a_flaw_hides_is_measured_by_the_commands_that_are_printed() -> None:
    flaws = published_claims().flaws
    compared = {
        code: [line.partition(" --out ")[0] for line in flaw.shipped if " --out " in line]
        for code, flaw in flaws.items()
        if any(line.startswith("advpure attack ") and " --out " in line for line in flaw.shipped)
    }
    recorded = {each["flaw"]: each for each in json.loads(PAIRS.read_text())}
    assert {code: each["commands"] for code, each in recorded.items()} == compared
    assert set(compared) >= {"ADJ", "SUR", "EOT", "BPDA", "OPT"}
    for each in recorded.values():
        assert each["paired"]
        assert each["first"]["value"] > each["second"]["value"]
