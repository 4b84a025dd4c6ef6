"""A recorded gradient study: resumable, the same in every batch, reported from records alone."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from advpure.analysis.gradient_noise import draws as gradient_draws
from advpure.analysis.gradient_noise import run as gradients_run
from advpure.analysis.gradient_noise.figure import gradients_figure
from advpure.analysis.gradient_noise.noise import gradient_noise
from advpure.analysis.gradient_noise.run import (
    TABLES,
    GradientStudy,
    _points,
    measure_gradients,
    prepare_gradients,
    report_gradients,
)
from advpure.analysis.runs import RUNS
from advpure.attacks import pgd
from advpure.attacks.oracle import check_batch
from advpure.base.errors import BadInput
from advpure.cli import run
from advpure.data import load_images
from advpure.loading import load_defense
from advpure.runs.records import RecordStore

QUICK: dict[str, Any] = {
    "defense": "onestep-edm", "dataset": "digits", "n": 3, "draws": 4, "reference": 4, "tile": 32,
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def small_chunks() -> Iterator[None]:
    """Store after every two draws, so that blocks span chunks and runs stop in many places."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gradient_draws, "_CHUNK", 2)
        yield


def _contents(folder: Path) -> tuple[list[Any], dict[str, list[float]]]:
    with RecordStore.read(folder) as store:
        rows = [store.rows(table.table) for table in TABLES]
        return rows, {name: store.get_blob(name).flatten().tolist() for name in store.blobs()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    measure_gradients(GradientStudy(**QUICK), out=folder)
    return folder


def test_the_run_gives_the_result_of_the_function(whole: Path) -> None:
    images, labels, ids = load_images("digits", n=3)
    defense = load_defense("onestep-edm", "digits", tile=32)
    direct = gradient_noise(defense, images, labels, ids=ids, draws=4, reference=4)
    with RecordStore.read(whole) as store:
        report = report_gradients(store)
        assert store.count("gradient_draws") == 3 * 8
        assert store.count("gradient_blocks") == 3 * (4 + 2 + 1)
    assert report.result == direct
    assert len(report.result.images) == report.to_json()["n"] == 3


@pytest.mark.parametrize("batch", [2])
def test_batches_change_no_record(whole: Path, tmp_path: Path, batch: int) -> None:
    measure_gradients(GradientStudy(**QUICK), out=tmp_path, batch_size=batch)
    assert _contents(tmp_path) == _contents(whole)


@pytest.mark.parametrize("stop", [1, 5, 7])
def test_an_interrupted_run_goes_on_to_the_same_records(
    whole: Path, tmp_path: Path, stop: int
) -> None:
    seen: list[int] = []

    def interrupt(done: int) -> None:
        seen.append(done)
        if len(seen) > stop:
            raise KeyboardInterrupt

    study = GradientStudy(**QUICK)
    with pytest.raises(KeyboardInterrupt):
        measure_gradients(study, out=tmp_path, batch_size=2, progress=interrupt)
    with RecordStore.read(tmp_path) as store:
        assert store.count("gradient_draws") == seen[-1] < 3 * 8
    report = measure_gradients(study, out=tmp_path)
    assert _contents(tmp_path) == _contents(whole)
    assert "already complete" not in " ".join(report.notes)
    again = measure_gradients(study, out=tmp_path)
    assert "already complete" in again.notes[-1]
    assert again.result == report.result


def test_an_unfinished_run_says_so(tmp_path: Path) -> None:
    def stop(done: int) -> None:
        if done >= 2 * 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure_gradients(GradientStudy(**QUICK), out=tmp_path, batch_size=2, progress=stop)
    with RecordStore.read(tmp_path) as store:
        report = report_gradients(store)
    assert len(report.result.images) == 2
    assert "2 of 3 images are done; the same command goes on" in report.notes


def test_nothing_measured_yet_is_refused(tmp_path: Path) -> None:
    def stop(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure_gradients(GradientStudy(**QUICK), out=tmp_path, progress=stop)
    with RecordStore.read(tmp_path) as store, pytest.raises(BadInput, match="has no images"):
        report_gradients(store)


def test_the_start_is_the_first_iterate_of_an_attack() -> None:
    prepared = prepare_gradients(GradientStudy(**QUICK, point="start", eps=0.1))
    batch = check_batch(prepared.defense, *prepared.images[:2], prepared.images.ids)
    points = _points(prepared.defense, batch, prepared.start).images
    # A step of no length leaves an attack at its start.
    held = pgd(prepared.defense, *prepared.images[:2], ids=prepared.images.ids, eps=0.1, steps=1,
               step_size=1e-12, stop="never")  # fmt: skip
    torch.testing.assert_close(points, held.images, atol=1e-9, rtol=0)
    assert prepared.settings["threat_model"] == {"norm": "linf", "eps": 0.1}


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1}, {"scheme": "counter"}, {"loss": "margin"}, {"draws": 8}, {"reference": 8},
        {"point": "start"}, {"gradient": "bpda"}, {"sigma": 0.1}, {"n": 4}, {"policy": "eot:2"},
        {"point": "start", "eps": 0.1}, {"point": "start", "norm": "l2", "eps": 0.5},
    ],
    ids=str,
)  # fmt: skip
def test_whatever_changes_a_gradient_changes_the_run(change: dict[str, Any]) -> None:
    base, other = (
        prepare_gradients(GradientStudy(**{**QUICK, **more})).settings for more in ({}, change)
    )
    assert base != other


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"draws": 5}, "draws 5 is no power of two"),
        ({"reference": 1}, "reference 1 is not a whole number from 2"),
        ({"point": "middle"}, "point 'middle' is not known; known: clean, start"),
        ({"eps": 0.1}, "means nothing to gradients at clean images"),
        ({"norm": "l2"}, "means nothing to gradients at clean images"),
        ({"point": "start", "norm": "l2"}, "norm l2 has no default radius on digits"),
        ({"point": "start", "norm": "l1"}, "norm 'l1' is not known"),
        ({"point": "start", "eps": 8}, "ambiguous"),
        ({"loss": "mse"}, "loss 'mse' is not known"),
        ({"gradient": "exact"}, "gradient 'exact' is not known"),
        ({"seed": -1}, "seed -1 is not a whole number from 0"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    with pytest.raises(BadInput, match=words):
        measure_gradients(GradientStudy(**{**QUICK, **change}), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_defense_without_randomness_is_told(tmp_path: Path) -> None:
    study = GradientStudy(defense="none", dataset="digits", n=3, draws=2, reference=2)
    report = measure_gradients(study, out=tmp_path)
    assert "the gradient of 3 of 3 images does not depend on the randomness" in report.notes[0]
    found = report.to_json()
    assert (found["snr"], found["snr_median"], found["constant"]) == (None, None, 3)
    assert [row["measured"] for row in found["enough"]] == [1, 1]


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


def test_a_vanishing_gradient_is_told_and_not_averaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = GradientStudy(**QUICK)
    prepared = prepare_gradients(study)
    prepared.defense.classifier = Blind(prepared.defense.classifier)
    monkeypatch.setattr(gradients_run, "prepare_gradients", lambda study: prepared)
    report = measure_gradients(study, out=tmp_path)
    assert "the gradient of 3 of 3 images was exactly zero in all 8 draws" in report.notes[0]
    assert "no robustness" in report.notes[0]
    found = report.to_json()
    assert (found["zero_gradient"], found["snr"], found["unresolved"]) == (3, None, 0)
    assert found["rows"] == []
    assert found["enough"][0]["median"] is None
    with RecordStore.read(tmp_path) as store:
        assert gradients_figure(store, tmp_path / "x.png").is_file()


def test_the_verb_is_registered(whole: Path) -> None:
    verb = RUNS.get("gradients")
    study = verb.settings(**QUICK)
    assert verb.total is not None
    assert verb.total(study) == 3 * 8
    assert verb.prepare is not None
    assert verb.estimate is not None
    assert verb.report is not None
    cost = verb.estimate(verb.prepare(study))
    assert (cost.images, cost.backwards, cost.evaluations) == (3, 3 * 8, 3 * 8 * 2)
    with RecordStore.read(whole) as store:
        rows = verb.report(store).to_json()["rows"]
    assert [row["draws"] for row in rows] == [1, 2, 4]
    json.dumps(rows, allow_nan=False)


def test_the_picture_is_drawn_from_records(whole: Path, tmp_path: Path) -> None:
    with RecordStore.read(whole) as store:
        for ending in ("png", "svg"):
            path = gradients_figure(store, tmp_path / f"x.{ending}")
            assert path.stat().st_size > 5000
        before = path.read_bytes()
        assert gradients_figure(store, path).read_bytes() == before
        with pytest.raises(BadInput, match="is no picture"):
            gradients_figure(store, tmp_path / "x.doc")
    text = before.decode()
    assert "<text" in text or "<path" in text


def _cli(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    capsys.readouterr()
    code = run(["gradients", "-d", "onestep-edm", "--dataset", "digits", "-n", "3", *arguments])
    return code, *capsys.readouterr()


SMALL = ("--draws", "2", "--reference", "8", "--tile", "32")


@pytest.mark.slow
def test_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = _cli(capsys, *SMALL, "--plot", "g.png", "--loss", "margin")
    assert code == 0, err
    told = "digits, defense onestep-edm, gradients of loss margin at clean images, 3 images x 10"
    assert out.startswith(told)
    assert "enough for a mean cosine of 0.9: " in out
    assert "enough for a mean sign agreement of 0.85: " in out
    assert (tmp_path / "g.png").is_file()
    code, out, err = _cli(capsys, *SMALL, "--json", "--loss", "margin", "--target", "0.5")
    assert (code, out.count("\n")) == (0, 1)
    found = json.loads(out)
    assert found["enough"][0]["target"] == 0.5
    assert "already complete" in found["notes"][-1]
    code, out, err = _cli(capsys, *SMALL, "--dry-run")
    assert (code, err) == (0, "")
    assert out.startswith("at most 60 network evaluations including the classifier and 30 back")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--draws 3", ["draws 3", "is no power of two from 2 on", "use 64"]),
        ("--target 1", ["target 1", "is not above 0 and below 1", "use 0.9"]),
        ("--agreement 0.5", ["sign agreement 0.5", "is reached by chance", "use 0.85"]),
        ("--point here", ["point 'here'", "is not known", "known: clean, start"]),
        ("--plot x.doc", ["x.doc", "is no picture", ".png"]),
        ("--batch-size 0", ["batch size 0", "holds no image", "use 1 or more"]),
        ("--eps 0.1", ["eps 0.1", "means nothing", "use point start"]),
    ],
)
def test_bad_input_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    line: str, words: list[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    code, out, err = _cli(capsys, *line.split())
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert [word for word in words if word not in err] == []
