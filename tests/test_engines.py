"""Attacks of other libraries: whose image a question is about, what is decided, what they claim."""

import json
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from advpure.analysis.robustness.protocol import ADVERSARIAL, CLAIMS
from advpure.analysis.robustness.study import Robustness
from advpure.attacks import engine
from advpure.attacks.engines.contract import _MADE, LIBRARIES, EngineSettings, Library
from advpure.attacks.engines.lockstep import Finding, Lockstep, Outcome, Task
from advpure.attacks.oracle import Batch, Oracle
from advpure.attacks.settings import GradientSettings
from advpure.base.errors import BadInput, MissingExtra
from advpure.core.defense import Defense
from advpure.core.randomness import RandomnessConfig
from advpure.data import load_images
from advpure.loading import load_defense
from advpure.runs.records import RecordStore

XI = RandomnessConfig(0)
Attack = Callable[[Task], Finding]


def threshold(x: Tensor) -> Tensor:
    """Say 1 as long as the pixels sum to less than 1.2."""
    return torch.stack([x.sum((1, 2, 3)), 1.2 + 0 * x[:, 0, 0, 0]], 1)


GRAY, ONE = torch.full((1, 1, 1, 2), 0.5), torch.tensor([1])


def batch(n: int = 5) -> tuple[Defense, Batch]:
    images, labels, ids = load_images("digits", n=n)
    return load_defense("cm", "digits", xi=XI, tile=8), Batch(images, labels, ids)


def lockstep(job: Attack, n: int = 5, *, budget: int = 100, **settings: Any) -> list[Outcome]:
    defense, rows = batch(n)
    oracle = Oracle(defense, EngineSettings(eps=0.2, **settings))
    sizes = torch.full((n,), 0.2, dtype=torch.float64)
    return Lockstep(oracle, rows, sizes, budget=budget, classes=10).run(job, range(n))


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Attack], str]]:
    """Return what registers a library with one attack, which is named ``fake:move``."""

    def register(attack: Attack) -> str:
        def options(by: float = 0.1) -> None: ...

        library = Library(
            distribution="foolbox",
            names=lambda: ["move"],
            make=lambda name: options,
            norms=lambda name: ("linf",),
            attack=lambda name, made, given, task: attack(task),
        )
        LIBRARIES.register("fake", library)
        return "fake:move"

    yield register
    LIBRARIES._entries.pop("fake", None)
    _MADE.pop("fake:move", None)


@pytest.mark.parametrize(("eps", "fooled"), [(0.11, True), (0.09, False)])
def test_an_attack_of_a_library_reaches_the_known_optimum(eps: float, fooled: bool) -> None:
    attack = engine("foolbox:LinfPGD")
    result = attack(threshold, GRAY, ONE, eps=eps, steps=40, random_start=False)
    assert result.success.item() is fooled
    assert result.claims is not None
    assert result.claims.fooled.item() is fooled
    assert result.linf.item() <= eps + 1e-6


def test_any_rows_that_a_library_asks_about_are_answered_as_we_see_them() -> None:
    defense, rows = batch()
    seen: dict[int, Tensor] = {}

    def job(task: Task) -> Finding:
        points = torch.cat([task.image * factor for factor in (1.0, 0.9, 0.8, 0.9)])
        seen[int((rows.images == task.image).flatten(1).all(1).nonzero().item())] = task.view(
            points[[3, 1, 0]]
        )
        return Finding(task.image)

    lockstep(job)
    assert sorted(seen) == list(range(5))
    for row, logits in seen.items():
        image, i = rows.images[row : row + 1], int(rows.ids[row])
        points = torch.cat([image * 0.9, image * 0.9, image])
        assert torch.equal(logits, defense.at(ids=[i, i, i])(points))


def test_gradients_have_the_bits_of_our_own_oracle() -> None:
    defense, rows = batch()
    ours = Oracle(defense, GradientSettings(eps=0.2, steps=1)).slope(*rows, step=0)
    found: list[Tensor] = []

    def job(task: Task) -> Finding:
        x = task.image.clone().requires_grad_()
        loss = functional.cross_entropy(task.view(x), task.label, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, x)
        found.append(gradient)
        return Finding(task.image)

    outcomes = lockstep(job)
    assert torch.equal(torch.cat(found), ours.gradient)
    assert [each.backwards for each in outcomes] == [1] * 5
    assert not any(each.is_blind for each in outcomes)


