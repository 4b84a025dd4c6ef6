"""The limit of the compression rate against Jacobians, small perturbations and statistics."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from advpure.analysis import (
    expected_compression_rate,
    infinitesimal_compression_rate,
    push_forward,
)
from advpure.analysis.perturbations import VARIANCE, Distribution, directions
from advpure.base.errors import BadInput
from advpure.base.units import to_model
from advpure.core.analytic import GaussianDenoiser, MixtureDenoiser
from advpure.core.denoisers import EDMDenoiser
from advpure.core.purifier import Purifier
from advpure.core.randomness import RandomnessConfig
from advpure.loading import load_purifier
from advpure.networks import build_network
from advpure.purifiers import PURIFIERS

SHAPE = (1, 4, 4)
DISTRIBUTIONS: tuple[Distribution, ...] = ("uniform", "gaussian", "sign")
OPTIONS: dict[str, list[dict[str, object]]] = {
    "none": [{}],
    "ddpm": [{"t": 6}, {"t": 6, "clip_x0": True}],
    "reverse": [{"t": 6}, {"t": 6, "clip_x0": True, "prescale": True}],
    "ddim": [{"t": 6}, {"t": 6, "clip_x0": True, "eta": 0.5}],
    "vpsde": [{"t": 4}, {"t": 4, "kind": "ode"}],
    "dpm": [{"t": 20, "evaluations": 5}],
    "onestep-ddpm": [{"sigma": 0.25}, {"t": 50, "clip_x0": False}],
    "onestep-edm": [{"sigma": 0.25}, {"sigma": 0.25, "clip": True}],
    "calibrated": [{"sigma": 0.25}],
    "pf-ode": [{"sigma": 0.25, "nodes": 4}],
    "rrcm": [{"sigma": 0.25}],
    "cm": [{"sigma": 0.25}, {"sigma": 0.25, "steps": 2, "clip": True}],
    "cm-ft": [{"sigma": 0.5}],
    "densepure": [{"sigma": 0.25, "steps": 3}],
}
CASES = [(name, options) for name, listed in OPTIONS.items() for options in listed]


def _images(count: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(11)
    return torch.rand(count, *SHAPE, generator=generator, dtype=dtype)


def _network(attention: bool = True) -> EDMDenoiser:
    generator = torch.Generator().manual_seed(3)
    settings = {
        "image_size": 4, "image_channels": 1, "channels": (8, 8),
        "attention": (1,) if attention else (),
    }  # fmt: skip
    network = build_network("unet", settings, generator)
    for weight in network.parameters():
        torch.nn.init.normal_(weight, 0.0, 0.2, generator=generator)
    return EDMDenoiser(network.eval())


def _load(name: str, options: dict[str, object], denoiser: object, tile: int = 0) -> Purifier:
    return load_purifier(
        name, denoiser=denoiser, tile=tile, xi=RandomnessConfig(0), **options  # type: ignore[arg-type]
    )  # fmt: skip


def test_every_registered_purifier_is_covered() -> None:
    assert set(OPTIONS) == set(PURIFIERS)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_the_limit_equals_the_rate_of_small_perturbations(
    name: str, options: dict[str, object]
) -> None:
    # Two clusters make every purifier nonlinear; draws are the probes of the same number.
    means = torch.stack([torch.full(SHAPE, -0.8), torch.full(SHAPE, 0.8)])
    purifier = _load(name, options, MixtureDenoiser(means, 0.1))
    x, eps = _images(2), 1e-6
    small = expected_compression_rate(purifier, x, eps=eps, perturbations=3, seeds=[4])
    limit = infinitesimal_compression_rate(purifier, x, probes=3, seeds=[4])
    # Central value of the error: curvature times 1e-6, rounding 1e-16 / 1e-6.
    for near, exact in zip(small.rows, limit.rows, strict=True):
        assert (near.id, near.draw) == (exact.id, exact.probe)
        assert near.rate == pytest.approx(exact.rate, rel=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["full", "checkpoint", "bpda"])
def test_the_limit_is_that_of_the_true_map_in_every_gradient_mode(mode: str) -> None:
    purifier = load_purifier("ddpm", t=5, denoiser=_network(), tile=8, gradient=mode)  # type: ignore[arg-type]
    x = _images(3, torch.float32)
    found = infinitesimal_compression_rate(purifier, x, probes=2).rows
    exact = purifier.at(gradient="full").bind([0, 1, 2]).at(xi=RandomnessConfig(0))
    jacobian = torch.autograd.functional.jacobian(exact, x)  # type: ignore[no-untyped-call]
    for row in found:
        v = directions("uniform", 0, [row.id], [row.probe], SHAPE).flatten()
        own = jacobian[row.id, :, :, :, row.id].reshape(16, 16)
        assert row.rate == pytest.approx(float((own @ v).norm() / v.norm()), rel=1e-4)


def test_two_point_data_have_the_slope_of_tanh() -> None:
    level, x = 0.8, torch.tensor([0.2, 0.45, 0.5, 0.9], dtype=torch.float64).reshape(4, 1, 1, 1)
    points = MixtureDenoiser(torch.tensor([-1.0, 1.0]).reshape(2, 1, 1, 1))
    purifier = _load("onestep-edm", {"sigma": level / 2, "time_rule": "exact"}, points)
    found = infinitesimal_compression_rate(purifier, x, probes=1)
    z = RandomnessConfig(0).normal(range(4), "forward", 1, (1, 1, 1)).double()
    slope = (1 - ((to_model(x) + level * z) / level**2).tanh() ** 2) / level**2
    assert [row.rate for row in found.rows] == pytest.approx(slope.flatten().tolist(), rel=1e-9)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_the_frobenius_estimate_is_unbiased(distribution: Distribution) -> None:
    variances = torch.logspace(-2, 0.5, 16, dtype=torch.float64)
    network = GaussianDenoiser(torch.zeros(SHAPE), variances.reshape(SHAPE))
    purifier = _load("onestep-edm", {"sigma": 0.25, "time_rule": "exact"}, network)
    probes = 4000
    found = infinitesimal_compression_rate(
        purifier, _images(1), probes=probes, distribution=distribution, batch_size=1000
    )
    gains = variances / (variances + 0.25)
    exact = float(gains.square().mean())
    energies = torch.tensor([row.energy for row in found.rows], dtype=torch.float64)
    # Var ||Jv||^2 = (kurtosis - 1) sum_i gain_i^4 s^4, with kurtosis 9/5, 3 and 1.
    kurtosis = {"uniform": 1.8, "gaussian": 3.0, "sign": 1.0}[distribution]
    error = math.sqrt((kurtosis - 1) * float(gains.pow(4).sum()) / probes) / 16
    # Normal tail at 4.42 standard errors: alpha 1e-5, two-sided; sign has no error at all.
    assert float(energies.mean()) == pytest.approx(exact, abs=4.42 * error + 1e-12)
    assert found.image_rms()[0] == pytest.approx(float(energies.mean()) ** 0.5, rel=1e-12)
    assert found.rms_summary().value == found.image_rms()[0]
    if distribution != "sign":
        assert found.summary().value < found.rms_summary().value  # Jensen: a mean, not the rms


def test_full_jacobian_not_only_its_diagonal_is_seen() -> None:
    matrix = torch.randn(16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def mix(y: Tensor) -> Tensor:
        return (y.flatten(1) @ matrix.T).reshape(y.shape)

    found = infinitesimal_compression_rate(mix, _images(1), probes=3000, distribution="gaussian")
    gram = matrix.T @ matrix
    error = math.sqrt(2 * float(gram.square().sum()) / 3000) / 16  # alpha 1e-5 at 4.42
    wanted = float(matrix.square().sum()) / 16
    assert found.image_rms()[0] ** 2 == pytest.approx(wanted, abs=4.42 * error)
    assert VARIANCE["gaussian"] == 1 / 3


@pytest.mark.slow
def test_batches_and_order_change_no_bit() -> None:
    purifier, x = _load("ddpm", {"t": 3}, _network(), tile=16), _images(5, torch.float32)
    whole = infinitesimal_compression_rate(purifier, x, probes=5, seeds=[0, 1])
    other = infinitesimal_compression_rate(
        purifier, x.flip(0), ids=[4, 3, 2, 1, 0], probes=5, seeds=[1, 0], batch_size=1
    )
    assert whole.rows == other.rows
    assert len(whole.rows) == 50
    assert whole.summary(1).n == 5


class _Cube(torch.autograd.Function):
    """y = x^3 without a forward-mode derivative."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Cube."""
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """Differentiate, differentiably."""
        x: Tensor = ctx.saved_tensors[0]
        return 3 * x**2 * gradient


