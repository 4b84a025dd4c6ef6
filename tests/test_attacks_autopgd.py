"""APGD against a second writing of its algorithm box: numpy, one sample, whole history kept."""

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from advpure.attacks import apgd
from advpure.attacks.autopgd import _adapt, _State, checkpoints
from advpure.base.units import Norm

Array = npt.NDArray[np.float64]
SHAPE = (1, 3, 3)
_GENERATOR = np.random.Generator(np.random.Philox(5))
# Higher frequencies make the iteration chaotic: a last bit then grows to another optimum.
FREQUENCY = _GENERATOR.uniform(3, 9, SHAPE)
SLANT = _GENERATOR.normal(0, 1, SHAPE)
SIGNS = _GENERATOR.choice((-1.0, 1.0), (8, *SHAPE))


def _score(x: Array) -> float:
    return float((np.sin(FREQUENCY * x) + SLANT * x**2).sum())


def _gradient(x: Array) -> Array:
    return FREQUENCY * np.cos(FREQUENCY * x) + 2 * SLANT * x


def _model(images: Tensor) -> Tensor:
    score = torch.sin(torch.from_numpy(FREQUENCY) * images)
    total = (score + torch.from_numpy(SLANT) * images**2).sum(dim=(1, 2, 3))
    return torch.stack([torch.zeros_like(total), total], dim=1)


def _reference(x0: Array, eps: float, steps: int, norm: Norm) -> tuple[float, int]:
    """Return the best score and how often the step was halved."""

    def project(x: Array) -> Array:
        delta = x - x0
        length = float(np.sqrt((delta**2).sum()))
        if norm == "linf":
            delta = delta.clip(-eps, eps)
        elif length > eps:
            delta = delta * (eps / length)
        return (x0 + delta).clip(0, 1)

    def direction(x: Array) -> Array:
        g = _gradient(x)
        return np.sign(g) if norm == "linf" else g / np.sqrt((g**2).sum())

    nodes = [
        math.ceil(p * steps - 1e-9) for p in (0, 0.22, 0.41, 0.57, 0.70, 0.80, 0.87, 0.93, 0.99)
    ]
    eta = 2 * eps
    points, etas, bests = [x0], [eta], [_score(x0)]
    best, halvings, rises = x0, 0, []
    for k in range(steps):
        x = points[-1]
        z = project(x + eta * direction(x))
        old = points[-2] if k else x
        new = project(x + 0.75 * (z - x) + 0.25 * (x - old)) if k else z
        rises.append(_score(new) > _score(x))
        if _score(new) > bests[-1]:
            best = new
        bests.append(_score(best))
        etas.append(eta)
        if k + 1 in nodes:
            before = nodes[nodes.index(k + 1) - 1]
            few = sum(rises[before : k + 1]) < 0.75 * (k + 1 - before)
            # The step of a checkpoint is the one before it is halved there.
            stalled = etas[before] == eta and bests[before] == bests[-1]
            if few or stalled:
                eta, new, halvings = eta / 2, best, halvings + 1
        points.append(new)
    return bests[-1], halvings


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("steps", [1, 7, 25, 100])
def test_the_algorithm_box_gives_the_same_optimum(norm: Norm, steps: int) -> None:
    generator = np.random.Generator(np.random.Philox(6))
    images = torch.from_numpy(generator.uniform(0.1, 0.9, (12, *SHAPE)))
    eps = 0.3 if norm == "linf" else 0.6
    result = apgd(
        _model, images, torch.zeros(12, dtype=torch.int64), eps=eps, norm=norm, steps=steps,
        loss="margin", stop="never", random_start=False,
    )  # fmt: skip
    expected = [_reference(image.numpy(), eps, steps, norm) for image in images]
    # The algorithm compares losses. Where a change of 1e-11, far above rounding, turns a comparison
    # over and ends elsewhere, a last bit of another processor may do so too: left out.
    nudged = [
        [_reference(image.numpy() + 1e-11 * sign, eps, steps, norm)[0] for sign in SIGNS]
        for image in images
    ]
    steady = [k for k, (best, _) in enumerate(expected) if np.ptp([best, *nudged[k]]) < 1e-7]
    assert len(steady) >= 8
    assert result.loss[steady].tolist() == pytest.approx([expected[k][0] for k in steady], abs=1e-6)
    if steps == 100:
        assert min(halvings for _, halvings in expected) > 2


def test_checkpoints() -> None:
    assert checkpoints(100) == (0, 22, 41, 57, 70, 80, 87, 93, 99)
    assert checkpoints(10) == (0, 3, 5, 6, 7, 8, 9, 10)
    assert checkpoints(1) == (0, 1)


def test_both_conditions_halve_the_step_and_go_back_to_the_best_point() -> None:
    # Rises of 10 steps, whether the step was kept at the last checkpoint, best loss then and now.
    cases = [
        (7.0, True, 1.0, 2.0, True),  # rose too seldom
        (8.0, True, 1.0, 2.0, False),  # fine
        (8.0, True, 2.0, 2.0, True),  # no better than at the last checkpoint
        (8.0, False, 2.0, 2.0, False),  # likewise, but its step has only just been halved
    ]
    rises, kept, marked, best, halved = (
        torch.tensor(list(column)) for column in zip(*cases, strict=True)
    )
    points = torch.rand(4, 1, 1, 1, generator=torch.Generator().manual_seed(0))
    state = _State(
        points=points, previous=points, best=points + 1, best_gradient=points + 2,
        loss=torch.full((4,), 0.5), best_loss=best, eta=torch.full((4,), 0.25), rises=rises,
        marked_loss=marked, kept=kept,
    )  # fmt: skip
    adapted, gradient = _adapt(state, points + 3, needed=0.75 * 10)
    assert adapted.eta.tolist() == torch.where(halved, 0.125, 0.25).tolist()
    assert (adapted.points - points).flatten().tolist() == pytest.approx(halved.double().tolist())
    assert torch.equal(gradient[:, 0, 0, 0], (points[:, 0, 0, 0] + torch.where(halved, 2, 3)))
    assert adapted.kept.tolist() == (~halved).tolist()
    assert adapted.rises.tolist() == [0.0] * 4
    assert torch.equal(adapted.marked_loss, best)
    assert adapted.loss.tolist() == torch.where(halved, best, torch.tensor(0.5)).tolist()
