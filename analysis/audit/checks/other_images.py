"""The images that are reported are like those that are not.

Images that were chosen because the defense gets them right, an easy part of the data set, or a
defense that knows the ones that it is tested on: all three show when other images of the same
split, of the same classes, are asked. Their clean margins, and what a short attack leaves of them
(ten steps of PGD on the margin), are compared with those of the reported images.
It misses a choice of little effect (24 of 24 against 17 of 24 is no proof), and data sets that
were cut down before.

What to do: choose images by their number alone, `--subset every-20th`, before anything is run.
"""

from collections.abc import Iterator

import numpy as np
from scipy.stats import fisher_exact, mannwhitneyu

from advpure.analysis.audit.check import (
    Check,
    Finding,
    Measured,
    Settings,
    Value,
    failed,
    is_fixed,
    open_question,
    passed,
)
from advpure.analysis.audit.evaluation import Evaluation, every_third
from advpure.analysis.robustness.protocol import CLEAN
from advpure.attacks.losses import LOSSES
from advpure.data import Images

_ALPHA, _OPEN, _DRAWS = 1e-4, 1e-3, 4


def _measure(evaluation: Evaluation) -> Iterator[Value]:
    batch, others = evaluation.batch, evaluation.left_out
    if others is None:
        return
    for i, margin in evaluation.recorded.margins(CLEAN).items():
        yield Value("reported margin", i, margin)
    answers = evaluation.answers(others.images, others.ids)
    for k, margin in enumerate((-LOSSES["margin"](answers, others.labels, False)).tolist()):
        yield Value("others margin", k, margin)
    for name, seen in (("reported", batch), ("others", every_third(others))):
        for k, right in enumerate(_attacked(evaluation, seen).values()):
            yield Value(f"{name} attacked", k, right)


def _attacked(evaluation: Evaluation, seen: Images) -> dict[int, float]:
    more = {} if evaluation.fixed else {"eot": 2}
    size = evaluation.eps / 4
    made = evaluation.attack("pgd", seen, steps=10, step_size=size, loss="margin", **more)
    return evaluation.right(made.images, seen, _DRAWS)


def _judge(numbers: Measured, settings: Settings) -> Finding:
    if not numbers.has("others margin"):
        told = "the data set has no other images of these classes"
        return open_question(told, settle="take a part of a larger data set")
    gaps = {}
    for what in ("margin", "attacked"):
        own, other = numbers.values(f"reported {what}"), numbers.values(f"others {what}")
        gaps[what] = float(mannwhitneyu(own, other, alternative="greater").pvalue)
    margins = {name: numbers.values(f"{name} margin") for name in ("reported", "others")}
    right = {name: sum(each > 0 for each in those) for name, those in margins.items()}
    wrong = {name: len(those) - right[name] for name, those in margins.items()}
    table = np.array([[each[name] for each in (right, wrong)] for name in margins])
    gaps["right"] = float(fisher_exact(table, alternative="greater").pvalue)
    n, found = len(margins["reported"]), min(gaps.values())
    own_share, others_share = numbers.mean("reported attacked"), numbers.mean("others attacked")
    own_right, others_right = (right[name] / len(margins[name]) for name in margins)
    told = (
        f"clean {100 * own_right:.0f} and under a short attack {100 * own_share:.0f} % right, of "
        f"other images {100 * others_right:.0f} and {100 * others_share:.0f} % (p {found:.2g})"
    )
    gap = own_share - others_share
    if found < _ALPHA:
        return failed(told, gap, n=n)
    return (open_question if found < _OPEN else passed)(told, gap, n=n)


CHECK = Check(
    name="other-images",
    about="other images of the data set are no harder than the reported ones",
    source="[Carlini2019]",
    threshold="smaller clean margins, fewer right, or fewer right under a short attack, by a "
    "one-sided rank or exact test at 0.01 %*; at 0.1 %* it is inconclusive",
    needs="attack",
    cost=lambda settings: 29 if is_fixed(settings) else 61,
    measure=_measure,
    judge=_judge,
    settle="choose images by their number alone, --subset every-20th",
)