class _Opaque(_Cube):
    """The same, differentiable once only."""

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """Differentiate once."""
        x: Tensor = ctx.saved_tensors[0]
        return 3 * x**2 * gradient


def test_operations_without_forward_mode_are_differentiated_twice_backward() -> None:
    x = torch.tensor([2.0, 0.5])
    assert push_forward(_Cube.apply, x, torch.tensor([1.0, 4.0])).tolist() == [12.0, 3.0]


def test_maps_without_a_derivative_are_refused_not_called_flat() -> None:
    x = _images(1)
    for function in (
        _Opaque.apply,
        lambda y: y.detach(),
        lambda y: torch.zeros_like(y),
        torch.zeros_like,
    ):
        with pytest.raises(BadInput, match="has no forward-mode derivative"):
            infinitesimal_compression_rate(function, x, probes=1)
    with pytest.raises(BadInput, match="derivative is not finite"):
        infinitesimal_compression_rate(lambda y: (y - x).sqrt(), x, probes=1)
    with pytest.raises(BadInput, match=r"fails .integer division or modulo by zero"):
        infinitesimal_compression_rate(lambda y: y * (1 // 0), x, probes=1)
    with pytest.raises(RuntimeError, match="shape"):
        push_forward(lambda y: y.reshape(3), torch.zeros(2), torch.zeros(2))


def test_a_zero_derivative_that_is_one_stays_zero() -> None:
    found = infinitesimal_compression_rate(lambda y: (y - _images(1)) ** 2, _images(1), probes=2)
    assert [row.rate for row in found.rows] == [0.0, 0.0]


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"probes": 0}, "is not a whole number"),
        ({"distribution": "normal"}, "is not known"),
        ({"ids": [3, 3]}, "appears twice"),
        ({"xi": RandomnessConfig(0, scope="fresh")}, "different noise"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(options: dict[str, object], match: str) -> None:
    with pytest.raises(BadInput, match=match):
        infinitesimal_compression_rate(lambda y: y, _images(2), **options)  # type: ignore[arg-type]
