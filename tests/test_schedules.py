"""Every fixture of the schedule and time-rule tables, and the identities behind them."""

import math

import numpy as np
import pytest

from advpure.base.errors import BadInput
from advpure.core.schedules import (
    COSINE_SHIFT,
    Schedule,
    cosine_schedule,
    karras_grid,
    linear_schedule,
    make_schedule,
    nearest_node,
    vp_abar,
    vp_beta,
    vp_time,
)

SIGMAS = (0.05, 0.15, 0.25, 0.5, 0.75, 1.0)


def digits(value: float, count: int = 6) -> float:
    """Round to significant digits, as the tables are printed."""
    return float(f"{value:.{count}g}")


# --- tables of the linear schedule


@pytest.mark.parametrize(("t", "abar"), [
    (10, 0.998105), (20, 0.994231), (50, 0.971016), (100, 0.897018), (150, 0.788321),
    (200, 0.659039), (1000, 4.0358e-5),
])  # fmt: skip
def test_linear_abar(t: int, abar: float) -> None:
    assert digits(linear_schedule().abar[t - 1], 5 if t == 1000 else 6) == abar


@pytest.mark.parametrize(("t", "root", "sigma"), [
    (10, 0.999052, 0.021785), (20, 0.997111, 0.038087), (50, 0.985401, 0.086385),
    (100, 0.947110, 0.169414), (150, 0.887875, 0.259094), (200, 0.811812, 0.359639),
])  # fmt: skip
def test_linear_root_and_smoothing_equivalent(t: int, root: float, sigma: float) -> None:
    schedule = linear_schedule()
    assert round(schedule.abar[t - 1] ** 0.5, 6) == root
    assert round(schedule.sigmas[t - 1] / 2, 6) == sigma


def test_linear_betas_follow_the_rule_for_other_lengths() -> None:
    assert linear_schedule().betas[[0, -1]].tolist() == [1e-4, 0.02]
    np.testing.assert_allclose(linear_schedule(250).betas[[0, -1]], [4e-4, 0.08])
    np.testing.assert_allclose(np.diff(linear_schedule().betas), (0.02 - 1e-4) / 999, rtol=1e-9)


@pytest.mark.parametrize("schedule", [linear_schedule(), cosine_schedule()])
def test_tables_agree_with_a_loop(schedule: Schedule) -> None:
    product, previous = 1.0, 1.0
    for i, beta in enumerate(schedule.betas):
        previous, product = product, product * (1 - float(beta))
        assert schedule.abar[i] == pytest.approx(product, rel=1e-12)
        posterior = float(beta) * (1 - previous) / (1 - product)
        assert schedule.posterior_variance[i] == pytest.approx(posterior, rel=1e-9, abs=1e-18)
        assert schedule.sigmas[i] == pytest.approx(math.sqrt(1 / product - 1), rel=1e-9)
    assert schedule.posterior_variance[0] == 0.0
    assert (np.diff(schedule.sigmas) > 0).all()


def test_cosine_abar_is_the_curve_until_the_clip() -> None:
    schedule = cosine_schedule()

    def f(u: float) -> float:
        return math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2

    for i in (0, 1, 225, 1158, 2000, 3900):
        assert schedule.abar[i] == pytest.approx(f((i + 1) / 4000) / f(0), rel=1e-9)
    assert schedule.betas.max() == 0.999
    assert len(schedule) == 4000


# --- sigma to index


@pytest.mark.parametrize(("sigma", "index", "level"), [
    (0.05, 225, 0.100071), (0.15, 716, 0.300089), (0.25, 1158, 0.500237), (0.5, 1984, 1.000624),
    (0.75, 2490, 1.500231), (1.0, 2809, 2.000028),
])  # fmt: skip
def test_cosine_dds_index(sigma: float, index: int, level: float) -> None:
    schedule = cosine_schedule()
    assert schedule.index(sigma, "dds") == index
    assert round(schedule.sigmas[index], 6) == level
    assert index * 1000 / 4000 == {225: 56.25, 716: 179.0, 1158: 289.5, 1984: 496.0,
                                   2490: 622.5, 2809: 702.25}[index]  # fmt: skip


