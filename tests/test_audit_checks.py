"""Single checks of an audit on made-up records, on small defenses, and on engines and goals."""

import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
from museum.cases import PGD, named

from advpure.analysis.audit.check import Check, Finding, Measured, Value, passed
from advpure.analysis.audit.evaluation import Evaluation
from advpure.analysis.audit.origins import Origin, origins
from advpure.analysis.audit.recorded import Recorded
from advpure.analysis.audit.registry import CHECKS
from advpure.analysis.audit.study import Audit, _copy
from advpure.analysis.robustness.study import Robustness
from advpure.base.imports import imported_anew, load_code
from advpure.core.chain import Chain, Step
from advpure.data import Images, load_images

FIXED: dict[str, Any] = {
    "decisions": {"randomness": "fixed", "draws": 1},
    "is_random": True,
    "threat_model": {"norm": "linf", "eps": 0.1},
    "dataset": "mine.npz",
    "subset": "test",
}
ROOM: dict[str, Any] = {
    "dataset": named("points"),
    "classifier": named("linear"),
    "defense": named("same"),
    "eps": 0.1,
    "n": 24,
    "randomness": "fixed",
}


def decided(
    sample: int, stage: str = "clean", *, label: int = 0, prediction: int = 0, margin: float = 1.0
) -> dict[str, Any]:
    """Return a row of a decision."""
    return {
        "sample": sample,
        "stage": stage,
        "draw": 0,
        "label": label,
        "prediction": prediction,
        "correct": label == prediction,
        "margin": margin,
    }


def found(name: str, *, changes: Any = None, **parts: Any) -> Finding:
    """Return the verdict of a check on records."""
    settings = {**FIXED, **(changes or {})}
    evaluation = Evaluation(recorded=Recorded(verb="attack", settings=settings, **parts))
    check = CHECKS.get(name)
    return check.finding(Measured(check.measure(evaluation)), settings)


@pytest.mark.parametrize(
    ("done", "changes", "status"),
    [
        (range(10), {}, "pass"),
        (range(7), {}, "inconclusive"),
        (range(7), {"until": {"width": 0.1}}, "pass"),
        ([0, 1, 2, 6, 9], {}, "fail"),
    ],
)
def test_images_without_a_decision(done: Any, changes: Any, status: str) -> None:
    digests = {str(i): f"{i}" for i in range(10)}
    rows = [decided(i) for i in done]
    assert found("every-image", changes=changes, decisions=rows, digests=digests).status == status


def test_a_decision_against_its_margin_was_edited() -> None:
    rows = [decided(0), decided(1, prediction=0, margin=-1.0)]
    assert found("every-image", decisions=rows).status == "fail"


@pytest.mark.parametrize(
    ("kind", "fall", "status"),
    [
        ("single", 0.5, "pass"),
        ("single", 0.0, "fail"),
        ("single", -0.2, "fail"),
        ("majority", 0.5, "pass"),
        ("majority", 0.0, "inconclusive"),
        ("majority", -0.2, "fail"),
    ],
)
def test_an_attack_that_moves_no_margin_fails(kind: str, fall: float, status: str) -> None:
    rows = [decided(i) for i in range(8)]
    rows += [decided(i, "adversarial", margin=1.0 - fall) for i in range(8)]
    changes = {"defense": {"policy": {"kind": kind}}}
    assert found("margin-falls", changes=changes, decisions=rows).status == status


@pytest.mark.parametrize(
    ("name", "member", "backwards", "flagged", "status"),
    [
        ("standard", "square", 1, False, "fail"),
        ("standard", "square", 57, False, "pass"),
        ("standard", "clean", 0, False, "pass"),
        ("standard", "clean", 1, True, "fail"),
        ("square", None, 0, False, "pass"),
    ],
)
def test_images_that_the_standard_attack_left_to_square_had_no_gradient(
    name: str, member: Any, backwards: int, flagged: bool, status: str
) -> None:
    row = {
        "sample": 0,
        "stage": "adversarial",
        "zero_gradient": flagged,
        "member": member,
        "backwards": backwards,
    }
    attack = {"name": name, "eps": 0.1, "norm": "linf", "randomness": "fixed"}
    if name == "standard":
        attack["budget"] = 400
    assert found("zero-gradient", changes={"attack": attack}, attacks=[row]).status == status


