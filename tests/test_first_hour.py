"""What a first hour with the command line met, each mended once."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from quick_studies import quick
from test_prediction import simulated

from advpure.analysis.certification.study import GOES_ON
from advpure.analysis.compression.noising import default_strength
from advpure.analysis.compression.study import Compression
from advpure.analysis.distances.study import Distances
from advpure.analysis.gradient_noise.result import GradientResult, ImageGradients, image_gradients
from advpure.analysis.prediction.report import PredictionReport, make_report
from advpure.analysis.robustness.study import Robustness
from advpure.analysis.steps.study import Steps
from advpure.analysis.subject import Subject
from advpure.analysis.survival.fit import SurvivalResult
from advpure.analysis.survival.minimum_radius import RadiusRow
from advpure.analysis.timesteps.study import Timesteps
from advpure.analysis.variability.study import Snr
from advpure.base.errors import BadInput
from advpure.base.flags import by_field
from advpure.cli import output, run
from advpure.core.meter import metered
from advpure.plots.charts import Points, Words, lines
from advpure.plots.figures import draw_histogram, new_figure
from advpure.runs.records import RecordStore
from advpure.statistics.zero_inflated import fit_zero_inflated
from advpure.sweeps.experiment import load_experiment

Capture = pytest.CaptureFixture[str]
EXPERIMENT = """
title: Compression and robustness
about: Purifiers of our own.
keys: {defense: defense, sigma: sigma}
columns:
  cr: {block: cr, at: rows.0}
  robust: {block: attack, at: robust_accuracy, unit: percent}