@pytest.mark.parametrize(("sigma", "time", "index", "level", "model_time"), [
    (0.05, 225.8215, 226, 0.10047, 56.5), (0.15, 716.7907, 717, 0.30051, 179.25),
    (0.25, 1158.5132, 1159, 0.50072, 289.75), (0.5, 1984.1995, 1984, 1.00062, 496.0),
    (0.75, 2490.8179, 2491, 1.50150, 622.75), (1.0, 2809.9854, 2810, 2.00198, 702.5),
])  # fmt: skip
def test_cosine_closed_form(
    sigma: float, time: float, index: int, level: float, model_time: float
) -> None:
    schedule = cosine_schedule()
    assert round(schedule.closed_form_index(sigma), 4) == time
    assert schedule.index(sigma, "densepure") == index
    assert round(schedule.sigmas[index], 5) == level
    assert index * 1000 / 4000 == model_time
    # The search finds the floor of the closed form.
    assert schedule.dds_index(sigma) == math.floor(schedule.closed_form_index(sigma))


@pytest.mark.parametrize("sigma", [*SIGMAS, 1e-3, 3.0])
def test_closed_form_equals_its_arc_cosecant_form(sigma: float) -> None:
    ratio = math.sqrt(1 + (2 * sigma) ** 2)
    cosecant = ratio / math.sin(math.pi / (2 + 2 * COSINE_SHIFT))
    arc = math.atan2(1.0, math.sqrt(cosecant**2 - 1))  # csc^-1(y) = atan(1 / sqrt(y^2 - 1))
    other = 4000 * (1 - 2 * (1 + COSINE_SHIFT) * arc / math.pi)
    assert abs(cosine_schedule().closed_form_index(sigma) - other) < 1e-8


@pytest.mark.parametrize(("sigma", "index", "level"), [
    (0.25, 145, 0.503162), (0.5, 259, 1.004784), (1.0, 396, 2.000481),  # 2.0004819, cut
])  # fmt: skip
def test_linear_dds_index(sigma: float, index: int, level: float) -> None:
    assert linear_schedule().index(sigma, "dds") == index
    assert digits(linear_schedule().sigmas[index]) == digits(level)


@pytest.mark.parametrize(("sigma", "index", "level"), [
    (0.25, 144, 0.499427), (0.5, 258, 0.999511), (1.0, 396, 2.000481),
])  # fmt: skip
def test_linear_nearest_index(sigma: float, index: int, level: float) -> None:
    assert linear_schedule().index(sigma, "nearest") == index
    assert digits(linear_schedule().sigmas[index]) == digits(level)


@pytest.mark.parametrize("schedule", [linear_schedule(), cosine_schedule()])
@pytest.mark.parametrize("sigma", [1e-6, 0.003, 0.25, 1.7])
def test_dds_index_is_the_published_search(schedule: Schedule, sigma: float) -> None:
    i, level = 0, 0.0  # index 0 is tested with the value 0
    while level < 2 * sigma:
        i += 1
        level = math.sqrt(1 - schedule.abar[i]) / math.sqrt(schedule.abar[i])
    assert schedule.dds_index(sigma) == max(i, 1)
    # The multi-scale code's first index with sqrt(abar) <= 1 / sqrt(1 + 4 sigma^2) is the same.
    first = np.flatnonzero(np.sqrt(schedule.abar) <= 1 / math.sqrt(1 + 4 * sigma**2))[0]
    assert schedule.dds_index(sigma) == max(int(first), 1)


def test_linear_closed_form_inverts_the_continuous_schedule() -> None:
    for sigma in SIGMAS:
        time = linear_schedule().closed_form_index(sigma) / 1000
        assert vp_abar(time) == pytest.approx(1 / (1 + 4 * sigma**2), rel=1e-12)
        assert vp_time(-math.log(vp_abar(time))) == pytest.approx(time, rel=1e-9)


def test_vp_sde_is_the_continuous_twin_of_the_linear_schedule() -> None:
    assert vp_beta(0.0) == 0.1
    assert vp_beta(1.0) == 20.0
    # abar' = -beta abar, by central differences of step 1e-5: truncation about 1e-8 relative.
    for t in (0.1, 0.5, 0.9):
        slope = (math.log(vp_abar(t + 1e-5)) - math.log(vp_abar(t - 1e-5))) / 2e-5
        assert slope == pytest.approx(-vp_beta(t), rel=1e-7)
    # Discretised at step 1/1000 the two differ at first order in the step.
    discrete = np.log(linear_schedule().abar[[99, 499, 999]])
    continuous = np.log([vp_abar(t) for t in (0.1, 0.5, 1.0)])
    np.testing.assert_allclose(discrete, continuous, rtol=0.02)


# --- the grid of EDM and consistency models


def test_karras_grid_of_18() -> None:
    expected = [80, 57.5860, 40.7856, 28.3746, 19.3525, 12.9101, 8.40094, 5.31519, 3.25682,
                1.92334, 1.08817, 0.585348, 0.296442, 0.139516, 0.0599473, 0.0229345, 0.00752802,
                0.002]  # fmt: skip
    assert [digits(v) for v in karras_grid(18)] == expected


