"""The images are of several classes.

Where all images have one label, a model that always gives that answer is perfectly robust, and
nothing is learned of one that does not. A folder that is sorted by class gives such images when
the first ones are taken.
It misses easy classes that were chosen, of which there are several.

What to do: `--subset every-20th`, or shuffle before a run.
"""

from collections import Counter
from collections.abc import Iterator

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
)
from advpure.analysis.audit.evaluation import Evaluation

_ENOUGH, _MOST = 8, 0.9


def _measure(evaluation: Evaluation) -> Iterator[Value]:
    rows = evaluation.recorded.decisions
    labels = Counter({row["sample"]: row["label"] for row in rows}.values())
    yield Value("images", ONE, float(labels.total()))
    yield Value("classes", ONE, float(len(labels)))
    yield Value("most", ONE, float(max(labels.values())))


def _judge(numbers: Measured, settings: Settings) -> Finding:
    n, classes = int(numbers.one("images")), numbers.one("classes")
    most = numbers.one("most") / n
    told = f"{n} images are of {classes:.0f} classes, {100 * most:.0f} % of them of one"
    if n < _ENOUGH:
        return passed(told, classes, n=n)
    if classes == 1:
        return failed(told, classes, n=n)
    return (open_question if most > _MOST else passed)(told, classes, n=n)


CHECK = Check(
    name="several-classes",
    about="the images are of more than one class",
    source="[Carlini2019]",
    threshold="one class, of 8 images and more; above 90 %* of one is inconclusive",
    measure=_measure,
    judge=_judge,
    settle="choose images of all classes, --subset every-20th",
)
