"""Predictions from records: of a run of its own, of runs of other verbs, and of a sweep."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from advpure.analysis.compression.study import Compression
from advpure.analysis.prediction.files import predict_from
from advpure.analysis.prediction.study import PredictedRobustness
from advpure.analysis.robustness.study import Robustness
from advpure.analysis.survival.study import Survival
from advpure.base.errors import BadInput
from advpure.cli import run as cli
from advpure.runs.records import ALREADY_COMPLETE, RecordStore
from advpure.statistics.estimates import find
from advpure.sweeps import experiment as experiment_module
from advpure.sweeps.session import Session, prepare_sweep, run_sweep
from advpure.sweeps.sweep import parse_sweep

IMAGES: dict[str, Any] = {"dataset": "digits", "n": 4, "tile": 4}
STEPS: dict[str, Any] = {"steps": 2, "step_size": 0.1}
QUICK = PredictedRobustness(
    **IMAGES, defense="onestep-ddpm", t=[5, 60], attack_options=STEPS, bisections=2, top=0.6,
    perturbations=2,
)  # fmt: skip
SEARCH: dict[str, Any] = {"attack": "pgd", "search": "plain", "bisections": 2, "top": 0.6}


def plain(found: dict[str, Any]) -> dict[str, Any]:
    """Leave out what differs between sessions and places."""
    return {k: v for k, v in found.items() if k not in ("run", "settings", "seconds", "notes")}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Measure one prediction without interruption."""
    root = tmp_path_factory.mktemp("whole")
    QUICK.run(out=root / "prediction")
    return root


@pytest.mark.slow
def test_the_runs_beside_it_say_the_same(whole: Path) -> None:
    with RecordStore.read(whole / "prediction") as store:
        own = PredictedRobustness.report(store).to_json()
    folders = [each.parent for each in whole.glob("*-*/records.sqlite")]
    assert len(folders) == 1 + 2 * 3
    joined = predict_from(folders).to_json()
    assert plain(joined) == plain(own)
    assert [(row["purifier"], row["t"]) for row in own["rows"]] == [
        ("onestep-ddpm", 5), ("onestep-ddpm", 60)
    ]  # fmt: skip
    for row in own["rows"]:
        assert row["n"] == 4
        for name in ("predicted_clean", "predicted_anchor", "pgd_fix", "accuracy", "cr"):
            low, high = row[f"{name}_interval"]
            assert low <= row[name] <= high
        gap = row["predicted_anchor"] - row["pgd_fix"]
        assert row["error_anchor"] == pytest.approx(gap)
    assert own["rows"][1]["cr"] < own["rows"][0]["cr"]
    verbs = {each.name.partition("-")[0] for each in folders}
    assert verbs == {"cr", "survival", "attack"}
    # The attack and the rates are those that the verbs report of the same runs.
    for point in joined["settings"]["points"]:
        row = next(row for row in own["rows"] if row["t"] == point["t"])
        with Robustness.records(point["attack"]) as store:
            assert row["pgd_fix"] == find(Robustness.report(store).tree(), "robust_accuracy").value
        with Compression.records(point["cr"]) as store:
            rate = find(Compression.report(store).tree(), "rows.0")
        assert row["cr"] == pytest.approx(rate.value)


def test_the_images_behind_every_value_average_to_it(whole: Path) -> None:
    with RecordStore.read(whole / "prediction") as store:
        tree = PredictedRobustness.report(store).tree()
    names = ("cr", "pgd_fix", "accuracy", "predicted_clean_images", "error_anchor")
    paths = [f"rows[purifier=onestep-ddpm,t={t}].{name}" for t in (5, 60) for name in names]
    for path in (*paths, "classifier_accuracy"):
        value = find(tree, path)
        images = value.images()
        assert list(images) == [0, 1, 2, 3]
        assert value.n == 4
        assert sum(images.values()) / 4 == pytest.approx(value.value)
    assert find(tree, "error_clean").images() is None


