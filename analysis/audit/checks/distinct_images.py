"""No image counts twice.

Copies of an image, as from padding the last batch or from a data set that was joined with itself,
count as cases of their own and make intervals too narrow; easy ones among them flatter the
defense.

What to do: remove copies; `--subset` chooses images by id.
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


def _measure(evaluation: Evaluation) -> Iterator[Value]:
    digests = evaluation.recorded.digests
    yield Value("images", ONE, float(len(digests)))
    yield Value("copies", ONE, float(sum(n - 1 for n in Counter(digests.values()).values())))


def _judge(numbers: Measured, settings: Settings) -> Finding:
    copies, n = numbers.one("copies"), int(numbers.one("images"))
    if not n:
        return open_question("the records keep no digest of the images")
    told = f"{copies:.0f} of {n} images are copies of others"
    return failed(told, copies, n=n) if copies else passed(told, copies, n=n)


CHECK = Check(
    name="distinct-images",
    about="no image counts twice",
    source="[Carlini2019]",
    threshold="any copy",
    measure=_measure,
    judge=_judge,
    settle="take the copies out, or choose other images with --subset",
)
