"""The labels are those of the images.

Labels that count from 1, or come in another order than the images, make every answer wrong: the
attack has nothing to do, and a defense that was never attacked looks broken, or one whose labels
are wrong in the same way for both looks robust to what it never saw. A constant gap between
answer and label, or classes that changed places, is how that shows. Images that are copies of those
of a known data set have to have their labels there: answers of a model are no labels. A few pixels
that have one value in each class, another for each, write the label into the image.
It misses labels that were made by a model, for images of nobody else.

What to do: compare a few images with their labels by eye.
"""

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from advpure.analysis.audit.check import (
    ONE,
    Check,
    Finding,
    Measured,
    Settings,
    Value,
    failed,
    open_question,
    passed,
    share,
)
from advpure.analysis.audit.evaluation import Evaluation
from advpure.analysis.robustness.protocol import CLEAN
from advpure.data import Images
from advpure.runs.schema import Row

_MOST = 0.5
_ENOUGH = 8
_FEW, _PER_CLASS, _NEARLY = 6, 2, 0.8
_PART = 0.25
"""Of the pixels that tell the class from which on images are of another kind: flat ones."""


def _measure(evaluation: Evaluation) -> Iterator[Value]:
    rows = [
        row for row in evaluation.recorded.decisions if row["stage"] == CLEAN and row["draw"] == 0
    ]
    classes = 1 + max(max(row["label"], row["prediction"]) for row in rows)
    gaps = Counter((row["prediction"] - row["label"]) % classes for row in rows)
    wrong = {gap: count for gap, count in gaps.items() if gap}
    gap, count = max(wrong.items(), key=lambda each: each[1], default=(0, 0))
    yield Value("gap", ONE, float(gap))
    yield Value("count", ONE, float(count))
    yield Value("images", ONE, float(len(rows)))
    yield Value("moved", ONE, float(_changed_places(rows, classes)))
    if evaluation.images is not None:
        labels = dict(
            zip(evaluation.batch.ids.tolist(), evaluation.batch.labels.tolist(), strict=True)
        )
        yield Value("telling", ONE, _telling(evaluation.batch))
        for i, origin in evaluation.origins.items():
            yield Value("other", i, float(origin is not None and origin.label != labels[i]))


def _telling(batch: Images) -> float:
    """Return the share of pixels that have one value in each class, and another for each class."""
    pixels, labels = (batch.images * 255).round().flatten(1), batch.labels
    sets = [pixels[labels == each] for each in sorted(set(labels.tolist()))]
    if len(sets) < 2 or sum(len(each) > 1 for each in sets) < 2:
        return 0.0
    constant = torch.stack([(each == each[0]).all(0) for each in sets]).all(0)
    values = torch.stack([each[0] for each in sets]).sort(0).values
    return float((constant & (values.diff(dim=0) > 0).all(0)).double().mean())


def _changed_places(rows: Sequence[Row], classes: int) -> int:
    """Return how many images are of classes that are always taken for one other, one to one."""
    counts = np.zeros((classes, classes))
    for row in rows:
        counts[row["label"], row["prediction"]] += 1
    given, taken = linear_sum_assignment(-counts)
    return sum(
        int(counts[a, b])
        for a, b in zip(given, taken, strict=True)
        if a != b and counts[a, b] >= max(_PER_CLASS, _NEARLY * counts[a].sum())
    )


def _judge(numbers: Measured, settings: Settings) -> Finding:
    count, n = numbers.one("count"), int(numbers.one("images"))
    told = f"{count:.0f} of {n} clean answers are their label plus {numbers.one('gap'):.0f}"
    if not count:
        told = f"none of {n} clean answers is wrong"
    if count / n > _MOST:
        told = f"{told}: the labels are shifted"
        return failed(told, count / n, n=n) if n >= _ENOUGH else open_question(told, count / n, n=n)
    if numbers.total("other"):
        others, probed = numbers.total("other"), len(numbers.values("other"))
        words = "images have another label in the data set that they are copied from"
        return failed(share(others, probed, words), others / probed, n=probed)
    telling = numbers.one("telling") if numbers.has("telling") else 0.0
    if 0 < telling < _PART:
        return failed(f"{100 * telling:.2g} % of the pixels have a value for each class", telling)
    moved = numbers.one("moved")
    if moved >= _FEW:
        words = "images are of classes that are nearly always taken for one other"
        return failed(share(moved, n, words), moved / n, n=n)
    return passed(told, count / n, n=n)


CHECK = Check(
    name="labels",
    about="no constant stands between answers and labels",
    source="[Carlini2019]",
    threshold="more than half of the clean answers are off by one constant*; 6 images* or more of "
    "classes that changed places; another label than in a known data set; or pixels that tell it",
    measure=_measure,
    judge=_judge,
    settle="let labels count from 0, in the order of the images",
)
