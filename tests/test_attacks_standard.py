"""The standard attack and its members, on models whose best attack is known."""

import copy
import math
from typing import Any, Self

import pytest
import torch
from torch import Tensor

from advpure.attacks import (
    AttackResult,
    apgd,
    apgd_targeted,
    low_frequency,
    pgd,
    rays,
    square,
    standard,
)
from advpure.attacks.low_frequency import low_pass
from advpure.attacks.oracle import Oracle
from advpure.attacks.square import SquareSettings, pyramids
from advpure.attacks.standard import StandardSettings
from advpure.base.errors import BadInput
from advpure.base.units import Norm
from advpure.core.randomness import RandomnessConfig
from advpure.statistics.rates import randomized_summary

SHAPE = (1, 4, 4)
_GENERATOR = torch.Generator().manual_seed(5)
WEIGHT = torch.randn(SHAPE, generator=_GENERATOR, dtype=torch.float64)
OFFSET = float(WEIGHT.sum()) / 2


def _linear(images: Tensor) -> Tensor:
    score = (images * WEIGHT).sum(dim=(1, 2, 3)) - OFFSET
    return torch.stack([score, torch.zeros_like(score)], dim=1)


def _images(count: int = 8) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return 0.4 + 0.2 * torch.rand(count, *SHAPE, generator=generator, dtype=torch.float64)


def _radii(images: Tensor, norm: Norm = "linf") -> Tensor:
    """Return the exact distance of each image to the border of the linear model."""
    dual = WEIGHT.abs().sum() if norm == "linf" else WEIGHT.square().sum().sqrt()
    return _linear(images)[:, 0].abs() / dual


def _labels(images: Tensor) -> Tensor:
    return _linear(images).argmax(dim=1)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("attack", [standard, apgd_targeted])
def test_exactly_the_images_within_the_radius_are_fooled(attack: Any, norm: Norm) -> None:
    images = _images(24)
    exact = _radii(images, norm)
    eps = float(exact.median()) * 1.001
    result = attack(_linear, images, _labels(images), eps=eps, norm=norm)
    assert torch.equal(result.success, exact < eps)
    assert 0 < int(result.success.sum()) < 24


def test_square_reaches_the_corner_of_the_ball() -> None:
    images = _images()
    eps = 0.5 * float(_radii(images).min())
    result = square(_linear, images, _labels(images), eps=eps, queries=600)
    sign = torch.where(_labels(images) == 0, -1.0, 1.0)[:, None, None, None]
    assert torch.allclose(result.images, images + eps * sign * WEIGHT.sign(), atol=1e-12)
    assert result.backwards.tolist() == [0] * len(images)
    assert result.forwards.tolist() == [602] * len(images)


def test_square_comes_near_the_l2_optimum_and_stays_in_the_ball() -> None:
    images = _images()
    eps = 0.5 * float(_radii(images, "l2").min())
    labels = _labels(images)
    result = square(_linear, images, labels, eps=eps, norm="l2", queries=400)
    gain = result.loss + _linear(images)[:, 0].abs()
    best = eps * float(WEIGHT.square().sum().sqrt())
    # A random direction gains a quarter of the best, one in 16 dimensions.
    assert float(gain.min()) > 0.55 * best
    assert float(result.l2.max()) <= eps * (1 + 1e-9)


def test_pyramids_have_unit_size() -> None:
    for side in (1, 2, 3, 5, 8):
        assert pyramids(side).norm().item() == pytest.approx(1)


@pytest.mark.parametrize("attack", [square, standard, rays])
@pytest.mark.filterwarnings("ignore:the gradient is zero")
def test_a_hidden_gradient_blinds_gradients_alone(attack: Any) -> None:
    def blind(images: Tensor) -> Tensor:
        return _linear(images.detach())

    images = _images(12)
    exact, labels = _radii(images), _labels(images)
    eps = float(exact.median()) * 1.02
    for climber in (pgd, apgd):
        assert not bool(climber(blind, images, labels, eps=eps, random_start=False).success.any())
    result = attack(blind, images, labels, eps=eps)
    assert int((result.success == (exact < eps)).sum()) >= 11
    assert not bool((result.success & (exact >= eps)).any())
    assert int(result.backwards.max()) <= 1