figure: {draw: compression-robustness, x: cr, y: robust, by: defense}
base: {dataset: digits, n: 2, defense: onestep-edm}
grid: {sigma: [0.1, 0.3]}
blocks: {cr: {base: {perturbations: 1}}, attack: {base: {steps: 1, fix-random: true}}}
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_an_experiment_of_ones_own_and_any_scatter_of_its_sweep(
    here: Path, capsys: Capture
) -> None:
    Path("law.yaml").write_text(EXPERIMENT)
    assert run(["reproduce", "law.yaml", "-q", "--jobs", "1", "--json", "--plot", "law.png"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert [row["sigma"] for row in said["rows"]] == [0.1, 0.3]
    assert Path("law.png").is_file()
    sweep = said["sweep"]
    plane = ["--x", "cr", "--y", "robust_accuracy"]
    for name, words in {
        "scatter": [*plane, "--by", "sigma"],
        "curve": ["--x", "sigma", "--y", "robust"],
        "own": [],
    }.items():
        assert run(["plot", sweep, "--to", f"{name}.png", *words]) == 0
        assert Path(f"{name}.png").stat().st_size > 5000
    capsys.readouterr()
    for words, message in {
        ("--x", "cr"): "--y is missing",
        ("--by", "sigma"): "groups nothing",
        ("--x", "cr", "--y", "speed"): "value speed is none of sweep",
        ("--x", "cr", "--y", "sigma"): "is an option",
        (*plane, "--by", "color"): "option 'color' is not known",
    }.items():
        assert run(["plot", sweep, "--to", "x.png", *words]) == 2
        assert message in capsys.readouterr().err
    run_of_one = next(Path("runs").glob("cr-*"))
    assert run(["plot", str(run_of_one), "--to", "x.png", *plane]) == 2
    assert run(["reproduce", "nothing.yaml"]) == 2
    Path("sweep.yaml").write_text("verb: cr\nbase: {n: 2}\n")
    assert run(["reproduce", "sweep.yaml"]) == 2
    assert "advpure sweep FILE" in capsys.readouterr().err


def test_a_dry_run_of_an_extended_sweep_counts_what_is_done(here: Path, capsys: Capture) -> None:
    text = "name: law\nverb: cr\nbase: {{dataset: digits, n: 1, perturbations: 1}}\ngrid: {}\n"
    Path("law.yaml").write_text(text.format("{defense: [none]}"))
    assert run(["sweep", "law.yaml", "-q", "--jobs", "1", "--json"]) == 0
    Path("law.yaml").write_text(text.format("{defense: [none, onestep-edm]}"))
    capsys.readouterr()
    assert run(["sweep", "law.yaml", "--dry-run", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["points"], said["done"], len(said["costs"])) == (2, 1, 1)


def test_options_of_a_sweep_may_be_called_as_on_the_command_line() -> None:
    given = {
        "fix-random": True,
        "steps": 3,
        "attack-seed": 4,
        "transfer_from": 5,
        "save-images": True,
        "n": 6,
        "attack_options.loss": "ce",
    }
    assert by_field(Robustness, given) == {
        "randomness": "fixed",
        "attack_options.steps": 3,
        "attack_options.seed": 4,
        "source_seed": 5,
        "keep_images": True,
        "n": 6,
        "attack_options.loss": "ce",
    }
    assert by_field(Robustness, {"fresh-random": False}) == {"randomness": "fixed"}
    with pytest.raises(BadInput, match="given twice"):
        by_field(Robustness, {"steps": 3, "attack_options.steps": 4})


def test_an_overridden_experiment_does_not_claim_its_own_images() -> None:
    as_is, changed = (
        load_experiment("003:table-6", "small", change) for change in (None, {"n": "5"})
    )
    assert "128 handwritten digits" in as_is.about
    assert "128" not in changed.about
    assert "changed by n=5" in changed.about
    assert changed.sweep.origin["changes"] == {"n": "5"}


@pytest.mark.parametrize(
    ("given", "count"),
    [
        ({}, 100),
        ({"n": 0}, 450),
        ({"subset": "test"}, 450),
        ({"subset": "train"}, 1347),
        ({"subset": "first-7"}, 7),
        ({"subset": "train", "n": 5}, 5),
    ],
)
def test_a_subset_that_is_given_is_not_cut(given: dict[str, Any], count: int) -> None:
    assert len(Subject(dataset="digits", **given).load_images().ids) == count


def test_one_default_strength_for_all_verbs() -> None:
    own, digits = default_strength("digits"), {"dataset": "digits"}
    assert own == Robustness(**digits).threat_model()[1] == 0.15
    assert Compression(**digits).strengths == (own,)
    assert Snr(**digits).strength == Steps(**digits).strength == own
    assert Timesteps(**digits).cr_eps == own
    assert Distances(**digits).perturb == "uniform:0.15"
    assert Distances(dataset="cifar10").perturb == "uniform:8/255"
    assert Compression(dataset="cifar10").strengths == (8 / 255,)
    assert Compression(dataset="digits", eps="8/255").strengths == (8 / 255,)


def test_cosines_stay_cosines() -> None:
    """A length that is estimated too short made a cosine of 1.04."""
    draws = [{"norm": 1.0, "single": None}, {"norm": 1.0, "single": None}] * 2
    blocks = [
        {"size": 1, "norm": 1.0, "dot": 0.99, "sign_dot": 9.0, "agreement": 1.0, "single": 1.0},
        {"size": 2, "norm": 1.0, "dot": 1.04, "sign_dot": 9.0, "agreement": 1.0, "single": 1.0},
    ]
    means = {"norm": 0.97, "held_out_norm": 0.9, "held_out_l1": 2.0}
    image: ImageGradients = image_gradients(0, draws, blocks, means)
    assert max(image.cosine.values()) > 1.0
    for point in GradientResult((image,)).curve():
        for mean in (point.cosine, point.gain, point.single):
            assert mean is not None
            assert -1.0 <= mean.value <= 1.0
    twice = GradientResult((image, replace(image, sample=1, cosine={1: 0.2, 2: 0.2})))
    interval = twice.curve()[1].cosine.interval  # type: ignore[union-attr]
    assert interval is not None
    assert (interval.low, interval.high) == (-1.0, 1.0)


def test_intervals_of_compression_do_not_fall_below_zero(tmp_path: Path) -> None:
    study = Compression(dataset="digits", defense="onestep-edm", n=2, perturbations=2)
    interval = study.run(out=tmp_path).tree()["rows"][0].interval
    assert interval is not None
    assert interval.low >= 0.0


def test_steps_and_fit_of_survival_use_the_same_ends() -> None:
    """With brackets as wide as the spread, a fit to their insides lies half a bracket lower."""
    radii = np.random.default_rng(0).normal(0.5, 0.1, 60).clip(0.01)
    upper = np.ceil(radii / 0.2) * 0.2
    rows = [RadiusRow(i, float(u - 0.2), float(u), 1, 0, 1, 1, False) for i, u in enumerate(upper)]
    result = SurvivalResult(tuple(rows))
    inside = fit_zero_inflated(result.lower, result.upper)
    assert result.fit is not None
    assert inside is not None
    assert result.fit.mean == pytest.approx(upper.mean(), abs=0.02)
    assert inside.mean == pytest.approx(upper.mean() - 0.1, abs=0.03)
    before = np.concatenate([[1.0], result.curve.survival[:-1]])
    sides = [before, result.curve.survival]
    apart = max(np.abs(side - inside.survival(result.curve.times)).max() for side in sides)
    assert result.gap is not None
    assert result.gap < 0.75 * apart


def test_a_shard_that_is_done_says_so(here: Path, capsys: Capture) -> None:
    base = ["-n", "2", "--dataset", "digits", "-q", "--shard", "1/2"]
    for line in (
        ["attack", "-d", "none", "--steps", "1"],
        [
            "certify",
            *[
                "--sigma",
                "0.1",
                "--samples",
                "40",
                "--selection",
                "10",
                "--tile",
                "8",
                "--radii",
                "0,0.1",
            ],
        ],
    ):
        assert run([*line, *base]) == 0
        said = capsys.readouterr()
        assert "is done" in said.out + said.err
        assert GOES_ON not in said.err
    assert run(["attack", "-d", "none", "--until", "width 5", *base]) == 2


def test_field_runs_quietly(here: Path, capsys: Capture) -> None:
    assert run(["field", "-q", "--dimension", "60", "--draws", "2", "--steps", "5"]) == 0


def test_what_a_sigmoid_leaves_open_is_not_printed() -> None:
    report: PredictionReport = make_report(simulated(n=200), 0.3, run=Path("x"))
    assert report.sigmoid is not None
    report = replace(report, sigmoid=replace(report.sigmoid, astray=0))
    assert report.sigmoid is not None
    lost = replace(report, sigmoid=replace(report.sigmoid, astray=3))
    shown, hidden = ("\n".join(map(str, each.display().parts)) for each in (report, lost))
    assert "middle 0." in shown
    assert "middle 0." not in hidden
    assert "not determined" in hidden


def test_few_values_are_drawn_each_and_one_point_has_a_bar(tmp_path: Path) -> None:
    axes = new_figure(4, 3).add_subplot()
    draw_histogram(axes, {"four": [1.0, 2.0, 4.0, 8.0]}, "x")
    marks = [line for line in axes.lines if line.get_marker() == "o"]
    assert marks[0].get_xdata().tolist() == [1.0, 2.0, 4.0, 8.0]
    assert not axes.patches
    many = new_figure(4, 3).add_subplot()
    draw_histogram(many, {"many": list(range(40))}, "x")
    assert many.patches
    one = Points(x=[1.0], y=[0.5], y_low=[0.2], y_high=[0.9])
    words = Words(x="x", y="y")
    assert lines({"one": one}, tmp_path / "one.svg", words).is_file()
    bare = replace(one, y_low=None, y_high=None)
    assert lines({"one": bare}, tmp_path / "bare.svg", words).is_file()
    with_bar, without = (len((tmp_path / f"{n}.svg").read_text()) for n in ("one", "bare"))
    assert with_bar > without + 300


def test_headlines_name_strength_steps_step_size_loss_and_randomness(tmp_path: Path) -> None:
    for verb in ("attack", "survival"):
        study = quick(verb, randomness="fixed", draws=None) if verb == "attack" else quick(verb)
        line = study.run(out=tmp_path / verb).display().headline
        for words in ("sigma=0.25" if verb == "attack" else "onestep-edm", "2 steps of", "loss ce"):
            assert words in line
        assert "fixed randomness (seed 0)" in line


def test_a_report_from_records_knows_that_nothing_was_drawn(tmp_path: Path) -> None:
    for kind in (Compression, Distances):
        given: dict[str, Any] = {"metrics": "ssim"} if kind is Distances else {"perturbations": 1}
        kind(dataset="digits", n=2, defense="none", **given).run(out=tmp_path / kind.verb)
        with RecordStore.read(tmp_path / kind.verb) as store:
            assert "no randomness" in kind.report(store).display().headline


def test_progress_advances_within_an_image() -> None:
    advance = output.Advance(total=4, each=1000.0)
    assert advance.unit(1) == 1.0
    seen = [advance.evaluated(rows) for rows in (100, 400, 9000)]
    assert seen == [1.1, 1.5, 4.0]
    assert output.Advance(total=4).evaluated(10) == 0.0
    counts: list[int] = []
    defense = Subject(dataset="digits", defense="ddpm", t=3).load_purifier
    from advpure.core.randomness import RandomnessConfig

    purifier = defense(RandomnessConfig(0))
    with metered(counts.append), torch.no_grad():
        purifier.at(ids=[0])(torch.full((1, 1, 8, 8), 0.5))
    assert sum(counts) == purifier.chain.evaluations * (purifier.tile or 1)
    assert len(counts) == purifier.chain.evaluations


def test_a_long_run_says_so_before_it_starts(
    here: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("advpure.cli.studies._LONG", 0.0)
    line = ["cr", "--dataset", "digits", "-d", "onestep-edm", "-n", "1", "--perturbations", "1"]
    assert run(line) == 0
    assert "shorter with -n or --perturbations" in capsys.readouterr().err
    assert run(line) == 0  # all of it is there
    assert "shorter with" not in capsys.readouterr().err
