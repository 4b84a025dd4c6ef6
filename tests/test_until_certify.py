"""Certification that stops with the image that answers its question."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from advpure.analysis.certification import collecting
from advpure.analysis.certification.evaluation import CertifiedAccuracy
from advpure.analysis.certification.study import Certification
from advpure.analysis.until import keyed_order
from advpure.base.errors import BadInput
from advpure.cli import run as command
from advpure.report.verify import Verification
from advpure.runs.records import ALREADY_COMPLETE, RecordStore
from advpure.statistics.sequences import METHOD, anytime_rate
from advpure.sweeps.comparisons import subtract

MODEL = """
import torch

WEIGHT = torch.randn(1, 4, 4, generator=torch.Generator().manual_seed(5))


def classifier(images: torch.Tensor) -> torch.Tensor:
    score = ((images - 0.5) * WEIGHT).sum(dim=(1, 2, 3))
    return torch.stack([score, -score], dim=1)
"""
COUNT, RADIUS = 40, 0.2
SETTINGS: dict[str, Any] = {
    "dataset": "images.npz",
    "classifier": "tiny.py:classifier",
    "defense": "none",
    "sigmas": 0.25,
    "samples": 100,
    "selection": 10,
    "until": f"width 60 at {RADIUS}",
}


@pytest.fixture(autouse=True)
def _model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write a linear model and images at known distances from its border."""
    monkeypatch.chdir(tmp_path)
    Path("tiny.py").write_text(MODEL)
    weight = torch.randn(1, 4, 4, generator=torch.Generator().manual_seed(5))
    apart = torch.linspace(0.0, 0.6, COUNT)[:, None, None, None] * weight / weight.norm()
    np.savez("images.npz", images=(0.5 + apart).clamp(0, 1).numpy(), labels=np.zeros(COUNT, int))


def test_a_run_stops_with_the_image_that_answers(tmp_path: Path) -> None:
    whole = Certification(**{**SETTINGS, "until": None, "radii": RADIUS}).run(out=tmp_path / "a")
    values = whole.tree()["best"][0].images()
    report = Certification(**SETTINGS, radii=f"0,{RADIUS}").run(out=tmp_path / "b")
    standing = report.standing
    assert standing is not None
    order = keyed_order(range(COUNT))
    assert list(standing.used) == order[: len(standing.used)]
    rates = [anytime_rate([values[i] for i in order[:k]], 0.6) for k in range(1, COUNT)]
    widths = [rate.high - rate.low for rate in rates]
    assert len(standing.used) == 1 + next(k for k, width in enumerate(widths) if width <= 0.6)
    rate = rates[len(standing.used) - 1]
    robust = report.tree()["best"][1]
    assert (robust.value, robust.n) == (rate.value, rate.n)
    assert robust.interval == pytest.approx((rate.low, rate.high), abs=2e-3)  # a coarser grid
    assert robust.anytime
    assert robust.images() == {i: values[i] for i in sorted(standing.used)}
    assert report.tree()["until"]["method"] == METHOD
    assert report.tree()["curves"][0]["average_certified_radius"].interval is None
    said = report.display().headline
    assert f"width 60 at radius {RADIUS}: answered after {len(standing.used)} of 40 images" in said
    assert not any("images are done" in note for note in report.notes)
    difference = subtract(robust, whole.tree()["best"][0], 0.95)
    assert difference.n == len(standing.used)


def test_groups_and_interruptions_do_not_show(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once = Certification(**SETTINGS).run(out=tmp_path / "a")
    monkeypatch.setattr(collecting, "samples_at_once", lambda loaded: 300)

    def stop(done: int) -> None:
        if done >= 440:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Certification(**SETTINGS).run(out=tmp_path / "b", progress=stop)
    in_groups = Certification(**SETTINGS).run(out=tmp_path / "b")
    assert at_once.standing is not None
    assert in_groups.standing is not None
    assert in_groups.standing.computed < at_once.standing.computed == COUNT
    assert dataclasses.replace(in_groups.standing, computed=COUNT) == at_once.standing
    for name in ("certified_accuracy", "rows", "curves"):
        assert in_groups.to_json()[name] == at_once.to_json()[name]
    again = Certification(**SETTINGS).run(out=tmp_path / "b")
    assert ALREADY_COMPLETE in again.notes
    used = in_groups.standing.used[-1]
    assert Verification(run=str(tmp_path / "b"), sample=used, trust=True).verify().passed


def test_what_ends_without_an_answer_says_so(tmp_path: Path) -> None:
    report = Certification(**{**SETTINGS, "until": "width 1 at 0", "n": 5}).run(out=tmp_path / "a")
    assert report.standing is not None
    assert report.standing.verdict == "undecided"
    assert "the 5 images ended without an answer" in report.display().headline


@pytest.mark.slow
def test_its_figure_and_its_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = (
        "certify --dataset images.npz --classifier tiny.py:classifier -d none --sigma 0.25 "
        f"-N 100 --selection 10 --until {{}} --out {tmp_path}/a --plot {tmp_path}/a.png"
    )
    words = [f"width 60 at {RADIUS}" if each == "{}" else each for each in line.split()]
    command(words)
    assert "at any time valid 95 % intervals" in " ".join(capsys.readouterr().out.split())
    assert (tmp_path / "a.png").stat().st_size > 1000
    with RecordStore.read(tmp_path / "a") as store:
        assert store.settings["until"] == {"width": 0.6, "radius": RADIUS}
    with pytest.raises(BadInput, match="stopped with its answer"):
        CertifiedAccuracy(sources=(str(tmp_path / "a"),)).evaluate()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"until": "width 5"}, 'names no radius; write "width 5 at 0.25"'),
        ({"until": "width 5 at -1"}, "radius -1"),
        ({"until": "width 0 at 1"}, "width 0"),
        ({"until": "better than runs/a"}, "is not asked of certificates"),
        ({"sigmas": "0.25,0.5"}, "is of one curve, and there are 2 noise levels"),
        ({"procedure": "predict", "selection": 100}, "predict certifies none of"),
        ({"shard": "1/2"}, "does not split a run that stops"),
    ],
)
def test_what_no_image_answers_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        Certification(**{**SETTINGS, **changes})


def test_a_cascade_is_one_curve(tmp_path: Path) -> None:
    settings = {**SETTINGS, "sigmas": "0.12,0.25", "procedure": "cascade"}
    report = Certification(**settings).run(out=tmp_path / "a")
    assert report.standing is not None
    assert report.standing.verdict == "answered"
    assert len(report.curves) == 1
