"""Predict a purifier's robustness from its compression rate and the classifier's survival function.

If a purifier shrinks every perturbation by CR, an attacker with eps moves the purified image by
CR eps at most, and the image falls when that exceeds the smallest perturbation r* that fools the
classifier there. So, over images k,

    scalar:     S(mean_k CR_k  eps) = mean_k 1[ r*_k > mean CR  eps ]
    per image:  mean_k 1[ r*_k > CR_k eps ]

with r* at clean images, or at the purified clean images (anchor points), where it belongs. Beside
them stands what was measured: the accuracy under an attack with the same fixed randomness. CR is
a ratio of l2 norms, averaged over random directions; an attacker chooses the direction, so nothing
makes the prediction a bound.

Everything about an image is resampled together (r*, CR, measured outcome), and the same images for
every purifier, so intervals of differences and of fits across purifiers are paired. An interval is
the percentile interval of the bootstrap, and never narrower than Wilson's of a rate or Tango's of a
difference, which keep their width where no resample differs (rates of 0 and 1). It covers new
images; the purifiers' noise is fixed.

Source: [Wei2025], section 5.3, tables 3 and 4.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from advpure.base.arguments import checked
from advpure.base.errors import BadInput
from advpure.base.kinds import Limit
from advpure.base.validation import Range, instance, number, shown, whole, words
from advpure.core.randomness import RandomnessConfig
from advpure.statistics.rates import (
    NOT_NEGATIVE,
    Interval,
    Rate,
    mean_interval,
    paired_difference,
    wilson,
)

Array = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.intp]
RESAMPLES = 2000
KINDS = ("clean", "clean_images", "anchor", "anchor_images")
"""Where r* was searched; with the mean compression rate, or each image's own."""
_LEVEL = 0.95
_ARRAYS = ("ids", "cr", "clean", "anchor", "robust", "accurate")