@pytest.mark.slow
def test_runs_elsewhere_are_used(whole: Path, tmp_path: Path) -> None:
    parts = [each.parent for each in whole.glob("*-*/records.sqlite")]
    report = replace(QUICK, runs=tuple(parts)).run(out=tmp_path / "p")
    assert [each.name for each in tmp_path.iterdir()] == ["p"]
    assert len(report.outcomes) == 2


@pytest.mark.slow
def test_a_sweep_and_a_survival_run_give_a_prediction(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    law = {
        "base": {**IMAGES, "defense": "onestep-ddpm"},
        "grid": {"t": [5, 60, 300]},
        "blocks": {
            "cr": {"base": {"perturbations": 2, "eps": 0.15}},
            "attack": {"base": {"attack_options": STEPS, "randomness": "fixed"}},
        },
    }
    session = Session(root=tmp_path, jobs=1)
    index, points = prepare_sweep(parse_sweep(law, name="law", where="a test"), session)
    run_sweep(index, points, session)
    clean = tmp_path / "clean"
    Survival(**IMAGES, **SEARCH, attack_options=STEPS).run(out=clean)
    monkeypatch.setattr("advpure.loading.load_purifier", None)  # no network is loaded from here
    monkeypatch.chdir(tmp_path)
    sources = [str(index.folder), str(clean)]
    assert cli(["predict", *sources, "--plot", "law.svg", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["t"] for row in found["rows"]] == [5, 60, 300]
    assert found["eps"] == 0.15
    assert all(row["pgd_fix"] is not None for row in found["rows"])
    assert all(row["predicted_anchor"] is None for row in found["rows"])
    picture = (tmp_path / "law.svg").read_text()
    assert "<!-- expected compression rate -->" in picture
    assert "predicted (clean)" in picture
    assert cli(["predict", *sources[::-1]]) == 0
    out = capsys.readouterr().out
    assert "4 images, attack pgd (2 steps of 0.1, loss ce): robust accuracy predicted and" in out
    assert "from records, nothing was computed" in out
    # The folder that holds all of them will do as well.
    assert cli(["predict", str(tmp_path), "--json"]) == 0
    assert plain(json.loads(capsys.readouterr().out))["rows"] == found["rows"]
    other = tmp_path / "sigma"
    study = Compression(**IMAGES, defense="onestep-edm", sigma=0.2, perturbations=1, eps=0.1)
    study.run(out=other)
    assert cli(["predict", *sources, str(other), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    last = next(row for row in found["rows"] if row["purifier"] == "onestep-edm")
    assert (last["sigma"], last["pgd_fix"], last["predicted_anchor"]) == (0.2, None, None)
    assert last["predicted_clean"] is not None
    assert any("was measured at 0.1, not 0.15" in note for note in found["notes"])


def test_what_is_not_random_joins_any_seed_and_l2_has_its_own_noise(tmp_path: Path) -> None:
    run = PredictedRobustness(
        dataset="digits", n=3, tile=4, defense="none", norm="l2", eps=1.5, seed=5, bisections=1,
        attack_options={"steps": 1}, perturbations=1,
    )  # fmt: skip
    own = run.run(out=tmp_path / "p").to_json()
    joined = predict_from([tmp_path]).to_json()
    assert plain(joined) == plain(own)
    assert joined["notes"] == own["notes"] == []
    (row,) = joined["rows"]
    assert row["cr"] == pytest.approx(1.0)
    assert row["predicted_anchor"] == row["predicted_clean"]
    assert None not in (row["pgd_fix"], row["accuracy"])
    point = joined["settings"]["points"][0]
    with RecordStore.read(point["cr"]) as store:
        # Uniform noise of 64 pixels with a root mean square norm of 1.5.
        assert store.settings["eps"] == [pytest.approx(1.5 * (3 / 64) ** 0.5)]


EXPERIMENT = """
title: A law
about: One denoising step.
keys: {purifier: [onestep-ddpm], t: [5, 60]}
columns:
  cr: {block: predict, at: "rows[purifier={purifier},t={t}].cr"}
  predicted: {block: predict, at: "rows[purifier={purifier},t={t}].predicted_anchor", unit: percent}
  pgd_fix: {block: predict, at: "rows[purifier={purifier},t={t}].pgd_fix", unit: percent}
checks:
  - {check: rank-correlation, columns: [cr, pgd_fix], at_most: -0.9}
  - {check: less, column: pgd_fix, than: predicted}
figure: {draw: of-run, block: predict}
base:
  {dataset: digits, n: 4, tile: 4, defense: [onestep-ddpm], t: [5, 60], bisections: 2, top: 0.6,
   attack_options: {steps: 2, step_size: 0.1}, perturbations: 2}
blocks: {predict: {}}
sizes: {small: {label: scaled down, about: Four images.}}
"""


@pytest.mark.slow
def test_an_experiment_predicts_and_draws(
    whole: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = tmp_path / "law.yaml"
    file.write_text(EXPERIMENT)
    monkeypatch.setattr(experiment_module, "_listed", lambda: [("003:law", file)])
    experiment_module._read.cache_clear()
    place = tmp_path / "law.svg"
    arguments = ["reproduce", "003:law", "--jobs", "1", "--out", str(whole), "--json"]
    try:
        assert cli([*arguments, "--plot", str(place)]) == 0
    finally:
        experiment_module._read.cache_clear()
    found = json.loads(capsys.readouterr().out)
    own = QUICK.run(out=whole / "prediction").to_json()["rows"]
    for row, expected in zip(found["rows"], own, strict=True):
        assert (row["purifier"], row["t"]) == ("onestep-ddpm", expected["t"])
        assert row["cr"] == expected["cr"]
        assert row["predicted_interval"] == expected["predicted_anchor_interval"]
        assert (row["pgd_fix"], row["pgd_fix_n"]) == (expected["pgd_fix"], 4)
    assert [check["verdict"] for check in found["checks"]] == ["undecided"] * 2
    assert "onestep-ddpm, predicted (anchor)" in place.read_text()


def refused(words: str, folders: list[Path], eps: float | None = None) -> None:
    with pytest.raises(BadInput, match=words):
        predict_from(folders, eps=eps)


def test_runs_that_do_not_fit_are_refused_or_told(whole: Path, tmp_path: Path) -> None:
    folders = [each.parent for each in whole.glob("*-*/records.sqlite")]
    folders = [each for each in folders if each.name.startswith(("cr-", "attack-", "survival-"))]
    kinds: dict[str, list[Path]] = {"cr": [], "attack": [], "clean": [], "anchor": []}
    for each in folders:
        with RecordStore.read(each) as store:
            kinds[store.settings.get("at", store.settings["verb"])].append(each)
    clean = kinds["clean"]
    refused("no survival of the classifier", kinds["cr"] + kinds["attack"])
    refused("without an attack do not say which radius", clean + kinds["cr"])
    refused("hold no compression rate", clean + kinds["attack"])
    found = predict_from(clean + kinds["cr"], eps=0.1).to_json()
    assert [row["pgd_fix"] for row in found["rows"]] == [None, None]
    other = tmp_path / "clean"
    Survival(**IMAGES, **{**SEARCH, "bisections": 1}).run(out=other)
    refused("is a second survival run", [*folders, other])
    attack = tmp_path / "attack"
    one: dict[str, Any] = {**IMAGES, "defense": "onestep-ddpm", "t": 5, "randomness": "fixed"}
    Robustness(**one, eps=0.1, attack_options={"steps": 1}).run(out=attack)
    refused("attacks of radius 0.1, 0.15 do not say", [*folders, attack])
    found = predict_from([*folders, attack], eps=0.15).to_json()
    assert any("1 runs of another radius" in note for note in found["notes"])
    twice = tmp_path / "twice"
    Robustness(**one, attack_options={"steps": 1}).run(out=twice)
    refused("is a second attack run of onestep-ddpm, t = 5, beside", [*folders, twice])
    refused("is no run folder", [tmp_path / "nothing"])

    def stop(done: int) -> None:
        raise RuntimeError("stop")

    begun: list[Path] = []
    for t in (5, 60, 7):  # runs that have only begun
        begun.append(tmp_path / f"begun-{t}")
        study = Compression(**IMAGES, defense="onestep-ddpm", t=t, eps=0.15)
        with pytest.raises(RuntimeError, match="stop"):
            study.run(out=begun[-1], progress=stop)
    left = predict_from([*clean, *kinds["attack"], *kinds["cr"], begun[2]]).to_json()
    assert [row["t"] for row in left["rows"]] == [5, 60]
    assert "onestep-ddpm, t = 7 has no compression rate yet and is left out" in left["notes"]
    refused("hold no compression rate", [*clean, *kinds["attack"], *begun])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-d", "ddpm", "--t", "10,10"], "time steps 10,10 repeat a value"),
        (["-d", "ddpm", "--t", "10", "--sigma", "0.2"], "are two strengths"),
        (["-d", "ddmp"], "did you mean ddpm"),
        (["--eps", "8"], "is ambiguous"),
        (["--t", "ten"], "'ten'"),
        (["absent"], "is no run folder"),
        (["absent", "--dry-run"], "computes nothing anyway"),
        (["absent", "--step-size", "0.1"], "attack options {'step_size': 0.1} says nothing"),
        (["absent", "--out", "x"], "out x says nothing about runs"),
        (["absent", "--norm", "l3"], "norm 'l3' is not known"),
        (["--plot", "law.txt"], "is no picture"),
        (["--norm", "l2"], "has no default radius"),
        (["--bisections", "31", "-d", "none"], "bisections 31"),
    ],
)
def test_the_command_line_refuses_in_one_line(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli(["predict", *arguments]) == 2
    told = capsys.readouterr().err
    assert words in told
    assert told.count("\n") == 1


def test_the_plan_names_every_pair_and_shares_the_attack() -> None:
    run = PredictedRobustness(dataset="digits", defense=["none", "onestep-edm"], sigma=[0.1, 0.2])
    assert [each[::2] for each in run.grid()] == [
        ("none", 0.1), ("none", 0.2), ("onestep-edm", 0.1), ("onestep-edm", 0.2)
    ]  # fmt: skip
    prepared = QUICK.load()
    point = prepared.plan.points[0]
    search, attack = point.anchor.study, point.attack.study
    assert isinstance(search, Survival)
    assert isinstance(attack, Robustness)
    assert search.attack_options["steps"] == attack.attack_options["steps"]
    # The same share of the radius a step: 0.6 is four times 0.15.
    assert search.attack_options["step_size"] == pytest.approx(
        4 * attack.attack_options["step_size"]
    )
    assert prepared.settings["compression"]["eps"] == prepared.settings["threat_model"]["eps"]


@pytest.mark.slow
def test_the_command_line_measures_what_is_missing(
    whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [
        "predict", "--defense", "onestep-ddpm", "--t", "5,60", "--dataset", "digits", "-n", "4",
        "--tile", "4", "--steps", "2", "--step-size", "0.1", "--bisections", "2", "--top", "0.6",
        "--perturbations", "2", "--out", str(whole / "prediction"),
    ]  # fmt: skip
    assert cli([*asked, "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["evaluations"] > 0
    assert cli([*asked, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert ALREADY_COMPLETE in found["notes"]
    assert len(found["rows"]) == 2
    assert cli(["plot", str(whole / "prediction"), "--endings", "svg"]) == 0
    assert "4 images of digits" in (whole / "prediction" / "figure.svg").read_text()
