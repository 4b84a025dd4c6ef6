"""The Gaussian score field and the noising formulas against fixtures and simulated fields."""

import math
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from advpure.analysis import (
    DivergingStep,
    expected_compression_rate,
    forward_compression_rate,
    gaussian_field_compression,
    noised_distance,
    resized_noise_factor,
    uniform_noise_norm,
)
from advpure.base.errors import BadInput
from advpure.base.units import to_model, to_unit
from advpure.core.analytic import GaussianDenoiser
from advpure.core.chain import Chain, Noise
from advpure.core.randomness import RandomnessConfig
from advpure.core.schedules import linear_schedule
from advpure.loading import load_purifier
from advpure.purifiers.vp import noising_steps

# Figure 4b of seed 003 read with 0.01 as a variance (erratum H8): 40 of 3072 directions along the
# data with variance 1.
PAPER = [1.0] * 40 + [0.01] * 3032


def test_field_of_the_paper() -> None:
    field = gaussian_field_compression(PAPER, 1e-3)
    assert field.factors[[0, -1]].tolist() == pytest.approx([0.999, 0.9], rel=1e-12)
    assert round(field.exact, 6) == 0.901359
    assert round(field.approximate, 6) == 0.901289
    assert field.valid
    rates = field.step_rates(100)
    assert rates[[0, 20, 50, 99]].round(5).tolist() == [0.90136, 0.94699, 0.99879, 0.99900]
    assert field.total_rate(100) == pytest.approx(float(np.prod(rates)), rel=1e-12)


def test_a_standard_deviation_taken_for_a_variance_warns() -> None:
    with pytest.warns(DivergingStep, match=r"factor -9"):
        field = gaussian_field_compression([0.01**2], 1e-3)
    assert field.factors[0] == pytest.approx(-9.0)
    assert field.exact == pytest.approx(9.0)
    assert not field.valid


def test_validity_ends_at_twice_the_variance() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert gaussian_field_compression([1.0, 0.5], 0.999).valid
    with pytest.warns(DivergingStep):
        gaussian_field_compression([1.0, 0.5], 1.0)


def test_steps_of_a_simulated_field_have_the_predicted_rates() -> None:
    variances = torch.linspace(0.2, 2.0, 16, dtype=torch.float64).reshape(1, 4, 4)
    mean, h = torch.full((1, 4, 4), 0.4, dtype=torch.float64), 0.15

    def descend(y: Tensor) -> Tensor:
        return y - h * (y - mean) / variances

    field = gaussian_field_compression(variances.flatten().tolist(), h)
    x = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    one = expected_compression_rate(descend, x, perturbations=400, distribution="gaussian")
    energies = np.array([(row.change**2, row.norm**2) for row in one.rows]).sum(axis=0)
    # Ratio of sums over 12,800 Gaussian entries: its relative error is below sqrt(2 / 12800),
    # halved by the root; 4.42 of it is alpha 1e-5.
    assert math.sqrt(energies[0] / energies[1]) == pytest.approx(field.exact, rel=0.028)
    # All directions at once give the rates without statistics.
    state = torch.eye(16, dtype=torch.float64).reshape(16, 1, 4, 4)
    for rate in field.step_rates(30):
        moved = descend(mean + state) - mean
        assert float(moved.norm() / state.norm()) == pytest.approx(rate, rel=1e-10)
        state = moved


def test_long_descents_do_not_underflow_and_dead_directions_are_absent() -> None:
    assert gaussian_field_compression([1.0, 1.0], 0.5).step_rates(5000)[-1] == pytest.approx(0.5)
    partly = gaussian_field_compression([1.0, 2.0], 1.0)
    assert partly.step_rates(3).tolist() == pytest.approx([math.sqrt(0.125), 0.5, 0.5])
    with pytest.raises(BadInput, match="no further rate"):
        gaussian_field_compression([1.0], 1.0).step_rates(2)


