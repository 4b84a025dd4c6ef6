"""Attacks on models whose best attack is known: linear ones, and ones without a gradient."""

import itertools
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from advpure.attacks import (
    AttackResult,
    ZeroGradientWarning,
    apgd,
    pgd,
    pgd_eot,
    settings_type,
    uniform_noise,
)
from advpure.attacks.balls import distances
from advpure.base.units import Norm
from advpure.core.steady import check_steady

NORMS: tuple[Norm, ...] = ("linf", "l2")
CLIMBERS = (pgd, apgd)
SHAPE = (1, 4, 4)


class Linear:
    """Logits (w x - b, 0, -9, ...) in float64; it remembers what it was asked."""

    def __init__(self, classes: int = 2) -> None:
        """Draw the weights."""
        generator = torch.Generator().manual_seed(5)
        self.weight = torch.randn(SHAPE, generator=generator, dtype=torch.float64)
        self.offset, self.classes = float(self.weight.sum()) / 2, classes
        self.seen: list[Tensor] = []

    def __call__(self, images: Tensor) -> Tensor:
        """Return the logits."""
        self.seen.append(images.detach().clone())
        score = (images * self.weight).sum(dim=(1, 2, 3)) - self.offset
        rest = [torch.zeros_like(score)] + [torch.zeros_like(score) - 9] * (self.classes - 2)
        return torch.stack([score, *rest], dim=1)

    def score(self, images: Tensor) -> Tensor:
        """Return w x - b."""
        return (images * self.weight).sum(dim=(1, 2, 3)) - self.offset

    def dual_norm(self, norm: Norm) -> float:
        """Return the largest change of the score by a perturbation of size one."""
        return float(
            self.weight.abs().sum() if norm == "linf" else self.weight.square().sum() ** 0.5
        )


