"""A recorded survival run: the same numbers as the function, resumable, reported from records."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from advpure.analysis.robustness.attack_choice import attack_settings
from advpure.analysis.survival.figure import draw_survival
from advpure.analysis.survival.minimum_radius import RadiusSettings, minimum_radii
from advpure.analysis.survival.points import search_free
from advpure.analysis.survival.study import Survival
from advpure.base.errors import BadInput
from advpure.cli import run as run_cli
from advpure.core.randomness import RandomnessConfig
from advpure.data import Images, load_images
from advpure.loading import load_defense, load_purifier
from advpure.runs.records import ALREADY_COMPLETE, RecordStore
from advpure.statistics.estimates import find

QUICK: dict[str, Any] = {
    "dataset": "digits", "n": 5, "attack": "pgd", "bisections": 2, "top": 0.4,
    "attack_options": {"steps": 4, "step_size": 0.1},
}  # fmt: skip
DENOISED: dict[str, Any] = {**QUICK, "defense": "onestep-edm", "sigma": 0.1, "seed": 3}


def search() -> RadiusSettings:
    options = {"steps": 4, "step_size": 0.1}
    chosen = attack_settings("pgd", options, eps=0.4, norm="linf", randomness="fixed")
    return RadiusSettings(attack="pgd", settings=chosen, bisections=2)


def digits() -> Images:
    return load_images("digits", n=5)


def test_the_classifier_alone_is_the_default(tmp_path: Path) -> None:
    report = Survival(**QUICK).run(out=tmp_path)
    images, labels, ids = digits()
    direct = minimum_radii(load_defense("none", "digits"), images, labels, search(), ids=ids)
    assert list(report.result.rows) == direct
    assert any(row.upper for row in direct)
    assert report.settings["randomness"] is None


@pytest.mark.slow
def test_a_defense_is_attacked_under_its_fixed_randomness(tmp_path: Path) -> None:
    report = Survival(**DENOISED).run(out=tmp_path)
    images, labels, ids = digits()
    defense = load_defense("onestep-edm", "digits", sigma=0.1, xi=RandomnessConfig(3))
    direct = minimum_radii(defense, images, labels, search(), ids=ids)
    assert list(report.result.rows) == direct
    assert report.settings["randomness"] == {"seed": 3, "scheme": "hash"}


@pytest.mark.slow
def test_anchor_points_are_the_purified_images_of_the_same_randomness(tmp_path: Path) -> None:
    report = Survival(**DENOISED, at="anchor").run(out=tmp_path / "a")
    images, labels, ids = digits()
    # With its own tile: only batches of one shape have the same last bits.
    purifier = load_purifier("onestep-edm", "digits", sigma=0.1, xi=RandomnessConfig(3))
    with torch.no_grad():
        purified = purifier.at(ids=ids)(images)
    anchors = purified.clamp(0, 1)
    alone = load_defense("none", "digits")
    assert list(report.result.rows) == minimum_radii(alone, anchors, labels, search(), ids=ids)
    with RecordStore.read(tmp_path / "a") as store:
        rows = store.rows("survival")
    moved = (anchors.double() - images.double()).flatten(1).norm(dim=1)
    assert [row["moved"] for row in rows] == pytest.approx(moved.tolist())
    cut = (purified - anchors).flatten(1).abs().amax(1)
    assert [row["clipped"] for row in rows] == pytest.approx(cut.tolist())
    assert cut.max() > 0
    other = Survival(**{**DENOISED, "seed": 4}, at="anchor").run(out=tmp_path / "b")
    assert other.result.rows != report.result.rows


def test_the_anchor_points_of_no_purifier_are_the_images(tmp_path: Path) -> None:
    clean = Survival(**QUICK).run(out=tmp_path / "c")
    anchor = Survival(**QUICK, at="anchor").run(out=tmp_path / "a")
    assert anchor.result.rows == clean.result.rows


class Linear(nn.Module):
    """Logits (w x - b, 0) of images of 16 pixels."""

    def __init__(self) -> None:
        """Draw the weights."""
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(64, generator=generator), requires_grad=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        score = images.flatten(1) @ self.weight - 0.3
        return torch.stack([score, torch.zeros_like(score)], 1)


@pytest.mark.slow
def test_the_free_box_does_not_hold_back_at_black_pixels() -> None:
    images, _, ids = digits()
    model = Linear()
    defense = load_defense("none", "digits", classifier=model)
    score = model(images)[:, 0]
    labels = (score <= 0).long()
    chosen = attack_settings("apgd", {"steps": 40}, eps=0.9, norm="linf", randomness="fixed")
    how = RadiusSettings(attack="apgd", settings=chosen, bisections=12)
    free = search_free(defense, images, Images(images, labels, ids), how)
    boxed = minimum_radii(defense, images, labels, how, ids=ids)
    true = (score.abs() / model.weight.abs().sum()).tolist()
    for row, held, radius in zip(free, boxed, true, strict=True):
        assert row.upper is not None
        assert row.upper == pytest.approx(radius, abs=3 * how.resolution)
        assert row.upper >= radius * (1 - 1e-4)
        assert held.upper is None or held.upper > 1.05 * row.upper


@pytest.mark.slow
def test_a_cross_check_joins_the_run_and_is_kept(tmp_path: Path) -> None:
    alone = Survival(**{**QUICK, "n": 3}).run(out=tmp_path)
    assert alone.checks == ()
    study = Survival(**{**QUICK, "n": 3}, cross_check=("deepfool",))
    both = study.run(out=tmp_path)
    assert both.result == alone.result
    [check] = both.checks
    assert (check.engine, check.n) == ("deepfool", 3)
    assert check.theirs == pytest.approx((check.ours or 0) - (check.difference or 0))
    assert study.run(out=tmp_path).notes[-1] == ALREADY_COMPLETE
    with RecordStore.read(tmp_path) as store:
        assert Survival.report(store).checks == both.checks


def test_the_seed_of_no_randomness_changes_nothing() -> None:
    assert Survival(**QUICK, seed=1).load().settings == Survival(**QUICK).load().settings


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"at": "anchors"}, "at 'anchors' is not known; did you mean anchor"),
        ({"norm": "l1"}, "norm l1 is not covered"),
        ({"top": 2}, "epsilon 2 is ambiguous"),
        ({"top": 0}, "epsilon 0 is not positive"),
        ({"box": "open"}, "box 'open' is not known"),
        ({"box": "free", "defense": "cm"}, "box free at clean images leaves what cm takes"),
        ({"search": "deep"}, "search 'deep' is not known"),
        ({"attack": "pdg"}, "attack 'pdg' is not known; did you mean pgd"),
        ({"attack_options": {"eps": 0.1}}, "belongs to the threat model"),
        ({"attack_options": {"randomness": "fresh"}}, "contradicts the fixed randomness"),
        ({"n": 451}, "does not fit"),
    ],
)
def test_what_cannot_be_searched_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        Survival(**{**QUICK, **change}).load()


def test_unusable_engines_and_batches_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="minimum-norm attack 'fnm' is not known; did you mean fmn"):
        Survival(**QUICK, cross_check=("fnm",)).run(out=tmp_path)
    with pytest.raises(BadInput, match=r"cross-check fmn keeps to \[0, 1\]"):
        Survival(**QUICK, box="free", cross_check=("fmn",)).run(out=tmp_path)
    with pytest.raises(BadInput, match="batch size 0"):
        Survival(**QUICK).run(out=tmp_path, batch_size=0)


def test_the_default_bracket_is_twice_the_radius() -> None:
    tops = {
        norm: Survival(dataset="digits", n=1, norm=norm).load().search.top
        for norm in ("linf", "l2")
    }
    assert tops["linf"] == 0.3
    assert tops["l2"] == pytest.approx(0.3 * (64 / 3) ** 0.5)
    chosen = Survival(dataset="digits", n=1).load().settings["attack"]
    assert (chosen["name"], chosen["steps"]) == ("apgd", 40)


def test_survival_is_the_mean_over_images_at_eighths_of_the_bracket_or_where_asked(
    tmp_path: Path,
) -> None:
    tree = Survival(**QUICK).run(out=tmp_path).tree()
    assert [each["eps"] for each in tree["survival"]] == pytest.approx([0.05 * k for k in range(9)])
    for path in ("accuracy", "survival[eps=0].survival", "survival[eps=0.1].survival"):
        share = find(tree, path)
        assert len(share.images()) == share.n == 5
        assert share.value == pytest.approx(sum(share.images().values()) / 5)
    asked = Survival(**QUICK, eps="0.1,51/255").run(out=tmp_path).tree()
    assert [each["eps"] for each in asked["survival"]] == [0.1, 0.2]
    assert asked["survival"][0]["survival"] == find(tree, "survival[eps=0.1].survival")


def test_one_to_seven_runs_of_a_norm_share_a_picture(tmp_path: Path) -> None:
    report = Survival(**QUICK).run(out=tmp_path / "run")
    with RecordStore.read(report.run) as store:
        assert Survival.draw(store, tmp_path / "s.svg").stat().st_size > 5000
    assert draw_survival([report, report], tmp_path / "two.png").exists()
    with pytest.raises(BadInput, match="0 runs are not 1 to 7"):
        draw_survival([], tmp_path / "none.png")


# --- The command line -----------------------------------------------------------------------------


LINE = [
    "survival", "--dataset", "digits", "-n", "4", "--attack", "pgd", "--steps", "3",
    "--bisections", "2", "--top", "0.4", "--attack-option", "step_size=0.1",
]  # fmt: skip
Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run_cli(arguments)
        return code, *capsys.readouterr()

    return call


@pytest.mark.slow
def test_the_verb_prints_survival_and_goes_on_from_its_records(cli: Cli, tmp_path: Path) -> None:
    code, text, _ = cli(*LINE, "--eps", "0.05,26/255", "--plot", "s.png", "--cross-check", "fmn")
    assert code == 0
    assert text.startswith(
        "digits, clean images, linf, attack pgd (3 steps of 0.1, loss ce), tight search up to 0.4: "
        "median smallest perturbation"
    )
    assert "0.10196 (26/255)" in text
    assert "fmn: mean" in text
    assert "records: runs/survival-" in text
    assert (tmp_path / "s.png").exists()
    code, text, errors = cli(*LINE, "--json")
    found = json.loads(text)
    assert (code, found["n"], len(found["survival"]), errors) == (0, 4, 9, "")
    assert ALREADY_COMPLETE in found["notes"]
    assert [check["engine"] for check in found["cross_check"]] == ["fmn"]


def test_a_dry_run_only_counts(cli: Cli, tmp_path: Path) -> None:
    code, text, _ = cli(*LINE, "--dry-run", "--json")
    found = json.loads(text)
    assert code == 0
    assert found["evaluations"] == 4 * (1 + 5 * (3 + 3 + 8))
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--at", "anchr"], ["at 'anchr'", "is not known", "did you mean anchor"]),
        (["--eps", "8"], ["epsilon 8", "ambiguous", "8/255"]),
        (["--plot", "s.gif"], ["s.gif", "is no picture"]),
        (["--cross-check", "bb"], ["minimum-norm attack 'bb'", "known: fmn, deepfool"]),
        (["--search", "wide"], ["search 'wide'", "known: plain, tight"]),
        (["--attack-option", "steps=9"], ["steps=9", "a second time"]),
    ],
)
def test_bad_input_is_one_line(cli: Cli, more: list[str], words: list[str]) -> None:
    code, text, errors = cli(*LINE, *more)
    assert (code, text) == (2, "")
    assert errors.count("\n") == 1
    for word in words:
        assert word in errors
