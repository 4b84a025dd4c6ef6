"""What nobody can see changes nothing.

A hundred-thousandth of the range of a pixel, or a thousandth, is below a grey level. A model that
answers otherwise then recognises the very bytes of an image (a lookup of test images, noise seeded
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

_MOST = {1e-5: 0.05, 1e-3: 0.2}
"""Change of every pixel, to the change of the margin that is too large for it."""


def _measure(evaluation: Evaluation) -> Iterator[Value]:
    if not evaluation.is_controlled:
        return
    batch = evaluation.batch
    (noise,) = evaluation.directions(1, batch)
    seen = {"margin": batch.images}
    seen |= {f"{size:g}": (batch.images + size * noise.sign()).clamp(0, 1) for size in _MOST}
    for name, points in seen.items():
        margins = evaluation.margins(points, batch).tolist()
        for i, margin in zip(batch.ids.tolist(), margins, strict=True):
            yield Value(name, i, margin)


def _judge(numbers: Measured, settings: Settings) -> Finding:
    before = numbers.by_image("margin")
    if not before:
        return open_question("the model draws anew on every call: a change is one of noise")
    n, scale = len(before), statistics.median(abs(each) for each in before.values())
    counts = {}
    for size, most in _MOST.items():
        after = numbers.by_image(f"{size:g}")
        counts[size] = sum(
            abs(after[i] - each) > most * max(scale, abs(each), 1e-12) for i, each in before.items()
        )
    size = max(counts, key=lambda each: counts[each])
    count = counts[size]
    told = f"{size:g} a pixel moves the margin of {count} of {n} images by {100 * _MOST[size]:g} %"
    if count > max(1.0, 0.1 * n):
        return failed(told, count / n, n=n)
    return (open_question if count else passed)(told, count / n, n=n)


CHECK = Check(
    name="tiny-changes",
    about="changes of 1e-5 and 1e-3 a pixel leave the margins",
    source="[Athalye2018], [Pintor2022]",
    threshold="more than 1 and 10 %* of the images moved by 5 %* for 1e-5, or 20 %* for 1e-3; "
    "one is inconclusive",
    needs="model",
    cost=lambda settings: 3,
    measure=_measure,
    judge=_judge,
    settle="look for what depends on exact pixels: a lookup, a hash, a test for 8 bits",
)
