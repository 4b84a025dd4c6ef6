"""Exact denoisers against brute force in numpy, at ordinary and at extreme noise."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import special
from torch import Tensor

from advpure.base.errors import BadInput
from advpure.core.analytic import GaussianDenoiser, MixtureDenoiser, empirical_denoiser
from advpure.core.denoisers import Denoiser

Draw = Callable[..., Tensor]
SHAPE = (1, 2, 3)
DTYPES = [torch.float32, torch.float64]


def _covariance(draw: Draw) -> Tensor:
    root = draw(6, 6, seed=9, dtype=torch.float64)
    return root @ root.T / 6 + 0.05 * torch.eye(6, dtype=torch.float64)


def _makers(draw: Draw) -> dict[str, Denoiser]:
    mean = 0.3 * draw(*SHAPE, seed=5, dtype=torch.float64)
    means = draw(4, *SHAPE, seed=6, dtype=torch.float64)
    spread = torch.tensor([0.1, 0.0, 0.5, 0.02])
    weights = torch.tensor([1.0, 2.0, 0.5, 1.0])
    return {
        "isotropic": GaussianDenoiser(mean, 0.25),
        "diagonal": GaussianDenoiser(mean, 0.1 + draw(*SHAPE, seed=7, dtype=torch.float64).abs()),
        "full": GaussianDenoiser(mean, _covariance(draw)),
        "mixture": MixtureDenoiser(means, spread, weights),
        "data set": empirical_denoiser(means),
    }


def _brute(name: str, draw: Draw, x: np.ndarray, s: float) -> np.ndarray:
    """The posterior mean of one state [6], by linear algebra or by summing over components."""
    mean = 0.3 * draw(*SHAPE, seed=5, dtype=torch.float64).numpy().ravel()
    if name in ("isotropic", "diagonal", "full"):
        covariance = {
            "isotropic": 0.25 * np.eye(6),
            "diagonal": np.diag(
                0.1 + draw(*SHAPE, seed=7, dtype=torch.float64).abs().numpy().ravel()
            ),
            "full": _covariance(draw).numpy(),
        }[name]
        gain = np.linalg.solve(covariance + s**2 * np.eye(6), covariance).T
        return mean + gain @ (x - mean)
    means = draw(4, *SHAPE, seed=6, dtype=torch.float64).numpy().reshape(4, 6)
    spread = np.array([0.1, 0.0, 0.5, 0.02], np.float32).astype(float)
    weights = np.array([1.0, 2.0, 0.5, 1.0])
    if name == "data set":
        spread, weights = np.zeros(4), np.ones(4)
    logs = [
        math.log(w) - 3 * math.log(v + s**2) - ((x - m) ** 2).sum() / (2 * (v + s**2))
        for m, v, w in zip(means, spread, weights, strict=True)
    ]
    share = np.exp(np.array(logs) - special.logsumexp(logs))
    return sum(
        r * (m + v / (v + s**2) * (x - m)) for r, m, v in zip(share, means, spread, strict=True)
    )


NAMES = ["isotropic", "diagonal", "full", "mixture", "data set"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sigma", [1e-8, 1e-3, 0.3, 1.0, 50.0, 1e8])
def test_equals_brute_force(name: str, dtype: torch.dtype, sigma: float, normals: Draw) -> None:
    denoiser, x = _makers(normals)[name], normals(5, *SHAPE, dtype=torch.float64).to(dtype)
    found = denoiser(x, sigma)
    assert found.dtype == dtype
    expected = [_brute(name, normals, row.double().numpy().ravel(), sigma) for row in x]
    # Everything runs in float64 inside, so a float32 answer is rounded once.
    tolerance = 1e-10 if dtype == torch.float64 else 5e-7
    np.testing.assert_allclose(found.flatten(1).double(), np.stack(expected), tolerance, tolerance)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sigma", [1e-30, 1e-12, 1e12, 1e30])
def test_extreme_noise_keeps_to_the_limits(
    name: str, dtype: torch.dtype, sigma: float, normals: Draw
) -> None:
    denoiser = _makers(normals)[name]
    x = normals(5, *SHAPE, dtype=torch.float64).to(dtype).requires_grad_()
    found = denoiser(x, sigma)
    (gradient,) = torch.autograd.grad(found.sum(), x)
    assert torch.isfinite(found).all()
    assert torch.isfinite(gradient).all()
    if sigma > 1:  # nothing is left of the state: the mean of the data
        means = normals(4, *SHAPE, seed=6, dtype=torch.float64)
        mean = {
            "mixture": (means * torch.tensor([1, 2, 0.5, 1]).view(4, 1, 1, 1)).sum(0) / 4.5,
            "data set": means.mean(0),
        }.get(name, 0.3 * normals(*SHAPE, seed=5).double())
        mean = getattr(denoiser, "mean", mean)
        torch.testing.assert_close(found.double(), mean.expand(5, *SHAPE), atol=1e-6, rtol=0)
        assert float(gradient.abs().max()) < 1e-6
    elif name in ("isotropic", "diagonal", "full"):  # the state is the image
        torch.testing.assert_close(found, x)
    elif name == "data set":  # the nearest image, exactly
        means = normals(4, *SHAPE, seed=6, dtype=torch.float64)
        nearest = torch.cdist(x.detach().double().flatten(1), means.flatten(1)).argmin(1)
        assert torch.equal(found.detach(), means[nearest].to(dtype))


@pytest.mark.parametrize("name", NAMES)
def test_gradients_equal_finite_differences(name: str, normals: Draw) -> None:
    denoiser = _makers(normals)[name]
    x = normals(3, *SHAPE, dtype=torch.float64).requires_grad_()
    for sigma in (0.3, 1.0):
        assert torch.autograd.gradcheck(lambda y, s=sigma: denoiser(y, s), x, atol=1e-7)


@pytest.mark.parametrize("name", NAMES)
def test_sigma_per_row_equals_one_row_at_a_time(name: str, normals: Draw) -> None:
    denoiser, x = _makers(normals)[name], normals(3, *SHAPE, dtype=torch.float64)
    levels = torch.tensor([0.1, 1.0, 3.0], dtype=torch.float64)
    together = denoiser(x, levels)
    for k in range(3):
        torch.testing.assert_close(together[k : k + 1], denoiser(x[k : k + 1], float(levels[k])))


def test_two_points_give_tanh(normals: Draw) -> None:
    points = torch.tensor([-1.0, 1.0], dtype=torch.float64).view(2, 1, 1, 1)
    x = normals(50, 1, 1, 1, dtype=torch.float64)
    for t in (0.2, 0.5, 2.0):
        torch.testing.assert_close(empirical_denoiser(points)(x, t), torch.tanh(x / t**2))


def test_tweedie_the_denoiser_is_the_score(normals: Draw) -> None:
    # D(x; s) = x + s^2 grad log p(x; s), with the score by autograd of an explicit density.
    means = normals(4, *SHAPE, seed=6, dtype=torch.float64)
    x = normals(3, *SHAPE, dtype=torch.float64).requires_grad_()
    s = 0.7
    distances = torch.cdist(x.flatten(1), means.flatten(1)).square()
    density = torch.logsumexp(-distances / (2 * s**2), 1)
    (score,) = torch.autograd.grad(density.sum(), x)
    torch.testing.assert_close(empirical_denoiser(means)(x, s), x + s**2 * score)


def test_many_components_are_summed_in_parts(normals: Draw) -> None:
    images = normals(600, *SHAPE, dtype=torch.float64)
    denoiser, x = empirical_denoiser(images), normals(2, *SHAPE, seed=3, dtype=torch.float64)
    in_parts = denoiser(x, 0.8)
    denoiser.chunk = 10_000
    torch.testing.assert_close(in_parts, denoiser(x, 0.8), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize(("make", "rule"), [
    (lambda: GaussianDenoiser(torch.zeros(SHAPE), torch.ones(5)), "does not fit a mean"),
    (lambda: GaussianDenoiser(torch.zeros(SHAPE), -1.0), "negative eigenvalue"),
    (lambda: GaussianDenoiser(torch.zeros(SHAPE), -torch.eye(6)), "negative eigenvalue"),
    (lambda: MixtureDenoiser(torch.zeros(0, *SHAPE)), "mixture of 0 components is not valid"),
    (lambda: MixtureDenoiser(torch.zeros(2, *SHAPE), -0.1), "is not valid"),
    (lambda: MixtureDenoiser(torch.zeros(2, *SHAPE), 0.1, torch.zeros(2)), "weights > 0"),
    (lambda: MixtureDenoiser(torch.zeros(2, *SHAPE), 0.1, torch.ones(3)), "is not valid"),
])  # fmt: skip
def test_invalid_data_is_refused(make: Callable[[], Denoiser], rule: str) -> None:
    with pytest.raises(BadInput, match=rule):
        make()
