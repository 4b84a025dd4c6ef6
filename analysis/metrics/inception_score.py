"""The inception score: exp(mean over images of KL(p(y | x) || p(y))), p(y) the mean over images.

It is 1 where all images are classified alike and the number of classes where each is classified
surely and all classes are equally frequent. Only over the classes of the Inception network is it
the published score [Salimans2016]; over another classifier it has its own scale.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri, rel_entr

from advpure.base.errors import BadInput
from advpure.base.validation import Range, floats, number, whole
from advpure.statistics.rates import Interval


class InceptionScore(NamedTuple):
    """A score.

    Attributes:
        value: Mean over splits.
        n: Images.
        splits: Parts of which each has a score of its own.
        std: Standard deviation over splits, as it is published; None for one split.
        interval: 95 % interval for other images at this n, from the spread of the images'
            divergences (p(y) varies in second order only); None for one image.
    """

    value: float
    n: int
    splits: int
    std: float | None
    interval: Interval | None


def inception_score(
    probabilities: npt.ArrayLike, splits: int = 1, level: float = 0.95
) -> InceptionScore:
    """Score a set of images.

    Args:
        probabilities: p(y | x), [n, classes], rows that sum to 1.
        splits: Number of consecutive parts, each scored with its own p(y); the published protocol
            has parts of 5,000 images.
        level: Confidence level.

    Returns:
        The score. Small n biases it downwards: with n images it is at most n.

    Raises:
        BadInput: for rows that are no probabilities, or more splits than images.

    Example:
        >>> inception_score([[1.0, 0.0], [0.0, 1.0]]).value
        2.0
    """
    rows = check_probabilities(probabilities)
    level = number(level, "level", Range(above=0, below=1))
    splits = whole(splits, "splits")
    if not 1 <= splits <= len(rows):
        raise BadInput(f"{splits} splits", f"do not fit {len(rows)} images", "use 1")
    parts = [_divergences(part) for part in np.array_split(rows, splits)]
    scores = np.exp([part.mean() for part in parts])
    value = float(scores.mean())
    std = float(scores.std()) if splits > 1 else None
    return InceptionScore(value, len(rows), splits, std, _interval(parts, value, level))


def score_influence(probabilities: npt.ArrayLike) -> tuple[float, npt.NDArray[np.float64]]:
    """Return the score of one split, and how it changes with the weight of each image, [n], mean 0.

    The mean p(y) varies in second order only, so the influence of an image is the score times its
    divergence above the mean one.

    Args:
        probabilities: As `inception_score`.

    Raises:
        BadInput: as `inception_score`.
    """
    each = _divergences(check_probabilities(probabilities))
    value = float(np.exp(each.mean()))
    return value, value * (each - each.mean())


def check_probabilities(probabilities: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return class probabilities as float64 [n, classes], rows that sum to 1.

    Raises:
        BadInput: for rows that are no probabilities.
    """
    rows = floats(probabilities, "probabilities")
    if rows.ndim != 2 or not len(rows) or rows.shape[1] < 2:
        rule = "are not [n, classes]"
        raise BadInput(f"probabilities of shape {list(rows.shape)}", rule, "give one row an image")
    if not (np.isfinite(rows).all() and (rows >= 0).all()):
        raise BadInput("a probability", "is negative or not finite", "apply a softmax")
    if np.abs(rows.sum(axis=1) - 1.0).max() > 1e-3:
        raise BadInput("a row of probabilities", "does not sum to 1", "apply a softmax")
    normalised: npt.NDArray[np.float64] = rows / rows.sum(axis=1, keepdims=True)
    return normalised


def _divergences(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return KL(p(y | x) || p(y)) of every image."""
    divergences: npt.NDArray[np.float64] = rel_entr(rows, rows.mean(axis=0)).sum(axis=1)
    return divergences


def _interval(parts: list[npt.NDArray[np.float64]], value: float, level: float) -> Interval | None:
    each = np.concatenate([part - part.mean() for part in parts])
    if len(each) <= len(parts):
        return None
    error = float(np.sqrt(np.square(each).sum() / (len(each) - len(parts)) / len(each)))
    factor = float(np.exp(ndtri((1.0 + level) / 2.0) * error))
    return Interval(value / factor, value * factor)
