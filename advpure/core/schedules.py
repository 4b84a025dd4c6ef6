"""Noise schedules and the maps between time steps and noise levels.

A variance-preserving state is x_i = sqrt(abar_i) x0 + sqrt(1 - abar_i) z. Dividing by sqrt(abar_i)
gives the variance-exploding state x0 + s_i z with s_i = sqrt((1 - abar_i) / abar_i) in model units.
Indices count from 0; "t steps" of the papers end at index t - 1. All tables are float64.
"""

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from advpure.base.errors import BadInput

Floats = NDArray[np.float64]
ScheduleName = Literal["linear", "cosine"]
IndexRule = Literal["dds", "densepure", "nearest"]


@dataclass(frozen=True, eq=False)
class Schedule:
    """A discrete variance-preserving schedule.

    Args:
        name: ``linear`` or ``cosine``, for records.
        betas: The noise variances beta_i, [T], float64.
    """

    name: ScheduleName
    betas: Floats

    def __len__(self) -> int:
        """Return the number of time steps T."""
        return len(self.betas)

    @cached_property
    def abar(self) -> Floats:
        """Cumulative products of 1 - beta: the signal's share of the variance, [T]."""
        return np.asarray(np.cumprod(1.0 - self.betas), dtype=np.float64)

    @cached_property
    def sigmas(self) -> Floats:
        """Equivalent variance-exploding noise s_i in model units, [T], increasing."""
        levels: Floats = np.sqrt((1.0 - self.abar) / self.abar)
        return levels

    @cached_property
    def posterior_variance(self) -> Floats:
        """Variances beta~_i of q(x_{i-1} | x_i, x_0), [T]; the first is 0."""
        before = np.concatenate(([1.0], self.abar[:-1]))
        variance: Floats = self.betas * (1.0 - before) / (1.0 - self.abar)
        return variance

    def dds_index(self, sigma: float) -> int:
        """Return the smallest index i >= 1 with s_i >= 2 sigma (the search of [Carlini2023]).

        Args:
            sigma: Noise level in [0, 1] units.

        Raises:
            BadInput: when the schedule never gets that noisy.
        """
        reached = np.flatnonzero(self.sigmas[1:] >= 2 * sigma)
        if not len(reached):
            raise BadInput(
                f"sigma {sigma:g}",
                f"is above {self.sigmas[-1] / 2:.4g}, the end of the {self.name} schedule",
                "lower sigma",
            )
        return int(reached[0]) + 1

    def nearest_index(self, sigma: float) -> int:
        """Return argmin_i |s_i - 2 sigma|, clamped at both ends (the rule of [Li2024])."""
        return int(np.argmin(np.abs(self.sigmas - 2 * sigma)))

    def closed_form_index(self, sigma: float) -> float:
        """Solve abar(t) = 1 / (1 + 4 sigma^2) on the continuous schedule for t, in [0, T].

        Source: [Carlini2023], equation 5 (cosine), and the variance-preserving SDE that the linear
        schedule discretises, beta_min = 0.1 and beta_max = 20.

        Example:
            >>> round(cosine_schedule().closed_form_index(0.5), 4)
            1984.1995
        """
        ratio = 1.0 + (2.0 * sigma) ** 2
        if self.name == "cosine":
            start = math.sin(math.pi / (2 + 2 * COSINE_SHIFT))
            angle = math.asin(start / math.sqrt(ratio))
            return len(self) * (1.0 - 2.0 * (1.0 + COSINE_SHIFT) * angle / math.pi)
        return len(self) * vp_time(math.log(ratio))

    def index(self, sigma: float, rule: IndexRule) -> int:
        """Turn a noise level in [0, 1] units into a time index by one of the published rules.

        Args:
            sigma: Noise level in [0, 1] units.
            rule: ``dds`` ([Carlini2023]), ``densepure`` (rounded closed form, [Xiao2023]) or
                ``nearest`` ([Li2024]).
        """
        if rule == "dds":
            return self.dds_index(sigma)
        if rule == "nearest":
            return self.nearest_index(sigma)
        if rule == "densepure":
            return min(round(self.closed_form_index(sigma)), len(self) - 1)
        raise BadInput(
            f"index rule {rule!r}", "is not known", f"use {', '.join(get_args(IndexRule))}"
        )

    def log_alpha(self, time: float) -> float:
        """Interpolate log sqrt(abar) at continuous time t in (0, 1]; index i has (i + 1) / T."""
        grid = np.arange(1, len(self) + 1) / len(self)
        return float(np.interp(time, grid, 0.5 * np.log(self.abar)))

    def time_of_sigma(self, sigma_model: float) -> float:
        """Invert `log_alpha`: the continuous time of a noise level in model units."""
        target = -0.5 * math.log1p(sigma_model**2)
        grid = np.arange(1, len(self) + 1) / len(self)
        return float(np.interp(-target, -0.5 * np.log(self.abar), grid))


