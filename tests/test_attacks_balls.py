"""Balls: the unit step, the projection and the uniform draw, against closed forms."""

import math

import pytest
import torch
from torch import Tensor

from advpure.attacks.balls import ascent, distances, draw_in_ball, place, project
from advpure.base.units import Norm
from advpure.core.randomness import RandomnessConfig

NORMS: tuple[Norm, ...] = ("linf", "l2")


def _noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e-42])
def test_the_unit_step_has_length_one_whatever_the_gradient(norm: Norm, scale: float) -> None:
    step = ascent(_noise(3, 2, 4, 4) * scale, norm)
    size = distances(step, torch.zeros_like(step))[0 if norm == "linf" else 1]
    # Subnormal gradients carry few bits, but the step is still a unit step.
    assert size.tolist() == pytest.approx([1.0] * 3, rel=1e-6)


@pytest.mark.parametrize("norm", NORMS)
def test_a_zero_gradient_gives_a_zero_step(norm: Norm) -> None:
    gradient = torch.zeros(2, 1, 2, 2)
    gradient[1, 0, 0, 1] = 1e-10
    step = ascent(gradient, norm)
    assert step[0].tolist() == torch.zeros(1, 2, 2).tolist()
    assert step[1, 0].tolist() == [[0.0, 1.0], [0.0, 0.0]]


@pytest.mark.parametrize("norm", NORMS)
def test_projection_is_idempotent_and_keeps_ball_and_box(norm: Norm) -> None:
    centres = torch.rand(5, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    once = project(centres + _noise(5, 3, 4, 4), centres, 0.3, norm)
    size = distances(once, centres)[0 if norm == "linf" else 1]
    assert size.max() <= 0.3 + 1e-7
    assert once.min() >= 0
    assert once.max() <= 1
    assert torch.allclose(project(once, centres, 0.3, norm), once, atol=1e-7, rtol=0)
    assert torch.equal(project(centres, centres, 0.3, norm), centres)


def test_l2_projection_is_radial_when_the_box_is_far() -> None:
    centres = torch.full((1, 1, 2, 2), 0.5)
    offset = torch.tensor([[[[0.3, 0.0], [0.4, 0.0]]]])
    pulled = project(centres + offset, centres, 0.25, "l2")
    assert torch.allclose(pulled - centres, offset / 2, atol=1e-7)
    near = centres + offset * 0.1
    assert torch.equal(project(near, centres, 0.25, "l2"), near)


@pytest.mark.parametrize("norm", NORMS)
def test_draws_are_uniform_in_the_ball(norm: Norm) -> None:
    count, eps = 4000, 0.2
    like = torch.zeros(count, 1, 2, 2)
    offset, radius = draw_in_ball(
        RandomnessConfig(3, "counter"), torch.arange(count), like, eps, norm
    )
    delta = place(like, offset, radius)
    linf, l2 = distances(delta, like)
    # With d = 4: the largest of 4 uniforms, or the l2 radius, has distribution function (r/eps)^4.
    levels = torch.sort((linf if norm == "linf" else l2) / eps).values ** 4
    gap = (levels - (torch.arange(count) + 0.5) / count).abs().max()
    # Dvoretzky-Kiefer-Wolfowitz at alpha = 1e-5: sqrt(ln(2 / alpha) / (2 n)).
    assert gap < math.sqrt(math.log(2e5) / (2 * count)) + 0.5 / count
    # Each coordinate has mean 0 with a variance below eps^2 / 3; 5 standard errors.
    assert delta.mean(dim=0).abs().max() < 5 * eps / math.sqrt(3 * count)
    assert levels.max() <= 1 + 1e-5


@pytest.mark.parametrize("norm", NORMS)
def test_a_draw_belongs_to_its_sample(norm: Norm) -> None:
    xi, like = RandomnessConfig(0, "counter"), torch.zeros(3, 1, 2, 2)
    one, one_radius = draw_in_ball(xi, torch.tensor([4, 9, 7]), like, 0.1, norm)
    two, two_radius = draw_in_ball(xi, torch.tensor([7, 4, 9]), like, 0.1, norm)
    assert torch.equal(one, two[[1, 2, 0]])
    if one_radius is not None and two_radius is not None:
        assert torch.equal(one_radius, two_radius[[1, 2, 0]])
    assert not torch.equal(one, draw_in_ball(xi, torch.tensor([4, 9, 7]), like, 0.1, norm, 1)[0])
