"""What the recorded gradients say: signal, noise, cosine curves, and how many draws are enough.

Every curve is measured without knowing the exact mean gradient mu. With b the mean of k draws, r
the held-out mean of R others and ||mu||^2 its unbiased estimate from all draws
(`advpure.analysis.gradient_noise.moments`), the cosine between b and mu is

    b . r / (||b|| ||mu||)

where r, unbiased and independent of b, stands for mu; only the division by ||mu|| is approximate.
The gain of a sign step, sign(b) . mu / ||mu||_1, takes ||mu||_1 = rho ||r||_1, and the sign
agreement with mu takes arcs, both for normal entries; rho = cos(r, mu) is their correction for
what R draws leave of the noise.

The same draws say which images are resolved. Where few are, these are in part images whose draws
happened to agree, and the curves over them are too high: look at the number of unresolved ones.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np

from advpure.analysis.gradient_noise.moments import (
    Moments,
    check_target,
    cosine_of_agreement,
    enough_draws,
    expected_cosine,
    sign_agreement,
)
from advpure.base.errors import BadInput
from advpure.base.validation import check_choice
from advpure.runs.schema import Row
from advpure.statistics.quantiles import Quantile, quantile
from advpure.statistics.rates import COSINES, Mean, mean_interval

Measure = Literal["cosine", "gain", "agreement"]
_MOST_DRAWS = 2**40


@dataclass(frozen=True)
class ImageGradients:
    """The gradients of one image.

    Attributes:
        sample: Sample id.
        moments: Their first two moments.
        held_out: R, draws of the held-out mean.
        largest: Share of the summed squared norms that the largest gradient holds: 1 / draws where
            all are alike, near 1 where rare large gradients make the mean.
        cosine: k to the cosine between the mean of k draws and mu; empty where mu is not resolved.
        gain: k to what a sign step along that mean gains, over what one along mu gains.
        agreement: k to the share of pixels whose sign is that of mu.
        single: k to the mean cosine with the gradient under one other configuration.
    """

    sample: int
    moments: Moments
    held_out: int
    largest: float | None
    cosine: dict[int, float]
    gain: dict[int, float]
    agreement: dict[int, float]
    single: dict[int, float]

    def expected(self, measure: Measure, draws: float) -> float:
        """Return the closed form of a curve of a resolved image."""
        snr = self.moments.snr
        cosine = 1.0 if snr is None else expected_cosine(snr, draws)
        return sign_agreement(cosine) if measure == "agreement" else cosine

    def enough(self, target: float) -> float:
        """Return how many draws reach a cosine; infinite where mu is not resolved."""
        if not self.moments.is_resolved:
            return math.inf
        snr = self.moments.snr
        return 1 if snr is None else enough_draws(snr, target)


def image_gradients(
    sample: int, draws: Sequence[Row], blocks: Sequence[Row], means: Row
) -> ImageGradients:
    """Reduce the rows of one image.

    Args:
        sample: Its id.
        draws: Its rows of GRADIENT_DRAWS, all of them.
        blocks: Its rows of GRADIENT_BLOCKS.
        means: Its row of GRADIENT_MEANS.
    """
    norms = np.array([row["norm"] for row in draws])
    moments = Moments(
        draws=len(draws), mean_square=float(np.square(norms).mean()), square_mean=means["norm"] ** 2
    )
    held_out = len(draws) - sum(row["size"] == 1 for row in blocks)
    moved = int((norms[:held_out] > 0).sum())
    by_size: dict[int, list[Row]] = {}
    for row in blocks:
        by_size.setdefault(row["size"], []).append(row)
    cosine, gain, agreement, single = {}, {}, {}, {}
    for size in sorted(by_size):
        rows = by_size[size]
        alone = [row["single"] for row in rows if row["single"] is not None]
        if alone and moved:
            single[size] = float(np.mean(alone)) * held_out / moved
        if not moments.is_resolved or means["held_out_norm"] == 0.0:
            continue
        length = math.sqrt(moments.signal)
        kept = length / means["held_out_norm"]
        directed = [row["dot"] / row["norm"] for row in rows if row["norm"] > 0]
        if directed:
            cosine[size] = float(np.mean(directed)) / length
        signs = float(np.mean([row["sign_dot"] for row in rows]))
        gain[size] = signs / (kept * means["held_out_l1"])
        share = float(np.mean([row["agreement"] for row in rows]))
        snr = moments.snr
        rho = 1.0 if snr is None else expected_cosine(snr, held_out)
        agreement[size] = sign_agreement(cosine_of_agreement(share) / rho)
    peak = None if moments.is_zero else float(np.square(norms).max() / np.square(norms).sum())
    return ImageGradients(sample, moments, held_out, peak, cosine, gain, agreement, single)


class CurvePoint(NamedTuple):
    """The mean of k draws, over images; a value is None where no image has one.

    Attributes:
        draws: k.
        cosine: Cosine to the exact mean.
        expected_cosine: Its closed form, mean over the same images.
        gain: First-order gain of a sign step, of what the exact mean gives.
        agreement: Share of pixels with the sign of the exact mean.
        expected_agreement: Its closed form.
        single: Cosine with the gradient under one other configuration.
    """

    draws: int
    cosine: Mean | None
    expected_cosine: float | None
    gain: Mean | None
    agreement: Mean | None
    expected_agreement: float | None
    single: Mean | None


class Enough(NamedTuple):
    """How many draws reach a target.

    Attributes:
        measure: ``cosine``, ``gain`` or ``agreement``.
        target: The value to reach.
        expected: Smallest k at which the closed form, averaged over resolved images, reaches it;
            None without a resolved image.
        low: Smallest k at which the upper end of that average's 95 % interval reaches it.
        high: The same of the lower end; None where it never does.
        measured: Smallest measured k whose mean reaches it; None where none does.
        median: Draws that half of the images need by the closed form, infinite where mu is not
            resolved; images without any gradient are left out.
        most: Draws that 90 % of the images need.
    """

    measure: Measure
    target: float
    expected: int | None
    low: int | None
    high: int | None
    measured: int | None
    median: Quantile | None
    most: Quantile | None


@dataclass(frozen=True)
class GradientResult:
    """The gradients of several images.

    Args:
        images: One entry an image, any order; kept sorted by id.

    Raises:
        BadInput: for no images.
    """

    images: tuple[ImageGradients, ...]

    def __post_init__(self) -> None:
        """Sort the images."""
        if not self.images:
            raise BadInput("a gradient result", "has no images", "measure at least one")
        ordered = tuple(sorted(self.images, key=lambda image: image.sample))
        object.__setattr__(self, "images", ordered)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The numbers of draws that were averaged, ascending."""
        return tuple(sorted({size for image in self.images for size in image.single}))

    @property
    def zero(self) -> int:
        """Images whose gradient was exactly zero under every configuration."""
        return sum(image.moments.is_zero for image in self.images)

    @property
    def constant(self) -> int:
        """Images whose gradient does not depend on the configuration: no SNR, one draw suffices."""
        return sum(image.moments.is_constant for image in self.images)

    @property
    def resolved(self) -> tuple[ImageGradients, ...]:
        """Images whose mean gradient the draws tell from zero."""
        return tuple(image for image in self.images if image.moments.is_resolved)

    @property
    def unresolved(self) -> int:
        """Images with a gradient whose mean the draws do not tell from zero."""
        return len(self.images) - self.zero - len(self.resolved)

    @property
    def snrs(self) -> dict[int, float]:
        """SNR by sample id of the images that have one; below 0 where noise hides the mean."""
        known = {image.sample: image.moments.snr for image in self.images}
        return {i: snr for i, snr in known.items() if snr is not None}

    def largest(self) -> Quantile | None:
        """Return the median over images of what the largest gradient holds of all squared norms."""
        shares = [image.largest for image in self.images if image.largest is not None]
        return quantile(shares) if shares else None

    def snr(self) -> Mean | None:
        """Return the mean SNR over images with Student's interval, None where none has one."""
        return mean_interval(list(self.snrs.values())) if self.snrs else None

    def median_snr(self) -> Quantile | None:
        """Return the median SNR over images, None where none has one."""
        return quantile(list(self.snrs.values())) if self.snrs else None

    def of_images(self, curve: str, draws: int) -> dict[int, float]:
        """Return by sample id a curve at a number of draws, of the images that have one.

        An image's own value, which divides by an estimated length, may leave what a cosine can be;
        here it is cut to that.
        """
        values = {image.sample: getattr(image, curve) for image in self.images}
        return {i: _bounded(by_size[draws]) for i, by_size in values.items() if draws in by_size}

    def curve(self) -> list[CurvePoint]:
        """Return the curves over the number of draws."""

        def mean(curve: str, draws: int) -> Mean | None:
            within = (0.0, 1.0) if curve == "agreement" else COSINES
            return _mean(self.of_images(curve, draws).values(), within)

        return [
            CurvePoint(
                size,
                cosine=mean("cosine", size),
                expected_cosine=self._expected("cosine", size),
                gain=mean("gain", size),
                agreement=mean("agreement", size),
                expected_agreement=self._expected("agreement", size),
                single=mean("single", size),
            )
            for size in self.sizes
        ]

    def enough(self, target: float, measure: Measure = "cosine") -> Enough:
        """Return how many draws reach a target.

        Args:
            target: For ``cosine`` and ``gain`` in (0, 1), for ``agreement`` in (0.5, 1).
            measure: What has to reach it. The closed form of ``gain`` is that of ``cosine``.

        Raises:
            BadInput: for a target that no or every number of draws reaches.
        """
        check_enough(target, measure)
        cosine = cosine_of_agreement(target) if measure == "agreement" else target
        expected = low = high = None
        if self.resolved:
            expected = self._first(lambda m: m.value >= target, measure)
            if len(self.resolved) > 1:
                low = self._first(lambda m: _end(m, "high") >= target, measure)
                high = self._first(lambda m: _end(m, "low") >= target, measure)
        needed = [image.enough(cosine) for image in self.images if not image.moments.is_zero]
        return Enough(
            measure,
            target,
            expected,
            low,
            high,
            self._measured(measure, target),
            median=quantile(needed) if needed else None,
            most=quantile(needed, 0.9) if needed else None,
        )

    def _expected(self, measure: Measure, size: float) -> float | None:
        mean = _mean(image.expected(measure, size) for image in self.resolved)
        return None if mean is None else mean.value

    def _first(self, holds: Callable[[Mean], bool], measure: Measure) -> int | None:
        """Return the smallest number of draws at which something that stays true holds."""

        def at(draws: int) -> bool:
            values = [image.expected(measure, draws) for image in self.resolved]
            return holds(mean_interval(values, within=COSINES))

        above = 1
        while not at(above):
            above *= 2
            if above > _MOST_DRAWS:
                return None
        below = above // 2
        while above - below > 1:
            middle = (above + below) // 2
            below, above = (below, middle) if at(middle) else (middle, above)
        return above

    def _measured(self, measure: Measure, target: float) -> int | None:
        for point in self.curve():
            mean: Mean | None = getattr(point, measure)
            if mean is not None and mean.value >= target:
                return point.draws
        return None


def check_enough(target: float, measure: Measure) -> None:
    """Refuse a target that no number of draws reaches, or every one.

    Raises:
        BadInput: naming the rule.
    """
    check_choice(measure, get_args(Measure), "measure")
    check_target(target)
    if measure == "agreement" and target <= 0.5:
        raise BadInput(f"sign agreement {target}", "is reached by chance", "use 0.85")


def _mean(values: Iterable[float | None], within: tuple[float, float] = COSINES) -> Mean | None:
    known = [value for value in values if value is not None]
    return mean_interval(known, within=within) if known else None


def _bounded(cosine: float) -> float:
    return min(max(cosine, -1.0), 1.0)


def _end(mean: Mean, end: Literal["low", "high"]) -> float:
    """Return an end of an interval; where there is none, nothing is reached."""
    return -math.inf if mean.interval is None else getattr(mean.interval, end)