def test_decisions_alone_are_enough_for_rays() -> None:
    def labels_only(images: Tensor) -> Tensor:
        return torch.nn.functional.one_hot(_labels(images), 2).double() * 3 - 1

    images = _images(12)
    exact, labels = _radii(images), _labels(images)
    eps = float(exact.median()) * 1.02
    result = rays(labels_only, images, labels, eps=eps)
    assert torch.equal(result.success, exact < eps)
    assert float(result.linf.max()) <= eps + 1e-12
    far = rays(labels_only, images, labels, eps=eps, norm="l2")
    assert not bool((far.success & (_radii(images, "l2") >= eps)).any())
    assert float(far.l2.max()) <= eps + 1e-12


@pytest.mark.parametrize("kept", [0.25, 0.5, 1.0])
def test_low_frequencies_are_a_projection_and_its_optimum_is_reached(kept: float) -> None:
    passed = low_pass(WEIGHT[None], kept)
    assert torch.allclose(low_pass(passed, kept), passed, atol=1e-12)
    assert (kept == 1.0) == torch.allclose(passed, WEIGHT[None], atol=1e-12)
    images, eps = _images(), 0.05
    result = low_frequency(
        _linear, images, _labels(images), eps=eps, norm="l2", kept=kept, loss="margin", stop="never"
    )
    moved = result.images - images
    assert torch.allclose(low_pass(moved, kept), moved, atol=1e-12)
    best = -_linear(images)[:, 0].abs() + eps * passed.norm()
    assert torch.allclose(result.loss, best, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.filterwarnings("ignore:the gradient is zero")
def test_a_target_is_found_that_the_nearest_class_hides(dtype: torch.dtype) -> None:
    # In float32 the cross-entropy has no gradient at all, which is no blindness.
    def decoy(images: Tensor) -> Tensor:
        left, right = images[..., :2].mean(dim=(1, 2, 3)), images[..., 2:].mean(dim=(1, 2, 3))
        near = -0.2 + 0.05 * torch.tanh(100 * (left - 0.5))
        other = -1.0 + 15 * (right - 0.5)
        # So steep that the cross-entropy rounds away every class but the nearest.
        return 2e3 * torch.stack([torch.zeros_like(left), near, other], dim=1)

    images = torch.full((2, *SHAPE), 0.5, dtype=dtype)
    labels = torch.zeros(2, dtype=torch.int64)
    for loss in ("ce", "margin"):
        assert not bool(apgd(decoy, images, labels, eps=0.1, loss=loss).success.any())
    assert bool(apgd_targeted(decoy, images, labels, eps=0.1).success.all())
    result = standard(decoy, images, labels, eps=0.1)
    assert result.members == ("apgd-targeted",) * 2


@pytest.mark.parametrize("attack", [pgd, apgd])
def test_a_restart_begins_elsewhere_with_what_is_left(attack: Any) -> None:
    def pits(images: Tensor) -> Tensor:
        # Climbing leads to the peak of the side of the start, and only one side's is high enough.
        x = images.mean(dim=(1, 2, 3)) - 0.5
        score = torch.where(x > 0, 50 * x, -20 * x) - 0.8
        return torch.stack([torch.zeros_like(score), score], dim=1)

    images, labels = torch.full((40, 1, 1, 1), 0.5), torch.zeros(40, dtype=torch.int64)
    settings: dict[str, Any] = {"eps": 0.02, "ids": range(40), "steps": 20}
    left = [
        int((~attack(pits, images, labels, restarts=r, **settings).success).sum()) for r in (1, 4)
    ]
    # Half of the starts fail, so 4 of 40 are expected to fail four times: 2.5 with sd 1.5.
    assert 8 <= left[0] <= 32
    assert left[1] <= 9
    once = attack(pits, images, labels, **settings)
    more = attack(pits, images, labels, restarts=4, **settings)
    assert torch.equal(more.images[once.success], once.images[once.success])
    assert bool((more.success >= once.success).all())
    with pytest.raises(BadInput, match="all alike without a random start"):
        attack(pits, images, labels, eps=0.02, restarts=2, random_start=False)


@pytest.mark.parametrize("randomness", ["fixed", "fresh"])
@pytest.mark.parametrize("budget", [95, 150, 500, 2000])
def test_the_budget_is_kept(randomness: Any, budget: int) -> None:
    images = _images(2)
    eps = 0.1 * float(_radii(images).min())
    settings = StandardSettings(eps=eps, budget=budget, randomness=randomness)
    result = standard(_linear, images, _labels(images), settings)
    most = settings.most_passes
    assert int(result.forwards.max()) <= most.forwards == budget
    assert int(result.backwards.max()) <= most.backwards
    assert int(result.forwards.min()) > 0.6 * budget


def test_a_budget_for_nothing_is_refused() -> None:
    with pytest.raises(BadInput, match="pays for no step under fresh randomness"):
        StandardSettings(eps=0.1, budget=50, randomness="fresh")
    assert StandardSettings(eps=0.1, budget=60).plan.first == 20


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": "ce"}, "members have losses of their own"),
        ({"targeted": True}, "is not what the standard attack does"),
        ({"norm": "l1"}, "norm l1 is not covered"),
    ],
)
def test_what_the_ensemble_cannot_do_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        StandardSettings(**{"eps": 0.1, **settings})


