"""The selector of a composition: targets by hand, a known optimum, recipe, card and refusals."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from advpure.base.errors import BadInput
from advpure.loading import load_selector
from advpure.models import model_path
from advpure.networks.weights import load_network
from advpure.training import load_recipe, train
from advpure.training import selector as module
from advpure.training.randomness import step_generator
from advpure.training.selector import SelectorTask, selection_targets
from advpure.training.tasks import Batch

SETTINGS: dict[str, Any] = {"certified": "digits-consistency-025", "sigmas": [0.25]}


@pytest.mark.parametrize(
    ("share", "expected"), [(0.25, [1, 1, 1, 0]), (0.5, [1, 1, 0, 0]), (0.9, [1, 0, 0, 0])]
)
def test_targets_count_right_answers(share: float, expected: list[int]) -> None:
    answers = torch.tensor([[5, 5, 5, 0], [5, 5, 0, 1], [5, 5, 1, 2], [5, 0, 2, 3]])
    assert selection_targets(answers, torch.full((4,), 5), share).tolist() == expected


@pytest.mark.parametrize(("right", "of", "share"), [(9, 10, 0.9), (11, 20, 0.55), (1, 1, 1.0)])
def test_a_share_is_reached_whatever_its_binary_digits(right: int, of: int, share: float) -> None:
    answers = torch.tensor([[1]] * right + [[0]] * (of - right))
    assert selection_targets(answers, torch.tensor([1]), share).tolist() == [1]
    answers[0] = 0  # one fewer
    assert selection_targets(answers, torch.tensor([1]), share).tolist() == [0]


class Constant(nn.Module):
    """Answers the same for every image."""

    def __init__(self, logits: list[float]) -> None:
        """Take the logits."""
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))

    def forward(self, images: Tensor) -> Tensor:
        """Return them."""
        return self.logits.expand(len(images), -1)


def task_with(monkeypatch: pytest.MonkeyPatch, **settings: Any) -> SelectorTask:
    """Return a task whose certified classifier always answers 0."""
    always = Constant([1.0] + [0.0] * 9)
    monkeypatch.setattr(module, "fixed_classifier", lambda name, dataset: always)
    return SelectorTask("digits", {**SETTINGS, **settings})


def test_the_loss_is_weighted_cross_entropy(monkeypatch: pytest.MonkeyPatch) -> None:
    task = task_with(monkeypatch, core_weight=3.0, draws=2)
    batch = Batch(torch.zeros(3, 1, 8, 8), torch.tensor([0, 4, 0]))
    losses = task.losses(Constant([0.0, 1.0]), batch, step_generator(1))
    right = torch.tensor(1.0).exp().div(1 + torch.tensor(1.0).exp())
    expected = torch.stack([-right.log(), -3 * (1 - right).log(), -right.log()])
    torch.testing.assert_close(losses, expected)
    # Where a share w of the weight is on 0, the best constant answer has odds (1 - w) / w.
    best = Constant([float(torch.tensor(3.0 * 1 / 2).log()), 0.0])
    losses = task.losses(best, batch, step_generator(1)).sum()
    (gradient,) = torch.autograd.grad(losses, best.logits)
    torch.testing.assert_close(gradient, torch.zeros(2), atol=1e-5, rtol=0)


def test_the_metric_weighs_both_choices_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    task = task_with(monkeypatch)
    for logits in ([0.0, 1.0], [1.0, 0.0]):
        assert task.metric(Constant(logits)) == 0.5  # one choice always right, the other never


def test_the_selector_and_its_targets_see_different_noise() -> None:
    task = SelectorTask("digits", {**SETTINGS, "draws": 1})
    seen: list[Tensor] = []
    task.certified.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    batch = Batch(torch.full((400, 1, 8, 8), 0.5), torch.zeros(400, dtype=torch.int64))
    noisy, _ = task.examples(batch, step_generator(3))
    one, two = (noisy - 0.5).flatten().double(), (seen[0] - 0.5).flatten().double()
    assert float(one.std()) == pytest.approx(0.25, rel=0.02)
    # Of 25,600 pairs; 4.5 standard deviations.
    assert abs(float(torch.corrcoef(torch.stack([one, two]))[0, 1])) < 4.5 / 160


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"certified": ""}, "certified is not given"),
        ({"certified": "digits-edm"}, "is no classifier"),
        ({"certified": "digits-selector-025"}, "is no classifier"),
        ({"draws": 0}, "draws 0 is not a whole number from 1 to 4096"),
        ({"share": 0.0}, "share 0 is not above 0 and 1 or less"),
        ({"share": 1.1}, "share 1.1 is not above 0 and 1 or less"),
        ({"core_weight": 0}, "core_weight 0 is not 1e-06 or more"),
        ({"sigmas": []}, "names no level"),
        ({"guide": "digits-classifier"}, "loss setting 'guide' is unknown"),
    ],
)
def test_settings_without_a_meaning_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        SelectorTask("digits", {**SETTINGS, **settings})


def test_a_training_makes_a_selector_that_can_be_loaded(tmp_path: Path) -> None:
    recipe = dataclasses.replace(
        load_recipe("digits-selector-025"), steps=2, batch=8, validate_every=2
    )
    weights = train(recipe, out=tmp_path, progress=False).weights
    network, metadata = load_network(weights)
    assert metadata["task"] == "selector"
    assert metadata["certified"] == "digits-consistency-025"
    assert metadata["noise_sigmas"] == [0.25]
    assert network(torch.zeros(1, 1, 8, 8)).shape == (1, 2)
    first, *answers = metadata["quality"]
    assert first["n"] == 450
    assert sum(rate["n"] for rate in answers) == 450
    assert load_selector("digits", weights)[1]["name"] == "digits-selector-025"


def test_the_shipped_selector_knows_where_the_certified_classifier_fails() -> None:
    quality = load_network(model_path("digits-selector-025")).metadata["quality"]
    chosen, there, elsewhere = quality
    assert chosen["correct"] == there["n"] == 450 - elsewhere["n"]
    right, wrong = ([r["correct"], r["n"] - r["correct"]] for r in (there, elsewhere))
    assert stats.fisher_exact([right, wrong], alternative="greater").pvalue < 0.05
    with pytest.raises(BadInput, match="does not fit cifar10 images"):
        load_selector("cifar10", "digits-selector-025")
