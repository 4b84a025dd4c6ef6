"""The certificate holds in floating point.

The theorem is about real numbers. A float32 sum of image and noise keeps traces of the image,
which a classifier can read: one with a published radius of 1.26 has another answer at 0.8. Noise
on a grid makes the sum exact. A usual network does not look at last bits, so this is open and no
failure.

What to do: `advpure certify --noise grid`.
"""

from collections.abc import Iterator

from advpure.analysis.audit.check import (
    ONE,
    Check,
    Finding,
    Measured,
    Settings,
    Value,
    open_question,
    passed,
)
from advpure.analysis.audit.evaluation import Evaluation


def _measure(evaluation: Evaluation) -> Iterator[Value]:
    yield Value("grid", ONE, float(evaluation.settings["randomness"].get("grid") or 0))


def _judge(numbers: Measured, settings: Settings) -> Finding:
    grid = numbers.one("grid")
    if not grid:
        return open_question(
            "sums of image and noise are rounded: the certificate is one of reals", 0
        )
    return passed(f"image and noise are whole steps of 1/{grid:.0f}", grid)


CHECK = Check(
    name="certificate-arithmetic",
    about="no rounding stands between the theorem and the program",
    source="[Voracek2023]",
    threshold="never a failure; normal noise is inconclusive",
    verb="certify",
    measure=_measure,
    judge=_judge,
    settle="run again with --noise grid",
)
