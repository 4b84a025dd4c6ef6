"""Which attack a run means, what its headline says of it, and what weakens it is told loudly."""

from pathlib import Path
from typing import Any

import pytest

from advpure.analysis.robustness.attack_choice import attack_settings, chosen_attack
from advpure.analysis.robustness.study import ADVERSARIAL, Robustness
from advpure.analysis.robustness.wording import (
    attack_notes,
    attack_text,
    few_draws_note,
    idle_note,
)
from advpure.attacks.standard import StandardSettings
from advpure.base.errors import BadInput
from advpure.runs.records import RecordStore
from advpure.sweeps.experiment import experiment_ids, load_experiment
from advpure.sweeps.points import drafts

DIGITS: dict[str, Any] = {"dataset": "digits", "n": 8, "randomness": "fixed"}


def _settings(**changes: Any) -> dict[str, Any]:
    return Robustness(**{**DIGITS, "defense": "none", **changes}).load().settings


@pytest.mark.parametrize(
    ("options", "moved", "name"),
    [
        ([], False, "standard"),
        (["budget"], False, "standard"),
        (["eot", "seed"], False, "standard"),
        (["steps"], False, "pgd"),
        (["budget", "step_size"], False, "pgd"),
        (["stop"], False, "pgd"),
        ([], True, "pgd"),
    ],
)
def test_auto_means_the_standard_attack_unless_an_option_means_another(
    options: list[str], moved: bool, name: str
) -> None:
    assert chosen_attack("auto", options, is_paper=False, is_moved=moved) == name


def test_the_run_and_its_headline_say_what_is_run(tmp_path: Path) -> None:
    report = Robustness(**DIGITS, defense="none").run(out=tmp_path / "a")
    text = report.display().headline
    assert "attack standard (2000 evaluations an image: APGD 99 steps, 9 targets" in text
    assert sum(report.members.values()) == 8 - report.left
    assert report.to_json()["fooled_by"] == dict(report.members)
    with RecordStore.read(tmp_path / "a") as store:
        rows = store.rows("attacks", {"stage": ADVERSARIAL})
    assert max(row["forwards"] for row in rows) <= 2000
    known = _settings(attack_options={"steps": 60, "step_size": "1/255", "loss": "margin"})
    assert attack_text(known) == "pgd (60 steps of 0.003922, loss margin)"
    assert known["attack"]["name"] == "pgd"
    fresh = attack_settings("pgd-eot", {}, eps=0.1, norm="linf", randomness="fresh")
    assert "EOT 15" in attack_text({"attack": {"name": "pgd-eot", **vars(fresh)}})


def test_a_defense_without_noise_has_the_plan_that_is_run(tmp_path: Path) -> None:
    study = Robustness(dataset="digits", n=2, defense="none", budget=31)  # fresh, by default
    text = study.run(out=tmp_path / "a").display().headline
    assert "31 evaluations an image: APGD 20 steps, no Square), no randomness:" in text
    with pytest.raises(BadInput, match="pays for no step under fresh randomness"):
        Robustness(dataset="digits", n=2, defense="cm", budget=31).load()
    timed = Robustness(dataset="digits", n=2, defense="none", budget="9s").load().settings
    assert "then 2000 evaluations an image: APGD 99 steps, 9 targets" in attack_text(timed)


def test_an_attack_by_decisions_alone_has_no_loss() -> None:
    assert attack_text(_settings(attack="rays")) == "rays (1000 queries)"


