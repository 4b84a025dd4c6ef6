"""The radius is in the unit that it seems to be in.

8/255 written as 8, or divided by 255 once more, gives a ball that holds everything or nothing.
Below half a grey level of an 8-bit image no changed image can even be stored; from 0.5 on (linf)
every image can be made grey, and no classifier has anything to see. A radius of linf that is used
for l2 is smaller by the root of the number of pixels: its ball lies within that of linf.
It misses a factor of 2, as of images in [-1, 1], that the settings do not show (`ball-used`).

What to do: radii are in [0, 1] units of a pixel; write 8/255, and multiply by 2 what a paper
states for images in [-1, 1] only after halving it.
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
)
from advpure.analysis.audit.evaluation import Evaluation
from advpure.data import DATASETS, dataset_info

_LEAST, _MOST, _USUAL = 1 / 510, 0.5, 8 / 255


def _measure(evaluation: Evaluation) -> Iterator[Value]:
    yield Value("eps", ONE, evaluation.eps)
    name = str(evaluation.settings["dataset"])
    info = dataset_info(name) if name in DATASETS else None
    own = None if info is None or info.norm != "linf" else info.eps
    yield Value("linf", ONE, own or _USUAL)


def _judge(numbers: Measured, settings: Settings) -> Finding:
    eps, norm = numbers.one("eps"), settings["threat_model"]["norm"]
    if eps < _LEAST:
        return failed(f"{norm} {eps:.3g} is below half a grey level of 8 bits, {_LEAST:.3g}", eps)
    if norm == "l2" and eps <= numbers.one("linf") * (1 + 1e-6):
        told = f"l2 {eps:.3g} is no larger than a usual radius of linf, {numbers.one('linf'):.3g}"
        fix = "give --norm linf to a radius of linf, or a radius that is usual for l2"
        return failed(f"{told}, and reaches a small part of it", eps, settle=fix)
    if norm == "linf" and eps >= _MOST:
        return failed(f"linf {eps:.3g} lets every image become grey", eps)
    return passed(f"{norm} {eps:.4g} is between half a grey level and an image of grey", eps)


CHECK = Check(
    name="epsilon-unit",
    about="the radius is no misread unit",
    source="[Carlini2019]",
    threshold="below 1/510*, linf 0.5 and more*, or l2 not above 8/255* or the linf radius of the "
    "data set",
    measure=_measure,
    judge=_judge,
    settle="write --eps 8/255 for 8 grey levels",
)
