"""What nobody can see changes nothing.

A hundred-thousandth of the range of a pixel is far below a grey level. A model that answers
otherwise then recognises the very bytes of an image (a lookup of test images, noise that is seeded
by the image, a test for values off the grid of 8 bits): its answer to a clean image is another
function than the one that an attack meets.
It misses a lookup with a tolerance, which `memorised-images`, `margin-falls` and `other-images`
look for.

What to do: let nothing depend on the exact bits of an image.
"""

import statistics
from collections.abc import Iterator

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

_SIZE, _MOST = 1e-5, 0.05


def _measure(evaluation: Evaluation) -> Iterator[Value]:
    if not evaluation.is_controlled:
        return
    batch = evaluation.batch
    (noise,) = evaluation.directions(1, batch)
    moved = (batch.images + _SIZE * noise.sign()).clamp(0, 1)
    before, after = (evaluation.margins(points, batch) for points in (batch.images, moved))
    for i, a, b in zip(batch.ids.tolist(), before.tolist(), after.tolist(), strict=True):
        yield Value("margin", i, a)
        yield Value("moved", i, b)


def _judge(numbers: Measured, settings: Settings) -> Finding:
    before, after = numbers.by_image("margin"), numbers.by_image("moved")
    if not before:
        return open_question("the model draws anew on every call: a change is one of noise")
    n, scale = len(before), statistics.median(abs(each) for each in before.values())
    changes = [abs(after[i] - each) / max(scale, abs(each), 1e-12) for i, each in before.items()]
    count = sum(change > _MOST for change in changes)
    told = f"1e-5 a pixel moves the margin of {count} of {n} images by more than 5 %"
    if count > max(1.0, 0.1 * n):
        return failed(told, count / n, n=n)
    return (open_question if count else passed)(told, count / n, n=n)


CHECK = Check(
    name="tiny-changes",
    about="a change of 1e-5 a pixel leaves the margins",
    source="[Athalye2018], [Pintor2022]",
    threshold="more than 1 and 10 %* of the images moved by 5 %*; one is inconclusive",
    needs="model",
    cost=lambda settings: 2,
    measure=_measure,
    judge=_judge,
    settle="look for what depends on exact pixels: a lookup, a hash, a test for 8 bits",
)