def _chain(cut: Any) -> Chain:
    """Return five steps that halve what a state is beyond grey, the third as `cut` makes it."""

    def move(x: torch.Tensor, z: Any) -> torch.Tensor:
        return x / 2

    def wrong(x: torch.Tensor, z: Any) -> torch.Tensor:
        return cut(x)

    return Chain(
        [
            Step(name="halve", phase="reverse", time=k, move=wrong if k == 2 else move)
            for k in range(5)
        ]
    )


CUTS: dict[str, tuple[Any, str, str]] = {
    "sound": (lambda x: x / 2, "pass", "0.031 to 0.5 times"),
    "turned": (lambda x: x.detach() - x / 2, "fail", "step 3"),
    "vanished": (lambda x: x.detach() / 2 + 1e-14 * (x - x.detach()), "fail", "before step 3"),
    "exploded": (lambda x: x.detach() / 2 + 1e10 * (x - x.detach()), "fail", "before step 3"),
}


@pytest.mark.parametrize("name", CUTS)
def test_a_chain_is_followed_step_by_step(name: str, tmp_path: Path) -> None:
    cut, status, words = CUTS[name]
    settings = {**ROOM, "defense": _chain(cut), "n": 4, "attack": "uniform-noise"}
    report = Audit(**settings, only=("chain-gradients",)).run(out=tmp_path / "audit")
    (told,) = report.findings.values()
    assert (told.status, words in told.words) == (status, True), told.words


def _ladder(*curve: list[float]) -> Finding:
    values = [Value("classes", -1, 2.0)]
    for factor, right in zip((0.5, 1, 2, 4, 8), curve, strict=True):
        values += [Value(f"right at {factor:g}", i, each) for i, each in enumerate(right)]
    return CHECKS.get("radius-ladder").finding(Measured(values), FIXED)


def test_images_that_come_back_in_a_larger_ball_fail() -> None:
    held, lost = [1.0] * 24, [0.0] * 24
    back = [1.0] * 5 + [0.0] * 19
    assert _ladder(held, held, back, lost, lost).status == "pass"
    assert _ladder(held, lost, back, lost, lost).status == "fail"
    assert _ladder(held, held, held, held, held).status == "fail"
    assert _ladder(held, held, back, back, back).status == "pass"
    swapped = [*lost[:1], *held[1:]]  # one image comes back and another falls
    assert _ladder(swapped, [*held[:23], 0.0], lost, lost, lost).status == "pass"


BROKEN: dict[str, Any] = {"attack": named("broken"), "attack_options": {**PGD, "fault": "sign"}}


@pytest.mark.slow
@pytest.mark.parametrize("check", ["doubled-restarts", "decisions-alone", "radius-ladder"])
def test_what_costs_more_is_found_by_the_thorough_checks_alone(check: str, tmp_path: Path) -> None:
    plants = {
        "doubled-restarts": {
            "dataset": named("trapped"),
            "classifier": named("trap"),
            "attack": "pgd",
            "attack_options": {**PGD, "random_start": False},
        },
        "decisions-alone": BROKEN,
        "radius-ladder": BROKEN,
    }
    settings = {**ROOM, **plants[check], "only": (check,)}
    (cheap,) = Audit(**settings).run(out=tmp_path / "cheap").findings.values()
    assert "--thorough makes it" in cheap.words
    (told,) = Audit(**settings, thorough=True).run(out=tmp_path / "audit").findings.values()
    assert told.status == "fail", told.words


