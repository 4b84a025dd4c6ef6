"""A robustness run by name: what identifies it, what it reports, what it warns of."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from advpure.analysis.robustness.protocol import ATTACKS, DECISIONS, StageSummary, evaluate
from advpure.analysis.robustness.study import (
    ADVERSARIAL,
    Robustness,
    RobustnessReport,
    _notes,
)
from advpure.base.errors import BadInput
from advpure.runs.records import RecordStore
from advpure.statistics.rates import Rate

QUICK: dict[str, Any] = {"n": 6, "attack_options": {"steps": 3}}


def test_settings_resolve_every_default() -> None:
    prepared = Robustness.load(Robustness(randomness="fixed", **QUICK, eps="8/255", t=None))
    known = prepared.settings
    assert known["threat_model"] == {"norm": "linf", "eps": 8 / 255}
    assert known["attack"]["steps"] == 3
    assert known["attack"]["eps"] == 8 / 255
    assert known["attack"]["step_size"] is None
    assert known["attack"]["randomness"] == "fixed"
    assert known["decisions"] == {"randomness": "fixed", "draws": 1}
    assert known["defense"]["purifier"] == "cm"
    assert len(known["defense"]["denoiser"]["sha256"]) == 64
    assert len(known["defense"]["classifier"]["sha256"]) == 64


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"seed": 1}, "randomness"),
        ({"scheme": "counter"}, "randomness"),
        ({"randomness": "fresh"}, "decisions"),
        ({"eps": 0.1}, "threat_model"),
        ({"sigma": 0.1}, "defense"),
        ({"gradient": "bpda"}, "defense"),
        ({"policy": "eot:2"}, "defense"),
        ({"tile": 8}, "defense"),
        ({"n": 5}, "n"),
        ({"subset": "first-20"}, "subset"),
        ({"attack": "apgd"}, "attack"),
        ({"source_seed": 4}, "source_seed"),
        ({"attack_options": {"steps": 4}}, "attack"),
    ],
)
def test_whatever_changes_a_result_changes_the_run(change: dict[str, Any], key: str) -> None:
    base = Robustness.load(Robustness(randomness="fixed", **QUICK)).settings
    other = Robustness.load(Robustness(**{"randomness": "fixed", **QUICK, **change})).settings
    assert base[key] != other[key]


def test_report_comes_from_the_records_alone(tmp_path: Path) -> None:
    settings = Robustness(**QUICK, randomness="fresh", draws=4)
    report = Robustness.run(settings, out=tmp_path / "run")
    with RecordStore.read(tmp_path / "run") as store:
        recorded = Robustness.report(store)
        assert replace(recorded, seconds=report.seconds) == report
        rows = store.rows(DECISIONS.table, {"stage": ADVERSARIAL})
        assert len(store.rows(ATTACKS.table)) == 12
    stage = report.stages[ADVERSARIAL]
    by_sample = [[row["correct"] for row in rows[4 * k : 4 * k + 4]] for k in range(6)]
    assert stage.one_shot.value == sum(draws[0] for draws in by_sample) / 6
    assert stage.mean.value == pytest.approx(sum(map(sum, by_sample)) / 24)
    assert stage.worst.value == sum(map(all, by_sample)) / 6
    for summary in report.stages.values():
        assert summary.worst.value <= summary.mean.value
        for rate in (summary.one_shot, summary.mean, summary.worst, summary.majority):
            assert 0 <= rate.low <= rate.value <= rate.high <= 1
            assert rate.n == 6
    assert report.headline(ADVERSARIAL) == stage.mean
    found = report.to_json()
    assert found["interval"] == [stage.mean.low, stage.mean.high]


def test_transfer_equals_crafting_apart_and_deciding_apart(tmp_path: Path) -> None:
    moved = Robustness(randomness="fixed", **QUICK, seed=1, source_seed=0)
    replace(moved, keep_images=True).run(out=tmp_path / "moved")
    own = Robustness(randomness="fixed", **QUICK, seed=0)
    replace(own, keep_images=True).run(out=tmp_path / "own")
    prepared = Robustness.load(moved)
    with RecordStore.read(tmp_path / "moved") as there, RecordStore.read(tmp_path / "own") as here:
        names = [f"adversarial/{i}" for i in range(6)]
        crafted = torch.stack([there.get_blob(name) for name in names])
        assert crafted.equal(torch.stack([here.get_blob(name) for name in names]))
        said = prepared.defense.at(ids=range(6))(crafted).argmax(1).tolist()
        rows = there.rows(DECISIONS.table, {"stage": ADVERSARIAL})
        assert [row["prediction"] for row in rows] == said
    with pytest.raises(BadInput, match="a source seed needs fixed randomness"):
        Robustness.load(Robustness(randomness="fresh", source_seed=0))


class Blind(nn.Module):
    """Cut the gradient."""

    def __init__(self, inner: nn.Module) -> None:
        """Wrap a classifier."""
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the same logits."""
        logits: torch.Tensor = self.inner(x.detach())
        return logits


