"""Distances along the chain and between sets: records, reports, comparisons, the command.

Metrics here are SSIM and those over the classifier, which are there on every machine.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from advpure.analysis.compression.rates import compression_rate
from advpure.analysis.distances.compare import compare_distances, frechet_difference
from advpure.analysis.distances.result import DistancesResult
from advpure.analysis.distances.study import Distances
from advpure.analysis.distances.trajectory import measure_trajectory
from advpure.analysis.metrics.frechet import frechet_distance, frechet_estimate
from advpure.analysis.metrics.ssim import ssim
from advpure.analysis.perturbed import parse_perturbations, perturbers
from advpure.base.errors import BadInput
from advpure.cli import run
from advpure.core.randomness import RandomnessConfig
from advpure.data import load_images
from advpure.loading import load_purifier
from advpure.runs.records import RecordStore
from advpure.statistics.estimates import find

METRICS = (
    "compression,compression-linf,ssim,frechet-classifier,classifier-score,"
    "precision-recall-classifier"
)
QUICK: dict[str, Any] = {
    "dataset": "digits", "defense": "onestep-edm", "n": 6, "metrics": METRICS,
    "perturb": "none,uniform:32/255,attack:pgd", "attack_options": {"steps": 2},
}  # fmt: skip


def quick(**change: Any) -> Distances:
    """Return the quick run with other settings; options of attacks only where there is one."""
    settings = {**QUICK, **change}
    if "attack_options" not in change and "attack" not in "".join(settings["perturb"]):
        del settings["attack_options"]
    return Distances(**settings)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    quick().run(out=folder)
    return folder


def test_the_report_is_computed_from_records_alone(whole: Path) -> None:
    with RecordStore.read(whole) as store:
        report = Distances.report(store)
        result = DistancesResult(store)
        ids, l2, linf = result.states("uniform:32/255")
    found = report.to_json()
    assert [row["perturbation"] for row in found["rows"]] == [
        "none", "uniform:32/255", "attack:pgd:0.15",
    ]  # fmt: skip
    assert {key: found[key] for key in found["rows"][0]} == found["rows"][0], "the first on top"
    row = found["rows"][1]
    assert row["n"] == row["l2_final_n"] == len(ids) == 6
    assert row["l2_initial"] == pytest.approx(l2[:, 0].mean())
    assert row["l2_noised"] == pytest.approx(l2[:, 1].mean()), "after the one forward step"
    assert row["l2_largest"] == pytest.approx(l2.max(axis=1).mean())
    assert row["l2_final_std"] == pytest.approx(l2[:, -1].std(ddof=1))
    assert row["linf_final"] == pytest.approx(linf[:, -1].mean())
    low, high = row["ssim_after_interval"]
    assert low < row["ssim_after"] < high
    assert row["ssim_reduction"] == pytest.approx(row["ssim_before"] - row["ssim_after"])
    clean = found["rows"][0]
    assert clean["ssim_before"] == 1.0
    assert clean["frechet_classifier_before"] == pytest.approx(0.0, abs=1e-9)
    assert clean["precision_classifier_before"] == clean["recall_classifier_before"] == 1.0
    attacked = found["rows"][2]
    assert attacked["linf_initial"] <= 0.15 + 1e-6
    assert attacked["frechet_classifier_before"] > row["frechet_classifier_before"] > 0
    assert any("biased upwards" in note for note in report.notes)


def test_records_hold_what_the_functions_give(whole: Path) -> None:
    images, _, ids = load_images("digits", n=6)
    purifier, xi = load_purifier("onestep-edm", "digits"), RandomnessConfig(0)
    direct = measure_trajectory(purifier, images, images, ids, xi, purifier.tile)
    with RecordStore.read(whole) as store:
        result = DistancesResult(store)
        listed, l2, linf = result.states("none")
        pairs = result.pairs("none", "ssim")
        sets = result.paired_features("classifier", "none")
    assert listed == ids.tolist()
    assert np.array_equal(l2, direct.l2.numpy())
    assert np.array_equal(linf, direct.linf.numpy())
    expected = ssim(direct.purified.clamp(0, 1), images)
    assert [after for _, after in pairs.values()] == pytest.approx(expected.tolist(), rel=1e-9)
    with RecordStore.read(whole) as store:
        report = Distances.report(store).to_json()
    assert report["frechet_classifier_after"] == frechet_distance(sets["clean"], sets["after"])


def test_the_rate_along_a_perturbation_is_that_of_the_function(whole: Path) -> None:
    images, _, ids = load_images("digits", n=6)
    purifier = load_purifier("onestep-edm", "digits", xi=RandomnessConfig(0))
    wanted = parse_perturbations("uniform:32/255", 0.15)
    (perturber,) = perturbers(wanted, {}, norm="linf", seed=0, clip=False)
    moved = perturber.make(images, torch.zeros(6), ids, None, RandomnessConfig(0))
    expected = compression_rate(purifier, images, moved - images, ids=ids)
    clean, purified = (
        measure_trajectory(purifier, images, x, ids, RandomnessConfig(0), purifier.tile).purified
        for x in (images, moved)
    )
    peaks = (purified - clean).flatten(1).abs().amax(1) / (moved - images).flatten(1).abs().amax(1)
    with RecordStore.read(whole) as store:
        result = DistancesResult(store)
        found = result.pairs("uniform:32/255", "compression")
        linf = result.pairs("uniform:32/255", "compression-linf")
        none = result.pairs("none", "compression")
        report = Distances.report(store).to_json()
    assert list(found) == ids.tolist()
    assert {before for before, _ in (*found.values(), *linf.values())} == {1.0}
    assert [after for _, after in found.values()] == pytest.approx(expected.tolist(), rel=1e-6)
    assert [after for _, after in linf.values()] == pytest.approx(peaks.tolist(), rel=1e-5)
    assert not none, "no perturbation has no rate"
    assert "compression_after" not in report["rows"][0]
    for row in report["rows"][1:]:
        assert row["compression_reduction"] == pytest.approx(1.0 - row["compression_after"])
        assert row["compression_linf_after_interval"][0] < row["compression_linf_after"]


def test_leaving_the_image_leaves_everything(tmp_path: Path) -> None:
    run = quick(defense="none", perturb=["none", "sign:16/255"])
    still, moved = run.run(out=tmp_path).to_json()["rows"]
    for name in ("l2_initial", "l2_largest", "l2_final", "linf_final"):
        assert still[name] == 0.0
    assert still["ssim_after"] == 1.0
    assert still["ssim_reduction"] == 0.0
    assert "l2_noised" not in still
    assert moved["linf_initial"] == pytest.approx(16 / 255, rel=1e-6)
    assert moved["l2_final"] == pytest.approx(16 / 255 * 8, rel=1e-6)
    for name in ("ssim", "frechet_classifier", "classifier_score", "recall_classifier"):
        assert moved[f"{name}_before"] == moved[f"{name}_after"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"perturb": "unifrom:8/255"}, "did you mean uniform"),
        ({"perturb": []}, "is empty"),
        ({"metrics": "fid"}, "metric 'fid' is not known"),
        ({"norm": "l3"}, "norm 'l3' is not known"),
        ({"norm": "l2"}, "norm l2 has no default radius on digits"),
        ({"attack_options": {"stepz": 1}}, "attack option 'stepz' is known to no attack"),
        ({"attack_options": {"steps": "x"}}, "steps 'x' of pgd is not a whole number"),
        ({"seed": -1}, "seed -1"),
        ({"defense": "dpmm"}, "'dpmm' is not known"),
        ({"options": {"xi": 1}}, "option 'xi' of onestep-edm is not known"),
        ({"n": 451}, "does not fit"),
        ({"device": "cuda:99"}, "device 'cuda:99' is"),
        ({"classifier": "digits-edm"}, "is no classifier"),
    ],
)
def test_what_cannot_be_measured_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        quick(**change).load()


def test_the_cost_is_counted_before_the_run() -> None:
    study = quick()
    loaded = study.load()
    assert study.total(loaded) == 18
    cost = study.cost(loaded)
    # Three purifications, one of the image itself; PGD: 2 gradients, at most 3 more passes.
    assert cost.backwards == 6 * 2
    assert cost.evaluations == 6 * (4 + 5) * 2
    assert cost.seconds > 0


def test_every_mean_has_the_images_that_it_is_the_mean_of(whole: Path) -> None:
    with RecordStore.read(whole) as store:
        tree, result = Distances.report(store).tree(), DistancesResult(store)
        ids, l2, linf = result.states("uniform:32/255")
        pairs = result.pairs("uniform:32/255", "ssim")
    row = "rows[perturbation=uniform:32/255]"
    for path, values in (
        ("l2_initial", l2[:, 0]),
        ("l2_largest", l2.max(axis=1)),
        ("linf_final", linf[:, -1]),
        ("ssim_before", [before for before, _ in pairs.values()]),
        ("compression_after", None),
    ):
        estimate = find(tree, f"{row}.{path}")
        by_image = estimate.images()
        assert list(by_image) == ids
        assert np.mean(list(by_image.values())) == pytest.approx(estimate.value)
        assert values is None or list(by_image.values()) == list(values)
    assert find(tree, f"{row}.frechet_classifier_after").images() is None


def test_few_images_lack_what_few_images_lack(tmp_path: Path) -> None:
    report = quick(n=1, perturb="uniform:8/255").run(out=tmp_path)
    row = report.to_json()
    assert row["n"] == 1
    assert row["l2_final_interval"] is None
    assert "frechet_classifier_after" not in row
    assert "precision and recall need more than 3 images" in report.notes


def test_a_run_compared_with_itself_differs_in_nothing(whole: Path) -> None:
    with RecordStore.read(whole) as first, RecordStore.read(whole) as second:
        found = compare_distances(first, second, resamples=4)
    rates = {"compression", "compression-linf"}
    plain = {"l2_final", "linf_final", "ssim", "frechet-classifier"}
    for label in ("none", "uniform:32/255", "attack:pgd:0.15"):
        names = {each.name for each in found if each.perturbation == label}
        assert names == (plain if label == "none" else plain | rates)
    for each in found:
        assert each.difference == 0.0
        assert each.interval is not None
        assert tuple(each.interval) == (0.0, 0.0)
        assert each.n == 6


def test_two_runs_are_compared_image_by_image(whole: Path, tmp_path: Path) -> None:
    quick(sigma=0.5, perturb="none,uniform:8/255").run(out=tmp_path)
    counted: list[int] = []
    with RecordStore.read(whole) as first, RecordStore.read(tmp_path) as second:
        found = {each.name: each for each in compare_distances(first, second)}
        drawn = compare_distances(first, second, resamples=20, progress=counted.append)
        a, b = (DistancesResult(store).states("none")[1][:, -1] for store in (first, second))
    assert {each.perturbation for each in found.values()} == {"none"}, "what both have"
    far = found["l2_final"]
    assert far.difference == pytest.approx((a - b).mean())
    assert far.interval is not None
    assert far.interval.high < 0, "stronger noise ends further away"
    frechet, resampled = found["frechet-classifier"], {each.name: each for each in drawn}
    assert frechet.method == "jackknife"
    assert resampled["frechet-classifier"].difference == frechet.difference
    assert resampled["frechet-classifier"].method == "paired bootstrap, 20"
    assert counted == list(range(1, 21))
    assert far.estimate().to_json()["n"] == 6
    assert far.by_image == pytest.approx(dict(enumerate((a - b).tolist())))


def test_runs_that_have_nothing_in_common_are_refused(whole: Path, tmp_path: Path) -> None:
    quick(perturb="uniform:1/255").run(out=tmp_path / "a")
    quick(perturb="none", subset="train").run(out=tmp_path / "b")
    with RecordStore.read(whole) as first:
        for folder, words in (("a", "share no perturbation"), ("b", "are not of the same images")):
            with (
                RecordStore.read(tmp_path / folder) as second,
                pytest.raises(BadInput, match=words),
            ):
                compare_distances(first, second)


def test_the_difference_of_frechet_distances_has_a_paired_error() -> None:
    rng = np.random.default_rng(0)
    n, d = 300, 5
    found, covered = [], []
    for _ in range(120):
        x = rng.normal(size=(n, d))
        noise = 0.4 * rng.normal(size=(n, d))
        one, two = x + noise, 0.95 * x + noise + 0.05  # what they share cancels
        a, b, interval = frechet_difference(x, one, two)
        assert interval is not None
        found.append(a - b)
        covered.append(interval)
    centre = np.mean(found)
    share = np.mean([low < centre < high for low, high in covered])
    assert share > 0.95 - 4.42 * (0.95 * 0.05 / 120) ** 0.5  # alpha 1e-5
    reach = np.mean([high - low for low, high in covered]) / 2 / 1.96
    assert 0.7 < reach / np.std(found, ddof=1) < 1.5
    single = [frechet_estimate(x, each).error for each in (one, two)]
    assert None not in single
    low, high = covered[-1]
    assert (high - low) / 2 / 1.96 < np.hypot(*single)  # type: ignore[arg-type]
    _, _, wide = frechet_difference(x, one, two, resamples=100)
    assert wide is not None
    assert 0.6 < (wide.high - wide.low) / (high - low) < 2.0
    assert frechet_difference(x[:2], one[:2], two[:2])[2] is None


BASE = [
    "distances", "--dataset", "digits", "-d", "onestep-edm", "-n", "5", "-q",
    "--metrics", "ssim,frechet-classifier",
]  # fmt: skip


def test_the_command_prints_tables_and_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = str(tmp_path / "a"), str(tmp_path / "b")
    assert run([*BASE, "--perturb", "none,uniform:8/255", "--out", first]) == 0
    printed = capsys.readouterr().out
    told = "defense onestep-edm sigma=0.25, fixed randomness (seed 0), 2 steps: none starts"
    assert told in printed
    assert "l-inf max" in printed
    assert "uniform:8/255" in printed
    assert f"records: {first}" in printed
    picture = tmp_path / "a.svg"
    weak = [*BASE, "--sigma", "0.4", "--out", second, "--perturb", "none", "--against", first]
    assert run([*weak, "--plot", str(picture)]) == 0
    printed = capsys.readouterr().out
    assert "against" in printed
    assert "jackknife" in printed
    assert picture.is_file()
    assert run([*weak, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["n"] == 5
    assert {each["name"] for each in found["against"]} == {
        "l2_final", "linf_final", "ssim", "frechet-classifier",
    }  # fmt: skip


def test_the_command_refuses_in_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for more, words in (
        (["--perturb", "uniform"], "write uniform:8/255"),
        (["--metrics", "clipp"], "metric 'clipp' is not known; did you mean clip?"),
        (["--against", str(tmp_path)], "is no run folder"),
    ):
        folder = str(tmp_path / "run")
        line = BASE[:-2] if "--metrics" in more else BASE
        assert run([*line, "--out", folder, *more]) == 2
        told = capsys.readouterr().err
        assert words in told
        assert told.count("\n") == 1
