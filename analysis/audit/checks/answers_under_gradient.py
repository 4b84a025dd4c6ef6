"""What answers where a gradient is asked for is what decides.

A model that notices that a gradient is wanted (`torch.is_grad_enabled`, `requires_grad`, a hook)
can show the attack another function: without noise, of another strength, or a decoy. The margin
that comes with the gradient is compared with the margin that decides, at equal points and noise.
It misses a stand-in that is off by less than 1 %, and one for chosen images.

What to do: one `forward` for both.
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
from advpure.analysis.audit.checks.finite_differences import exact_mode
from advpure.analysis.audit.evaluation import Evaluation

_MOST, _ROUNDING = 0.01, 1e-6


def _measure(evaluation: Evaluation) -> Iterator[Value]:
    if not evaluation.is_controlled:
        return
    batch, points = evaluation.batch, evaluation.inside
    asked = evaluation.slope(points, batch, gradient=exact_mode(evaluation.defense.purifier)).loss
    plain = evaluation.margins(points, batch)
    scale = plain.abs().median().clamp(min=1e-12)
    gaps = (asked.double().cpu() - plain.cpu()).abs() / plain.abs().cpu().clamp(min=float(scale))
    for i, gap in zip(batch.ids.tolist(), gaps.tolist(), strict=True):
        yield Value("gap", i, gap)


def _judge(numbers: Measured, settings: Settings) -> Finding:
    gaps = numbers.values("gap")
    if not gaps:
        return open_question("the model draws anew on every call: no two answers can be compared")
    count, n, most = sum(gap > _MOST for gap in gaps), len(gaps), max(gaps)
    size = f"up to {most:.2g} of it" if most > _ROUNDING else "rounding at most"
    told = f"{count} of {n} images have another margin, by {size}, when a gradient is asked for"
    if count > max(1.0, 0.1 * n):
        return failed(told, most, n=n)
    return (open_question if count else passed)(told, most, n=n)


CHECK = Check(
    name="answers-under-gradient",
    about="margins are the same with and without a gradient",
    source="[Athalye2018], [Tramer2020]",
    threshold="more than 1 and 10 %* of the images off by 1 %*; one is inconclusive",
    needs="gradient",
    cost=lambda settings: 2,
    measure=_measure,
    judge=_judge,
    settle="compute answers and gradients by one forward pass",
)
