"""The images are no training images.

Networks know what they were trained on: classifiers are surer there, purifiers nearer. The subset
that a run names says so, and images of somebody's own are looked for, by pixel, among the training
images of the known data sets of their shape.
It misses copies that were resized or compressed, and networks trained on the test split.

What to do: leave out `--subset train`; take images of the test split.
"""

from collections.abc import Iterator

from advpure.analysis.audit.check import (
    ONE,
    Check,
    Finding,
    Measured,
    Settings,
    Value,
    failed,
    passed,
    share,
)
from advpure.analysis.audit.evaluation import Evaluation


def _measure(evaluation: Evaluation) -> Iterator[Value]:
    subset = str(evaluation.settings.get("subset", ""))
    yield Value("subset", ONE, float(subset.partition("/")[0] == "train"))
    if evaluation.images is not None:
        for i, origin in evaluation.origins.items():
            yield Value("known", i, float(origin is not None and origin.split == "train"))


def _judge(numbers: Measured, settings: Settings) -> Finding:
    if numbers.one("subset"):
        told = f"the images are {settings['subset']}: of the training split"
        return failed(told, 1.0)
    count, n = numbers.total("known"), len(numbers.values("known"))
    if not n:
        return passed("the run names images of the test split", 0.0)
    told = share(count, n, "images are training images of a known data set")
    return (failed if count else passed)(told, count / n, n=n)


CHECK = Check(
    name="training-images",
    about="no network was trained on the images",
    source="[Carlini2019]",
    threshold="the training split, or any image of that of a known data set",
    measure=_measure,
    judge=_judge,
    settle="evaluate on the test split, without --subset train",
)
