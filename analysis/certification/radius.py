"""Certified radii R = sigma Phi^-1(p), computed and rounded towards the safe side.

If a base classifier f answers c with probability p > 1/2 under Gaussian noise of standard
deviation sigma, the smoothed classifier g(x) = argmax_c P(f(x + sigma z) = c) answers c on the
whole l2 ball of radius sigma Phi^-1(p). With a lower bound of p the ball is smaller, never larger.

Units: sigma and radii in [0, 1] units of the images (spec 1.1).
Source: Cohen, Rosenfeld & Kolter 2019, theorem 1; seed 000, section 2; spec 4.1.
"""

import math
from collections.abc import Sequence
from decimal import ROUND_FLOOR, Decimal

from scipy.special import log_ndtr, ndtr, ndtri

from advpure.base.validation import Range, listed, number, shown, whole
from advpure.errors import BadInput
from advpure.stats import clopper_pearson_lower
from advpure.units import parse_number, parse_sigma

ABSTAIN = -1
"""The prediction of a procedure that claims nothing; no class has this number."""

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
        BadInput: for a bound outside [0, 1), or a sigma that is not above 0.

    Example:
        >>> round_down(radius_of(0.8413447460685429, 0.5), 6)
        '0.499999'
        >>> radius_of(0.5, 0.5)
        0.0
    """
    bound, sigma = number(bound, "lower bound"), number(sigma, "sigma", Range(above=0))
    if not 0.0 <= bound < 1.0:
        raise BadInput(f"lower bound {bound}", "is outside [0, 1)", "no sample proves certainty")
    return max(sigma * float(ndtri(bound)) * (1.0 - _GUARD), 0.0)


def bound_for(radius: float, sigma: float) -> float:
    """Return the probability that a radius takes, Phi(radius / sigma); 1.0 where doubles end."""
    return float(ndtr(radius / sigma))


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


def samples_needed(radius: float, alpha: float, sigma: float) -> int | None:
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
    """
    radius = number(radius, "radius", Range(least=0))
    alpha, sigma = check_alpha(alpha), number(sigma, "sigma", Range(above=0))
    rate = -float(log_ndtr(radius / sigma))
    if rate < 1e-14:
        return None
    count = max(math.ceil(-math.log(alpha) / rate), 1)
    wanted = bound_for(radius, sigma)
    while clopper_pearson_lower(count, count, alpha) < wanted:  # its guard may ask for one more
        count += 1
    return count


def round_down(value: float, digits: int) -> str:
    """Write a number with a fixed number of decimals, rounded towards minus infinity.

    Example:
        >>> round_down(0.95999, 2), round_down(0.3, 3)
        ('0.95', '0.299')
    """
    value, digits = number(value, "value"), whole(digits, "digits", 0, 300)
    return str(Decimal(value).quantize(Decimal(1).scaleb(-digits), ROUND_FLOOR))


def check_alpha(alpha: float) -> float:
    """Refuse an alpha that is no probability of error.

    Raises:
        BadInput: unless 0 < alpha < 1.
    """
    try:
        return number(alpha, "alpha", Range(above=0, below=1))
    except BadInput:
        fix = "write for example 0.001"
        raise BadInput(f"alpha {shown(alpha)}", "is outside (0, 1)", fix) from None


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
    values = _listed(given)
    levels = tuple(sorted(parse_sigma(each) for each in values))
    if not levels or len(set(levels)) != len(levels):
        raise BadInput(f"sigma {_shown(values)}", "is no list of different levels", "write 0.25,1")
    return levels


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
    values = _listed(given)
    radii = tuple(sorted(parse_number(each, "radius") + 0.0 for each in values))
    if radii and radii[0] < 0.0:
        raise BadInput(f"radius {radii[0]:g}", "is negative", "write 0,0.25,0.5")
    if not radii or len(set(radii)) != len(radii):
        raise BadInput(f"radii {_shown(values)}", "are no list of different radii", "write 0,0.25")
    return radii


def _listed(given: str | float | Sequence[str | float]) -> list[str | float]:
    return [part.strip() for part in given.split(",")] if isinstance(given, str) else listed(given)


def _shown(values: Sequence[str | float]) -> str:
    return ",".join(map(str, values)) or "(none)"
