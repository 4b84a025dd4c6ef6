"""What can be certified: every purifier and rule of the papers, and other recipes' classifiers."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from advpure.analysis.certification import Certification
from advpure.analysis.certification.base_classifier import chain_on_noisy
from advpure.analysis.certification.counting import COUNTS, from_text
from advpure.base.errors import BadInput
from advpure.core.chain import Noise
from advpure.core.denoisers import Denoiser, Prediction
from advpure.loading import load_purifier
from advpure.runs.records import RecordStore
from advpure.training import load_recipe, train


class Spy(Denoiser):
    """Notes the state and the level that it is told."""

    def __init__(self) -> None:
        """Note nothing yet."""
        super().__init__()
        self.told: list[float] = []
        self.seen: list[float] = []

    def predict(self, x: Tensor, sigma: float | Tensor) -> Prediction:
        """Return the state."""
        self.told.append(float(torch.as_tensor(sigma).flatten()[0]))
        self.seen.append(float(x.flatten()[0]))
        return Prediction(x)


# Levels at sigma 0.25, 0.5 and 1, in model units: fixtures, not computed here.
RULES = {
    ("linear", "dds"): (0.503162, 1.004784, 2.000481),
    ("linear", "nearest"): (0.499427, 0.999511, 2.000481),
    ("cosine", "dds"): (0.500237, 1.000624, 2.000028),
    ("cosine", "densepure"): (0.50072, 1.00062, 2.00198),
}


@pytest.mark.parametrize(("schedule", "rule"), RULES)
def test_onestep_ddpm_tells_the_level_of_its_rule(schedule: str, rule: str) -> None:
    """The noise is exactly sigma under every rule; only the time and a scale differ."""
    for sigma, level in zip((0.25, 0.5, 1.0), RULES[schedule, rule], strict=True):
        spy = Spy()
        purifier = load_purifier(
            "onestep-ddpm", "digits", sigma=sigma, denoiser=spy, tile=0,
            schedule=schedule, index_rule=rule,
        )  # fmt: skip
        chain = chain_on_noisy(purifier.chain, sigma)
        noisy = torch.full((1, 1, 1, 1), 1.7)
        chain.run(noisy, Noise(None, None))
        assert spy.told == [pytest.approx(level, abs=6e-6)]
        # dds scales back by its own index; the others by sigma's root and the index' scale.
        factor = 1.0 if rule == "dds" else ((1 + level**2) / (1 + 4 * sigma**2)) ** 0.5
        assert spy.seen == [pytest.approx(1.7 * factor, rel=1e-5)]


@pytest.mark.parametrize(
    ("name", "options", "levels"),
    [
        ("onestep-edm", {}, (0.58535, 1.08817, 1.92334)),
        ("onestep-edm", {"time_rule": "paper"}, (0.29644, 0.58535, 1.08817)),
        ("onestep-edm", {"time_rule": "exact"}, (0.5, 1.0, 2.0)),
        ("cm", {}, (0.58535, 1.08817, 1.92334)),
        ("cm-ft", {}, (0.58535, 1.08817, 1.92334)),
        ("calibrated", {}, (0.5, 1.0, 2.0)),
    ],
)
def test_one_shot_purifiers_tell_the_node_of_their_rule(
    name: str, options: dict[str, Any], levels: tuple[float, ...]
) -> None:
    for sigma, level in zip((0.25, 0.5, 1.0), levels, strict=True):
        spy = Spy()
        purifier = load_purifier(name, "digits", sigma=sigma, denoiser=spy, tile=0, **options)
        chain_on_noisy(purifier.chain, sigma).run(torch.full((1, 1, 1, 1), 0.4), Noise(None, None))
        assert spy.told == [pytest.approx(level, abs=6e-6)]
        assert spy.seen == [pytest.approx(0.4)]


TINY: dict[str, Any] = {
    "dataset": "digits", "n": 1, "sigmas": "0.25", "samples": 6, "selection": 2, "block": 3,
    "alpha": 0.2, "radii": "0", "tile": 8,
}  # fmt: skip
# Evaluations of one sample: denoiser and classifier.
COSTS = [
    ("onestep-ddpm", {"index_rule": "dds"}, 2),
    ("onestep-ddpm", {"index_rule": "densepure", "schedule": "cosine"}, 2),
    ("onestep-ddpm", {"index_rule": "nearest"}, 2),
    ("onestep-edm", {}, 2),
    ("calibrated", {}, 2),
    ("cm", {}, 2),
    ("cm", {"steps": 2}, 3),
    ("cm-ft", {}, 2),
    ("none", {}, 1),
    ("pf-ode", {"recipe": "truncated"}, 14),
    ("pf-ode", {}, 36),
    ("densepure", {"steps": 2}, 30),
    ("densepure", {}, 110),
]


@pytest.mark.parametrize(
    ("name", "options", "cost"),
    [pytest.param(*case, marks=pytest.mark.slow if case[2] > 10 else ()) for case in COSTS],
)
def test_every_purifier_is_certified_at_its_cost(
    tmp_path: Path, name: str, options: dict[str, Any], cost: int
) -> None:
    run = Certification(**TINY, defense=name, options=options)
    assert run.load().evaluations == {0.25: cost}
    report = run.run(out=tmp_path)
    (curve,) = report.curves
    assert curve.samples == 8
    with RecordStore.read(tmp_path) as store:
        assert sum(sum(from_text(row["counts"]).values()) for row in store.rows(COUNTS.table)) == 8


@pytest.mark.slow
def test_a_classifier_trained_on_denoised_images_is_certified(tmp_path: Path) -> None:
    recipe = dataclasses.replace(
        load_recipe("cifar10-classifier-denoised"), name="tuned", dataset="digits", steps=2,
        batch=8, teacher="digits-classifier", architecture="resnet", network={}, flip=False,
        loss={"denoiser": "digits-edm", "sigmas": [0.25]},
    )  # fmt: skip
    weights = str(train(recipe, out=tmp_path / "train", progress=False).weights)
    run = Certification(**TINY, defense="onestep-edm", classifier=weights)
    settings = run.load().settings
    assert settings["defense"]["classifier"]["name"] == "tuned"
    report = run.run(out=tmp_path / "run")
    assert report.curves[0].images.predictions.tolist() == [0]
    assert report.curves[0].images.labels.tolist() == [0]


@pytest.mark.parametrize("name", ["digits-gaussian-025", "digits-consistency-025"])
def test_baselines_without_diffusion_beat_the_plain_classifier(tmp_path: Path, name: str) -> None:
    """At sigma 0.25, radius 0.25: 30 images, the same noise, a difference of a third or more."""
    quick = {**TINY, "n": 30, "samples": 60, "block": 60, "selection": 20, "radii": "0,0.25"}
    quick |= {"defense": "none", "tile": None, "alpha": 0.01}
    plain, trained = (
        Certification(**quick, classifier=each).run(out=tmp_path / str(each))
        for each in (None, name)
    )
    rates = [report.to_json()["certified_accuracy"]["0.25"] for report in (plain, trained)]
    assert rates[1] >= rates[0] + 0.3
    assert rates[1] >= 0.5


def test_the_recipes_of_fine_tuning_cover_losses_and_noise() -> None:
    recipes = [load_recipe(f"cifar10-cm-ft{end}") for end in ("", "-l1", "-l2", "-continuous")]
    losses = [recipe.loss for recipe in recipes]
    found = {
        (loss["distance"], tuple(loss["sigmas"]), tuple(loss.get("sigma_range", ())))
        for loss in losses
    }
    three = (0.25, 0.5, 1.0)
    assert found == {
        ("lpips", three, ()), ("l1", three, ()), ("l2", three, ()), ("lpips", (), (0.0, 1.0)),
    }  # fmt: skip


def test_weights_of_another_kind_are_refused(tmp_path: Path) -> None:
    for change, message in (
        ({"defense": "none", "classifier": "digits-edm"}, "is no classifier"),
        ({"defense": "cm", "weights": "digits-gaussian-025"}, "is no denoiser"),
        ({"defense": "none", "weights": "digits-gaussian-025"}, "mean nothing to none"),
    ):
        with pytest.raises(BadInput, match=message):
            Certification(**TINY, **change).run(out=tmp_path)  # type: ignore[arg-type]