@pytest.mark.slow
@pytest.mark.parametrize("randomness", ["fixed", "fresh"])
def test_planted_images_are_found_by_pgd_and_not_by_a_broken_attack(
    randomness: str, tmp_path: Path
) -> None:
    """The binarization test where the features are the pixels, so that its tasks are linear."""
    attack = {"steps": 20, "step_size": 0.03, "loss": "margin"}
    settings: dict[str, Any] = {**ROOM, "classifier": named("flat"), "n": 4}
    settings |= {"normalize": "0/1", "only": ("binarization",), "thorough": True}
    if randomness == "fresh":
        attack |= {"eot": 16}
        settings |= {"defense": named("noisy"), "randomness": "fresh", "draws": 2}
    sound = Audit(**settings, attack="pgd", attack_options=attack).run(out=tmp_path / "sound")
    broken = {"attack": named("broken"), "attack_options": {**attack, "fault": "sign"}}
    wrong = Audit(**settings, **broken).run(out=tmp_path / "broken")
    (good,), (bad,) = sound.findings.values(), wrong.findings.values()
    assert (good.status, bad.status) == ("pass", "fail"), (good.words, bad.words)


def test_classes_that_changed_places_are_no_errors() -> None:
    swap = {0: 1, 1: 0}
    swapped = [
        decided(i, label=i % 6, prediction=swap.get(i % 6, i % 6), margin=1.0) for i in range(24)
    ]
    plain = [decided(i, label=i % 6, prediction=i % 6) for i in range(24)]
    assert found("labels", decisions=swapped).status == "fail"
    assert found("labels", decisions=plain).status == "pass"


@pytest.mark.parametrize(
    ("dataset", "eps", "status"),
    [
        ("cifar10", 0.5, "pass"),
        ("cifar10", 8 / 255, "fail"),
        ("digits", 0.15, "fail"),
        ("digits", 0.5, "pass"),
        ("mine.npz", 36 / 255, "pass"),
    ],
)
def test_an_l2_radius_that_is_one_of_linf_fails(dataset: str, eps: float, status: str) -> None:
    changes = {"dataset": dataset, "threat_model": {"norm": "l2", "eps": eps}}
    assert found("epsilon-unit", changes=changes).status == status


def test_a_training_split_fails_by_its_name_alone() -> None:
    for subset, status in (("train", "fail"), ("train/first-10", "fail"), ("first-10", "pass")):
        assert found("training-images", changes={"subset": subset}).status == status


@pytest.mark.slow
def test_copies_of_known_images_are_recognised_with_their_labels() -> None:
    train = load_images("digits", n=4, subset="train")
    turned = Images(train.images.flip(-1), train.labels, train.ids + 10)
    known = origins("mine.npz", train)
    assert known == {
        i: Origin("train", int(y)) for i, y in zip(range(4), train.labels, strict=True)
    }
    assert set(origins("mine.npz", turned).values()) == {None}
    assert set(origins("digits", train).values()) == {None}


def test_equal_draws_are_one_draw() -> None:
    fresh = {"decisions": {"randomness": "fresh", "draws": 3}}
    same = [{**decided(i), "draw": k} for i in range(4) for k in range(3)]
    drawn = [{**row, "margin": 1.0 + 0.1 * row["draw"]} for row in same]
    assert found("decision-draws", changes=fresh, decisions=same).status == "fail"
    assert found("decision-draws", changes=fresh, decisions=drawn).status == "pass"


