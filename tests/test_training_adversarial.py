"""Adversarial training: attacks and robust error of linear classifiers in closed form, modes."""

import dataclasses
import math
from typing import Any

import pytest
import torch
from scipy.stats import norm as gaussian
from torch import Tensor, nn

from advpure.base.errors import BadInput
from advpure.data import RawSplit
from advpure.models import model_path
from advpure.networks.weights import load_network
from advpure.training.adversarial import AdversarialTask, InnerAttack
from advpure.training.randomness import normal, step_generator
from advpure.training.recipe import list_recipes, load_recipe
from advpure.training.tasks import Batch

WEIGHTS = torch.linspace(-0.4, 1.0, 16).reshape(1, 4, 4)


class Linear(nn.Module):
    """Logits (w (x - 1/2), 0): the class is 0 where the projection is positive."""

    def __init__(self) -> None:
        """Take the weights."""
        super().__init__()
        self.weights = nn.Parameter(WEIGHTS.clone())

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [B, 2]."""
        level = ((images - 0.5) * self.weights).sum((1, 2, 3))
        return torch.stack([level, torch.zeros_like(level)], 1)


def gaussian_batch(rows: int, shift: float = 0.1, spread: float = 0.05) -> Batch:
    """Images whose class 0 or 1 moves the mean by plus or minus `shift` w / |w|."""
    generator = step_generator(5)
    labels = torch.arange(rows) % 2
    side = (1.0 - 2.0 * labels)[:, None, None, None]
    mean = 0.5 + side * shift * WEIGHTS / WEIGHTS.norm()
    return Batch(mean + spread * normal((rows, 1, 4, 4), generator), labels)


def attack(**given: Any) -> InnerAttack:
    values = {"norm": "l2", "eps": 0.05, "attack_steps": 3, "step_size": 0.0, "start": 0.0}
    return InnerAttack.of({**values, "bounded": True, **given})


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("start", [0.0, 1.0])
def test_on_a_linear_classifier_the_attack_is_the_worst_case(norm: str, start: float) -> None:
    network, batch = Linear().eval(), gaussian_batch(64)
    attacked = attack(norm=norm, start=start, attack_steps=9, step_size=0.05)(
        network, batch, step_generator(1)
    )
    dual = float(WEIGHTS.abs().sum()) if norm == "linf" else float(WEIGHTS.norm())
    side = 1.0 - 2.0 * batch.labels
    before, after = (side * network(each)[:, 0] for each in (batch.images, attacked))
    assert torch.allclose(before - after, torch.full((64,), 0.05 * dual), atol=1e-3)
    assert network.weights.grad is None


def test_robust_error_on_gaussian_data_is_the_known_one() -> None:
    batch = gaussian_batch(4000)
    task = AdversarialTask("digits", {"norm": "l2", "eps": 0.05})
    rate = float(task.score(Linear().eval(), batch, step_generator(0)).mean())
    # Right after an attack of radius r: projection on w / |w| is N(shift, spread) and above r.
    expected = gaussian.cdf((0.1 - 0.05) / 0.05)
    assert abs(rate - expected) < 4.9 * math.sqrt(expected * (1 - expected) / 4000)  # alpha 1e-6


def test_first_iterates_lie_in_the_ball_that_is_asked_for() -> None:
    images = torch.full((200, 1, 4, 4), 0.5)
    draw = step_generator(3)
    for norm, order in (("linf", math.inf), ("l2", 2.0)):
        for reach in (1.0, 2.0):
            points = attack(norm=norm, start=reach)._start(images, draw)
            size = torch.linalg.vector_norm((points - images).flatten(1), order, dim=1)
            assert 0.9 * reach * 0.05 < float(size.max()) <= reach * 0.05 * (1 + 1e-5)
    # The noisy variant is not pulled back: its step of eps starts from there.
    noisy = attack(norm="linf", start=2.0, bounded=False, attack_steps=1, step_size=0.05)
    moved = noisy(Linear(), Batch(images, torch.zeros(200, dtype=torch.int64)), draw) - images
    assert 0.13 < float(moved.abs().max()) <= 0.15 * (1 + 1e-5)


class Watched(nn.Module):
    """A batch normalisation and a linear layer; notes mode and images of every call."""

    def __init__(self) -> None:
        """Create the layers."""
        super().__init__()
        self.norm = nn.BatchNorm2d(1)
        self.linear = nn.Linear(16, 2)
        self.modes: list[bool] = []

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [B, 2]."""
        self.modes.append(self.training)
        logits: Tensor = self.linear(self.norm(images).flatten(1))
        return logits


def test_statistics_rest_while_attacking_and_move_while_learning() -> None:
    network = Watched().train()
    task = AdversarialTask("digits", {"norm": "linf", "eps": 0.1, "attack_steps": 3})
    losses = task.losses(network, gaussian_batch(8), step_generator(1))
    assert network.modes == [False, False, False, True]
    assert network.training
    assert int(network.norm.num_batches_tracked) == 1
    assert losses.shape == (8,)
    assert network.linear.weight.grad is None
    losses.mean().backward()  # type: ignore[no-untyped-call]
    assert network.linear.weight.grad is not None


def test_what_validates_is_never_trained_on() -> None:
    pixels = torch.arange(10, dtype=torch.uint8)[:, None, None, None].expand(10, 1, 4, 4)
    data = RawSplit(pixels, torch.arange(10) % 2, 16)
    task = AdversarialTask("digits", {"held_back": 3})
    kept = task.divide(data)
    assert kept.pixels[:, 0, 0, 0].tolist() == list(range(7))
    assert (16 * task.held_out.images[:, 0, 0, 0]).tolist() == [7.0, 8.0, 9.0]
    assert task.held_out.labels.tolist() == [1, 0, 1]
    with pytest.raises(BadInput, match="held_back 10 of 10 images leaves nothing"):
        AdversarialTask("digits", {"held_back": 10}).divide(data)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"eps": 8}, "epsilon 8"),
        ({"norm": "l1"}, "norm 'l1' is not known"),
        ({"attack_steps": 0}, "attack_steps 0"),
        ({"trades": 6.0}, "loss setting 'trades' is unknown"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        AdversarialTask("digits", settings)


def test_it_starts_from_a_classifier_or_from_nothing() -> None:
    AdversarialTask("digits", {}, load_network(model_path("digits-classifier")))
    with pytest.raises(BadInput, match="teacher is no classifier"):
        AdversarialTask("digits", {}, load_network(model_path("digits-edm")))


def test_the_recipes_cover_both_norms_of_both_data_sets() -> None:
    names = {f"{data}-robust-{norm}" for data in ("digits", "cifar10") for norm in ("linf", "l2")}
    assert names <= set(list_recipes())
    for name in names:
        recipe = load_recipe(name)
        facts = AdversarialTask(recipe.dataset, recipe.loss).facts()
        assert facts["trained_norm"] == name.rpartition("-")[2]
        assert dataclasses.asdict(recipe)["task"] == "classifier-adversarial"