class Phase:
    """Right with probability p at any image, whatever it is: the sine of noise against it."""

    tile = None

    def __init__(self, p: float, xi: RandomnessConfig) -> None:
        """Bind the randomness."""
        self.level, self.xi, self.ids = math.cos(math.pi * p), xi, None
        self.paths: set[Any] = set()

    def at(self, *, ids: Any = None, xi: RandomnessConfig | None = None) -> Self:
        """Return a view."""
        view = copy.copy(self)
        view.xi, view.ids = xi or self.xi, self.ids if ids is None else ids
        self.paths.add(view.xi.path)
        return view

    def __call__(self, images: Tensor) -> Tensor:
        """Return logits [B, 2]."""
        assert self.ids is not None
        noise = self.xi.normal(self.ids, "forward", 0, tuple(images.shape[1:])).to(images)
        score = torch.sin(1e3 * (noise * images).sum(dim=(1, 2, 3))) - self.level
        return torch.stack([score, torch.zeros_like(score)], dim=1)


def test_the_draws_that_choose_are_biased_and_those_that_decide_are_not() -> None:
    p, count, draws = 0.7, 40, 20
    model, images = Phase(p, RandomnessConfig(0)), _images(count)
    labels, ids = torch.zeros(count, dtype=torch.int64), torch.arange(count)
    settings = StandardSettings(eps=0.05, randomness="fresh", budget=3000, eot=2)
    result: AttackResult = standard(model, images, labels, settings, ids=ids)
    assert all(path[:1] == ("attack",) for path in model.paths - {()})

    chosen = Oracle(model, settings).select(result.images, labels, ids, draws).failed
    views = [model.at(ids=ids, xi=model.xi.fold("decision", k)) for k in range(draws)]
    predictions = torch.stack([view(result.images).argmax(dim=1) for view in views], dim=1)
    rate = randomized_summary(predictions.numpy(), labels.numpy()).mean
    deviation = math.sqrt(p * (1 - p) / (count * draws))
    # Two-sided alpha 1e-5 is 4.42 deviations.
    assert float(chosen.sum()) / (count * draws) < p - 4.42 * deviation
    assert abs(rate.value - p) < 4.42 * deviation
    assert rate.low < p < rate.high


def test_a_defense_without_noise_is_attacked_as_a_fixed_one() -> None:
    class Quiet:
        is_random = False

        def __call__(self, images: Tensor) -> Tensor:
            return _linear(images)

    images = _images()
    labels, eps = _labels(images), float(_radii(images).median())
    fixed = standard(_linear, images, labels, eps=eps)
    fresh = standard(Quiet(), images, labels, eps=eps, randomness="fresh")
    assert torch.equal(fresh.images, fixed.images)


def test_square_pays_for_the_current_point_under_fresh_randomness() -> None:
    chosen = SquareSettings(eps=0.1, randomness="fresh", queries=100, proposals=4, eot=2)
    assert chosen.steps == 10
