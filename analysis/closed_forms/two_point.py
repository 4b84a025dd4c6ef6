"""Two points at -1 and 1, noise and two purifiers: example 3.1 of [Li2024] in closed form.

With x = 1 or -1, equally likely, and y = x + t z:

    posterior mean (one-shot denoising)   m(y) = tanh(y / t^2)
    probability-flow ODE, any start       sign(y)

Given y, x is 1 with probability (1 + m) / 2, so the transports E|x - pi(y)| are

    one-shot   E[(1 + m)(1 - m) / 2 + (1 - m)(1 + m) / 2] = E[1 - m^2]
    ODE        2 P(sign(y) wrong) = 2 Phi(-1 / t)         = E[1 - |m|]

The ODE's is never larger, since |m| <= 1; the sign is a median of x given y, and the mean is not.
For the squared distance it is the other way round. Both answer with the same sign, so a classifier
that reads the sign is wrong equally often. The one-shot answer is E[1 - |m|] away from the nearer
point, the ODE's is on it.

Source: [Li2024], example 3.1, with its score corrected: -x / t^2 + tanh(x / t^2) / t^2. All in
the units of the points: t is a standard deviation there, not sigma in [0, 1] units.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import ndtr
from torch import Tensor

from advpure.base.errors import BadInput
from advpure.core.analytic import MixtureDenoiser
from advpure.core.chain import Noise
from advpure.core.randomness import RandomnessConfig
from advpure.purifiers.oneshot import OneStepEDM
from advpure.purifiers.pf_ode import PFODE

Floats = npt.NDArray[np.float64]

_NODES = 200_001
_REACH = 12.0


class TwoPointLaw(NamedTuple):
    """Closed forms at one noise level.

    Attributes:
        one_shot: Transport of the posterior mean.
        ode: Transport of the probability-flow ODE, and of an exact consistency model.
        off_manifold: Mean distance of the posterior mean from the nearer point; the ODE's is 0.
        wrong: Probability that the answer has the wrong sign, for both.
        one_shot_squared: Mean squared distance of the posterior mean.
        ode_squared: Mean squared distance of the ODE.
    """

    one_shot: float
    ode: float
    off_manifold: float
    wrong: float
    one_shot_squared: float
    ode_squared: float


def two_point_law(t: float) -> TwoPointLaw:
    """Return the closed forms; the one integral by the trapezoidal rule, to about 1e-12.

    Args:
        t: Standard deviation of the noise, in units of the points.

    Raises:
        BadInput: for noise that is not positive.

    Example:
        >>> law = two_point_law(1.0)
        >>> round(law.ode, 6), round(law.one_shot, 6), law.one_shot > law.ode
        (0.317311, 0.4496, True)
    """
    _check_noise(t)
    z = np.linspace(-_REACH, _REACH, _NODES)
    density = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    m = np.tanh((1.0 + t * z) / t**2)  # x = 1; the other point is the mirror image
    wrong = float(ndtr(-1.0 / t))

    def mean(values: Floats) -> float:
        return float(np.trapezoid(values * density, z))

    return TwoPointLaw(
        mean(1.0 - m), 2.0 * wrong, mean(1.0 - np.abs(m)), wrong, mean((1.0 - m) ** 2), 4.0 * wrong
    )


def two_point_denoiser() -> MixtureDenoiser:
    """Return the exact denoiser of the two points, as images of one pixel."""
    return MixtureDenoiser(
        torch.tensor([-1.0, 1.0], dtype=torch.float32, device="cpu").reshape(2, 1, 1, 1)
    )


class TwoPointDraws(NamedTuple):
    """Simulated answers.

    Attributes:
        x: The points, float64 [draws].
        one_shot: Answers of the one-shot purifier, by the exact denoiser.
        ode: Answers of the probability-flow ODE, by Heun's method.
    """

    x: Floats
    one_shot: Floats
    ode: Floats


def simulate_two_points(t: float, draws: int, xi: RandomnessConfig, *, nodes: int) -> TwoPointDraws:
    """Purify noisy points by the purifiers ``onestep-edm`` and ``pf-ode``, with the exact denoiser.

    Args:
        t: Standard deviation of the noise, in units of the points.
        draws: Points, alternately -1 and 1; the same noise for every t and purifier.
        xi: What the noise is drawn from.
        nodes: Nodes of the ODE's grid.

    Raises:
        BadInput: for noise that is not positive.

    Example:
        >>> answers = simulate_two_points(0.5, 4, RandomnessConfig(0), nodes=18)
        >>> answers.x.tolist(), sorted({abs(round(each, 3)) for each in answers.ode.tolist()})
        ([-1.0, 1.0, -1.0, 1.0], [1.0])
    """
    _check_noise(t)
    denoiser = two_point_denoiser()
    ids = torch.arange(draws, dtype=torch.int64, device="cpu")
    x = (2.0 * (ids % 2) - 1.0).double().reshape(-1, 1, 1, 1)
    z = xi.fold("two-point", 0).normal(ids.tolist(), "forward", 0, (1, 1, 1)).double()
    noise = Noise(None, ids)

    def answer(recipe: OneStepEDM | PFODE) -> Tensor:
        with torch.no_grad():  # a measurement, not a gradient
            return recipe.chain(denoiser)[1:].run(x + t * z, noise).flatten()

    one_shot = answer(OneStepEDM(sigma=t / 2, time_rule="exact"))
    ode = answer(PFODE(sigma=t / 2, recipe="full", nodes=nodes))
    return TwoPointDraws(x.flatten().numpy(), one_shot.numpy(), ode.numpy())


def _check_noise(t: float) -> None:
    if not 0.0 < t < np.inf:
        raise BadInput(f"t {t}", "is no noise", "use a positive number, such as 1")
