"""The protocol: who draws which randomness, and that every rate is the rate it claims to be."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import norm
from torch import Tensor, nn

from advpure.analysis.robustness.protocol import (
    ATTACKS,
    DECISIONS,
    Attack,
    Decisions,
    evaluate,
    finished,
    summarize,
)
from advpure.attacks import ZeroGradientWarning, apgd, bpda_eot, pgd, pgd_eot, transfer
from advpure.base.errors import BadInput
from advpure.core.chain import Chain, Step
from advpure.core.defense import Defense
from advpure.core.purifier import Purifier
from advpure.core.randomness import RandomnessConfig
from advpure.data import Images, load_images
from advpure.loading import load_defense
from advpure.runs.records import RecordStore

ALPHA = 1e-5
Draws = set[tuple[object, ...]]


def make_store(folder: Path, decisions: Decisions | None = None) -> RecordStore:
    settings: dict[str, Any] = {"verb": "test"}
    if decisions is not None:
        settings["decisions"] = {"randomness": decisions.randomness, "draws": decisions.draws}
    return RecordStore.open(folder, schemas=(DECISIONS, ATTACKS), settings=settings, context={})


class Sign(nn.Module):
    """Class 1 where the only pixel is above one half."""

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [B, 2]."""
        pixel = x[:, 0, 0, :1] - 0.5
        return torch.cat([-pixel, pixel], 1)


def coin(rate: float, xi: RandomnessConfig) -> Defense:
    """Answer class 1 with a given probability per draw, whatever the image, without a gradient."""
    level = norm.ppf(1 - rate)

    def flip(x: Tensor, z: Tensor | None) -> Tensor:
        assert z is not None
        return torch.where(z > level, 1.0, -1.0)

    step = Step(name="flip", phase="reverse", time=1, move=flip, noisy=True)
    return Defense(Purifier("coin", Chain([step])), Sign(), xi=xi, tile=16)


def ones(count: int) -> Images:
    return Images(
        torch.full((count, 1, 1, 1), 0.5), torch.ones(count, dtype=torch.int64), torch.arange(count)
    )


def attack_by(run: Any, eps: float = 0.1, **settings: Any) -> Attack:
    def attack(model: Defense, x: Tensor, y: Tensor, ids: Tensor) -> Any:
        return run(model, x, y, ids=ids, eps=eps, **settings)

    return attack


def within(successes: float, trials: int, rate: float) -> bool:
    """Say whether a count lies where a binomial one does but with probability ALPHA (normal)."""
    reach = norm.isf(ALPHA / 2) * math.sqrt(trials * rate * (1 - rate)) + 0.5
    return abs(successes - trials * rate) <= reach


@pytest.mark.parametrize("scheme", ["hash", "counter"])
def test_a_coin_that_no_gradient_sees_reports_its_own_rate(tmp_path: Path, scheme: Any) -> None:
    # Were the attack's draws to decide, PGD's tests over 5 steps would leave 0.7^5 = 17 %.
    rate, n, draws = 0.7, 400, 8
    defense = coin(rate, RandomnessConfig(3, scheme))
    decisions = Decisions(randomness="fresh", draws=draws)
    attacks = {"adversarial": attack_by(pgd, steps=5, randomness="fresh")}
    with make_store(tmp_path, decisions) as store:
        with pytest.warns(ZeroGradientWarning):
            evaluate(defense, ones(n), attacks, decisions, store, batch_size=n)
        stages = summarize(store)
        blind = sum(row["zero_gradient"] for row in store.rows(ATTACKS.table))
    assert within(blind, n, rate)  # undecided in the attack's first draw
    majority = sum(math.comb(draws, k) * rate**k * (1 - rate) ** (draws - k) for k in range(5, 9))
    for summary in stages.values():
        assert within(n * draws * summary.mean.value, n * draws, rate)
        assert within(n * summary.one_shot.value, n, rate)
        assert within(n * summary.worst.value, n, rate**draws)
        assert summary.worst.value <= summary.mean.value <= summary.majority.value
        # A tie of 4 to 4 goes to the lowest class, which is wrong here.
        assert within(n * summary.majority.value, n, majority)


def test_fixed_randomness_makes_the_coin_a_fact(tmp_path: Path) -> None:
    defense = coin(0.7, RandomnessConfig(3))
    attacks = {"adversarial": attack_by(pgd, steps=2)}
    with make_store(tmp_path) as store:
        with pytest.warns(ZeroGradientWarning):
            evaluate(defense, ones(64), attacks, Decisions(), store, batch_size=64)
        fooled = {row["sample"]: row["fooled"] for row in store.rows(ATTACKS.table)}
        for row in store.rows(DECISIONS.table):
            assert row["correct"] is not fooled[row["sample"]]
            assert row["draw"] == 0


class Recorder:
    """Every noise that a defense consumes, told apart by what it is consumed for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Watch every draw from now on."""
        self.purpose = "decision"
        self.seen: dict[str, Draws] = {"attack": set(), "decision": set()}
        draw = RandomnessConfig._rows

        def watch(xi: RandomnessConfig, ids: Any, stream: str, *rest: Any) -> Tensor:
            step, _, number = (*rest, 0)[:3]
            rows = draw(xi, ids, stream, *rest)
            if stream != "uniform":  # uniform noise is the attack's own, for its starting point
                keys = ((xi, stream, step, number, int(i)) for i in ids)
                self.seen[self.purpose].update(keys)
            return rows

        monkeypatch.setattr(RandomnessConfig, "_rows", watch)

    def wrap(self, attack: Attack) -> Attack:
        """Count what the attack draws as the attack's."""

        def watched(model: Defense, x: Tensor, y: Tensor, ids: Tensor) -> Any:
            self.purpose = "attack"
            try:
                return attack(model, x, y, ids)
            finally:
                self.purpose = "decision"

        return watched