@pytest.mark.parametrize(("copies", "status"), [(4, "fail"), (1, "pass")])
def test_copies_with_noise_of_their_own_are_copies(copies: int, status: str) -> None:
    images = load_images("digits", subset=f"test/first-{24 // copies}").images
    noise = 0.02 * torch.randn(24, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    many = images.repeat_interleave(copies, 0).add(noise).clamp(0, 1)
    named_images = Images(many, torch.zeros(24, dtype=torch.int64), torch.arange(24))
    digests = {str(i): f"{i}" for i in range(24)}
    recorded = Recorded(verb="attack", settings=FIXED, digests=digests)
    evaluation = Evaluation(recorded=recorded, images=named_images)
    check = CHECKS.get("distinct-images")
    assert check.finding(Measured(check.measure(evaluation)), FIXED).status == status


def test_no_two_digits_are_nearer_than_a_sixth_of_the_usual_distance() -> None:
    images = load_images("digits").images.double().flatten(1)
    apart = torch.pdist(images)
    assert float(apart.min() / apart.median()) > 1 / 6


def test_what_to_do_is_about_the_flaw_that_was_found() -> None:
    nothing = Recorded(verb="attack", settings=FIXED)
    check = CHECKS.get("logits")
    for fault, word in (("probabilities", "softmax"), ("not-finite", "finite")):
        evaluation = Evaluation(recorded=nothing, fault=fault)
        told = check.finding(Measured(check.measure(evaluation)), FIXED)
        assert told.status == "fail"
        assert word in told.settle
    assert "softmax" not in told.settle


def test_the_price_is_for_the_images_that_a_check_looks_at() -> None:
    def judge(numbers: Measured, settings: Any) -> Finding:
        return passed("nothing")

    check = Check(
        name="a",
        about="b",
        source="[c]",
        threshold="d",
        cost=lambda settings: 10,
        images=8,
        measure=lambda evaluation: iter([Value("a", 0, 1.0)]),
        judge=judge,
    )
    assert [check.price({}, count) for count in (4, 8, 24)] == [10, 10, 4]


def test_code_is_imported_anew_and_the_old_comes_back(tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text("seen = []\n")
    name = f"{file}:seen"
    first = load_code(name, "a list").value
    first.append(1)
    with imported_anew():
        again = load_code(name, "a list").value
    assert again == []
    assert load_code(name, "a list").value is first


def test_a_copied_function_forgets_what_it_held() -> None:
    def make() -> Any:
        held: list[int] = []

        def count(x: int) -> int:
            held.append(x)
            return len(held)

        return count

    count = make()
    count(1)
    twin = _copy(count)
    count(1)
    assert (twin(1), count(1)) == (2, 3)


CLOCKED = """
import torch

pen = torch.Generator().manual_seed(0)

def own(x):
    s = 30 * (x - 0.5).mean((1, 2, 3)) + 0.1 * torch.randn(len(x), generator=pen)
    return torch.stack([-s, s], 1)

def points():
    t = torch.linspace(-0.2, 0.2, 24).reshape(-1, 1, 1, 1)
    return 0.5 + t * torch.ones(24, 1, 4, 4), (torch.arange(24) > 11).long()
"""


@pytest.mark.slow
def test_a_generator_of_its_own_is_open_and_nothing_contradicts_it(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(textwrap.dedent(CLOCKED))
    report = Audit(
        defense=f"{file}:own",
        dataset=f"{file}:points",
        eps=0.1,
        only=("repeatable", "clock", "reproducible", "identity", "tiny-changes"),
        attack="pgd",
        attack_options={"steps": 2},
        draws=2,
    ).run(out=tmp_path / "audit")
    assert {each.status for each in report.findings.values()} == {"inconclusive"}
    assert "generator of its own" in {c.name: f for c, f in report.findings.items()}["clock"].words


NEW = (
    *("every-image", "margin-falls", "ball-used", "clock", "reproducible", "identity"),
    *("tiny-changes", "answers-under-gradient", "path-gradients", "known-optimum", "unbounded"),
)


@pytest.mark.slow
def test_an_attack_of_another_library_fails_nothing(tmp_path: Path) -> None:
    pytest.importorskip("foolbox")
    attack = {"attack": "foolbox:LinfPGD", "attack_options": {"steps": 40}, "only": NEW, "n": 8}
    report = Audit(**{**ROOM, **attack}).run(out=tmp_path / "audit")
    assert [c.name for c, f in report.findings.items() if f.status != "pass"] == []


@pytest.mark.slow
def test_a_run_with_a_goal_fails_nothing(tmp_path: Path) -> None:
    settings = {k: v for k, v in ROOM.items() if k != "n"}
    run = tmp_path / "run"
    Robustness(**settings, attack="pgd", attack_options=PGD, until="width 60").run(out=run)
    report = Audit(run_folder=str(run), trust=True, only=NEW).run(out=tmp_path / "audit")
    assert [c.name for c, f in report.findings.items() if f.status != "pass"] == []
    assert torch.is_grad_enabled()