def _images(count: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return 0.4 + 0.2 * torch.rand(count, *SHAPE, generator=generator, dtype=torch.float64)


def _labels(model: Linear, images: Tensor) -> Tensor:
    return (model.score(images) <= 0).long()


def _ask(model: Linear, images: Tensor) -> None:
    """Ask a model whether it repeats itself, which is asked once, and forget it."""
    check_steady(model, model, images)
    model.seen.clear()


def _size(result: AttackResult, norm: Norm) -> Tensor:
    return result.linf if norm == "linf" else result.l2


@pytest.mark.parametrize("attack", CLIMBERS)
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("loss", ["ce", "margin", "dlr"])
@pytest.mark.parametrize("targeted", [False, True])
def test_the_optimum_of_a_linear_model_is_reached(
    attack: Callable[..., AttackResult], norm: Norm, loss: str, targeted: bool
) -> None:
    model, eps = Linear(classes=4), 0.2
    images = _images()
    labels = _labels(model, images)
    goal = 1 - labels if targeted else labels
    result = attack(
        model, images, goal, eps=eps, norm=norm, loss=loss, targeted=targeted,
        random_start=False, stop="never",
    )  # fmt: skip
    sign = torch.where(labels == 0, -1.0, 1.0)
    worst = sign * model.score(images) + eps * model.dual_norm(norm)
    assert torch.allclose(sign * model.score(result.images), worst, atol=1e-5, rtol=0)
    assert torch.equal(result.success, worst > 0)
    assert _size(result, norm).tolist() == pytest.approx([eps] * len(images), abs=1e-6)
    assert bool(result.success.any())


@pytest.mark.parametrize("norm", NORMS)
def test_apgd_reaches_it_from_a_random_start_too(norm: Norm) -> None:
    model, images = Linear(), _images()
    labels = _labels(model, images)
    result = apgd(model, images, labels, eps=0.2, norm=norm, loss="margin", stop="never")
    worst = -model.score(images).abs() + 0.2 * model.dual_norm(norm)
    assert torch.allclose(result.loss, worst, atol=1e-5, rtol=0)


def test_the_default_step_is_a_thirtieth_and_forty_of_them_are_taken() -> None:
    model, images = Linear(), _images(1)
    labels = _labels(model, images)
    _ask(model, images)
    result = pgd(model, images, labels, eps=0.3, random_start=False, stop="never")
    moves = [float(distances(b, a)[0]) for a, b in itertools.pairwise(model.seen)]
    assert moves[:30] == pytest.approx([0.01] * 30)
    assert moves[30:] == pytest.approx([0.0] * 10, abs=1e-12)
    assert result.iterations.item() == 40
    assert (result.forwards.item(), result.backwards.item()) == (41, 40)


@pytest.mark.parametrize("attack", [*CLIMBERS, pgd_eot])
@pytest.mark.parametrize("norm", NORMS)
def test_every_iterate_stays_in_ball_and_box(
    attack: Callable[..., AttackResult], norm: Norm
) -> None:
    model = Linear()
    images = _images().float()
    images[0], images[1] = 0.0, 1.0
    eps = 0.25
    _ask(model, images)
    attack(
        model, images, _labels(model, images), eps=eps, norm=norm, stop="never", steps=12, seed=4
    )
    starts = model.seen[0]
    assert distances(starts, images)[0].min() > 0
    for points in model.seen:
        linf, l2 = distances(points, images)
        assert (linf if norm == "linf" else l2).max() <= eps + 1e-7
        assert points.min() >= 0
        assert points.max() <= 1


@pytest.mark.parametrize("attack", CLIMBERS)
def test_an_unbounded_attack_breaks_every_sample(attack: Callable[..., AttackResult]) -> None:
    model, images = Linear(), _images(20)
    result = attack(model, images, _labels(model, images), eps=1.0)
    assert bool(result.success.all())


def test_more_steps_never_lower_the_best_loss() -> None:
    def wavy(images: Tensor) -> Tensor:
        score = torch.sin(images * 25).sum(dim=(1, 2, 3))
        return torch.stack([score, torch.zeros_like(score)], dim=1)

    images = _images(16)
    labels = (wavy(images)[:, 0] <= 0).long()
    settings: dict[str, Any] = {"eps": 0.3, "loss": "margin", "stop": "never"}
    losses = [
        pgd(wavy, images, labels, iterate="best", step_size=0.1, steps=k, **settings).loss
        for k in (1, 2, 4, 8, 16)
    ]
    assert all(bool((more >= less).all()) for less, more in itertools.pairwise(losses))
    assert losses[-1].mean() > losses[0].mean()
    # Every coordinate has a peak within reach: the optimum is 16, which a step that shrinks finds.
    assert apgd(wavy, images, labels, **settings).loss.mean() > losses[-1].mean()


def test_the_last_iterate_may_be_worse_than_the_best() -> None:
    def bowl(images: Tensor) -> Tensor:
        score = -(images - 0.52).abs().sum(dim=(1, 2, 3))
        return torch.stack([score, torch.zeros_like(score)], dim=1)

    images, labels = torch.full((1, *SHAPE), 0.45), torch.tensor([1])
    settings: dict[str, Any] = {
        "eps": 0.3, "step_size": 0.3, "steps": 3, "loss": "margin",
        "random_start": False, "stop": "never",
    }  # fmt: skip
    last = pgd(bowl, images, labels, iterate="last", **settings)
    best = pgd(bowl, images, labels, iterate="best", **settings)
    assert best.loss.item() == pytest.approx(-16 * 0.07, abs=1e-5)
    assert last.loss.item() < best.loss.item() - 1
    assert torch.equal(best.images, images)


@pytest.mark.parametrize("attack", CLIMBERS)
@pytest.mark.parametrize("random_start", [False, True])
def test_a_sample_that_is_wrong_from_the_start_comes_back_unchanged(
    attack: Callable[..., AttackResult], random_start: bool
) -> None:
    model, images = Linear(), _images()
    labels = _labels(model, images)
    labels[2] = 1 - labels[2]
    result = attack(model, images, labels, eps=0.05, random_start=random_start)
    assert torch.equal(result.images[2], images[2])
    assert bool(result.success[2])
    assert result.iterations[2].item() == 0
    assert result.linf[2].item() == 0
    assert int(result.iterations.max()) > 0
    # Once it is decided only the test at the end looks at it again.
    assert result.forwards[2].item() == 2


@pytest.mark.parametrize("attack", CLIMBERS)
def test_decided_samples_leave_and_others_are_unaffected(
    attack: Callable[..., AttackResult],
) -> None:
    model, images = Linear(), _images(12)
    labels = _labels(model, images)
    _ask(model, images)
    together = attack(model, images, labels, eps=0.02, ids=range(12))
    assert len(set(together.iterations.tolist())) > 1
    sizes = [len(points) for points in model.seen[1:-1]]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < sizes[0]
    kept = ~together.success
    assert 0 < int(kept.sum()) < 12
    alone = attack(model, images[kept], labels[kept], eps=0.02, ids=torch.arange(12)[kept])
    assert torch.equal(alone.images, together.images[kept])
    assert torch.equal(alone.iterations, together.iterations[kept])


@pytest.mark.parametrize("attack", CLIMBERS)
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("how", ["rounded", "detached"])
def test_no_gradient_is_reported_and_changes_nothing(
    attack: Callable[..., AttackResult], norm: Norm, how: str
) -> None:
    inner, images = Linear(), _images()

    def blind(images: Tensor) -> Tensor:
        return inner(torch.round(images * 4) / 4) if how == "rounded" else inner(images).detach()

    labels = blind(images).argmax(dim=1)
    labels[0] = 1 - labels[0]
    with pytest.warns(ZeroGradientWarning, match="5 undecided samples"):
        result = attack(blind, images, labels, eps=0.2, norm=norm, random_start=False)
    assert result.zero_gradient.tolist() == [False, True, True, True, True, True]
    assert result.success.tolist() == [True, False, False, False, False, False]
    assert torch.equal(result.images, images)


def test_one_sample_without_a_gradient_is_flagged_without_a_warning() -> None:
    inner, images = Linear(), _images()

    def half_blind(images: Tensor) -> Tensor:
        logits = inner(images)
        return torch.cat([logits[:1].detach(), logits[1:]])

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = pgd(half_blind, images, _labels(inner, images), eps=0.01, stop="never")
    assert result.zero_gradient.tolist() == [True] + [False] * 5


def test_noise_is_weaker_than_a_gradient_and_more_draws_are_stronger() -> None:
    model, images = Linear(), _images(30)
    labels = _labels(model, images)
    noise = uniform_noise(model, images, labels, eps=0.04)
    search = uniform_noise(model, images, labels, eps=0.04, draws=20)
    best = pgd(model, images, labels, eps=0.04, random_start=False)
    counts = [int(result.success.sum()) for result in (noise, search, best)]
    assert counts[0] < counts[1] < counts[2]
    assert noise.forwards.tolist() == [1] * 30
    assert int(search.iterations.max()) == 20
    assert search.linf.max() <= 0.04 + 1e-7
    assert bool((search.success >= noise.success).all())


def test_parameters_and_their_gradients_are_left_alone() -> None:
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3))
    images, labels = _images(2).float(), torch.tensor([0, 1])
    with torch.no_grad():
        result = pgd(model, images, labels, eps=0.1, steps=2, stop="never")
    assert result.backwards.tolist() == [2, 2]
    assert bool((result.linf > 0).all())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not result.images.requires_grad


@pytest.mark.parametrize("attack", [pgd, apgd, uniform_noise])
def test_the_settings_are_part_of_the_result(attack: Callable[..., AttackResult]) -> None:
    model, images = Linear(), _images(1)
    kind = settings_type(attack)
    settings = kind(eps=0.01, seed=3)
    result = attack(model, images, torch.tensor([0]), settings, loss="margin")
    assert isinstance(result.settings, kind)
    assert (result.settings.seed, result.settings.loss) == (3, "margin")
