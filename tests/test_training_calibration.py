"""Diffusion calibration (re-derived): its loss against scipy, its gradient, its recipes."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import softmax
from scipy.stats import entropy as scipy_entropy
from torch import Tensor, nn

from advpure.base.errors import BadInput
from advpure.core.denoisers import EDMDenoiser
from advpure.core.randomness import RandomnessConfig
from advpure.loading import load_defense
from advpure.models import model_path
from advpure.networks.weights import LoadedNetwork, load_network, state_sha256
from advpure.purifiers.oneshot import Calibrated
from advpure.training import load_recipe
from advpure.training.calibration import CalibrationTask, calibration_losses
from advpure.training.randomness import step_generator
from advpure.training.tasks import Batch

LABELS = torch.tensor([0, 1, 2, 3, 0])


def drawn_logits(draws: int = 3) -> Tensor:
    return 3 * torch.randn(draws, 5, 4, generator=step_generator(9), dtype=torch.float64)


@pytest.mark.parametrize("weight", [0.0, 0.1, 2.0])
def test_the_loss_is_what_scipy_computes(weight: float) -> None:
    logits = drawn_logits()
    p = softmax(logits.numpy(), axis=2)
    mean, target = p.mean(0), np.eye(4)[LABELS.numpy()]
    brier = ((p - target) ** 2).sum(2).mean(0)
    spread = scipy_entropy(mean, axis=1) - scipy_entropy(p, axis=2).mean(0)
    lost = mean.argmax(1) != LABELS.numpy()
    assert 0 < lost.sum() < 5
    found = calibration_losses(logits, LABELS, diversity=weight)
    np.testing.assert_allclose(found.numpy(), brier - weight * lost * spread, rtol=1e-10)


def test_extremes_have_known_losses() -> None:
    def certain(*classes: int) -> Tensor:
        return 60 * torch.eye(4, dtype=torch.float64)[list(classes)][:, None]

    label = torch.tensor([3])
    for answers, expected in (
        ((3, 3), 0.0),  # right and sure
        ((0, 0), 2.0),  # wrong and agreed
        ((0, 1), 2.0 - 0.5 * math.log(2)),  # wrong and apart
        ((0, 1, 2), 2.0 - 0.5 * math.log(3)),
        ((3, 3, 0), 2 / 3),  # the vote is right: nothing pushes its answers apart
    ):
        found = calibration_losses(certain(*answers), label, diversity=0.5)
        assert float(found) == pytest.approx(expected, abs=1e-12)
    even = torch.zeros(2, 1, 4)
    assert float(calibration_losses(even, label, diversity=0.5)) == pytest.approx(0.75)


def test_gradients_are_those_of_finite_differences() -> None:
    logits = drawn_logits().requires_grad_(True)
    assert torch.autograd.gradcheck(
        lambda values: calibration_losses(values, LABELS, diversity=0.5), (logits,)
    )


def task_of(**change: Any) -> CalibrationTask:
    settings = {"guide": "digits-classifier", "sigmas": [0.25], **change}
    return CalibrationTask("digits", settings, load_network(model_path("digits-edm")))


def test_estimates_are_those_of_the_purifier_and_the_guide_stays() -> None:
    task = task_of(draws=2, diversity=0.0)
    network = load_network(model_path("digits-edm")).network.requires_grad_(True)
    images = torch.rand(6, 1, 8, 8, generator=step_generator(1))
    data = Batch(images, torch.arange(6))
    before = state_sha256(task.guide)
    task.losses(network, data, step_generator(3)).sum().backward()  # type: ignore[no-untyped-call]
    assert all(parameter.grad is None for parameter in task.guide.parameters())
    assert any(bool(p.grad.abs().sum() > 0) for p in network.parameters() if p.grad is not None)
    assert state_sha256(task.guide) == before
    generator = step_generator(3)
    torch.randint(0, 1, (6,), generator=generator)
    noise = torch.randn((2, *images.shape), generator=generator)
    denoiser = EDMDenoiser(network, **task.range)
    chain = Calibrated(sigma=0.25).chain(denoiser)
    with torch.no_grad():
        expected = [
            task.guide((chain[1].move(chain[0].move(2 * images - 1, z), None) + 1) / 2)
            for z in noise
        ]
        found = task.answers(network, images, step_generator(3), 2)
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-4, atol=1e-4)


class Fixed(nn.Module):
    """Not a network of ours."""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"guide": ""}, "guide is not given"),
        ({"guide": "digits-cm"}, "is no classifier"),
        ({"guide": "cifar10-classifier"}, "does not fit digits images"),
        ({"draws": 0}, "draws 0 is not a whole number from 1 to 4096"),
        ({"diversity": -1.0}, "diversity -1 is not 0 or more"),
        ({"draws": 1}, "diversity of one draw is always 0"),
        ({"sigmas": [0.0]}, "are not all positive"),
    ],
)
def test_settings_without_a_meaning_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        task_of(**change)


def test_only_a_denoiser_is_calibrated() -> None:
    other = LoadedNetwork(Fixed(), {"task": "consistency"})
    with pytest.raises(BadInput, match="not a denoiser of the edm task"):
        CalibrationTask("digits", {"guide": "digits-classifier"}, other)


@pytest.mark.parametrize("data", ["digits", "cifar10"])
def test_the_recipes_say_that_they_are_re_derived(data: str) -> None:
    recipe = load_recipe(f"{data}-calibrated")
    assert "re-derived" in recipe.about
    assert recipe.teacher == f"{data}-edm"
    assert recipe.loss["guide"] == f"{data}-classifier"
    assert recipe.loss["sigmas"] == [0.25, 0.5, 1.0]


@pytest.mark.parametrize("data", ["digits", "cifar10"])
def test_what_ships_is_labelled_and_is_the_purifier_s(data: str) -> None:
    name = f"{data}-calibrated"
    metadata = load_network(model_path(name)).metadata
    assert metadata["derivation"] == "re-derived"
    assert metadata["task"] == "edm"
    assert "- derivation: re-derived" in model_path(name).with_suffix(".md").read_text()
    defense = load_defense("calibrated", data, xi=RandomnessConfig(0))
    assert defense.purifier.settings["denoiser"]["name"] == name
    assert defense.purifier.settings["time_rule"] == "exact"