@pytest.mark.parametrize(
    ("variances", "h"),
    [([], 0.1), ([0.0], 0.1), ([-1.0], 0.1), ([math.nan], 0.1), ([1.0], 0.0), ([1.0], math.inf)],
)
def test_fields_that_make_no_sense_are_refused(variances: list[float], h: float) -> None:
    with pytest.raises(BadInput):
        gaussian_field_compression(variances, h)


def test_forward_factor_is_the_root_of_abar_and_not_abar() -> None:
    schedule = linear_schedule()
    for kind in ("stepwise", "oneshot"):
        chain = Chain(noising_steps(schedule, 99, kind))
        assert forward_compression_rate(chain) == pytest.approx(0.9471, abs=5e-5)
        assert forward_compression_rate(chain) ** 2 == pytest.approx(float(schedule.abar[99]))
    network = GaussianDenoiser(torch.zeros(1, 2, 2), 0.25)
    whole = load_purifier("onestep-edm", sigma=0.25, denoiser=network).chain
    assert forward_compression_rate(whole) == 1.0
    unknown = Chain([replace(whole[0], gain=None)])
    with pytest.raises(BadInput, match="has no gain"):
        forward_compression_rate(unknown)


@pytest.mark.parametrize(
    ("level", "norm", "furthest"),
    [(8, 1.0039, 8.974), (32, 4.0157, 9.700), (64, 8.0314, 11.726), (128, 16.063, 17.637)],
)
def test_distances_of_the_paper(level: int, norm: float, furthest: float) -> None:
    start = uniform_noise_norm(level / 255, 3072)
    assert start == pytest.approx(norm, abs=6e-4)
    abar = float(linear_schedule().abar[99])
    assert noised_distance(abar, start, 3072) == pytest.approx(furthest, abs=5e-4)


def test_noised_distance_is_that_of_the_noising_chain() -> None:
    schedule, count = linear_schedule(), 64
    generator = torch.Generator().manual_seed(0)
    x = to_unit(torch.randn(count, 3, 32, 32, generator=generator).sign() * 0.5)
    eta = (2 * torch.rand(x.shape, generator=generator) - 1) * 32 / 255
    chain = Chain(noising_steps(schedule, 99, "oneshot"))
    noise = Noise(RandomnessConfig(0, "counter"), torch.arange(count))
    state = to_unit(chain.run(to_model(x + eta), noise))
    rms = float((state - x).flatten(1).square().sum(1).mean().sqrt())
    wanted = noised_distance(float(schedule.abar[99]), uniform_noise_norm(32 / 255, 3072), 3072)
    # 196,608 entries, nearly Gaussian: relative error 0.5 sqrt(2 / 196608) = 0.0016; alpha 1e-5.
    assert rms == pytest.approx(wanted, rel=4.42 * 0.0016)


@pytest.mark.parametrize(("antialias", "printed"), [(False, 0.6629), (True, 0.5787)])
def test_bilinear_resizing_averages_white_noise(antialias: bool, printed: float) -> None:
    factor = resized_noise_factor(256, 224, antialias=antialias)
    # The printed factors were measured on noise, which is good to three digits.
    assert factor == pytest.approx(printed, abs=5e-4)
    noise = torch.randn(8, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    small = interpolate(noise, size=(224, 224), mode="bilinear", antialias=antialias)
    # 1.2 million pixels, correlated over about 3 x 3: relative error 0.5 sqrt(2 * 9 / 1.2e6).
    assert float(small.square().mean().sqrt()) == pytest.approx(factor, rel=4.42 * 0.002)
    assert resized_noise_factor(256, 224) == pytest.approx(65 / 98, rel=1e-12)


def test_resizing_to_the_same_size_changes_nothing() -> None:
    assert resized_noise_factor(32, 32) == 1.0
    with pytest.raises(BadInput):
        resized_noise_factor(0, 3)
