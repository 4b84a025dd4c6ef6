"""The purifier does not know the images of the test.

A purifier that pulls towards the images that it is tested on (a projection onto them, a nearest
neighbour, a generator fitted to them) takes every attack back, and would do nothing of the kind
for other images. How far it moves an image that the evaluation reports is compared with how far it
moves other images of the data set, where there are any, and the same ones shifted by a pixel.
It misses a defense that is one function from images to logits (`other-images`).

What to do: build the purifier from training images; evaluate on images that it has never seen.
"""

import statistics
from collections.abc import Iterator

from scipy.stats import mannwhitneyu
from torch import Tensor
from torch.nn import functional

from advpure.analysis.audit.check import (
    ONE,
    Check,
    Finding,
    Measured,
    Settings,
    Value,
    failed,
    passed,
)
from advpure.analysis.audit.evaluation import Evaluation, every_third
from advpure.analysis.robustness.protocol import purified
from advpure.data import Images

_ALPHA, _LARGE = 1e-3, 0.05
_TIMES = {"others": 2.0, "shifted": 4.0}
_WORDS = {"others": "other images of the data set", "shifted": "the same shifted by a pixel"}


def _measure(evaluation: Evaluation) -> Iterator[Value]:
    batch, others = evaluation.batch, evaluation.left_out
    seen = {"reported": batch, "shifted": batch._replace(images=shifted(batch.images))}
    if others is not None:
        seen["others"] = every_third(others)
    for kind, images in seen.items():
        for k, value in enumerate(_moved(evaluation, images).tolist()):
            yield Value(kind, k, value)
    far = (batch.images - batch.images.roll(1, 0)).square().flatten(1).mean(1).sqrt()
    yield Value("apart", ONE, float(far.median()))


def _moved(evaluation: Evaluation, seen: Images) -> Tensor:
    """Return by how much the purifier moves images [B], as a root mean square."""
    evaluation.count(len(seen.ids))
    made = purified(evaluation.view(seen.ids), seen.images)
    return (made - seen.images).square().flatten(1).mean(1).sqrt().double().cpu()


def shifted(images: Tensor) -> Tensor:
    """Return images moved by one pixel to the right, the first column repeated."""
    return functional.pad(images, (1, 0, 0, 0), mode="replicate")[..., :-1]


def _judge(numbers: Measured, settings: Settings) -> Finding:
    own, apart = numbers.values("reported"), numbers.one("apart")
    a = statistics.median(own)
    told = f"reported images are moved by {a:.2g} (median)"
    is_known = False
    for kind, times in _TIMES.items():
        if numbers.has(kind):
            other = numbers.values(kind)
            b = statistics.median(other)
            told += f", {_WORDS[kind]} by {b:.2g}"
            test = mannwhitneyu(own, other, alternative="less")
            is_far = b > times * a and b - a > _LARGE * apart
            is_known |= bool(is_far and test.pvalue < _ALPHA)
    return (failed if is_known else passed)(told, a, n=len(own))


CHECK = Check(
    name="memorised-images",
    about="the purifier moves reported images as far as others",
    source="[Carlini2019]",
    threshold="others moved twice as far* (shifted ones 4 times*), by 5 %* of what separates two "
    "images, and a one-sided rank test at 0.1 %*",
    needs="model",
    applies=lambda settings: (settings.get("defense") or {}).get("purifier") != "none",
    cost=lambda settings: 3,
    measure=_measure,
    judge=_judge,
    settle="evaluate on images that the purifier was not made from",
)