COSINE_SHIFT = 0.008
VP_BETA_MIN, VP_BETA_MAX = 0.1, 20.0


@lru_cache
def linear_schedule(steps: int = 1000) -> Schedule:
    """Make DDPM's linear schedule: beta from 1e-4 to 0.02, rescaled by 1000 / steps."""
    scale = 1000.0 / steps
    return Schedule("linear", np.linspace(scale * 1e-4, scale * 0.02, steps))


@lru_cache
def cosine_schedule(steps: int = 4000) -> Schedule:
    """Make the cosine schedule: abar = cos^2 of the shifted time, beta at most 0.999."""
    time = np.arange(steps + 1) / steps
    curve = np.cos((time + COSINE_SHIFT) / (1 + COSINE_SHIFT) * np.pi / 2) ** 2
    return Schedule("cosine", np.minimum(1.0 - curve[1:] / curve[:-1], 0.999))


def make_schedule(name: str, steps: int | None = None) -> Schedule:
    """Make a schedule by name: ``linear`` (1000 steps) or ``cosine`` (4000 steps)."""
    if name not in get_args(ScheduleName):
        raise BadInput(f"schedule {name!r}", "is not known", "use linear or cosine")
    if steps is not None and steps < 2:
        raise BadInput(f"a schedule of {steps} steps", "is too short", "use 2 or more")
    if name == "linear" and steps is not None and steps <= 20:
        raise BadInput(
            f"a linear schedule of {steps} steps",
            "would need a beta of 1 or more",
            "use 21 or more",
        )
    if name == "linear":
        return linear_schedule(steps or 1000)
    return cosine_schedule(steps or 4000)


def vp_beta(time: float) -> float:
    """Return beta(t) of the variance-preserving SDE, t in [0, 1] ([Song2021b])."""
    return VP_BETA_MIN + time * (VP_BETA_MAX - VP_BETA_MIN)


def vp_abar(time: float) -> float:
    """Return abar(t) = exp(-(beta_max - beta_min) t^2 / 2 - beta_min t) ([Song2021b])."""
    return math.exp(-0.5 * (VP_BETA_MAX - VP_BETA_MIN) * time**2 - VP_BETA_MIN * time)


def vp_time(log_ratio: float) -> float:
    """Invert `vp_abar`: the time at which -log abar equals `log_ratio`."""
    slope = VP_BETA_MAX - VP_BETA_MIN
    return (math.sqrt(VP_BETA_MIN**2 + 2 * slope * log_ratio) - VP_BETA_MIN) / slope


def karras_grid(
    nodes: int = 18, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0
) -> Floats:
    """Return the noise grid of EDM and consistency models, descending, in model units.

    Args:
        nodes: Number of nodes N, at least 2.
        sigma_min: Last node.
        sigma_max: First node.
        rho: Curvature.

    Source: [Karras2022], equation 5.

    Example:
        >>> karras_grid(3).round(4).tolist()
        [80.0, 2.5152, 0.002]
    """
    if nodes < 2:
        raise BadInput(f"a grid of {nodes} nodes", "is empty", "use 2 or more nodes")
    if not sigma_min > 0:
        raise BadInput(f"a grid that ends at {sigma_min:g}", "is empty", "end it above 0")
    if not sigma_min < sigma_max:
        rule = (
            f"is not above {sigma_min:g}, where the grid of noise levels ends (images in [-1, 1])"
        )
        raise BadInput(f"noise {sigma_max:g}", rule, "use more noise")
    ramp = np.linspace(0.0, 1.0, nodes)
    top, bottom = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    grid: Floats = (top + ramp * (bottom - top)) ** rho
    grid[0], grid[-1] = sigma_max, sigma_min
    return grid


def nearest_node(grid: Floats, sigma_model: float) -> int:
    """Return the index of the node nearest a noise level in model units, clamped at both ends."""
    return int(np.argmin(np.abs(grid - sigma_model)))
