"""DPM-Solver with inner points in log-SNR (the paper) and as its steps (the official code)."""

import math
from typing import Literal

import numpy as np
import numpy.typing as npt
import pytest
import torch

from advpure.core.analytic import GaussianDenoiser
from advpure.core.chain import Noise
from advpure.core.randomness import RandomnessConfig
from advpure.data import load_images
from advpure.loading import load_purifier
from advpure.purifiers.dpm import DPM, group_orders

Floats = npt.NDArray[np.float64]
VARIANCE, MEAN = 0.3, 0.2


class Official:
    """The single-step solver as the official code writes it, on Gaussian data, in NumPy.

    Source: DPM-Solver (2206.00927), official code: `singlestep_dpm_solver_update` with times from
    `get_orders_and_timesteps_for_singlestep_solver` and inner times from `get_time_steps`.
    """

    def __init__(self, betas: Floats) -> None:
        """Tabulate log alpha at the times (i + 1) / T."""
        self.grid = np.arange(1, len(betas) + 1) / len(betas)
        self.table = 0.5 * np.log(np.cumprod(1.0 - betas))

    def log_alpha(self, t: float) -> float:
        """Return log alpha at a time."""
        return float(np.interp(t, self.grid, self.table))

    def std(self, t: float) -> float:
        """Return sigma at a time."""
        return math.sqrt(1.0 - math.exp(2.0 * self.log_alpha(t)))

    def snr(self, t: float) -> float:
        """Return lambda at a time."""
        return self.log_alpha(t) - math.log(self.std(t))

    def noise(self, x: Floats, t: float) -> Floats:
        """Return the exact noise prediction of Gaussian data."""
        alpha, sigma = math.exp(self.log_alpha(t)), self.std(t)
        level = (sigma / alpha) ** 2
        x0 = MEAN + VARIANCE / (VARIANCE + level) * (x / alpha - MEAN)
        return np.asarray((x - alpha * x0) / sigma)

    def step(self, x: Floats, s: float, t: float, order: int) -> Floats:
        """Go from s to t in one step."""
        inner = np.linspace(s, t, order + 1)
        lams = [self.snr(float(each)) for each in inner]
        h = lams[-1] - lams[0]

        def along(at: float, r: float) -> Floats:
            ratio = math.exp(self.log_alpha(at) - self.log_alpha(s))
            return np.asarray(ratio * x - self.std(at) * math.expm1(r * h) * e)

        e = self.noise(x, s)
        if order == 1:
            return along(t, 1.0)
        r1 = (lams[1] - lams[0]) / h
        e1 = self.noise(along(float(inner[1]), r1), float(inner[1]))
        phi = math.expm1(h)
        if order == 2:
            return np.asarray(along(t, 1.0) - 0.5 / r1 * self.std(t) * phi * (e1 - e))
        r2 = (lams[2] - lams[0]) / h
        bend = math.expm1(r2 * h) / (r2 * h) - 1.0
        at = float(inner[2])
        e2 = self.noise(along(at, r2) - r2 / r1 * self.std(at) * bend * (e1 - e), at)
        return np.asarray(along(t, 1.0) - 1.0 / r2 * self.std(t) * (phi / h - 1.0) * (e2 - e))

    def solve(self, x: Floats, start: float, orders: list[int]) -> Floats:
        """Go from a time to the first one."""
        whole = np.linspace(start, 1.0 / len(self.grid), sum(orders) + 1)
        marks = np.cumsum([0, *orders])
        for k, order in enumerate(orders):
            x = self.step(x, float(whole[marks[k]]), float(whole[marks[k + 1]]), order)
        return x


@pytest.mark.parametrize(("t", "order", "evaluations"), [
    (100, 3, 20), (100, 2, 7), (400, 3, 6), (1000, 3, 20), (50, 1, 5),
])  # fmt: skip
def test_spacing_gives_the_official_solver(
    t: int, order: Literal[1, 2, 3], evaluations: int
) -> None:
    denoiser = GaussianDenoiser(torch.full((1, 2, 2), MEAN, dtype=torch.float64), VARIANCE)
    x = torch.linspace(-2.0, 2.0, 8, dtype=torch.float64).reshape(2, 1, 2, 2)
    chains = {
        inner: DPM(t=t, order=order, evaluations=evaluations, inner=inner).chain(denoiser)[1:]
        for inner in ("logSNR", "spacing")
    }  # fmt: skip
    found = {inner: chain.run(x, Noise(None, None)).numpy() for inner, chain in chains.items()}
    settings = DPM(t=t)
    wanted = Official(settings.tables.betas).solve(
        x.numpy(), t / 1000, group_orders(order, evaluations)
    )
    np.testing.assert_allclose(found["spacing"], wanted, rtol=0, atol=1e-10)
    same = float(np.abs(found["logSNR"] - found["spacing"]).max())
    assert (same < 1e-12) == (order == 1)


@pytest.mark.slow
def test_the_default_is_the_paper_and_log_snr_steps_know_no_difference() -> None:
    images, _, ids = load_images("digits", n=2)
    results = {}
    for spacing in ("time_uniform", "logSNR"):
        for inner in ("logSNR", "spacing"):
            purifier = load_purifier(
                "dpm", "digits", t=100, spacing=spacing, inner=inner, xi=RandomnessConfig(0)
            )
            results[spacing, inner] = purifier.bind(ids)(images)
    default = load_purifier("dpm", "digits", t=100, xi=RandomnessConfig(0)).bind(ids)(images)
    assert torch.equal(default, results["time_uniform", "logSNR"])
    assert torch.equal(results["logSNR", "logSNR"], results["logSNR", "spacing"])
    apart = (results["time_uniform", "logSNR"] - results["time_uniform", "spacing"]).abs().max()
    assert 1e-5 < float(apart) < 0.02