def test_one_answer_may_be_pulled_back_several_times() -> None:
    def job(task: Task) -> Finding:
        x = task.image.clone().requires_grad_()
        logits = task.view(x)
        rows = [torch.autograd.grad(logits[0, k], x, retain_graph=True)[0] for k in range(3)]
        (total,) = torch.autograd.grad(logits[0, :3].sum(), x)
        torch.testing.assert_close(sum(rows), total)
        return Finding(task.image)

    lockstep(job, 2)


def test_fresh_randomness_draws_by_the_number_of_the_question() -> None:
    defense, rows = batch(3)
    asked: list[list[Tensor]] = []

    def job(task: Task) -> Finding:
        asked.append([task.view(task.image) for _ in range(3)])
        return Finding(task.image, False)

    lockstep(job, 3, randomness="fresh")
    for row, answers in enumerate(asked):
        for round_, logits in enumerate(answers, 1):
            xi = XI.fold("attack", round_, 0)
            view = defense.at(ids=rows.ids[row : row + 1], xi=xi)
            assert torch.equal(logits, view(rows.images[row : row + 1]))


@pytest.mark.parametrize("randomness", ["fixed", "fresh"])
def test_an_image_has_the_same_bits_in_any_batch(randomness: Any) -> None:
    defense, rows = batch(6)
    attack = engine("foolbox:LinfPGD")
    given: dict[str, Any] = {"eps": 0.15, "steps": 3, "randomness": randomness}
    state = torch.get_rng_state()
    whole = attack(defense, *rows[:2], ids=rows.ids, **given)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    np.random.seed(99)  # noqa: NPY002
    order = torch.tensor([4, 1])
    part = attack(defense, rows.images[order], rows.labels[order], ids=rows.ids[order], **given)
    assert torch.equal(part.images, whole.images[order])
    other = attack(defense, *rows[:2], ids=rows.ids, seed=1, **given)
    assert not torch.equal(other.images, whole.images)


def test_a_budget_ends_an_attack_and_its_best_point_counts() -> None:
    defense, rows = batch(4)
    attack = engine("foolbox:LinfPGD")
    result = attack(defense, *rows[:2], ids=rows.ids, eps=0.2, budget=6, random_start=False)
    assert result.claims is not None
    assert result.claims.ended.all()
    assert (result.forwards <= 6 + 2).all()
    assert (result.linf <= 0.2 + 1e-6).all()
    assert (result.images != rows.images).flatten(1).any(1).all()
    untouched = attack(defense, *rows[:2], ids=rows.ids, eps=0.2, steps=2)
    assert untouched.claims is not None
    assert not untouched.claims.ended.any()


def test_what_lies_outside_is_pulled_in_and_told(fake: Any, tmp_path: Path) -> None:
    name = fake(lambda task: Finding(task.image + 0.5 * task.image.sign() + 0.1, True))
    run = Robustness(defense="none", dataset="digits", n=4, eps=0.05, attack=name)
    report = run.run(out=tmp_path / "run")
    assert report.tree()["library"]["outside"] == 4
    assert report.tree()["library"]["says"].value == 0.0
    assert any("4 of 4 images of fake:move lay outside" in note for note in report.notes)
    told = next(note for note in report.notes if "do not confirm" in note or "not confirm" in note)
    assert "says of 4 images that its image fools" in told
    # We decide: a shift of 0.05 fools nobody here.
    assert report.headline(ADVERSARIAL).value == 1.0
    assert report.tree()["library"]["difference"].value == 1.0
    assert "decided here minus that" in report.table()
    with RecordStore.read(run.run(out=tmp_path / "run").run) as store:
        assert all(row["excess"] > 0.4 for row in store.rows(CLAIMS.table))
        assert max(row["linf"] for row in store.rows("attacks")) <= 0.05 + 1e-6


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda task: Finding(task.image * torch.nan, False), "returns an image with NaN"),
        (lambda task: Finding(task.image[:, :, :4], False), r"returns \[1, 1, 4, 8\] for an image"),
        (lambda task: 1 / 0, r"fails \(ZeroDivisionError: division by zero"),
    ],
)
def test_what_cannot_be_an_image_is_refused_in_one_line(fake: Any, made: Any, message: str) -> None:
    defense, rows = batch(3)
    before = threading.active_count()
    with pytest.raises(BadInput, match=message) as error:
        engine(fake(made))(defense, *rows[:2], eps=0.1)
    assert "\n" not in str(error.value)
    for thread in threading.enumerate()[before:]:
        thread.join(10)
    assert threading.active_count() == before


