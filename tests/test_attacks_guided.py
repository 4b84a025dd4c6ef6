"""Guided ascent: closed forms on linear and quadratic values, the printed readings, the one PGD."""

import math

import pytest
import torch
from torch import Tensor, nn

from advpure import load_classifier, load_images
from advpure.attacks import pgd
from advpure.attacks.guided import Aim, GuidedSettings, guide
from advpure.attacks.losses import cross_entropy
from advpure.base.errors import BadInput

CENTRES = torch.full((2, 1, 4, 4), 0.5)
DIRECTION = torch.linspace(-1.0, 2.0, 16).reshape(1, 1, 4, 4)


def _linear(points: Tensor, rows: Tensor) -> Aim:
    """Rows climb one direction with slopes of 1 and 2."""
    return Aim((points * DIRECTION).sum((1, 2, 3)) * (1.0 + rows))


def _settings(**more: object) -> GuidedSettings:
    return GuidedSettings(**{"steps": 3, "step_size": 0.05, "eps": 1.0, **more})  # type: ignore[arg-type]


def test_a_linear_value_is_climbed_straight_and_as_far_as_the_ball_goes() -> None:
    unit = DIRECTION / DIRECTION.norm()
    walked = guide(_linear, CENTRES, _settings())
    assert torch.allclose(walked.images, CENTRES + 0.15 * unit, atol=1e-6)
    assert walked.steps.tolist() == [3, 3]
    assert not walked.stopped.any()
    bounded = guide(_linear, CENTRES, _settings(eps=0.1))
    assert torch.allclose(bounded.images, CENTRES + 0.1 * unit, atol=1e-6)
    signs = guide(_linear, CENTRES, _settings(norm="linf", eps=math.inf))
    assert torch.allclose(signs.images, CENTRES + 0.15 * DIRECTION.sign(), atol=1e-6)


def test_the_printed_readings_do_what_they_say() -> None:
    sound = guide(_linear, CENTRES, _settings(eps=0.1))
    # A raw gradient moves rows by what their slopes are: here 30 and 60 times a unit step.
    raw = guide(_linear, CENTRES, _settings(direction="raw", step_size=1e-3, steps=1))
    moved = (raw.images - CENTRES).flatten(1).norm(dim=1)
    assert torch.allclose(moved, 1e-3 * DIRECTION.norm() * torch.tensor([1.0, 2.0]), rtol=1e-4)
    # The loop from 0 to T asks for one gradient more and changes nothing.
    asked = []

    def counted(points: Tensor, rows: Tensor) -> Aim:
        asked.append(len(points))
        return _linear(points, rows)

    extra = guide(counted, CENTRES, _settings(eps=0.1, extra=True))
    assert len(asked) == 4
    assert torch.equal(extra.images, sound.images)
    # A ball around the first iterate lets an image move by a step more.
    first = guide(_linear, CENTRES, _settings(eps=0.1, steps=9, centre="first"))
    moved = (first.images - CENTRES).flatten(1).norm(dim=1)
    assert torch.allclose(moved, torch.tensor(0.1 + 0.05), atol=1e-6)


def test_a_row_stops_alone_where_it_is_done() -> None:
    def up_to(points: Tensor, rows: Tensor) -> Aim:
        mean = points.mean((1, 2, 3))
        return Aim(mean, mean >= torch.tensor([0.55, 2.0])[rows])

    settings = _settings(norm="linf", steps=5, step_size=0.02)
    walked = guide(up_to, CENTRES, settings)
    assert walked.steps.tolist() == [3, 5]
    assert walked.stopped.tolist() == [True, False]
    assert torch.allclose(walked.images.mean((1, 2, 3)), torch.tensor([0.56, 0.6]), atol=1e-6)


def test_it_is_the_pgd_of_the_project() -> None:
    classifier = load_classifier("digits")
    images, labels, _ = load_images("digits", n=9)

    def away(points: Tensor, rows: Tensor) -> Aim:
        return Aim(cross_entropy(classifier(points), labels[rows], False))

    for norm, eps in (("linf", 0.1), ("l2", 0.5)):
        settings = GuidedSettings(steps=4, step_size=eps / 3, eps=eps, norm=norm)  # type: ignore[arg-type]
        ours = guide(away, images, settings, tile=16).images
        theirs = pgd(
            classifier, images, labels, eps=eps, norm=norm, steps=4, step_size=eps / 3,
            random_start=False, stop="never",
        ).images  # fmt: skip
        assert torch.allclose(ours, theirs, atol=1e-5)


def test_rows_have_the_same_bits_in_any_batch() -> None:
    network = nn.Sequential(nn.Conv2d(1, 8, 3), nn.GELU(), nn.Flatten(), nn.Linear(288, 1))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for each in network.parameters():
            each.copy_(0.2 * torch.randn(each.shape, generator=generator))
    images = load_images("digits", n=10).images

    def value(points: Tensor, rows: Tensor) -> Aim:
        return Aim(network(points)[:, 0])

    settings = _settings(steps=4)
    whole = guide(value, images, settings, tile=4).images
    parts = [guide(value, images[k : k + 3], settings, tile=4).images for k in range(0, 10, 3)]
    assert torch.equal(whole, torch.cat(parts))
    assert all(each.grad is None for each in network.parameters())


def test_what_cannot_be_used_is_refused() -> None:
    with pytest.raises(BadInput, match="norm l1 is not covered"):
        _settings(norm="l1")
    with pytest.raises(BadInput, match="step size"):
        _settings(step_size=0.0)
    with pytest.raises(BadInput, match="start of shape"):
        guide(_linear, CENTRES, _settings(), start=CENTRES[:1])
    with pytest.raises(BadInput, match="gradients contain NaN"):
        guide(lambda x, rows: Aim((x * torch.nan).sum((1, 2, 3))), CENTRES, _settings())