def test_the_papers_protocol_is_pgd_40_and_labelled(tmp_path: Path) -> None:
    paper = _settings(protocol="paper")
    plain = _settings(attack="pgd")
    assert paper["attack"] == plain["attack"]
    assert (paper["attack"]["steps"], paper["attack"]["step_size"]) == (40, None)
    assert paper["attack"]["random_start"]
    assert attack_text(paper) == "pgd, the paper's protocol (40 steps of 0.005, loss ce)"
    assert "paper" not in attack_text(plain)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"protocol": "paper", "attack": "apgd"}, "is not the paper's"),
        ({"protocol": "paper", "attack_options": {"steps": 10}}, "fixed by the paper's protocol"),
        ({"protocol": "papers"}, "protocol 'papers'"),
        ({"attack": "standard", "source_seed": 3, "defense": "cm"}, "stops at the border"),
        ({"budget": 100, "attack_options": {"budget": 3}}, "keep --budget alone"),
        ({"budget": 100, "attack": "pgd"}, "budget"),
        ({"norm": "l1"}, "norm l1 is not covered"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        _settings(**changes)


def test_an_attack_that_cannot_cross_its_ball_is_told() -> None:
    told = list(attack_notes(_settings(protocol="paper"), 0, 0))
    assert len(told) == 1
    assert "40 steps of 0.005 travel 1.33 epsilon and cannot cross the ball" in told[0]
    wide = _settings(attack_options={"steps": 40, "step_size": 0.0075})
    assert not list(attack_notes(wide, 0, 0))
    assert not list(attack_notes(_settings(attack="apgd"), 0, 0))


def test_a_success_that_is_walked_away_from_is_told(tmp_path: Path) -> None:
    # Steps of nearly the ball's width swing across the border and back.
    swing = {"steps": 9, "step_size": 0.2, "stop": "never", "random_start": False}
    settings = {**DIGITS, "n": 40, "defense": "none", "eps": 0.15}
    silent = Robustness(**settings, attack_options=swing).run(out=tmp_path / "last")
    best = Robustness(**settings, attack_options={**swing, "iterate": "best"}).run(
        out=tmp_path / "best"
    )
    assert silent.lost > 0
    assert any(f"{silent.lost} images were fooled by an earlier" in note for note in silent.notes)
    assert best.lost == 0
    assert best.left == silent.left - silent.lost


def test_few_draws_of_a_random_defense_are_told(tmp_path: Path) -> None:
    quick = {"dataset": "digits", "n": 2, "draws": 2, "attack_options": {"steps": 2}}
    noisy = Robustness(**quick, defense="cm").run(out=tmp_path / "a")
    assert any("1 EOT draw a gradient under fresh" in note for note in noisy.notes)
    quiet = Robustness(**{**quick, "draws": 1}, defense="none").run(out=tmp_path / "b")
    assert not any("EOT" in note for note in quiet.notes)
    assert not list(few_draws_note({"attack": vars(StandardSettings(eps=0.1))}))


@pytest.mark.parametrize(
    ("defense", "changes", "told"),
    [
        ("none", {}, []),
        (
            "none",
            {"gradient": "bpda", "eot": 3, "seed": 4, "scheme": "counter"},
            ["gradient bpda, EOT 3, seed 4, scheme counter change nothing for none, which draws"],
        ),
        ("none", {"seed": 4}, ["seed 4 changes nothing for none, which draws no noise"]),
        ("none", {"gradient": "checkpoint"}, []),
        ("reverse", {"gradient": "bpda"}, []),
    ],
)
def test_what_a_defense_without_noise_has_no_use_for_is_told(
    defense: str, changes: dict[str, Any], told: list[str]
) -> None:
    chosen = {"gradient": "full", "eot": 1, "seed": 0, "scheme": "hash", **changes}
    settings = {
        "is_random": False,
        "attack": {"name": "pgd", "eot": chosen["eot"]},
        "defense": {"purifier": defense, "gradient": chosen["gradient"]},
        "randomness": {"seed": chosen["seed"], "scheme": chosen["scheme"]},
    }
    notes = list(idle_note(settings))
    assert len(notes) == len(told)
    assert all(note.startswith(start) for note, start in zip(notes, told, strict=True))
    assert not list(idle_note({**settings, "is_random": True}))


def test_the_end_of_a_budget_is_told() -> None:
    known = _settings(budget=100)
    assert known["attack"]["budget"] == 100
    told = list(attack_notes(known, 0, 5))
    assert "the budget of 100 evaluations an image ended the attack on 5 images" in told[0]
    assert "the default 2000 pays for" in told[0]
    assert not list(attack_notes(known, 0, 0))
    assert not list(attack_notes(_settings(), 0, 5))


@pytest.mark.slow
def test_the_standard_attack_is_stronger_than_the_papers(tmp_path: Path) -> None:
    settings = {**DIGITS, "n": 30, "defense": "none", "eps": 0.15}
    strong = Robustness(**settings).run(out=tmp_path / "a")
    paper = Robustness(**settings, protocol="paper").run(out=tmp_path / "b")
    # Measured: 1 and 9 of 30.
    assert strong.left <= 2
    assert paper.left >= 6


@pytest.mark.parametrize("size", ["small", "full"])
@pytest.mark.parametrize("id", experiment_ids())
def test_every_shipped_experiment_names_its_attack(id: str, size: str) -> None:
    for draft in drafts(load_experiment(id, size).sweep):
        is_attacked = draft.block in ("attack", "predict", "randomness", "survival")
        assert not is_attacked or draft.at.get("attack") or _named(id, draft.block)


def _named(id: str, block: str) -> bool:
    """Return whether the file says the attack of a block, for all points alike."""
    return any(
        each.name == block and each.base.get("attack") for each in load_experiment(id).sweep.blocks
    )
