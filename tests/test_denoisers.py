"""One contract for every network: boundary conditions, scaling, and the exact index."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from advpure.base.errors import BadInput
from advpure.core.denoisers import ConsistencyDenoiser, Denoiser, EDMDenoiser, EpsilonDenoiser
from advpure.core.schedules import cosine_schedule, linear_schedule

Draw = Callable[..., Tensor]


class _Spy(nn.Module):
    """A network that remembers what it was asked and answers by a function."""

    def __init__(self, answer: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.answer = answer
        self.asked: list[tuple[Tensor, Tensor]] = []

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        self.asked.append((x, condition))
        return self.answer(x, condition)


# --- preconditioning


@pytest.mark.parametrize("kind", [EDMDenoiser, ConsistencyDenoiser])
@pytest.mark.parametrize("sigma", [0.002, 0.3, 80.0])
def test_the_network_sees_unit_variance_and_a_quarter_of_log_sigma(
    kind: type[EDMDenoiser], sigma: float, normals: Draw
) -> None:
    spy = _Spy(lambda x, c: x)
    data, noise = 0.5 * normals(200_000, 1, 1, 1), normals(200_000, 1, 1, 1, seed=1)
    kind(spy)(data + sigma * noise, sigma)
    seen, condition = spy.asked[0]
    # The sum of squares is chi-squared: relative standard error sqrt(2 / n) = 0.0032; 4.42
    # standard errors are alpha = 1e-5, two-sided.
    assert abs(float(seen.double().square().mean()) - 1) < 4.42 * 0.00317
    torch.testing.assert_close(condition, torch.full((200_000,), math.log(sigma) / 4))


def test_edm_coefficients(normals: Draw) -> None:
    x, out = normals(2, 1, 3, 3, dtype=torch.float64), normals(2, 1, 3, 3, dtype=torch.float64)
    for s in (0.01, 0.5, 7.0):
        total = s**2 + 0.25
        expected = 0.25 / total * x + s * 0.5 / math.sqrt(total) * out
        torch.testing.assert_close(EDMDenoiser(_Spy(lambda *_: out))(x, s), expected)


def test_consistency_coefficients(normals: Draw) -> None:
    x, out = normals(2, 1, 3, 3, dtype=torch.float64), normals(2, 1, 3, 3, dtype=torch.float64)
    for s in (0.01, 0.5, 7.0):
        shifted = s - 0.002
        expected = 0.25 / (shifted**2 + 0.25) * x
        expected = expected + 0.5 * shifted / math.sqrt(s**2 + 0.25) * out
        torch.testing.assert_close(ConsistencyDenoiser(_Spy(lambda *_: out))(x, s), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sigma_min", [0.002, 0.01, 0.3])
@pytest.mark.parametrize("per_row", [False, True])
def test_consistency_boundary_is_exact_for_any_network(
    dtype: torch.dtype, sigma_min: float, per_row: bool, normals: Draw
) -> None:
    wild = _Spy(lambda x, c: 1e6 * x + 1e6)
    denoiser = ConsistencyDenoiser(wild, sigma_min=sigma_min)
    x = normals(3, 1, 4, 4, dtype=dtype)
    sigma = torch.full((3,), sigma_min, dtype=torch.float64) if per_row else sigma_min
    assert torch.equal(denoiser(x, sigma), x)


def test_sigma_per_row_equals_one_row_at_a_time(
    toy_denoiser: Callable[..., EDMDenoiser], normals: Draw
) -> None:
    denoiser, x = toy_denoiser(dtype=torch.float64), normals(3, 1, 8, 8, dtype=torch.float64)
    levels = torch.tensor([0.1, 1.0, 10.0])
    together = denoiser(x, levels)
    for k in range(3):
        torch.testing.assert_close(together[k : k + 1], denoiser(x[k : k + 1], float(levels[k])))


# --- discrete networks


@pytest.mark.parametrize("schedule", [linear_schedule(), cosine_schedule()])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_level_of_the_schedule_is_asked_at_its_index(
    schedule: object, dtype: torch.dtype
) -> None:
    denoiser = EpsilonDenoiser(_Spy(lambda x, t: x), schedule)  # type: ignore[arg-type]
    for i, level in enumerate(schedule.sigmas):  # type: ignore[attr-defined]
        assert denoiser.index(float(level)) == i
        assert denoiser.index(float(torch.tensor(level, dtype=dtype))) == i


def test_a_float32_state_is_asked_at_the_exact_index(normals: Draw) -> None:
    # Rounding sigma to float32 moves the index by up to 8e-5, which a look-up would cut down.
    schedule = cosine_schedule()
    for sigma_type in (float, lambda v: torch.tensor(v, dtype=torch.float32)):
        spy = _Spy(lambda x, t: x)
        for i in range(0, 4000, 37):
            EpsilonDenoiser(spy, schedule)(normals(1, 1, 2, 2), sigma_type(schedule.sigmas[i]))
        assert [int(t) for _, t in spy.asked] == list(range(0, 4000, 37))


def test_time_scale_and_per_row_levels(normals: Draw) -> None:
    schedule, spy = cosine_schedule(), _Spy(lambda x, t: x)
    denoiser = EpsilonDenoiser(spy, schedule, time_scale=1000 / 4000)
    levels = torch.tensor(schedule.sigmas[[226, 1984]])
    denoiser(normals(2, 1, 2, 2), levels)
    assert spy.asked[0][1].tolist() == [56.5, 496.0]
    assert (denoiser.sigma_min, denoiser.sigma_max) == (schedule.sigmas[0], schedule.sigmas[-1])


def test_between_two_levels_the_index_is_interpolated() -> None:
    schedule = linear_schedule()
    denoiser = EpsilonDenoiser(_Spy(lambda x, t: x), schedule)
    middle = float((schedule.sigmas[500] * schedule.sigmas[501]) ** 0.5)
    assert 500.45 < denoiser.index(middle) < 500.55
    assert denoiser.index(1e-9) == 0
    assert denoiser.index(1e9) == 999


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("i", [0, 144, 999])
def test_an_exact_noise_oracle_recovers_the_image(i: int, learned: bool, normals: Draw) -> None:
    schedule = linear_schedule()
    x0 = normals(2, 1, 3, 3, dtype=torch.float64).clamp(-1, 1)
    noise = normals(2, 1, 3, 3, seed=1, dtype=torch.float64)
    spread = normals(2, 1, 3, 3, seed=2, dtype=torch.float64)
    root = math.sqrt(schedule.abar[i])
    vp = root * x0 + math.sqrt(1 - schedule.abar[i]) * noise

    def oracle(x: Tensor, t: Tensor) -> Tensor:
        torch.testing.assert_close(x, vp)  # the network sees the variance-preserving state
        assert t.tolist() == [i, i]
        return torch.cat([noise, spread], dim=1) if learned else noise

    denoiser = EpsilonDenoiser(oracle, schedule, learned_variance=learned)
    found, variance = denoiser.predict(vp / root, float(schedule.sigmas[i]))
    torch.testing.assert_close(found, x0, atol=1e-12, rtol=1e-12)
    if learned:
        assert variance is not None
        assert torch.equal(variance, spread)
    else:
        assert variance is None


# --- bad use


def test_the_base_class_is_abstract() -> None:
    with pytest.raises(TypeError, match=r"abstract: write predict\(\)"):
        Denoiser()(torch.zeros(1, 1, 2, 2), 1.0)


@pytest.mark.parametrize("shape", [(2,), (3, 1), (1,)])
def test_a_sigma_of_the_wrong_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(BadInput, match=r"sigma of shape .* does not fit 3 states"):
        EDMDenoiser(_Spy(lambda x, c: x))(torch.zeros(3, 1, 2, 2), torch.ones(shape))


@pytest.mark.parametrize("sigma", [0.0, -1.0, float("nan"), float("inf")])
def test_a_number_that_is_no_noise_level_is_refused(sigma: float) -> None:
    with pytest.raises(BadInput, match="is not positive and finite"):
        EDMDenoiser(_Spy(lambda x, c: x))(torch.zeros(1, 1, 2, 2), sigma)
