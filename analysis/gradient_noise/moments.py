"""Signal and noise of a random defense's gradient, and how many draws an average of it needs.

At one image the loss gradients g_j under independent configurations xi_j have the mean mu, which is
the exact gradient of the expected loss (expectation over transformation), and a covariance Sigma:

    SNR = ||mu||^2 / tr Sigma
    E ||mean of k||^2 = ||mu||^2 + tr Sigma / k
    cos^2(mean of k, mu) ~ k SNR / (1 + k SNR)                                                  (1)

(1) is the ratio of the two expectations; it leaves out mu' Sigma mu / (k ||mu||^2 tr Sigma), which
is 1 / (k d) for noise that is equal in d directions, and the spread of a single cosine around it.

The cosine is what an attacker gains: to first order a step along the mean of k raises the expected
loss by the cosine times what a step along mu would. That holds exactly for l2 steps. For sign steps
it holds where the entries of mu are normal and the noise is equal in all of them; the two signs
then agree in a share 1 - arccos(cosine) / pi of the pixels.

Source: [Athalye2018] (expectation over transformation); [Wei2025], appendix C (15 draws a
gradient); the second moments are elementary.
"""

import math
from dataclasses import dataclass

from advpure.base.errors import BadInput
from advpure.base.kinds import NotNegative, Several
from advpure.base.validation import LARGEST, Range, number, validate

_SAME = 1e-12  # relative variance below which gradients differ by rounding alone
_MOST = 1e100  # its products stay in float64
_RESOLVED = 4.0  # signal over sampling variance of the mean from which an image counts as resolved


@dataclass(frozen=True, kw_only=True)
class Moments:
    """What the gradients of one image amount to, from m draws.

    Attributes:
        draws: m.
        mean_square: Mean of the squared Euclidean norms of the gradients.
        square_mean: Squared Euclidean norm of their mean.
    """

    draws: Several
    mean_square: NotNegative
    square_mean: NotNegative

    def __post_init__(self) -> None:
        """Refuse what has no variance."""
        validate(self)

    @property
    def is_zero(self) -> bool:
        """Whether every gradient was exactly zero: an attack is blind here."""
        return self.mean_square == 0.0

    @property
    def variance(self) -> float:
        """Tr Sigma, unbiased."""
        m = self.draws
        return m / (m - 1) * max(self.mean_square - self.square_mean, 0.0)

    @property
    def signal(self) -> float:
        """||mu||^2, unbiased: the mean inner product of two different draws. It may be negative."""
        return self.square_mean - self.variance / self.draws

    @property
    def is_constant(self) -> bool:
        """Whether the gradient is the same under every configuration, up to rounding."""
        return not self.is_zero and self.variance <= _SAME * self.mean_square

    @property
    def snr(self) -> float | None:
        """Signal over variance, a ratio of two unbiased parts; None without signal or noise."""
        return None if self.is_zero or self.is_constant else self.signal / self.variance

    @property
    def is_resolved(self) -> bool:
        """Whether the draws tell the mean from zero, so that a cosine to it means something.

        The signal must be 4 times the variance of the mean of all draws, whose own expected cosine
        to mu is then 0.89.
        """
        snr = self.snr
        return self.is_constant or (snr is not None and self.draws * snr >= _RESOLVED)


def expected_cosine(snr: float, draws: float) -> float:
    """Return the cosine between the mean of some draws and the exact mean, equation (1).

    Args:
        snr: Signal-to-noise ratio of one draw, not negative.
        draws: k, above 0.

    Example:
        >>> round(expected_cosine(0.5, 2), 4)
        0.7071
    """
    snr, draws = _ratio(snr), number(draws, "draws", Range(most=_MOST))
    if not snr >= 0 or not draws > 0:
        raise BadInput(f"SNR {snr} with {draws} draws", "has no cosine", "use numbers above 0")
    if math.isinf(snr):
        return 1.0
    return math.sqrt(draws * snr / (1.0 + draws * snr))


def _ratio(snr: float) -> float:
    """Return a signal-to-noise ratio as a float; a gradient without noise has an infinite one."""
    return math.inf if snr is math.inf else number(snr, "SNR", Range(most=_MOST))


def sign_agreement(cosine: float) -> float:
    """Return the share of pixels whose signs agree at a cosine, for jointly normal entries.

    Example:
        >>> sign_agreement(0.0), sign_agreement(1.0)
        (0.5, 1.0)
    """
    return 1.0 - math.acos(min(max(cosine, -1.0), 1.0)) / math.pi


def cosine_of_agreement(share: float) -> float:
    """Return the cosine at which signs agree in a share of the pixels: `sign_agreement` inverted.

    Example:
        >>> round(cosine_of_agreement(0.75), 4)
        0.7071
    """
    return math.cos(math.pi * (1.0 - share))


def enough_draws(snr: float, target: float) -> int:
    """Return the smallest k whose expected cosine reaches a target, from equation (1).

    k = target^2 / ((1 - target^2) SNR), rounded up.

    Args:
        snr: Signal-to-noise ratio of one draw, above 0.
        target: The cosine, strictly between 0 and 1.

    Raises:
        BadInput: for a target outside (0, 1), or no signal.

    Example:
        >>> enough_draws(0.5, 0.7), enough_draws(0.5, 0.9)
        (2, 9)
    """
    check_target(target)
    snr = _ratio(snr)
    if not snr > 0:
        raise BadInput(f"SNR {snr}", "is no positive number", "measure with more draws")
    # The smallest double above an exact integer must not cost a draw.
    wanted = target**2 / (1 - target**2) * (1 - 1e-12) / snr
    if not wanted < LARGEST:
        raise BadInput(f"SNR {snr:g}", "needs more than 2**63 draws", "measure with more draws")
    return max(1, math.ceil(wanted))


def check_target(target: float) -> None:
    """Refuse a target that no number of draws reaches, or that every number reaches."""
    number(target, "target", Range(above=0, below=1), "use 0.9")
