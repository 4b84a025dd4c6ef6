"""``dpm``: DPM-Solver, single step, orders 1 to 3, on a discrete schedule.

With lambda = log(alpha / sigma) the probability-flow ODE is solved exactly in its linear part;
order p uses p evaluations a step and converges at order p. Order 1 is DDIM.

Source: [Lu2022].
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from torch import Tensor

from advpure.base.errors import BadInput
from advpure.base.kinds import StepsOfChain
from advpure.core.chain import Chain, NoiseForm, Step
from advpure.core.denoisers import Denoiser
from advpure.core.recipe import TimeStrength, need
from advpure.purifiers.vp import noising_steps


@dataclass(frozen=True, kw_only=True)
class DPM(TimeStrength):
    """Noise in one draw, then DPM-Solver from t to the first index.

    Attributes:
        order: Highest order, 1 to 3.
        evaluations: Network evaluations in all; groups of the order, the rest by lower orders.
        spacing: ``time_uniform`` (high resolution) or ``logSNR`` (small images).
        inner: Where the inner points of a step of order 2 or 3 lie. ``logSNR``, the default: at
            fixed shares of its log-SNR, as in the paper's algorithms 1 and 2. ``spacing``: as the
            steps themselves, which the official code does. They differ with ``time_uniform`` only:
            by up to 2.5e-3 of an image in [0, 1] units at t = 100 with 20 evaluations.
    """

    order: Literal[1, 2, 3] = 3
    evaluations: StepsOfChain = 20
    spacing: Literal["time_uniform", "logSNR"] = "time_uniform"
    inner: Literal["logSNR", "spacing"] = "logSNR"

    def __post_init__(self) -> None:
        """Check the budget."""
        super().__post_init__()
        if self.index < 1:
            raise BadInput("t 1", "leaves the solver no interval", "use t = 2 or more")

    def chain(self, denoiser: Denoiser | None) -> Chain:
        """Lay out one noising step and one step for every group of evaluations."""
        network, schedule = need(denoiser, self.sigma), self.tables
        orders = group_orders(self.order, self.evaluations)
        start, end = (self.index + 1) / len(schedule), 1 / len(schedule)
        first, last = _log_snr(schedule.log_alpha(start)), _log_snr(schedule.log_alpha(end))
        marks = [sum(orders[:k]) / sum(orders) for k in range(len(orders) + 1)]
        times = [start + share * (end - start) for share in marks]
        in_time = self.spacing == "time_uniform"
        if in_time:
            snrs = [_log_snr(schedule.log_alpha(time)) for time in times]
        else:
            count = len(orders)
            snrs = [first + k / count * (last - first) for k in range(count + 1)]
        steps = noising_steps(schedule, self.index, "oneshot")
        for k, order in enumerate(orders):
            inner = [n / order for n in range(1, order)]
            if in_time and self.inner == "spacing":
                points = [times[k] + share * (times[k + 1] - times[k]) for share in inner]
                ahead = [_log_snr(schedule.log_alpha(time)) - snrs[k] for time in points]
                inner = [gap / (snrs[k + 1] - snrs[k]) for gap in ahead]
            number = len(orders) - k
            steps.append(solver_step(network, snrs[k], snrs[k + 1], order, number, inner))
        return Chain(steps)


def group_orders(order: int, evaluations: int) -> list[int]:
    """Split a budget of evaluations into solver orders, as the published solver does.

    Example:
        >>> group_orders(3, 20)
        [3, 3, 3, 3, 3, 3, 2]
    """
    whole, rest = divmod(evaluations, order)
    if order == 3 and rest == 0:
        return [3] * (whole - 1) + [2, 1]
    return [order] * whole + ([rest] if rest else [])


class _Level(NamedTuple):
    alpha: float
    sigma: float


def _log_snr(log_alpha: float) -> float:
    return log_alpha - 0.5 * math.log(-math.expm1(2 * log_alpha))


def _level(snr: float) -> _Level:
    """Return alpha and sigma of lambda = log(alpha / sigma), with alpha^2 + sigma^2 = 1."""
    return _Level((1 + math.exp(-2 * snr)) ** -0.5, (1 + math.exp(2 * snr)) ** -0.5)


def solver_step(
    denoiser: Denoiser, snr: float, after: float, order: int, number: int, inner: Sequence[float]
) -> Step:
    """Make one step from lambda = `snr` to `after`.

    Args:
        denoiser: D(x; sigma); the noise prediction is (x - alpha x0) / sigma.
        snr: lambda at the start.
        after: lambda at the end, larger.
        order: 1, 2 or 3.
        number: The step's time, for trajectories.
        inner: Places r of the inner points, shares of the way in lambda: none, r1, or r1 and r2.
            1/2 makes order 2 the midpoint rule.
    """
    h = after - snr
    here, there = _level(snr), _level(after)

    def epsilon(x: Tensor, at: float) -> Tensor:
        level = _level(at)
        x0 = denoiser(x / level.alpha, level.sigma / level.alpha)
        return (x - level.alpha * x0) / level.sigma

    def linear(x: Tensor, e: Tensor, r: float) -> Tensor:
        target = _level(snr + r * h)
        return target.alpha / here.alpha * x - target.sigma * math.expm1(r * h) * e

    def move(x: Tensor, z: Tensor | None) -> Tensor:
        e = epsilon(x, snr)
        if order == 1:
            return linear(x, e, 1.0)
        if order == 2:
            (r,) = inner
            middle = epsilon(linear(x, e, r), snr + r * h)
            return linear(x, e, 1.0) - there.sigma * math.expm1(h) * (0.5 / r) * (middle - e)
        r1, r2 = inner
        d1 = epsilon(linear(x, e, r1), snr + r1 * h) - e
        bend = math.expm1(r2 * h) / (r2 * h) - 1
        second = linear(x, e, r2) - _level(snr + r2 * h).sigma * r2 / r1 * bend * d1
        d2 = epsilon(second, snr + r2 * h) - e
        return linear(x, e, 1.0) - there.sigma / r2 * (math.expm1(h) / h - 1) * d2

    form = None
    if order == 1:
        kappa, pull = there.alpha / here.alpha, there.sigma * math.expm1(h)
        form = NoiseForm(kappa=kappa, gamma=pull / kappa, epsilon=lambda x: epsilon(x, snr))
    return Step(
        name=f"dpm-{order}",
        phase="reverse",
        time=number,
        move=move,
        evaluations=order,
        scale=there.alpha,
        sigma=there.sigma / there.alpha,
        form=form,
    )
