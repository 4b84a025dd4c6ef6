"""Two distances runs on the same images, such as two purifiers or two fine-tunings: paired.

Values per image (distances, SSIM, LPIPS) have Student's interval of the mean difference. Frechet
distances have the infinitesimal jackknife of the difference, in which an image counts in all four
sets at once; or the paired bootstrap where resamples are asked for.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from advpure.analysis.distances.result import DistancesResult
from advpure.analysis.metrics.choice import METRICS
from advpure.analysis.metrics.frechet import frechet_influence, standard_error
from advpure.analysis.metrics.resampling import bootstrap_distances, centred_interval
from advpure.base.display import ends
from advpure.base.errors import BadInput
from advpure.base.validation import whole
from advpure.runs.records import RecordStore
from advpure.statistics.estimates import Estimate
from advpure.statistics.rates import Interval, mean_interval

Array = npt.NDArray[np.float64]


class Contrast(NamedTuple):
    """A quantity after purification in two runs.

    Attributes:
        perturbation: The perturbation in both.
        name: Quantity, such as ``l2_final`` or ``frechet-vgg``.
        first: Its value in the first run.
        second: In the second.
        difference: First minus second.
        n: Images that both have.
        interval: 95 % interval of the difference; None for too few images.
        method: How the interval was made.
        by_image: The difference of each image, where the quantity is a mean over images.
    """

    perturbation: str
    name: str
    first: float
    second: float
    difference: float
    n: int
    interval: Interval | None
    method: str
    by_image: Mapping[int, float] | None = None

    def estimate(self) -> Estimate:
        """Return the difference as an estimate, with all else that is known of it."""
        names = ("perturbation", "name", "first", "second", "method")
        return Estimate(
            value=self.difference,
            n=self.n,
            interval=self.interval,
            by_image=self.by_image,
            key="difference",
            extra={name: getattr(self, name) for name in names},
        )

    def cells(self) -> list[str]:
        """Return the fields as a table has them."""
        sides = [f"{each:.5g}" for each in (self.first, self.second)]
        difference = [f"{self.difference:.4g}", ends(self), str(self.n), self.method]
        return [self.perturbation, self.name, *sides, *difference]


def compare_distances(
    first: RecordStore,
    second: RecordStore,
    *,
    resamples: int = 0,
    progress: Callable[[int], None] = lambda done: None,
) -> list[Contrast]:
    """Compare what two runs have in common: perturbations, images, metrics.

    Args:
        first: Records of a distances run.
        second: Records of another.
        resamples: Bootstrap resamples for Frechet distances; 0 for the jackknife.
        progress: Called with the number of finished resamples, over all distances.

    Returns:
        First minus second, quantity by quantity.

    Raises:
        BadInput: when there is nothing in common, or features come from different networks.
    """
    resamples = whole(resamples, "resamples", 0, 10**6)
    for store in (first, second):
        if store.settings.get("verb") != "distances":
            raise BadInput(
                str(store.folder), "holds no distances run", "name one of advpure distances"
            )
    for key in ("dataset", "subset"):
        if first.settings[key] != second.settings[key]:
            raise BadInput(
                f"runs on {key} {first.settings[key]} and {second.settings[key]}",
                "are not of the same images",
                "compare runs of one data set and subset",
            )
    a, b = DistancesResult(first), DistancesResult(second)
    labels = [label for label in a.labels if label in b.labels]
    if not labels:
        raise BadInput(
            f"runs with {', '.join(a.labels)} and {', '.join(b.labels)}",
            "share no perturbation",
            "run both with the same --perturb",
        )
    done = 0

    def advance(count: int) -> None:
        progress(done + count)

    contrasts: list[Contrast] = []
    for label in labels:
        contrasts += _states(label, a, b)
        for metric in first.settings["metrics"]:
            if metric not in second.settings["metrics"]:
                continue
            _check_network(metric, first, second)
            kind = METRICS[metric].kind
            if kind in ("pair", "response", "cosine"):
                contrasts += _pairs(label, metric, a, b)
            elif kind == "frechet":
                contrasts.append(_sets(label, metric, a, b, resamples, advance))
                done += resamples
    return contrasts


def frechet_difference(
    clean: Array,
    first: Array,
    second: Array,
    *,
    resamples: int = 0,
    level: float = 0.95,
    progress: Callable[[int], None] = lambda done: None,
) -> tuple[float, float, Interval | None]:
    """Compare the Frechet distances of two purified sets to the same originals.

    Args:
        clean: Features of the originals, [n, d].
        first: Features of the same images after one purifier.
        second: After another.
        resamples: Bootstrap resamples; 0 for the infinitesimal jackknife.
        level: Confidence level.
        progress: Called with the number of finished resamples.

    Returns:
        Both distances, and the interval of first minus second; None for fewer than 3 images.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(300, 2))
        >>> one, two, interval = frechet_difference(x, x + [1.0, 0.0], x + [0.0, 2.0])
        >>> round(one - two, 6), interval.low - 1e-9 < -3.0 < interval.high + 1e-9
        (-3.0, True)
    """
    one, two = frechet_influence(clean, first), frechet_influence(clean, second)
    difference = one.value - two.value
    if len(clean) < 3:
        return one.value, two.value, None
    if resamples:
        drawn = bootstrap_distances([(clean, first), (clean, second)], resamples, progress=progress)
        interval = centred_interval(difference, drawn[:, 0] - drawn[:, 1], level)
    else:
        each = one.of_a + one.of_b - two.of_a - two.of_b
        reach = float(ndtri((1.0 + level) / 2.0)) * standard_error(each)
        interval = Interval(difference - reach, difference + reach)
    return one.value, two.value, interval


def _states(label: str, a: DistancesResult, b: DistancesResult) -> Iterator[Contrast]:
    (ids_a, *norms_a), (ids_b, *norms_b) = a.states(label), b.states(label)
    for name, left, right in zip(("l2_final", "linf_final"), norms_a, norms_b, strict=True):
        last = (
            dict(zip(ids_a, left[:, -1], strict=True)),
            dict(zip(ids_b, right[:, -1], strict=True)),
        )
        yield _of_values(label, name, *last)


def _pairs(label: str, metric: str, a: DistancesResult, b: DistancesResult) -> Iterator[Contrast]:
    left, right = a.pairs(label, metric), b.pairs(label, metric)
    if not left or not right:  # no perturbation, no rate
        return
    after = ({i: pair[1] for i, pair in each.items()} for each in (left, right))
    yield _of_values(label, metric, *after)


def _of_values(label: str, name: str, left: dict[int, float], right: dict[int, float]) -> Contrast:
    ids = _common(left, right)
    x, y = (np.array([each[i] for i in ids], dtype=np.float64) for each in (left, right))
    mean, by_image = mean_interval(x - y), dict(zip(ids, (x - y).tolist(), strict=True))
    sides = float(x.mean()), float(y.mean())
    return Contrast(label, name, *sides, mean.value, mean.n, mean.interval, "student", by_image)


def _sets(
    label: str,
    metric: str,
    a: DistancesResult,
    b: DistancesResult,
    resamples: int,
    progress: Callable[[int], None],
) -> Contrast:
    name = METRICS[metric].features
    left, right = (each.features(name, label, "after") for each in (a, b))
    clean_a, clean_b = (each.features(name, "clean", "clean") for each in (a, b))
    ids = _common(left, right)
    clean, other, first, second = (
        np.array([each[i] for i in ids], dtype=np.float64)
        for each in (clean_a, clean_b, left, right)
    )
    if not np.array_equal(clean, other):
        raise BadInput(
            f"features {name!r} of the clean images",
            "differ between the runs",
            "compare runs of the same images on the same kind of machine",
        )
    one, two, interval = frechet_difference(
        clean, first, second, resamples=resamples, progress=progress
    )
    method = f"paired bootstrap, {resamples}" if resamples else "jackknife"
    return Contrast(label, metric, one, two, one - two, len(ids), interval, method)


def _common(left: dict[int, Any], right: dict[int, Any]) -> list[int]:
    ids = sorted(left.keys() & right.keys())
    if not ids:
        raise BadInput("the two runs", "share no image", "compare runs of the same subset")
    return ids


def _check_network(metric: str, first: RecordStore, second: RecordStore) -> None:
    name = METRICS[metric].network or metric
    there = [store.settings["networks"].get(name) for store in (first, second)]
    if there[0] != there[1]:
        raise BadInput(f"metric {metric}", "comes from different networks", "use one network")
