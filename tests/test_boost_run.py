"""Boosted sets: paired differences and their intervals, what a run records, others' images."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from advpure.analysis.boosting.result import BoostReport
from advpure.analysis.boosting.sets import Ids, groups, set_changes
from advpure.analysis.boosting.study import Boost
from advpure.analysis.generation.images import Generated, read_generated, write_generated
from advpure.analysis.metrics.frechet import frechet_distance
from advpure.analysis.metrics.inception_score import inception_score
from advpure.analysis.metrics.precision_recall import manifold_members, precision_recall
from advpure.base.errors import BadInput
from advpure.cli import run
from advpure.data import load_images
from advpure.loading import lineage
from advpure.sweeps.columns import Column, find_printed
from advpure.sweeps.comparisons import shares_cases, subtract
from advpure.sweeps.evidence import Evidence
from advpure.sweeps.figures import FIGURES, Drawn
from advpure.sweeps.points import plan
from advpure.sweeps.published import published
from advpure.sweeps.sweep import parse_sweep
from advpure.sweeps.table import Reports, tabulate

BOOSTER: dict[str, Any] = {
    "dataset": "digits",
    "boost": "digits-gaussian-050",
    "boost_options": {"loss": "ce", "steps": 3, "step_size": 0.1},
    "metrics": ["frechet-classifier", "classifier-score", "precision-recall-classifier"],
    "reference": "train/first-200",
}


def sets(seed: int, n: int = 150, m: int = 200) -> tuple[np.ndarray[Any, Any], ...]:
    """Return real features, and generated ones before and after a move half of the way to them."""
    draw = np.random.default_rng(seed).normal
    real, made = draw(size=(m, 2)), draw(size=(n, 2)) * 1.3 + [1.0, 0.0]
    return real, made, made - [0.5, 0.0]


def test_a_paired_change_is_the_difference_of_two_distances() -> None:
    real, before, after = sets(0)
    change = set_changes("frechet", real, before, after)[""]
    assert change.before.value == pytest.approx(frechet_distance(real, before))
    assert change.after.value == pytest.approx(frechet_distance(real, after))
    assert change.difference.value == pytest.approx(change.after.value - change.before.value)
    same = set_changes("frechet", real, before, before)[""].difference
    assert same.value == 0.0
    assert same.interval == (0.0, 0.0)
    assert set_changes("frechet", real[:2], before, after) == {}


@pytest.mark.parametrize("kind", ["frechet", "precision-recall"])
def test_two_runs_are_compared_as_one_run_compares_before_and_after(kind: str) -> None:
    real, one, two = sets(3)
    changes = set_changes(kind, real, one, two)
    runs = [set_changes(kind, real, made, made + 1.0) for made in (one, two)]
    for name, change in changes.items():
        first, second = (run[name].before for run in runs)
        assert shares_cases(first, second)
        difference = subtract(second, first, 0.95)
        assert difference.value == pytest.approx(change.difference.value)
        assert difference.interval == pytest.approx(change.difference.interval)
    wider = subtract(second, first, 0.999).interval
    assert wider is not None
    assert wider.low < difference.interval.low < difference.interval.high < wider.high  # type: ignore[union-attr]


def test_scores_of_two_runs_are_paired() -> None:
    pen = np.random.default_rng(1)
    one, two = (pen.dirichlet([share] * 4, size=80) for share in (2.0, 0.3))
    nothing = np.empty((0, 1))
    change = set_changes("score", nothing, one, two)[""]
    first, second = (set_changes("score", nothing, each, each)[""].after for each in (one, two))
    assert subtract(second, first, 0.95).interval == pytest.approx(change.difference.interval)


def test_sets_without_cases_in_common_are_taken_as_independent() -> None:
    real, one, two = sets(4)
    far = Ids(range(1000, 1150), range(200), "another")
    first = set_changes("frechet", real, one, one)[""].before
    second = set_changes("frechet", real, two, two, far)[""].before
    assert not shares_cases(first, second)
    reach = [(each.interval.high - each.value) for each in (first, second) if each.interval]
    interval = subtract(second, first, 0.95).interval
    assert interval is not None
    assert (interval.high - interval.low) / 2 == pytest.approx(np.hypot(*reach))


def test_the_interval_of_a_change_has_the_spread_of_other_images() -> None:
    """Over 200 draws of all sets, the mean width of the jackknife is that of the true spread."""
    changes = [set_changes("frechet", *sets(seed))[""].difference for seed in range(200)]
    spread = np.std([each.value for each in changes], ddof=1)
    widths = [(each.interval.high - each.interval.low) / (2 * 1.96) for each in changes]  # type: ignore[union-attr]
    low, high = np.sqrt(stats.chi2.ppf([5e-6, 1 - 5e-6], 199) / 199)  # of a true spread of 1
    assert low * 0.9 < spread / np.mean(widths) < high * 1.1  # the jackknife is of the first order


def test_scores_and_rates_change_as_they_are_defined() -> None:
    pen = np.random.default_rng(1)
    before, after = (pen.dirichlet([share] * 4, size=80) for share in (2.0, 0.3))
    change = set_changes("score", np.empty((0, 1)), before, after)[""]
    assert change.before.value == pytest.approx(inception_score(before).value)
    assert change.difference.interval is not None
    assert change.difference.interval.low > 0.0
    real, one, two = sets(2)
    rates = set_changes("precision-recall", real, one, two)
    assert rates["precision"].after.value == precision_recall(real, two).precision.value
    assert rates["recall"].before.value == precision_recall(real, one).recall.value
    for name, k in (("precision", 0), ("recall", 1)):
        sides = [manifold_members(real, each)[k].mean() for each in (one, two)]
        assert rates[name].difference.value == pytest.approx(sides[1] - sides[0])
    assert set(groups(np.array([0, 1, 1, 1, 2]), 3)) == {1}


def test_a_run_says_before_after_and_their_difference(tmp_path: Path) -> None:
    report = Boost(**BOOSTER, n=24, curve=1).run(out=tmp_path / "run")
    told = report.to_json()
    assert told["metric"] == "frechet-classifier"
    assert told["difference"]["value"] == pytest.approx(
        told["after"]["value"] - told["before"]["value"]
    )
    assert told["difference"]["n"] == told["n"] == 24
    assert [row["metric"] for row in told["metrics"]] == [
        "frechet-classifier", "classifier-score", "precision-classifier", "recall-classifier",
    ]  # fmt: skip
    assert [row["step"] for row in told["curve"]] == [1, 2, 3]
    assert told["curve"][-1]["after"] == told["after"]
    assert told["moved"]["value"] <= 0.3 + 1e-6
    assert told["l0"] is None
    assert {row["class"] for row in told["by_class"]} <= set(range(10))
    assert told["settings"]["networks"]["classifier"]["name"] == "digits-classifier"
    again = Boost(**BOOSTER, n=24, curve=1).run(out=tmp_path / "run")
    assert again.to_json()["after"] == told["after"]


@pytest.mark.slow
def test_others_images_come_in_as_files(tmp_path: Path) -> None:
    digits = load_images("digits", n=6)
    labelled = write_generated(tmp_path / "a.npz", Generated(digits.images, digits.labels), "float")
    shared = {**BOOSTER, "images": str(labelled)}
    report = Boost(**shared, save=str(tmp_path / "b.npz")).run(out=tmp_path / "run")
    assert report.n == 6
    rows = _rows(tmp_path / "run")
    assert [row["aimed"] for row in rows] == digits.labels.tolist()
    likely = Boost(**shared, aim="likely", debias=True).run(out=tmp_path / "likely")
    assert likely.settings["debias"]
    assert [row["label"] for row in _rows(tmp_path / "likely")] == digits.labels.tolist()
    bytes_only = Boost(**shared, truncate=True).run(out=tmp_path / "bytes")
    assert isinstance(bytes_only, BoostReport)
    for row in _rows(tmp_path / "bytes", "pairs"):
        for side in ("before", "after"):
            levels = 255 * np.frombuffer(row[side], "<f4")
            assert np.allclose(levels, levels.round(), atol=1e-3)
            assert levels.max() <= 255


def _rows(folder: Path, table: str = "boosted") -> list[dict[str, Any]]:
    with Boost.records(folder) as store:
        return store.rows(table)


@pytest.mark.slow
def test_files_and_pictures_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = (
        "boost --dataset digits -b digits-gaussian-050 --method sgld --schedule cd-2 -n 5 "
        "--metrics frechet-classifier --reference train/first-20 --out run "
        "--save boosted.npz --pixels float --grid grid.png --plot curve.png --json"
    )
    assert run(words.split()) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["settings"]["boost"]["steps"] == 7
    assert told["settings"]["boost"]["method"] == "sgld"
    saved = read_generated("boosted.npz")
    assert saved.images.shape == (5, 1, 8, 8)
    after = [
        torch.frombuffer(bytearray(row["after"]), dtype=torch.float32)
        for row in _rows(Path("run"), "pairs")
    ]
    assert torch.equal(saved.images.flatten(1), torch.stack(after))
    assert all(Path(name).stat().st_size > 1000 for name in ("grid.png", "curve.png"))


def test_the_line_of_teachers_is_followed() -> None:
    assert lineage("digits-classifier") < lineage("digits-classifier-denoised")
    assert not lineage("digits-gaussian-050") & lineage("digits-classifier")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("-b nothing", "data set 'digits' has no shipped network digits-nothing"),
        ("-b digits-classifier", "a model without l0"),
        ("-b digits-cm", "network 'digits-cm' is no classifier"),
        ("-b cifar10-classifier --loss ce", "does not fit digits images"),
        ("-b digits-classifier --loss ce --classifier digits-classifier-denoised", "share weights"),
        ("-b digits-classifier --loss ce --classifier digits-classifier", "share weights"),
        ("-b digits-classifier --loss ce --aim label", "makes images without labels"),
        ("-b digits-classifier --loss ce --metrics ssim", "metric ssim is not one of sets"),
        ("-b digits-classifier --loss ce --schedule gan", "generator 'gan' is not known"),
        ("-b digits-classifier --loss ce --pixels float", "means nothing without a file"),
        ("-b digits-classifier --loss ce --images x.npz --model edm", "model"),
        ("-b digits-classifier --loss ce --images x.npz", "images x.npz are missing"),
        ("-b digits-classifier --loss ce --images wide.npz", "of 3x9x9 do not fit digits images"),
        ("-b digits-classifier --loss ce --images many.npz", "class 12 of many.npz is outside"),
        ("-b digits-classifier --loss ce --images bare.npz --aim label", "have no labels"),
        ("-b digits-classifier --loss ce --images bare.npz -n 9", "bare.npz has 4 images"),
        ("-b digits-classifier --loss ce --grid x.gif", "is no picture"),
        ("-b digits-classifier --loss ce --labels 3 --weights digits-cm", "class-conditional"),
    ],
)
def test_what_cannot_be_boosted_is_refused_in_one_line(
    words: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    small = np.zeros((4, 8, 8, 1), np.uint8)
    np.savez("wide.npz", images=np.zeros((4, 9, 9, 3), np.uint8))
    np.savez("many.npz", images=small, labels=np.array([0, 12, 1, 2]))
    np.savez("bare.npz", images=small)
    if "-n" not in words.split():
        words += " -n 4" if "--images" not in words else ""
    if "--labels" not in words and "--images" not in words:
        words += " --labels none"
    assert run(["boost", "--dataset", "digits", "-q", *words.split()]) == 2
    error = capsys.readouterr().err
    assert error.startswith("advpure: ")
    assert said in error
    assert error.count("\n") == 1


def test_boosters_of_a_sweep_are_paired_and_drawn(tmp_path: Path) -> None:
    own = {**BOOSTER, "n": 24, "metrics": ["frechet-classifier"]}
    own["boost_options"] = {"steps": 1, "step_size": 0.1, "loss": "ce"}
    file = {"verb": "boost", "base": own, "grid": {"boost_options.step_size": [0.01, 0.02]}}
    points = plan(parse_sweep(file, name="sizes", where="test"))
    for point in points:
        point.settings.run(out=tmp_path / point.run)
    at = "metrics[metric=frechet-classifier].after"
    printed = {"column": "fid", "booster": "none"}
    columns = {"after": Column(block="boost", at=at, printed=printed)}
    keys = {"size": "boost_options.step_size"}
    table = tabulate(points, {p.run for p in points}, Reports(tmp_path), keys, columns)
    found = Evidence(table, tmp_path).difference((0.01,), (0.02,), "after", 0.95)
    assert found is not None
    assert found.interval is not None
    alone = table.value((0.01,), "after")
    assert alone is not None
    assert alone.interval is not None
    # Two sizes of one step: nearly the same images, so that pairing leaves little of the spread.
    assert found.interval.high - found.interval.low < 0.3 * (alone.interval.high - alone.value)
    row = {"model": "cd", "steps": 1, "booster": "joint"}
    beside = find_printed(published("002").tables["T1"], row, "after", columns["after"])
    assert beside is not None
    assert beside.value == 6.2
    assert find_printed(None, row, "after", columns["after"]) is None
    drawn = Drawn(table=table, points=tuple(points), title="t", name="n", root=tmp_path)
    assert FIGURES["boosted"](drawn, tmp_path / "x.png", block="boost").stat().st_size > 5_000
    with pytest.raises(BadInput, match="block cr has no finished run to draw"):
        FIGURES["boosted"](drawn, tmp_path / "y.png", block="cr")