NAMES: dict[str, dict[str, Any]] = {"cm": {}, "ddpm": {"t": 3}}


@pytest.mark.parametrize("name", ["cm", "ddpm"])
@pytest.mark.parametrize(
    ("run", "settings"),
    [
        (pgd, {"steps": 3, "randomness": "fresh"}),
        (pgd, {"steps": 2, "randomness": "fixed", "stop": "never"}),
        (apgd, {"steps": 3, "randomness": "fresh"}),
        (pgd_eot, {"steps": 2, "eot": 2}),
        (bpda_eot, {"steps": 2, "eot": 2}),
    ],
)
def test_attack_draws_and_decision_draws_never_meet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, run: Any, settings: Any
) -> None:
    defense = load_defense(name, xi=RandomnessConfig(0), **NAMES[name])
    decisions, images = Decisions(randomness="fresh", draws=3), load_images(n=3)
    recorder = Recorder(monkeypatch)
    attacks = {"adversarial": recorder.wrap(attack_by(run, **settings))}
    with make_store(tmp_path) as store:
        evaluate(defense, images, attacks, decisions, store, batch_size=3)
    attacked, decided = recorder.seen["attack"], recorder.seen["decision"]
    assert attacked
    assert len(decided) == 3 * 3 * defense.purifier.chain.draws
    assert not attacked & decided


@pytest.mark.parametrize("name", ["cm", "ddpm"])
def test_fixed_attack_and_decision_share_every_draw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    defense = load_defense(name, xi=RandomnessConfig(0), **NAMES[name])
    recorder = Recorder(monkeypatch)
    attacks = {"adversarial": recorder.wrap(attack_by(pgd, steps=2))}
    with make_store(tmp_path) as store:
        evaluate(defense, load_images(n=3), attacks, Decisions(), store, batch_size=3)
    assert recorder.seen["attack"] == recorder.seen["decision"]
    assert len(recorder.seen["attack"]) == 3 * defense.purifier.chain.draws


def test_transfer_crafts_under_one_seed_and_decides_under_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    defense = load_defense("cm", xi=RandomnessConfig(1))
    recorder = Recorder(monkeypatch)

    def attack(model: Defense, x: Tensor, y: Tensor, ids: Tensor) -> Any:
        return transfer(
            pgd, model, x, y, source_xi=RandomnessConfig(0), ids=ids, eps=0.1, steps=2, stop="never"
        )

    with make_store(tmp_path) as store:
        attacks = {"adversarial": recorder.wrap(attack)}
        evaluate(defense, load_images(n=3), attacks, Decisions(), store, batch_size=3)
    assert {key[0] for key in recorder.seen["decision"]} == {RandomnessConfig(1)}
    assert {key[0] for key in recorder.seen["attack"]} == {RandomnessConfig(0), RandomnessConfig(1)}


def test_every_stage_is_decided_under_the_same_draws(tmp_path: Path) -> None:
    defense = load_defense("cm", xi=RandomnessConfig(0))
    decisions = Decisions(randomness="fresh", draws=3)

    def stay(model: Defense, x: Tensor, y: Tensor, ids: Tensor) -> Any:
        moved = pgd(model, x, y, ids=ids, eps=0.1, steps=1, random_start=False)
        return replace(moved, images=x, linf=0 * moved.linf, l2=0 * moved.l2)

    with make_store(tmp_path) as store:
        evaluate(defense, load_images(n=4), {"still": stay}, decisions, store, batch_size=4)
        rows = {
            stage: [row["margin"] for row in store.rows(DECISIONS.table, {"stage": stage})]
            for stage in ("clean", "still")
        }
    assert rows["clean"] == rows["still"]
    assert len(set(rows["clean"])) == 12


def test_margin_prediction_and_label_belong_together(tmp_path: Path) -> None:
    defense, images = load_defense("none"), load_images(n=40)
    with make_store(tmp_path) as store:
        attacks = {"adversarial": attack_by(pgd, eps=0.4, steps=9, step_size=0.1)}
        evaluate(defense, images, attacks, Decisions(), store, batch_size=16)
        rows = store.rows(DECISIONS.table)
        assert len(finished(store, ["adversarial"])) == 40
        assert finished(store, ["adversarial", "other"]) == set()
    clean = [row for row in rows if row["stage"] == "clean"]
    logits = defense(images.images).double()
    top = logits.topk(2, 1).values
    assert [row["prediction"] for row in clean] == logits.argmax(1).tolist()
    for row, (first, second) in zip(clean, top.tolist(), strict=True):
        assert row["correct"] == (row["prediction"] == row["label"])
        if row["correct"]:
            assert row["margin"] == pytest.approx(first - second)
        else:
            assert row["margin"] <= 0
    assert {row["correct"] for row in rows} == {True, False}


def test_what_decides_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="draws 0 is not a whole number from 1 to"):
        Decisions(randomness="fresh", draws=0)
    with pytest.raises(BadInput, match="do not fit fixed randomness"):
        Decisions(draws=2)
    defense, images = load_defense("none"), load_images(n=2)
    with make_store(tmp_path / "a", Decisions()) as store:
        with pytest.raises(BadInput, match="holds no image"):
            evaluate(defense, images, {}, Decisions(), store, batch_size=0)
        other = Decisions(randomness="fresh", draws=2)
        with pytest.raises(BadInput, match="use another --out"):
            evaluate(defense, images, {}, other, store, batch_size=2)
        with pytest.raises(BadInput, match="holds no decision yet"):
            summarize(store)