@checked
@dataclass(frozen=True, kw_only=True)
class PredictionInput:
    """One purifier at one strength, and what is known of each image; arrays [n], same images.

    Attributes:
        purifier: Its name.
        t: Strength in time steps, None where it has none.
        sigma: Strength as noise level in [0, 1] units, likewise.
        ids: Sample ids.
        cr: Mean compression rate of each image.
        clean: r* of the classifier at clean images; infinite where the search found none.
        anchor: r* at anchor points, likewise; None where it was not measured.
        robust: Whether the attack left the defended image right; None where not measured.
        accurate: Whether the defended image is right without an attack, likewise.
        top: Where the searches for r* ended, for clean images and anchor points.

    Raises:
        BadInput: for no image, or arrays of other lengths.
    """

    purifier: str
    t: int | None = None
    sigma: float | None = None
    ids: npt.NDArray[np.int64]
    cr: Array
    clean: Array
    anchor: Array | None = None
    robust: Flags | None = None
    accurate: Flags | None = None
    top: tuple[Limit, Limit] = (np.inf, np.inf)

    def __post_init__(self) -> None:
        """Check the lengths."""
        for name in ("ids", *_ARRAYS):
            given = getattr(self, name)
            absent = given is None and name not in ("ids", "cr", "clean")
            if not absent and (not isinstance(given, np.ndarray) or given.ndim != 1):
                raise BadInput(f"{name} {shown(given)}", "are no array [n]", "pass a NumPy array")
        words(self.purifier, "purifier")
        if self.t is not None:
            object.__setattr__(self, "t", whole(self.t, "t"))
        if self.sigma is not None:
            object.__setattr__(self, "sigma", number(self.sigma, "sigma"))
        n = len(self.ids)
        for name in _ARRAYS:
            values = getattr(self, name)
            if values is not None and values.shape != (n,):
                rule = f"do not match {n} images"
                raise BadInput(f"values {list(values.shape)} of {name}", rule, "give one each")
            if values is not None and np.isnan(values).any():
                raise BadInput(f"a value of {name}", "is no number", "leave that image out")
        if not n:
            raise BadInput(f"{self.label}", "has no image", "give at least one")

    @property
    def n(self) -> int:
        """Number of images."""
        return len(self.ids)

    @property
    def label(self) -> str:
        """The name with its strength."""
        strength = f", t = {self.t}" if self.t is not None else ""
        return self.purifier + (f", sigma = {self.sigma:g}" if self.sigma is not None else strength)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of prediction that the measured radii allow."""
        return KINDS if self.anchor is not None else KINDS[:2]

    def radii(self, kind: str) -> Array:
        """Return r* as a kind of prediction uses it."""
        radii = self.clean if kind.startswith("clean") else self.anchor
        assert radii is not None
        return radii


class Estimated(NamedTuple):
    """A value with its 95 % interval over images."""

    value: float
    low: float
    high: float


class Prediction(NamedTuple):
    """A predicted robust accuracy, and how far it is from what was measured.

    Attributes:
        accuracy: Predicted.
        error: Predicted - measured, None where nothing was measured.
    """

    accuracy: Estimated
    error: Estimated | None


@dataclass(frozen=True)
class Outcome:
    """A setting's row: compression, predictions, measurement.

    Attributes:
        setting: The purifier and its images.
        cr: Mean compression rate over images, with Student's interval (the value's own ends where
            there is one image).
        cr_std: Standard deviation over images, None for one image.
        predicted: Predictions by kind, see `KINDS`.
        measured: Robust accuracy, None where not measured.
        accuracy: Accuracy without an attack, likewise.
    """

    setting: PredictionInput
    cr: Estimated
    cr_std: float | None
    predicted: Mapping[str, Prediction]
    measured: Rate | None
    accuracy: Rate | None

    @property
    def best(self) -> str:
        """The kind that the source compares with measurements: anchor points if there are any."""
        return "anchor" if "anchor" in self.predicted else "clean"


@lru_cache(maxsize=4)
def resamples(n: int, count: int = RESAMPLES) -> Indices:
    """Return indices of images drawn with replacement, [count, n]; the same for the same n.

    Example:
        >>> resamples(5).shape, (resamples(5) == resamples(5, 3)[:1]).any()
        ((2000, 5), np.True_)
    """
    xi = RandomnessConfig(0, "counter").fold("bootstrap", n)
    shares = xi.uniform(list(range(count)), 0, (n,)).numpy()
    indices: Indices = np.minimum((shares.astype(np.float64) * n).astype(np.intp), n - 1)
    indices.flags.writeable = False
    return indices


def stands(
    setting: PredictionInput, kind: str, eps: float, indices: Indices | None = None
) -> Flags:
    """Say which images are predicted to stand: r* > CR eps.

    Args:
        setting: What is known of the images.
        kind: One of `KINDS`.
        eps: Radius of the attack, [0, 1] units.
        indices: Drawn images [..., n], None for all as they are. The mean of CR is theirs.

    Returns:
        Of the shape of `indices`.

    Example:
        >>> radii, cr = np.array([0.0, 0.1, 0.3]), np.array([0.0, 0.4, 0.8])
        >>> three = PredictionInput(purifier="x", ids=np.arange(3), cr=cr, clean=radii)
        >>> stands(three, "clean", 0.3).tolist(), stands(three, "clean_images", 0.3).tolist()
        ([False, False, True], [False, False, True])
        >>> stands(three, "clean", 0.2).tolist(), stands(three, "clean_images", 0.2).tolist()
        ([False, True, True], [False, True, True])
    """
    radii, cr = setting.radii(kind), setting.cr
    if indices is not None:
        radii, cr = radii[indices], cr[indices]
    strength = cr if kind.endswith("_images") else cr.mean(axis=-1, keepdims=True)
    standing: Flags = radii > strength * eps
    return standing


def predict_robustness(setting: PredictionInput, eps: float) -> Outcome:
    """Predict one purifier's robust accuracy.

    Args:
        setting: What is known of its images.
        eps: Radius of the attack, [0, 1] units.

    Raises:
        BadInput: where a prediction asks for survival beyond the end of a search that left images
            standing.

    Example:
        >>> radii = np.array([0.0, 0.1, 0.2, 0.3])
        >>> half = PredictionInput(purifier="x", ids=np.arange(4), cr=np.full(4, 0.5), clean=radii)
        >>> predict_robustness(half, 0.3).predicted["clean"].accuracy.value
        0.5
    """
    instance(setting, PredictionInput, "setting", "pass PredictionInput(...)")
    eps = number(eps, "eps", Range(least=0))
    _check_reach(setting, eps)
    mean = mean_interval(setting.cr, within=NOT_NEGATIVE)
    ends = mean.interval or Interval(mean.value, mean.value)
    measured, accuracy = (
        None if right is None else wilson(int(right.sum()), setting.n)
        for right in (setting.robust, setting.accurate)
    )
    predicted = {kind: _prediction(setting, kind, eps) for kind in setting.kinds}
    return Outcome(setting, Estimated(mean.value, *ends), mean.std, predicted, measured, accuracy)


def _prediction(setting: PredictionInput, kind: str, eps: float) -> Prediction:
    standing, indices = stands(setting, kind, eps), resamples(setting.n)
    drawn = stands(setting, kind, eps, indices).mean(axis=-1)
    rate = wilson(int(standing.sum()), setting.n)
    accuracy = estimated(rate.value, drawn, Interval(rate.low, rate.high))
    if setting.robust is None:
        return Prediction(accuracy, None)
    gap = paired_difference(standing.astype(int), setting.robust.astype(int))
    gaps = drawn - setting.robust[indices].mean(axis=-1)
    return Prediction(accuracy, estimated(gap.value, gaps, Interval(gap.low, gap.high)))


def mean_error(settings: Sequence[PredictionInput], kind: str, eps: float) -> Estimated | None:
    """Average |predicted - measured| over the settings that have both.

    Args:
        settings: Settings of the same images.
        kind: One of `KINDS`.
        eps: Radius of the attack, [0, 1] units.

    Returns:
        The average, with the percentile interval of drawing the images anew for all settings at
        once. A resample adds noise to every difference, so the interval lies rather high. Where no
        resample differs, it ends at the mean of what the intervals of single settings allow.
    """
    gaps, drawn, most = [], [], []
    for each in settings:
        if each.robust is not None and kind in each.kinds:
            indices = resamples(each.n)
            gap = paired_difference(stands(each, kind, eps).astype(int), each.robust.astype(int))
            gaps.append(abs(gap.value))
            most.append(max(-gap.low, gap.high))
            there = stands(each, kind, eps, indices).mean(axis=-1)
            drawn.append(np.abs(there - each.robust[indices].mean(axis=-1)))
    if not gaps:
        return None
    value, averages = float(np.mean(gaps)), np.mean(drawn, axis=0)
    same = np.ptp(averages) == 0.0
    return estimated(value, averages, Interval(0.0, float(np.mean(most))) if same else None)


def estimated(value: float, drawn: Array, other: Interval | None = None) -> Estimated:
    """Join the percentile interval of resamples with the value, and with another interval.

    Example:
        >>> estimated(0.0, np.linspace(0, 1, 201), Interval(-0.5, 0.5))
        Estimated(value=0.0, low=-0.5, high=0.975)
    """
    tails = np.quantile(drawn, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    ends = [value, *(other or ())]
    return Estimated(value, min(float(tails[0]), *ends), max(float(tails[1]), *ends))


def _check_reach(setting: PredictionInput, eps: float) -> None:
    searched = (("clean images", setting.clean), ("anchor points", setting.anchor))
    for (where, radii), top in zip(searched, setting.top, strict=True):
        if radii is None or not np.isinf(radii).any():
            continue
        needed = eps * max(float(setting.cr[np.isinf(radii)].max()), float(setting.cr.mean()))
        if needed > top:
            raise BadInput(
                f"{setting.label} at epsilon {eps:g}",
                f"asks for survival at {needed:.3g}, where the search at {where} (up to {top:.3g}) "
                "left images standing",
                f"search further, --top {1.01 * needed:.2g}",
            )


def common(settings: Sequence[PredictionInput]) -> list[PredictionInput]:
    """Restrict settings to the images that all of them have, in the same order.

    Raises:
        BadInput: where there is none.
    """
    shared = sorted(set.intersection(*(set(each.ids.tolist()) for each in settings)))
    if not shared:
        raise BadInput("these runs", "share no image", "measure the same images")
    return [_choose(each, shared) for each in settings]


def _choose(setting: PredictionInput, ids: Sequence[int]) -> PredictionInput:
    order = {i: index for index, i in enumerate(setting.ids.tolist())}
    rows = np.array([order[i] for i in ids])
    chosen: dict[str, Any] = {
        name: None if getattr(setting, name) is None else getattr(setting, name)[rows]
        for name in _ARRAYS
    }
    return replace(setting, **chosen)
