"""A recorded gradient study: resumable, the same in every batch, reported from records alone."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from advpure.analysis.gradient_noise import draws as gradient_draws
from advpure.analysis.gradient_noise.figure import draw_gradients
from advpure.analysis.gradient_noise.noise import gradient_noise
from advpure.analysis.gradient_noise.study import GradientNoise, starting_points
from advpure.analysis.study import cost_of
from advpure.attacks import pgd
from advpure.attacks.oracle import check_batch
from advpure.base.errors import BadInput
from advpure.data import load_images
from advpure.loading import load_defense
from advpure.runs.records import RecordStore
from advpure.statistics.estimates import find

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
        rows = [store.rows(table.table) for table in GradientNoise.tables]
        return rows, {name: store.get_blob(name).flatten().tolist() for name in store.blobs()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    GradientNoise(**QUICK).run(out=folder)
    return folder


def test_the_run_gives_the_result_of_the_function(whole: Path) -> None:
    images, labels, ids = load_images("digits", n=3)
    defense = load_defense("onestep-edm", "digits", tile=32)
    direct = gradient_noise(defense, images, labels, ids=ids, draws=4, reference=4)
    with RecordStore.read(whole) as store:
        report = GradientNoise.report(store)
        assert store.count("gradient_draws") == 3 * 8
        assert store.count("gradient_blocks") == 3 * (4 + 2 + 1)
    assert report.result == direct
    assert len(report.result.images) == report.to_json()["n"] == 3


def test_a_run_that_stopped_within_a_block_goes_on_to_the_same_records(
    whole: Path, tmp_path: Path
) -> None:
    seen: list[int] = []

    def interrupt(done: int) -> None:
        seen.append(done)
        if len(seen) > 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        GradientNoise(**QUICK).run(out=tmp_path, batch_size=2, progress=interrupt)
    with RecordStore.read(tmp_path) as store:
        assert store.count("gradient_draws") == seen[-1] < 2 * 8
    GradientNoise(**QUICK).run(out=tmp_path)
    assert _contents(tmp_path) == _contents(whole)


def test_an_unfinished_run_says_so(tmp_path: Path) -> None:
    def stop(done: int) -> None:
        if done >= 2 * 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        GradientNoise(**QUICK).run(out=tmp_path, batch_size=2, progress=stop)
    with RecordStore.read(tmp_path) as store:
        report = GradientNoise.report(store)
    assert len(report.result.images) == 2
    assert "2 of 3 images are done; the same command goes on" in report.notes


def test_nothing_measured_yet_is_refused(tmp_path: Path) -> None:
    def stop(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        GradientNoise(**QUICK).run(out=tmp_path, progress=stop)
    with RecordStore.read(tmp_path) as store, pytest.raises(BadInput, match="has no images"):
        GradientNoise.report(store)


def test_the_start_is_the_first_iterate_of_an_attack() -> None:
    study = GradientNoise(**QUICK, point="start", eps=0.1)
    loaded = study.load()
    images, labels, ids = loaded.images
    batch = check_batch(loaded.defense, images, labels, ids)
    points = starting_points(loaded.defense, batch, study.start()).images
    # The shortest step there is leaves an attack at its start, but for its length.
    still = {"eps": 0.1, "steps": 1, "step_size": 2e-7, "stop": "never"}
    held = pgd(loaded.defense, images, labels, ids=ids, **still)
    torch.testing.assert_close(points, held.images, atol=3e-7, rtol=0)
    assert loaded.settings["threat_model"] == {"norm": "linf", "eps": 0.1}


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
        ({"target": 1.0}, "target 1 is not above 0 and below 1"),
        ({"agreement": 0.5}, "agreement 0.5 is not above 0.5 and below 1"),
    ],
)
def test_what_cannot_be_measured_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        GradientNoise(**{**QUICK, **change})


def test_a_defense_without_randomness_is_told(tmp_path: Path) -> None:
    study = GradientNoise(defense="none", dataset="digits", n=3, draws=2, reference=2)
    report = study.run(out=tmp_path)
    assert "the gradient of 3 of 3 images does not depend on the randomness" in report.notes[0]
    tree = report.tree()
    assert (tree["snr"], tree["snr_median"], tree["constant"]) == (None, None, 3)
    assert [answer["measured"] for answer in tree["enough"]] == [1, 1]


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


def test_a_vanishing_gradient_is_told_and_not_averaged(tmp_path: Path) -> None:
    study = GradientNoise(**QUICK)
    loaded = study.load()
    loaded.defense.classifier = Blind(loaded.defense.classifier)
    report = study.run(out=tmp_path / "run", loaded=loaded)
    assert "the gradient of 3 of 3 images was exactly zero in all 8 draws" in report.notes[0]
    assert "no robustness" in report.notes[0]
    tree = report.tree()
    assert (tree["zero_gradient"], tree["snr"], tree["unresolved"]) == (3, None, 0)
    assert tree["rows"] == []
    assert tree["enough"][0]["median"] is None
    assert draw_gradients(report, tmp_path / "x.png").is_file()


def test_the_cost_counts_every_gradient() -> None:
    cost = cost_of(GradientNoise(**QUICK))
    assert (cost.images, cost.backwards, cost.evaluations) == (3, 3 * 8, 3 * 8 * 2)


def test_estimates_have_their_images_and_targets_are_of_the_command(
    whole: Path, tmp_path: Path
) -> None:
    report = GradientNoise(**QUICK, target=0.5).run(out=whole)
    tree = report.tree()
    assert [row["draws"] for row in tree["rows"]] == [1, 2, 4]
    for path in ("snr", "rows[draws=2].single"):
        estimate = find(tree, path)
        assert set(estimate.images()) == {0, 1, 2}
        assert estimate.value == pytest.approx(np.mean(list(estimate.images().values())))
    assert [answer["target"] for answer in tree["enough"]] == [0.5, 0.85]
    assert "enough for a mean cosine of 0.5: " in report.display().parts[1]
    assert draw_gradients(report, tmp_path / "x.svg").stat().st_size > 5000


def test_a_batch_holds_an_image(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="batch size 0 holds no image"):
        GradientNoise(**QUICK).run(out=tmp_path, batch_size=0)
