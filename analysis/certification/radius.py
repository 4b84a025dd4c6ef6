"""Certified radii R = sigma Phi^-1(p), computed and rounded towards the safe side.

If a base classifier f answers c with probability p > 1/2 under Gaussian noise of standard
deviation sigma, the smoothed classifier g(x) = argmax_c P(f(x + sigma z) = c) answers c on the
whole l2 ball of radius sigma Phi^-1(p). With a lower bound of p the ball is smaller, never larger.

Units: sigma and radii in [0, 1] units of the images.
Source: [Cohen2019], theorem 1; [Li2024], section 2.
"""

import math
from collections.abc import Sequence
from decimal import ROUND_FLOOR, Decimal
from typing import Annotated

from annotated_types import Ge, Gt, Le
from scipy.special import log_ndtr, ndtr, ndtri

from advpure.base.errors import BadInput
from advpure.base.text import several
from advpure.base.units import parse_sigma
from advpure.base.validation import Range, number, whole
from advpure.statistics.rates import clopper_pearson_lower

ABSTAIN = -1
"""The prediction of a procedure that claims nothing; no class has this number."""

ALPHA = 0.001
"""The probability of a wrong certificate by default."""

LARGEST_ALPHA = 0.5
"""The largest probability of error with which a certificate says anything."""

# The normal quantile is good to a few units in the last place; radii move down by more than that.
_GUARD = 1e-14


def radius_of(bound: float, sigma: float) -> float:
    """Turn a lower bound of the top class's probability into a radius.

    Args:
        bound: Lower bound p of the probability, in [0, 1).
        sigma: Standard deviation of the noise, [0, 1] units.

    Returns:
        sigma Phi^-1(p), rounded down; 0.0 for p <= 1/2, where nothing is certified.

    Raises:
        BadInput: for a bound outside [0, 1), or a noise level that is none.

    Example:
        >>> round_down(radius_of(0.8413447460685429, 0.5), 6)
        '0.499999'
        >>> radius_of(0.5, 0.5)
        0.0
    """
    bound, sigma = number(bound, "lower bound"), number(sigma, "sigma", Range(above=0))
    if not 0.0 <= bound < 1.0:
        raise BadInput(f"lower bound {bound}", "is outside [0, 1)", "no sample proves certainty")
    return max(parse_sigma(sigma) * float(ndtri(bound)) * (1.0 - _GUARD), 0.0)


def bound_for(radius: float, sigma: float) -> float:
    """Return the probability that a radius takes, Phi(radius / sigma); 1.0 where doubles end."""
    return float(ndtr(number(radius, "radius", Range(least=0.0)) / parse_sigma(sigma)))


def largest_radius(samples: int, alpha: float, sigma: float) -> float:
    """Return the radius that Cohen's procedure reaches when all samples agree.

    Args:
        samples: Samples N of the estimation stage.
        alpha: Probability of error.
        sigma: Standard deviation of the noise, [0, 1] units.

    Example:
        >>> round_down(largest_radius(10_000, 0.001, 1.0), 5)
        '3.19857'
        >>> largest_radius(9, 0.001, 1.0)
        0.0
    """
    samples = whole(samples, "samples", 1)
    return radius_of(clopper_pearson_lower(samples, samples, check_alpha(alpha)), sigma)


def samples_needed(
    radius: float, alpha: Annotated[float, Gt(0), Le(LARGEST_ALPHA)], sigma: float
) -> int | None:
    """Return the fewest samples with which a radius can be certified at all, when all agree.

    No level-alpha procedure can do with fewer: N agreeing samples have probability p^N, which
    must be at most alpha at p = Phi(radius / sigma), so N >= ln(1 / alpha) / -ln(p).

    Args:
        radius: The radius, 0 or more, [0, 1] units.
        alpha: Probability of error.
        sigma: Standard deviation of the noise, [0, 1] units.

    Returns:
        The number; None beyond 10^15, where no computer gets.

    Example:
        >>> samples_needed(0.75, 0.001, 0.25), samples_needed(1.0, 0.001, 1.0)
        (5114, 40)
        >>> samples_needed(1.5, 0.001, 0.25) > 7 * 10**9
        True
    """
    radius = number(radius, "radius", Range(least=0.0))
    rate = -float(log_ndtr(radius / parse_sigma(sigma)))
    if rate < 1e-14:
        return None
    enough = max(math.ceil(-math.log(alpha) / rate), 1)
    wanted, few = bound_for(radius, sigma), enough - 1
    while clopper_pearson_lower(enough, enough, alpha) < wanted:  # its guard asks for a few more
        few, enough = enough, enough + 2 * (enough - few)
        if enough > 10**15:
            return None
    while enough - few > 1:
        middle = (few + enough) // 2
        if clopper_pearson_lower(middle, middle, alpha) < wanted:
            few = middle
        else:
            enough = middle
    return enough


def round_down(
    value: Annotated[float, Ge(-1e15), Le(1e15)], digits: Annotated[int, Ge(0), Le(9)]
) -> str:
    """Write a number with a fixed number of decimals, rounded towards minus infinity.

    Example:
        >>> round_down(0.95999, 2), round_down(0.3, 3)
        ('0.95', '0.299')
    """
    value, digits = number(value, "value"), whole(digits, "digits", 0, 300)
    return str(Decimal(value).quantize(Decimal(1).scaleb(-digits), ROUND_FLOOR))


def check_alpha(alpha: float) -> float:
    """Refuse what is no probability of error, or one at which certificates say nothing.

    Raises:
        BadInput: unless 0 < alpha <= 1/2; above, certificates may be wrong as often as right.

    Example:
        >>> check_alpha(0.9)
        Traceback (most recent call last):
        ...
        advpure.BadInput: alpha 0.9 is above 0.5, so its certificates say nothing; write for \
example 0.001
    """
    fix = "write for example 0.001"
    value = number(alpha, "alpha", fix=fix)
    if not 0.0 < value < 1.0:
        raise BadInput(f"alpha {alpha}", "is outside (0, 1)", fix)
    if value > LARGEST_ALPHA:
        rule = f"is above {LARGEST_ALPHA:g}, so its certificates say nothing"
        raise BadInput(f"alpha {alpha}", rule, fix)
    return value


def read_sigmas(given: str | float | Sequence[str | float]) -> tuple[float, ...]:
    """Read one or several noise levels, in [0, 1] units.

    Returns:
        The levels, increasing.

    Raises:
        BadInput: for none, one that is given twice, is not positive, or could be in other units.

    Example:
        >>> read_sigmas("0.5,0.25")
        (0.25, 0.5)
    """
    return tuple(sorted(several(given, parse_sigma, "noise levels", "write 0.25,1")))


def read_radii(given: str | float | Sequence[str | float]) -> tuple[float, ...]:
    """Read the radii that are asked for, in [0, 1] units; 0 asks for the prediction alone.

    Returns:
        The radii, increasing.

    Raises:
        BadInput: for none, one that is given twice, or is negative.

    Example:
        >>> read_radii("0,0.25,36/255")
        (0.0, 0.1411764705882353, 0.25)
    """
    radii = several(given, _read_radius, "radii", "write 0,0.25")
    return tuple(sorted(radii))


def _read_radius(given: str | float) -> float:
    return number(given, "radius", Range(least=0.0), "write 0,0.25,0.5") + 0.0  # -0.0 is 0.0
