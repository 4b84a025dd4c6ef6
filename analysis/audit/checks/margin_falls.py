"""The attack brings images closer to the border.

An image that the attack leaves has, at least, a smaller margin than before. Where the margin stays
to the last bit although the image was changed, the defense answers for another image: one that it
looked up or projected onto, or a clean one that was decided in the place of the attacked one. Where
it grows, the attack walks downhill. Shares of votes are flat, so that those which stay say nothing.
It misses a lookup that gives back the clean image in part.

What to do: decide the images that the attack returns; look for a sign or a gradient that is wrong.
"""

from collections.abc import Iterator

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
from advpure.analysis.audit.evaluation import Evaluation
from advpure.analysis.robustness.protocol import ADVERSARIAL, CLEAN

_MOST, _FRESH, _FEW = 0.25, 0.5, 3
_VOTES = "majority"


def _measure(evaluation: Evaluation) -> Iterator[Value]:
    recorded = evaluation.recorded
    clean, attacked = recorded.mean_margins(CLEAN), recorded.mean_margins(ADVERSARIAL)
    moved, before = recorded.attacked("linf"), recorded.clean
    for i, right in recorded.robust.items():
        if right > 0 and before[i] > 0 and moved.get(i, 1.0) > 0:
            yield Value("fall", i, clean[i] - attacked[i])
            yield Value("margin", i, abs(clean[i]))


def _judge(numbers: Measured, settings: Settings) -> Finding:
    falls, margins = numbers.by_image("fall"), numbers.by_image("margin")
    n = len(falls)
    if not n:
        return passed("no image is left that was right before", 0.0)
    grown = sum(fall < -1e-6 * margins[i] for i, fall in falls.items())
    count = sum(fall <= 1e-6 * margins[i] for i, fall in falls.items())
    told = f"{count} of the {n} images that are left have no smaller margin than before"
    sure = grown if settings.get("defense", {}).get("policy", {}).get("kind") == _VOTES else count
    if sure >= _FEW and sure > (_MOST if is_fixed(settings) else _FRESH) * n:
        return failed(told, count / n, n=n)
    return (open_question if count >= _FEW else passed)(told, count / n, n=n)


CHECK = Check(
    name="margin-falls",
    about="attacked images have smaller margins than clean ones",
    source="[Carlini2019], [Pintor2022]",
    threshold="3* or more and a quarter* of the images that are left, half* of them under fresh "
    "randomness",
    measure=_measure,
    judge=_judge,
    settle="decide the attacked images again, and compare with the clean ones",
)