def test_karras_grid_of_40() -> None:
    expected = [80, 69.4509, 60.1174, 51.8803, 44.6302, 38.2665, 32.6969, 27.8371, 23.6101,
                19.9456, 16.7799, 14.055, 11.7185, 9.7232, 8.02648, 6.59014, 5.38, 4.36556, 3.5197,
                2.81839, 2.24044, 1.7672, 1.38237, 1.07172, 0.822941, 0.625398, 0.469979, 0.348915,
                0.25563, 0.184594, 0.131197, 0.0916277, 0.0627624, 0.0420707, 0.027525, 0.017522,
                0.010812, 0.00643711, 0.00367659, 0.002]  # fmt: skip
    assert [digits(v) for v in karras_grid(40)] == expected


@pytest.mark.parametrize(("nodes", "factor", "levels"), [
    (18, 2, (0.13952, 0.29644, 0.58535, 1.08817, 1.08817, 1.92334)),
    (18, 1, (0.05995, 0.13952, 0.29644, 0.58535, 0.58535, 1.08817)),
    (40, 2, (0.09163, 0.25563, 0.46998, 1.07172, 1.38237, 1.7672)),
    (81, 2, (0.10178, 0.31828, 0.49271, 0.96542, 1.58398, 2.00365)),
    (151, 2, (0.10299, 0.29363, 0.50679, 1.03343, 1.53419, 1.97298)),
])  # fmt: skip
def test_nearest_nodes(nodes: int, factor: int, levels: tuple[float, ...]) -> None:
    grid = karras_grid(nodes)
    assert tuple(round(grid[nearest_node(grid, factor * s)], 5) for s in SIGMAS) == levels


def test_nearest_nodes_by_descending_index_and_at_the_ends() -> None:
    grid = karras_grid(18)
    assert [nearest_node(grid, 2 * s) for s in (0.25, 0.5, 0.75, 1.0)] == [11, 10, 10, 9]
    fine = karras_grid(81)
    assert [nearest_node(fine, 2 * s) for s in (0.25, 0.5, 1.0)] == [53, 48, 42]
    assert nearest_node(grid, 1e-4) == 17
    assert nearest_node(grid, 1e3) == 0


@pytest.mark.parametrize(("sigma_max", "start"), [
    (0.5, (0.5, 0.3979, 0.3143, 0.2461)), (1.0, (1.0, 0.7815, 0.6052)),
    (2.0, (2.0, 1.5372, 1.1695)),
])  # fmt: skip
def test_karras_grid_started_at_twice_sigma(sigma_max: float, start: tuple[float, ...]) -> None:
    grid = karras_grid(18, sigma_max=sigma_max)
    assert tuple(round(v, 4) for v in grid[: len(start)]) == start
    assert grid[-1] == 0.002


# --- continuous time of a discrete schedule


@pytest.mark.parametrize("schedule", [linear_schedule(), cosine_schedule()])
def test_time_and_sigma_invert_each_other(schedule: Schedule) -> None:
    for i in (0, 1, 17, len(schedule) // 2, len(schedule) - 2):
        time = (i + 1) / len(schedule)
        assert schedule.log_alpha(time) == pytest.approx(0.5 * math.log(schedule.abar[i]), rel=1e-9)
        assert schedule.time_of_sigma(float(schedule.sigmas[i])) == pytest.approx(time, rel=1e-9)
        between = time + 0.3 / len(schedule)
        alpha = math.exp(schedule.log_alpha(between))
        sigma = math.sqrt(1 - alpha**2) / alpha
        assert schedule.time_of_sigma(sigma) == pytest.approx(between, rel=1e-9)


# --- bad use


@pytest.mark.parametrize(("make", "rule"), [
    (lambda: make_schedule("sigmoid"), "schedule 'sigmoid' is not known; use linear or cosine"),
    (lambda: make_schedule("linear", 1), "too short"),
    (lambda: linear_schedule().dds_index(100.0), "is above .* the end of the linear schedule"),
    (lambda: linear_schedule().index(0.5, "best"), "index rule 'best' is not known"),  # type: ignore[arg-type]
    (lambda: karras_grid(1), "is empty"),
    (lambda: karras_grid(5, 0.5, 0.5), "noise 0.5 is not above 0.5"),
    (lambda: karras_grid(5, 0.0), "is empty"),
])  # fmt: skip
def test_bad_use_names_the_rule(make: object, rule: str) -> None:
    with pytest.raises(BadInput, match=rule):
        make()  # type: ignore[operator]