def test_zero_gradients_are_flagged_and_explained(tmp_path: Path) -> None:
    study = Robustness(randomness="fixed", **QUICK)
    prepared = study.load()
    prepared.defense.classifier = Blind(prepared.defense.classifier)
    with study.open(prepared, tmp_path) as store:
        with pytest.warns(UserWarning, match="the gradient is zero for all 6 undecided samples"):
            evaluate(
                prepared.defense, prepared.images, prepared.attacks, prepared.decisions, store,
                batch_size=6,
            )  # fmt: skip
        report = Robustness.report(store)
    assert report.blind == report.to_json()["zero_gradient"] == 6
    assert "6 of 6 images had an exactly zero gradient" in report.notes[0]
    assert "no robustness" in report.notes[0]


def test_an_attack_below_noise_is_suspected(tmp_path: Path) -> None:
    # Tiny steps from the image itself leave it clean; noise in a wide ball does not.
    options = {"steps": 1, "step_size": 1e-6, "random_start": False, "stop": "never"}
    settings = Robustness(randomness="fixed", n=20, eps=0.9, attack_options=options)
    report = Robustness.run(settings, out=tmp_path / "run")
    assert report.headline(ADVERSARIAL).value > report.headline("noise").value
    assert any("suspect the attack, not the defense" in note for note in report.notes)


@pytest.mark.parametrize(
    ("robust", "noise", "suspected"),
    [(1.0, 1.0, True), (0.9, 0.8, True), (0.5, 0.6, False), (0.0, 0.0, False)],
)
def test_an_attack_as_weak_as_noise_is_suspected_unless_both_fool_all(
    robust: float, noise: float, suspected: bool
) -> None:
    def stage(value: float) -> StageSummary:
        rate = Rate(value, 10, 0.0, 1.0, "wilson")
        return StageSummary(rate, rate, rate, rate)

    stages = {"clean": stage(1.0), "noise": stage(noise), ADVERSARIAL: stage(robust)}
    settings = {"decisions": {"randomness": "fixed"}, "n": 10, "attack": {"name": "own"}}
    report = RobustnessReport(
        run=Path(), settings=settings, n=10, stages=stages, blind=0, lost=0, members={}, left=0,
        right={},
    )  # fmt: skip
    notes = _notes(report)
    assert any("suspect the attack" in note for note in notes) is suspected


def test_an_unfinished_run_says_so(tmp_path: Path) -> None:
    def stop(done: int) -> None:
        if done:
            raise KeyboardInterrupt

    settings = Robustness(randomness="fixed", **QUICK)
    with pytest.raises(KeyboardInterrupt):
        Robustness.run(settings, out=tmp_path, batch_size=2, progress=stop)
    with RecordStore.read(tmp_path) as store:
        report = Robustness.report(store)
    assert report.n == 2
    assert "2 of 6 images are done; the same command goes on" in report.notes


def test_randomness_decides_how_often_to_draw() -> None:
    assert Robustness(**QUICK).load().decisions.draws == 10
    assert Robustness(**QUICK, defense="none").load().decisions.draws == 1
    assert Robustness(**QUICK, randomness="fixed").load().decisions.draws == 1


def test_kept_images_lie_in_ball_and_box(tmp_path: Path) -> None:
    settings = Robustness(randomness="fixed", **QUICK, norm="l2", eps=0.4)
    replace(settings, keep_images=True).run(out=tmp_path)
    images = Robustness.load(settings).images
    with RecordStore.read(tmp_path) as store:
        for i, clean in zip(images.ids.tolist(), images.images, strict=True):
            for stage in ("noise", "adversarial"):
                moved = store.get_blob(f"{stage}/{i}")
                assert float((moved - clean).norm()) <= 0.4 + 1e-6
                assert 0 <= float(moved.min()) <= float(moved.max()) <= 1
