"""The attack uses the ball that the claim is about.

An attack that was given another unit, projects to nothing or stops halfway changes images by less
than it may. The images that it leaves are then robust to less than is claimed; of these the
largest change, in units of the radius, is looked at. One that changes images by more claims too
little. Images that are left as they were, as by an attack that was given the first batch only,
count as robust to nothing. Images that are kept are measured, whatever the attack says.
It misses an attack that moves images by the whole radius in no direction (`stronger-attack`).

What to do: print the largest change of the images that the attack returns.
"""

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
from advpure.attacks.engines.contract import is_engine

_LEAST, _ROUNDING = 0.9, 1e-4
_NOTHING, _SHARE = 0.01, 0.1


def _measure(evaluation: Evaluation) -> Iterator[Value]:
    recorded, norm = evaluation.recorded, evaluation.norm
    robust = recorded.robust
    sizes = recorded.attacked("linf" if norm == "linf" else "l2")
    kept = None if evaluation.images is None else evaluation.kept_adversarial
    if kept is not None:
        moved = (kept - evaluation.batch.images).double().flatten(1)
        far = moved.abs().amax(1) if norm == "linf" else moved.norm(dim=1)
        sizes |= dict(zip(evaluation.batch.ids.tolist(), far.tolist(), strict=True))
    for i, size in sizes.items():
        yield Value("size", i, size / evaluation.eps)
        yield Value("left", i, float(robust[i] > 0))


def _judge(numbers: Measured, settings: Settings) -> Finding:
    sizes, left = numbers.by_image("size"), numbers.by_image("left")
    widest = max(sizes.values())
    if widest > 1 + _ROUNDING:
        return failed(f"an image was changed by {widest:.4g} epsilon", widest, n=len(sizes))
    kept = sorted(size for i, size in sizes.items() if left[i])
    if not kept:
        return passed(f"no image is left; changes reach {widest:.3g} epsilon", widest, n=len(sizes))
    typical = kept[len(kept) // 2]
    told = f"the {len(kept)} images that are left were changed by {typical:.3g} epsilon (median)"
    if typical < _LEAST:
        return failed(told, typical, n=len(kept))
    untouched = sum(size < _NOTHING for size in kept)
    if untouched:
        told = f"{untouched} of the {len(kept)} images that are left were not changed"
        is_many = untouched > max(1.0, _SHARE * len(kept))
        done = failed if is_many and not is_engine(settings["attack"]["name"]) else open_question
        return done(told, untouched / len(kept), n=len(kept))
    if len(kept) < 2:
        return (
            open_question(told, typical, n=len(kept))
            if kept[0] < 1 - _ROUNDING
            else passed(told, typical, n=len(kept))
        )
    return passed(told, typical, n=len(kept))


CHECK = Check(
    name="ball-used",
    about="images that are left were changed by as much as the ball allows, and no more",
    source="[Carlini2019]",
    threshold="median change below 0.9*, any above 1 epsilon, or more than 1 and 10 %* unchanged, "
    "which of an attack of another library is inconclusive",
    measure=_measure,
    judge=_judge,
    settle="advpure attack with --attack standard, and compare",
)
