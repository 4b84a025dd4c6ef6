"""What is known of a class's probability before an image is sampled: a mixture, learned or flat.

The prior is a mixture of Beta(a_k, 2) whose mean failure rates u_k = 2/3, 1/3, 1/6, ... halve; its
weights are learned by expectation maximisation from counts of *training* images,

    w_k  <-  mean over images of  w_k L_k / sum_j w_j L_j,   L_k = B(s + a_k, f + 2) / B(a_k, 2),

for s successes and f failures of an image. Flat weights are a failure rate about log-uniform. The
weights say when further samples are worth their cost. Beside them stands the b of the mixture that
a certificate is tested against, u ~ Beta(b, 1), by maximum likelihood of the failure rates below
1/2 (`advpure.analysis.certification.anytime`). A certificate holds whatever the prior says.

Source: [Robbins1970] (mixtures); nonparametric maximum likelihood of a mixture, on a fixed
dictionary.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaincc, betaln, logsumexp

from advpure.analysis.certification.tallies import Tallies
from advpure.analysis.certification.two_stage import top_class
from advpure.base.documents import parse_json, read_text
from advpure.base.errors import BadInput
from advpure.base.validation import shown
from advpure.runs.records import RecordStore

Floats = NDArray[np.float64]
SHIPPED = Path(__file__).with_name("priors.json")
LARGEST_SHAPE = 0.65
"""The proof takes a b below log(1 / alpha), which is at least log 2."""

_FAILURES = np.array([2 / 3 / 2**k for k in range(16)])  # to 2e-5
_B = 2.0
_A = _B * (1.0 - _FAILURES) / _FAILURES
_ROUNDS = 300


class Prior(NamedTuple):
    """A prior of the probability that a sample answers the selected class.

    Attributes:
        weights: Of the components, positive; their sum does not matter.
        shape: The b of the mixture that certificates are tested against.
    """

    weights: tuple[float, ...] = (1.0,) * len(_FAILURES)
    shape: float = 0.5


FLAT = Prior()


def check_prior(given: Any) -> Prior:
    """Return a prior, from itself or from JSON.

    Raises:
        BadInput: for weights or a shape out of range.
    """
    try:
        prior = Prior(tuple(map(float, given[0])), float(given[1]))
        fits = len(prior.weights) == len(_FAILURES) and 0.0 < prior.shape <= LARGEST_SHAPE
        fits = fits and all(0.0 < each < math.inf for each in prior.weights)
    except (TypeError, ValueError, IndexError, KeyError, OverflowError):
        fits = False
    if not fits:
        rule = f"is not {len(_FAILURES)} positive weights and a shape up to {LARGEST_SHAPE:g}"
        raise BadInput(f"prior {shown(given)}", rule, "learn one with learn_prior")
    return prior


def learn_prior(successes: ArrayLike, samples: ArrayLike) -> Prior:
    """Return the prior that counts of training images make most likely.

    Args:
        successes: Samples of each image that answer its selected class.
        samples: All samples of each.

    Returns:
        Its numbers rounded to 4 digits; no weight is 0: a sixteenth of an image is spread over all.

    Raises:
        BadInput: for no image, or counts that are none.

    Example:
        >>> prior = learn_prior([640] * 30 + [480] * 10, [640] * 40)
        >>> round(sum(prior.weights[:3]), 2), round(sum(prior.weights[7:]), 2), prior.shape
        (0.25, 0.75, 0.1992)
    """
    try:
        s, n = (np.asarray(each, dtype=np.float64) for each in (successes, samples))
    except (TypeError, ValueError, OverflowError):
        s = n = np.zeros(0)
    if (
        s.ndim != 1
        or s.shape != n.shape
        or not len(s)
        or not ((s >= 0) & (s <= n) & np.isfinite(n)).all()
    ):
        raise BadInput(
            f"{shown(successes)} successes of {shown(samples)} samples",
            "are no counts of images",
            "give 0 to n of n, one each, for one image or more",
        )
    k, failed = len(_FAILURES), n - s
    likelihood = betaln(s[:, None] + _A, failed[:, None] + _B) - betaln(_A, _B)
    weights = np.full(k, 1.0 / k)
    for _ in range(_ROUNDS):
        logs = np.log(weights) + likelihood
        share = np.exp(logs - logsumexp(logs, axis=1, keepdims=True))
        weights = (share.sum(axis=0) + 1.0 / k**2) / (len(s) + 1.0 / k)
    rates = 2.0 * (failed + 0.5) / (n + 1.0)
    below = -np.log(rates[rates < 1.0])
    shape = 1.0 / below.mean() if len(below) else FLAT.shape
    rounded = tuple(float(each) for each in np.maximum(weights.round(4), 1e-4))
    return Prior(rounded, round(float(np.clip(shape, 0.1, LARGEST_SHAPE)), 4))


def prior_of_run(folder: str | Path) -> dict[float, Prior]:
    """Learn the prior of every noise level from a run of ``certify`` on training images.

    Raises:
        BadInput: for another run, or one of images that are not the training subset.
    """
    with RecordStore.read(Path(folder)) as store:
        verb, subset = store.settings.get("verb"), store.settings.get("subset")
        if verb != "certify":
            raise BadInput(f"run {folder}", f"is one of {verb}", "name a run of certify")
        if subset != "train":
            rule = f"is of subset {subset}: a prior is learned on training images only"
            raise BadInput(f"run {folder}", rule, "certify with --subset train")
        tallies = Tallies().read([store])
    counts: dict[float, list[tuple[int, int]]] = {}
    for (_, sigma), tally in sorted(tallies.by_key.items()):
        if tally.selection is not None and tally.blocks:
            top, blocks = top_class(tally.selection), tally.blocks.values()
            pair = sum(b.get(top, 0) for b in blocks), sum(sum(b.values()) for b in blocks)
            counts.setdefault(sigma, []).append(pair)
    if not counts:
        raise BadInput(f"run {folder}", "has no counts", "let it go on")
    return {sigma: learn_prior(*zip(*rows, strict=True)) for sigma, rows in counts.items()}


def read_prior(given: str | None, dataset: str, sigmas: Sequence[float]) -> tuple[Prior, ...]:
    """Return a prior for each noise level: that of the nearest level, as a ratio, that was learned.

    Args:
        given: ``flat``, a run folder of ``certify`` on training images, or None for the shipped
            prior of the data set; flat where there is none.
        dataset: Name of the data set.
        sigmas: Noise levels.

    Raises:
        BadInput: for a folder that holds no such run.

    Example:
        >>> read_prior("flat", "digits", (0.25,))[0].shape
        0.5
    """
    if given == "flat":
        return (FLAT,) * len(sigmas)
    learned: dict[float, Prior]
    if given is None:
        shipped: dict[str, Any] = (
            parse_json(read_text(SHIPPED, "priors"), "priors").get(dataset, {}).get("sigmas", {})
        )
        learned = {float(sigma): check_prior(prior) for sigma, prior in shipped.items()}
    else:
        learned = prior_of_run(given)
    if not learned:
        return (FLAT,) * len(sigmas)
    near = [min(learned, key=lambda own: abs(math.log(own / sigma))) for sigma in sigmas]
    return tuple(learned[sigma] for sigma in near)


def chances(prior: Prior, seen: tuple[int, int], wanted: Floats, draws: Floats) -> Floats:
    """Return the chance that further draws hold enough successes, after what was seen.

    Args:
        prior: The prior.
        seen: Successes and failures so far.
        wanted: Successes that would suffice, shape (k,).
        draws: Of how many further draws, shape (k,).

    Returns:
        Chances, shape (k,): beta-binomial tails by a beta of the same mean and variance; good to
        .1, which is enough to decide what sampling is worth.

    Example:
        >>> chances(FLAT, (60, 4), np.array([900.0, 950.0]), np.array([1000.0] * 2)).round(1)
        array([0.9, 0.4])
    """
    a, b = _A + seen[0], _B + seen[1]
    logs = np.log(prior.weights) + betaln(a, b) - betaln(_A, _B)
    weights = np.exp(logs - logsumexp(logs))
    m, x = draws[:, None], wanted[:, None]
    size = np.maximum(m * (a + b + 1.0) / (a + b + m) - 1.0, 1e-6)
    mean = a / (a + b)
    tail = betaincc(mean * size, (1.0 - mean) * size, np.clip((x - 0.5) / m, 0.0, 1.0))
    tail = np.where(x <= 0.0, 1.0, np.where(x > m, 0.0, tail))
    chance: Floats = (weights * tail).sum(axis=1)
    return chance
