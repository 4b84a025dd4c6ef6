"""Classifiers for randomized smoothing: the loss against numpy and scipy, closed forms, recipes."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import softmax
from scipy.stats import entropy as scipy_entropy
from torch import Tensor, nn

from advpure.base.errors import BadInput
from advpure.networks.weights import load_network
from advpure.training import load_recipe, train
from advpure.training.classifier_smoothed import SmoothedClassifierTask, consistency_losses
from advpure.training.randomness import step_generator
from advpure.training.tasks import Batch


def drawn_logits(draws: int, rows: int = 5, classes: int = 4) -> Tensor:
    return 3 * torch.randn(draws, rows, classes, generator=step_generator(7), dtype=torch.float64)


@pytest.mark.parametrize(("draws", "weight", "eta"), [(2, 20.0, 0.5), (3, 10.0, 0.0), (1, 0, 0.5)])
def test_the_loss_is_what_scipy_computes(draws: int, weight: float, eta: float) -> None:
    logits, labels = drawn_logits(draws), torch.tensor([0, 1, 2, 3, 0])
    p = softmax(logits.numpy(), axis=2)
    mean = p.mean(0)
    expected = [
        np.mean([-math.log(p[k, row, label]) for k in range(draws)])
        + weight * np.mean([scipy_entropy(mean[row], p[k, row]) for k in range(draws)])
        + eta * scipy_entropy(mean[row])
        for row, label in enumerate(labels.tolist())
    ]
    found = consistency_losses(logits, labels, consistency=weight, entropy=eta)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-10)


def test_two_opposite_answers_have_a_known_loss() -> None:
    # p1 = (a, 1 - a), p2 = (1 - a, a): the mean is uniform, so KL(p || p_i) is
    # -log 2 - (log a + log(1 - a)) / 2 and H is log 2; both are over the same pair of terms.
    a = 0.9
    log = torch.tensor([[[a, 1 - a]], [[1 - a, a]]], dtype=torch.float64).log()
    cross = -(math.log(a) + math.log(1 - a)) / 2
    found = consistency_losses(log, torch.tensor([0]), consistency=20.0, entropy=0.5)
    assert float(found) == pytest.approx(cross + 20 * (cross - math.log(2)) + 0.5 * math.log(2))


def test_equal_answers_cost_no_consistency_and_certain_ones_stay_finite() -> None:
    same = drawn_logits(1).expand(2, -1, -1)
    labels = torch.tensor([0, 1, 2, 3, 0])
    plain = consistency_losses(same, labels)
    torch.testing.assert_close(consistency_losses(same, labels, consistency=20.0), plain)
    sure = torch.tensor([[[200.0, -200.0]], [[-200.0, 200.0]]], requires_grad=True)
    lost = consistency_losses(sure, torch.tensor([0]), consistency=20.0, entropy=0.5)
    lost.sum().backward()  # type: ignore[no-untyped-call]
    assert bool(torch.isfinite(lost).all())
    assert sure.grad is not None
    assert bool(torch.isfinite(sure.grad).all())


def test_gradients_are_those_of_finite_differences() -> None:
    logits = drawn_logits(2).requires_grad_(True)
    labels = torch.tensor([3, 1, 2, 0, 0])

    def loss(values: Tensor) -> Tensor:
        return consistency_losses(
            values, labels, consistency=20.0, entropy=0.5, label_smoothing=0.1
        )

    assert torch.autograd.gradcheck(loss, (logits,))


class Spy(nn.Module):
    """Notes what it is asked; its answer is the mean pixel, as logits of ten classes."""

    def __init__(self) -> None:
        """Have one parameter, for its device."""
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1))
        self.seen: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [B, 10]."""
        self.seen.append(images.detach())
        return self.gain * images.flatten(1)[:, :10]


def test_an_image_gets_several_noises_of_one_level_unclipped() -> None:
    settings = {"noises": 2, "consistency": 20.0, "sigmas": [0.25, 1.0]}
    task = SmoothedClassifierTask("digits", settings)
    network, rows = Spy(), 2000
    batch = Batch(torch.full((rows, 1, 8, 8), 0.5), torch.zeros(rows, dtype=torch.int64))
    assert task.losses(network, batch, step_generator(5)).shape == (rows,)
    (noisy,) = network.seen
    added = (noisy - 0.5).reshape(2, rows, -1)
    spread = added.std(dim=2)
    low = spread < 0.5  # 64 normals: their deviation is within 0.4 of its level, 4.5 errors
    assert torch.equal(low[0], low[1])
    for chosen, level in ((low[0], 0.25), (~low[0], 1.0)):
        values = added[:, chosen]
        # The variance of n normals has the relative error sqrt(2 / n): 4.5 of them is alpha 7e-6.
        error = 4.5 * math.sqrt(2 / values.numel())
        assert float(values.square().mean()) == pytest.approx(level**2, rel=error)
        one, two = values[0].flatten(), values[1].flatten()
        correlation = float(torch.corrcoef(torch.stack([one, two]))[0, 1])
        assert abs(correlation) < 4.5 / math.sqrt(len(one))
    # Half of 2,000 with a standard error of 22.
    assert abs(int(low[0].sum()) - 1000) < 4.5 * math.sqrt(500)
    assert float(noisy.max()) > 1
    assert float(noisy.min()) < 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"noises": 0}, "noises 0 is not a whole number from 1 to 4096"),
        ({"consistency": -1.0, "noises": 2}, "consistency -1 is not 0 or more"),
        ({"consistency": 5.0}, "of one noise is always 0"),
        ({"sigmas": []}, "names no level"),
        ({"lambda": 1}, "'lambda' is unknown"),
    ],
)
def test_settings_without_a_meaning_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        SmoothedClassifierTask("digits", {"sigmas": [0.25], **change})


def test_the_published_weights_are_in_the_recipes() -> None:
    for name, weight in (("025", 20.0), ("050", 10.0), ("100", 10.0)):
        for data in ("digits", "cifar10") if name == "025" else ("cifar10",):
            plain = load_recipe(f"{data}-gaussian-{name}")
            regular = load_recipe(f"{data}-consistency-{name}")
            assert plain.task == regular.task == "classifier-smoothed"
            assert plain.loss == {"sigmas": [int(name) / 100]}
            extra = {"noises": 2, "consistency": weight, "entropy": 0.5}
            assert regular.loss == {**plain.loss, **extra}
            assert dataclasses.replace(
                plain, name="same", about="same", loss={}
            ) == dataclasses.replace(regular, name="same", about="same", loss={})


@pytest.mark.slow
def test_a_card_has_the_accuracy_under_its_noise(tmp_path: Path) -> None:
    recipe = dataclasses.replace(load_recipe("digits-consistency-025"), steps=2, batch=8)
    result = train(recipe, out=tmp_path, progress=False)
    metadata = load_network(result.weights).metadata
    assert metadata["noise_sigmas"] == [0.25]
    assert [rate["what"] for rate in metadata["quality"]] == [
        "test accuracy", "accuracy under noise 0.25",
    ]  # fmt: skip
    assert "- trained_sigma: {0.25}" in (tmp_path / "digits-consistency-025.md").read_text()
