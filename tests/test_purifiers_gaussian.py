"""On Gaussian data every purifier is affine: output = a x + m mu + sum_k c_k z_k, pixel by pixel.

The oracle below writes each published recursion a second time, in numpy, on the coefficients
(a, m, c) themselves. It shares no code with the purifiers. From the coefficients follow the
purified mean, the covariance sum_k c_k^2 and the compression rate |a|; feeding them the keyed noise
predicts every single output.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats

from advpure.core.analytic import GaussianDenoiser
from advpure.core.purifier import Purifier
from advpure.core.randomness import RandomnessConfig
from advpure.loading import load_purifier
from advpure.purifiers import PURIFIERS

Array = NDArray[np.float64]
SHAPE = (1, 2, 3)
VARIANCE = np.array([0.25, 0.02, 0.7, 0.1, 1.3, 0.4]).reshape(SHAPE)
MEAN = np.array([0.3, -0.4, 0.0, 0.8, -0.1, 0.5]).reshape(SHAPE)
XI = RandomnessConfig(7)
ONE = np.ones(SHAPE)


@dataclass
class _Line:
    """A state as coefficients of the image, the data mean and every noise, all [C, H, W]."""

    a: Array = field(default_factory=lambda: ONE)
    m: Array = field(default_factory=lambda: 0 * ONE)
    c: dict[tuple[str, int], Array] = field(default_factory=dict)

    def __mul__(self, k: float | Array) -> "_Line":
        return _Line(self.a * k, self.m * k, {key: v * k for key, v in self.c.items()})

    __rmul__ = __mul__

    def __add__(self, other: "_Line") -> "_Line":
        c = dict(self.c)
        for key, v in other.c.items():
            c[key] = c.get(key, 0 * ONE) + v
        return _Line(self.a + other.a, self.m + other.m, c)

    def __sub__(self, other: "_Line") -> "_Line":
        return self + other * -1.0

    def noised(self, k: float, phase: str, time: int) -> "_Line":
        return self + _Line(0 * ONE, 0 * ONE, {(phase, time): k * ONE})


def posterior(x: _Line, s: float) -> _Line:
    """The exact denoiser of N(mu, v) at noise s."""
    keep = VARIANCE / (VARIANCE + s**2)
    return x * keep + _Line(0 * ONE, 1 - keep)


LINEAR = np.linspace(1e-4, 0.02, 1000)
CURVE = np.cos((np.arange(4001) / 4000 + 0.008) / 1.008 * np.pi / 2) ** 2
COSINE = np.minimum(1 - CURVE[1:] / CURVE[:-1], 0.999)


def karras(n: int, top: float) -> Array:
    ramp = np.arange(n) / (n - 1)
    return (top ** (1 / 7) + ramp * (0.002 ** (1 / 7) - top ** (1 / 7))) ** 7


def epsilon(x: _Line, abar: float) -> _Line:
    """The exact noise prediction at a variance-preserving state."""
    x0 = posterior(x * abar**-0.5, math.sqrt(1 / abar - 1))
    return (x - abar**0.5 * x0) * (1 - abar) ** -0.5


def noising(x: _Line, t: int, oneshot: bool = False) -> _Line:
    if oneshot:
        abar = float(np.prod(1 - LINEAR[:t]))
        return (x * abar**0.5).noised(math.sqrt(1 - abar), "forward", t)
    for i in range(t):
        x = (x * math.sqrt(1 - LINEAR[i])).noised(math.sqrt(LINEAR[i]), "forward", i + 1)
    return x


def ancestral(x: _Line, t: int, small: bool = False) -> _Line:
    """Seed 003, equation 4, in its printed form."""
    abar = np.cumprod(1 - LINEAR)
    for i in reversed(range(t)):
        b = LINEAR[i]
        x = (x - epsilon(x, abar[i]) * (b / math.sqrt(1 - abar[i]))) * (1 - b) ** -0.5
        if i:
            spread = b * (1 - abar[i - 1]) / (1 - abar[i]) if small else b
            x = x.noised(math.sqrt(spread), "reverse", i + 1)
    return x


def strided(x: _Line, abar: Array, kept: list[int], small: bool) -> _Line:
    """Ancestral steps between kept indices, by the product of two Gaussians.

    With p = abar_prev and r = abar_i / p, q(x_prev | x_i, x0) is proportional to
    N(x_i; sqrt(r) x_prev, 1 - r) N(x_prev; sqrt(p) x0, 1 - p): precisions add up.
    """
    for i, prev in zip(kept, [*kept[1:], -1], strict=True):
        p = abar[prev] if prev >= 0 else 1.0
        r = abar[i] / p
        x0 = posterior(x * abar[i] ** -0.5, math.sqrt(1 / abar[i] - 1))
        if prev < 0:
            return x0
        precision = r / (1 - r) + 1 / (1 - p)
        x = (x * (math.sqrt(r) / (1 - r)) + x0 * (math.sqrt(p) / (1 - p))) * (1 / precision)
        x = x.noised(math.sqrt(1 / precision if small else 1 - r), "reverse", i + 1)
    return x


def implicit(x: _Line, t: int, eta: float = 0.0, stride: int = 1) -> _Line:
    abar = np.cumprod(1 - LINEAR)
    kept = list(range(t - 1, -1, -stride))
    for i, prev in zip(kept, [*kept[1:], -1], strict=True):
        p = abar[prev] if prev >= 0 else 1.0
        s = eta * math.sqrt((1 - p) / (1 - abar[i]) * (1 - abar[i] / p))
        e = epsilon(x, abar[i])
        x0 = (x - math.sqrt(1 - abar[i]) * e) * abar[i] ** -0.5
        x = p**0.5 * x0 + math.sqrt(max(1 - p - s**2, 0)) * e
        if s:
            x = x.noised(s, "reverse", i + 1)
    return x


def reverse_sde(t: int, ode: bool = False, floor: bool = False) -> _Line:
    x = noising(_Line(), t, oneshot=True)
    discrete = np.cumprod(1 - LINEAR)
    times = [(t - k) / 1000 for k in range(t)] + [1e-5]
    for k in range(t):
        u, dt = times[k], times[k] - times[k + 1]
        beta = 0.1 + u * 19.9
        abar = math.exp(-0.5 * 19.9 * u**2 - 0.1 * u)
        e = epsilon(x, discrete[min(t - k, 999)] if floor else abar)
        drift = x * (0.5 * beta) - e * ((0.5 if ode else 1.0) * beta / math.sqrt(1 - abar))
        x = x + drift * dt
        if not ode:
            x = x.noised(math.sqrt(beta * dt), "reverse", t - k)
    return x


def dpm_solver(t: int, orders: list[int], spacing: str) -> _Line:
    half_log = 0.5 * np.log(np.cumprod(1 - LINEAR))

    def lam(time: float) -> float:
        at = float(np.interp(time, np.arange(1, 1001) / 1000, half_log))
        return at - 0.5 * math.log(1 - math.exp(2 * at))

    ends = t / 1000, 1 / 1000
    if spacing == "logSNR":
        knots = list(np.linspace(lam(ends[0]), lam(ends[1]), len(orders) + 1))
    else:
        fine = np.linspace(*ends, sum(orders) + 1)
        knots = [lam(fine[k]) for k in np.cumsum([0, *orders])]

    def alpha(at: float) -> float:
        return 1 / math.sqrt(1 + math.exp(-2 * at))

    def sigma(at: float) -> float:
        return 1 / math.sqrt(1 + math.exp(2 * at))

    x = noising(_Line(), t, oneshot=True)
    for s, end, order in zip(knots[:-1], knots[1:], orders, strict=True):
        h = end - s

        def e(y: _Line, at: float) -> _Line:
            return epsilon(y, alpha(at) ** 2)

        def first(r: float, x: _Line = x, s: float = s, h: float = h) -> _Line:
            at = s + r * h
            return x * (alpha(at) / alpha(s)) - e(x, s) * (sigma(at) * math.expm1(r * h))

        if order == 1:
            x = first(1.0)
        elif order == 2:
            gap = e(first(0.5), s + h / 2) - e(x, s)
            x = first(1.0) - gap * (sigma(end) / (2 * 0.5) * math.expm1(h))
        else:
            d1 = e(first(1 / 3), s + h / 3) - e(x, s)
            at = s + 2 * h / 3
            u2 = first(2 / 3) - d1 * (2 * sigma(at) * (math.expm1(2 * h / 3) / (2 * h / 3) - 1))
            d2 = e(u2, at) - e(x, s)
            x = first(1.0) - d2 * (1.5 * sigma(end) * (math.expm1(h) / h - 1))
    return x


def heun(levels: list[float], noise: float) -> _Line:
    x = _Line().noised(noise, "forward", 1)
    for here, there in zip(levels, [*levels[1:], 0.0], strict=True):
        d = (x - posterior(x, here)) * (1 / here)
        y = x + d * (there - here)
        if there:
            y = x + (d + (y - posterior(y, there)) * (1 / there)) * (0.5 * (there - here))
        x = y
    return x


def oneshot(level: float, told: float) -> _Line:
    return posterior(_Line().noised(level, "forward", 1), told)


def oneshot_ddpm(rule: str, sigma: float) -> _Line:
    abar = np.cumprod(1 - LINEAR)
    s = np.sqrt(1 / abar - 1)
    if rule == "dds":
        i = next(i for i in range(1, 1000) if s[i] >= 2 * sigma)
        return posterior(_Line().noised(s[i], "forward", i + 1), s[i])
    if rule == "nearest":
        i = int(np.argmin(abs(s - 2 * sigma)))
    else:  # abar(u) = 1 / (1 + 4 sigma^2) solved for u by bisection, rounded
        low, high = 0.0, 1.0
        for _ in range(60):
            middle = (low + high) / 2
            inside = 9.95 * middle**2 + 0.1 * middle < math.log(1 + 4 * sigma**2)
            low, high = (middle, high) if inside else (low, middle)
        i = round(1000 * low)
    seen = _Line().noised(2 * sigma, "forward", i + 1) * (1 + 4 * sigma**2) ** -0.5
    return posterior(seen * abar[i] ** -0.5, s[i])


def densepure(sigma: float, steps: int | None) -> _Line:
    angle = math.asin(math.sin(math.pi / 2.016) / math.hypot(1, 2 * sigma))
    t = 4000 * (1 - 2.016 * angle / math.pi)
    x = _Line().noised(2 * sigma, "forward", round(t) + 1) * (1 + 4 * sigma**2) ** -0.5
    abar = np.cumprod(1 - COSINE)
    if steps is None:
        return strided(x, abar, list(range(round(t), -1, -1)), small=True)
    kept = [round(t - k * t / steps) for k in range(steps)]
    return strided(x, abar, kept, small=True)


GRID = karras(18, 80.0)
CASES: dict[str, tuple[str, dict[str, object], Callable[[], _Line]]] = {
    "none": ("none", {}, _Line),
    "ddpm": ("ddpm", {"t": 30}, lambda: ancestral(noising(_Line(), 30), 30)),
    "ddpm default": ("ddpm", {}, lambda: ancestral(noising(_Line(), 100), 100)),
    "ddpm small": (
        "ddpm", {"t": 30, "variance": "small"}, lambda: ancestral(noising(_Line(), 30), 30, True),
    ),
    "ddpm oneshot": (
        "ddpm", {"t": 30, "forward": "oneshot"},
        lambda: ancestral(noising(_Line(), 30, oneshot=True), 30),
    ),
    "ddpm stride": (
        "ddpm", {"t": 30, "stride": 7},
        lambda: strided(noising(_Line(), 30), np.cumprod(1 - LINEAR), [29, 22, 15, 8, 1], False),
    ),
    "ddpm sigma": (
        "ddpm", {"sigma": 0.25}, lambda: ancestral(noising(_Line(), 146), 146),
    ),
    "reverse": ("reverse", {"t": 40}, lambda: ancestral(_Line(), 40)),
    "reverse prescale": (
        "reverse", {"t": 40, "prescale": True},
        lambda: ancestral(_Line() * math.sqrt(np.prod(1 - LINEAR[:40])), 40),
    ),
    "ddim": ("ddim", {"t": 40}, lambda: implicit(noising(_Line(), 40), 40)),
    "ddim eta": ("ddim", {"t": 40, "eta": 0.6}, lambda: implicit(noising(_Line(), 40), 40, 0.6)),
    "ddim stride": (
        "ddim", {"t": 40, "stride": 9}, lambda: implicit(noising(_Line(), 40), 40, 0.0, 9),
    ),
    "ddim eta 1 is ddpm small": (
        "ddim", {"t": 25, "eta": 1.0}, lambda: ancestral(noising(_Line(), 25), 25, True),
    ),
    "vpsde": ("vpsde", {"t": 50}, lambda: reverse_sde(50)),
    "vpsde ode": ("vpsde", {"t": 50, "kind": "ode"}, lambda: reverse_sde(50, ode=True)),
    "vpsde floor": ("vpsde", {"t": 50, "label": "floor"}, lambda: reverse_sde(50, floor=True)),
    "dpm": ("dpm", {}, lambda: dpm_solver(100, [3] * 6 + [2], "time_uniform")),
    "dpm 21": (
        "dpm", {"t": 300, "evaluations": 21, "spacing": "logSNR"},
        lambda: dpm_solver(300, [3] * 6 + [2, 1], "logSNR"),
    ),
    "dpm order 2": (
        "dpm", {"order": 2, "evaluations": 9},
        lambda: dpm_solver(100, [2] * 4 + [1], "time_uniform"),
    ),
    "dpm order 1": (
        "dpm", {"order": 1, "evaluations": 9}, lambda: dpm_solver(100, [1] * 9, "time_uniform"),
    ),
    **{
        f"onestep-ddpm {rule} {sigma}": (
            "onestep-ddpm", {"sigma": sigma, "index_rule": rule, "clip_x0": False},
            lambda rule=rule, sigma=sigma: oneshot_ddpm(rule, sigma),
        )
        for rule in ("dds", "densepure", "nearest") for sigma in (0.25, 1.0)
    },
    "onestep-ddpm t": (
        "onestep-ddpm", {"t": 100, "clip_x0": False},
        lambda: posterior(noising(_Line(), 100, True) * np.prod(1 - LINEAR[:100]) ** -0.5,
                          math.sqrt(1 / np.prod(1 - LINEAR[:100]) - 1)),
    ),
    "onestep-edm": ("onestep-edm", {"sigma": 0.5}, lambda: oneshot(1.0, GRID[10])),
    "onestep-edm paper": (
        "onestep-edm", {"sigma": 0.5, "time_rule": "paper"}, lambda: oneshot(1.0, GRID[11]),
    ),
    "onestep-edm exact": (
        "onestep-edm", {"sigma": 0.5, "time_rule": "exact"}, lambda: oneshot(1.0, 1.0),
    ),
    "calibrated": ("calibrated", {"sigma": 0.5}, lambda: oneshot(1.0, 1.0)),
    "pf-ode": ("pf-ode", {"sigma": 0.5}, lambda: heun(list(karras(18, 1.0)), 1.0)),
    "pf-ode truncated": (
        "pf-ode", {"sigma": 0.5, "recipe": "truncated"}, lambda: heun(list(GRID[10:]), 1.0),
    ),
    "rrcm": ("rrcm", {"sigma": 0.5}, lambda: _Line().noised(1.0, "forward", 1)),
    "cm": ("cm", {}, lambda: oneshot(0.5, GRID[11])),
    "cm-ft": ("cm-ft", {}, lambda: oneshot(0.5, GRID[11])),
    "cm 3 steps": (
        "cm", {"sigma": 0.5, "steps": 3},
        # nodes 10 .. 17: evenly spread, 10 + round(7 / 3) = 12 and 10 + round(14 / 3) = 15
        lambda: posterior(posterior(posterior(_Line().noised(1.0, "forward", 1), GRID[10])
                                    .noised(GRID[12], "forward", 2), GRID[12])
                          .noised(GRID[15], "forward", 3), GRID[15]),
    ),
    "densepure": ("densepure", {"sigma": 0.25, "clip_x0": False}, lambda: densepure(0.25, 10)),
    "densepure half": (
        "densepure", {"sigma": 0.75, "clip_x0": False, "steps": 7}, lambda: densepure(0.75, 7),
    ),
    "densepure all": (
        "densepure", {"sigma": 0.05, "clip_x0": False, "steps": None},
        lambda: densepure(0.05, None),
    ),
}  # fmt: skip


def _purifier(case: str) -> Purifier:
    name, options, _ = CASES[case]
    denoiser = GaussianDenoiser(torch.from_numpy(MEAN), torch.from_numpy(VARIANCE))
    return load_purifier(name, denoiser=denoiser, tile=0, xi=XI, **options)


def _predict(line: _Line, images: Array, ids: list[int]) -> Array:
    """Turn coefficients into outputs in [0, 1] units."""
    state = line.a * (2 * images - 1) + line.m * MEAN
    for (phase, time), c in line.c.items():
        state = state + c * XI.normal(ids, phase, time, SHAPE).double().numpy()  # type: ignore[arg-type]
    return (state + 1) / 2


def test_every_registered_purifier_has_a_closed_form_here() -> None:
    assert {name for name, _, _ in CASES.values()} == set(PURIFIERS)


@pytest.mark.parametrize("case", CASES)
def test_every_output_is_predicted(case: str) -> None:
    purifier, line = _purifier(case), CASES[case][2]()
    ids = [0, 3, 11]
    images = np.random.Generator(np.random.Philox(1)).random((3, *SHAPE))
    found = purifier.bind(ids)(torch.from_numpy(images)).numpy()
    # float64 on both sides; hundreds of steps lose a few digits of 16.
    np.testing.assert_allclose(found, _predict(line, images, ids), rtol=1e-9, atol=1e-9)
    drawn = {step.key[1:] for step in purifier.chain if step.noisy}
    assert drawn == set(line.c)


@pytest.mark.parametrize("case", CASES)
def test_compression_rate_and_jacobian_are_the_coefficient(case: str) -> None:
    purifier, line = _purifier(case), CASES[case][2]()
    images = torch.full((1, *SHAPE), 0.4, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(purifier.bind([5]), images).reshape(6, 6).numpy()
    np.testing.assert_allclose(jacobian, np.diag(line.a.ravel()), rtol=1e-9, atol=1e-12)
    # The rate of one perturbation: |f(x + d) - f(x)| / |d| with the same noise.
    d = np.linspace(-0.1, 0.08, 6).reshape(SHAPE)
    moved = purifier.bind([5])(images + torch.from_numpy(d)) - purifier(images)
    expected = np.linalg.norm(line.a * d) / np.linalg.norm(d)
    assert float(moved.norm()) / np.linalg.norm(d) == pytest.approx(expected, rel=1e-8)


QUICKLY = ("ddpm", "reverse", "ddim", "cm", "onestep-edm")


@pytest.mark.slow
@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, marks=[] if case in QUICKLY else pytest.mark.slow)
        for case in CASES
        if case != "none"
    ],
)
def test_purified_mean_and_covariance_over_many_samples(case: str) -> None:
    purifier, line, n = _purifier(case), CASES[case][2](), 3000
    if len(line.c) > 70 or len(purifier.chain) > 100:
        n = 300
    images = np.full(SHAPE, 0.4)
    out = purifier.bind(range(n))(torch.from_numpy(images).expand(n, *SHAPE)).numpy()
    flat = 2 * out.reshape(n, 6) - 1
    mean = (line.a * (2 * images - 1) + line.m * MEAN).ravel()
    variance = sum(c**2 for c in line.c.values()).ravel()  # type: ignore[union-attr]
    standard = (flat - mean) / np.sqrt(variance)
    # Two-sided, alpha = 1e-5 for each kind over 6 pixels and 15 pairs.
    assert np.abs(standard.mean(0)).max() * n**0.5 < stats.norm.isf(1e-5 / 12)
    squares = (standard**2).sum(0)
    low, high = stats.chi2.ppf([1e-5 / 12, 1 - 1e-5 / 12], n)
    assert ((squares > low) & (squares < high)).all()
    r = np.corrcoef(standard.T)[np.triu_indices(6, 1)]  # of independent normals: Student's t
    assert np.abs(r * np.sqrt((n - 2) / (1 - r**2))).max() < stats.t.isf(1e-5 / 30, n - 2)


def test_a_perfect_reverse_process_returns_the_data() -> None:
    # Over the data's own distribution, the SDE's many small steps give back its mean and variance.
    line = _predict_over_data("vpsde", {"t": 300})
    np.testing.assert_allclose(line[0], MEAN, atol=0.02)
    np.testing.assert_allclose(line[1], VARIANCE, rtol=0.03)
    line = _predict_over_data("pf-ode", {"sigma": 1.0, "nodes": 200})
    np.testing.assert_allclose(line[0], MEAN, atol=1e-3)
    np.testing.assert_allclose(line[1], VARIANCE, rtol=1e-3)


def _predict_over_data(name: str, options: dict[str, object]) -> tuple[Array, Array]:
    """Mean and variance of purified data x ~ N(mu, v), from the purifier's own coefficients."""
    denoiser = GaussianDenoiser(torch.from_numpy(MEAN), torch.from_numpy(VARIANCE))
    purifier = load_purifier(name, denoiser=denoiser, tile=0, **options)
    chain = purifier.chain
    x = torch.zeros(1, *SHAPE, dtype=torch.float64)
    variance = torch.from_numpy(VARIANCE)[None]
    mean = torch.from_numpy(MEAN)[None]
    zero, one = torch.zeros_like(x), torch.ones_like(x)
    for step in chain:  # every step is affine: read its coefficients off three evaluations
        offset = step.move(x, zero)
        slope = step.move(x + 1, zero) - offset
        noise = step.move(x, one) - offset if step.noisy else zero
        mean, variance = offset + slope * mean, slope**2 * variance + noise**2
    return mean[0].numpy(), variance[0].numpy()