def test_success_that_a_library_forgets_is_lost_and_a_missing_gradient_blind(fake: Any) -> None:
    def forget(task: Task) -> Finding:
        x = task.image.clone().requires_grad_()
        task.view((x + 0.11).clamp(0, 1)).sum().backward()
        return Finding(task.image)

    result = engine(fake(forget))(threshold, GRAY, ONE, eps=0.12)
    assert result.lost.item()
    blind = engine(fake_name := "fake:move")(lambda x: threshold(x.round()), GRAY, ONE, eps=0.01)
    assert fake_name
    assert blind.zero_gradient.item()


def test_names_options_and_norms_are_checked() -> None:
    with pytest.raises(BadInput, match="is none of foolbox's; did you mean LinfPGD"):
        engine("foolbox:LinfPDG")
    with pytest.raises(BadInput, match="attack library 'nolib' is not known"):
        engine("nolib:x")
    given: dict[str, Any] = {"dataset": "digits", "n": 2, "defense": "none"}
    for changes, message in (
        ({"attack": "foolbox:L2PGD"}, "has no ball of norm linf; use --norm l2"),
        ({"attack": "foolbox:LinfPGD", "attack_options": {"stps": 3}}, "did you mean steps"),
        ({"attack": "foolbox:LinfPGD", "attack_options": {"loss": "margin"}}, "is no parameter"),
    ):
        with pytest.raises(BadInput, match=message):
            Robustness(**given, **changes).run(out="never")  # type: ignore[arg-type]
    assert not Path("never").exists()
    chosen = Robustness(**given, attack="foolbox:LinfPGD", budget=50).load().settings["attack"]
    assert chosen["budget"] == 50
    assert chosen["library"].startswith("foolbox ")
    assert chosen["steps"] == 40


def test_an_absent_library_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for package, name in (
        ("torchattacks", "torchattacks:PGD"), ("art", "art:DeepFool"),
        ("pyautoattack", "autoattack:standard"),
    ):  # fmt: skip
        monkeypatch.setitem(sys.modules, package, None)
        for made in [made for made in _MADE if made == name]:
            monkeypatch.delitem(_MADE, made)
        if package == "torchattacks":
            from advpure.attacks.engines.torchattacks import _attacks

            _attacks.cache_clear()
        with pytest.raises(MissingExtra, match=r"pip install 'advpure\[(torchattacks|art|autoatt)"):
            engine(name)


def test_a_run_goes_on_and_does_not_depend_on_batches(tmp_path: Path) -> None:
    given: dict[str, Any] = {
        "dataset": "digits", "n": 6, "defense": "onestep-edm", "randomness": "fixed", "eps": 0.2,
        "attack": "foolbox:LinfPGD", "attack_options": {"steps": 2, "rel_stepsize": 0.5},
    }  # fmt: skip
    whole = Robustness(**given).run(out=tmp_path / "a")
    parts = Robustness(**given).run(out=tmp_path / "b", batch_size=4)
    assert whole.right == parts.right
    assert whole.claims == parts.claims
    assert whole.to_json()["library"] == parts.to_json()["library"]
    assert "foolbox:LinfPGD (foolbox" in whole.display().headline
    assert "steps 2, at most 10000 evaluations" in whole.display().headline


def test_the_tables_of_the_page_are_made_from_the_measured_file() -> None:
    from benchmarks.engines import CASES, PAGE, RESULTS, render

    for table in {case.table for case in CASES}:
        assert render(json.loads(RESULTS.read_text()), table) in PAGE.read_text()


def available(name: str) -> Any:
    try:
        return engine(name)
    except MissingExtra as error:
        pytest.skip(str(error))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("torchattacks:PGD", {"steps": 5, "alpha": 0.05}),
        ("torchattacks:APGD", {"steps": 5}),
        ("art:ProjectedGradientDescent", {"max_iter": 5}),
        ("autoattack:apgd-ce", {"n_iter": 5, "n_restarts": 1}),
        ("autoattack:square", {"n_queries": 10}),
        ("foolbox:LinfDeepFoolAttack", {"steps": 5}),
    ],
)
def test_every_library_attacks_and_is_decided_here(name: str, options: dict[str, Any]) -> None:
    attack = available(name)
    defense, rows = batch(3)
    result = attack(defense, *rows[:2], ids=rows.ids, eps=0.15, **options)
    assert result.claims is not None
    assert result.linf.max() <= 0.15 + 1e-6
    assert result.forwards.min() >= 3
    assert (defense.at(ids=rows.ids)(result.images).argmax(1) != rows.labels).tolist() == (
        result.success.tolist()
    )
    order = torch.tensor([2, 0])
    part = attack(
        defense, rows.images[order], rows.labels[order], ids=rows.ids[order], eps=0.15, **options
    )
    assert torch.equal(part.images, result.images[order])
