"""The certified images are a fair sample.

A few hundred images stand for ten thousand only if nobody chose them. Images sorted by class, or
of a class that is easy, show in the counts of their labels.

What to do: `--subset every-20th`, the usual one.
"""

from collections import Counter
from collections.abc import Iterator

from scipy.stats import chisquare

from advpure.analysis.audit.check import (
    Check,
    Finding,
    Measured,
    Settings,
    Value,
    failed,
    open_question,
    passed,
)
from advpure.analysis.audit.evaluation import Evaluation

_ALPHA, _ENOUGH = 1e-3, 50


def _measure(evaluation: Evaluation) -> Iterator[Value]:
    for row in evaluation.recorded.counts:
        yield Value("label", row["sample"], float(row["label"]))


def _judge(numbers: Measured, settings: Settings) -> Finding:
    labels = Counter(int(each) for each in numbers.by_image("label").values())
    n = sum(labels.values())
    classes = int(settings["procedure"].get("classes") or max(labels) + 1)
    test = chisquare([labels.get(k, 0) for k in range(max(classes, max(labels) + 1))])
    p = float(test.pvalue)
    told = f"{n} images of {len(labels)} classes; equal shares have a p-value of {p:.2g}"
    if n < _ENOUGH:
        return open_question(told, p, n=n)
    return (failed if p < _ALPHA else passed)(told, p, n=n)


CHECK = Check(
    name="certificate-subset",
    about="classes are equally frequent among the certified images",
    source="[Cohen2019]",
    threshold="chi-square test of equal shares below 0.001*; fewer than 50 images are inconclusive",
    verb="certify",
    measure=_measure,
    judge=_judge,
    settle="certify --subset every-20th, or more images",
)
