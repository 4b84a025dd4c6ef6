"""Another step size fools nothing more.

A step that is too small does not arrive, one that is too large jumps over. The evaluation's own
attack is run with half, twice, four and sixteen times its step on what it left.

What to do: `--step-size` of 2.5 epsilon / steps, or `--attack standard`, which chooses its own.
"""

from collections.abc import Iterator

from advpure.analysis.audit.attempts import own_cost, retried
from advpure.analysis.audit.check import Check, Settings, Value
from advpure.analysis.audit.evaluation import Evaluation
from advpure.analysis.robustness.wording import step_of

_FACTORS = (0.5, 2.0, 4.0, 16.0)


def _applies(settings: Settings) -> bool:
    return "step_size" in settings["attack"]


def _measure(evaluation: Evaluation) -> Iterator[Value]:
    size = step_of(evaluation.settings["attack"])
    assert size is not None
    sizes = [min(size * factor, evaluation.eps) for factor in _FACTORS]
    yield from retried.best(evaluation, [{"step_size": each} for each in dict.fromkeys(sizes)])


CHECK = Check(
    name="step-sizes",
    about="half, twice, four and sixteen times the step fool nothing more",
    source="[Carlini2019]",
    threshold="paired difference beyond 0 (Tango, 95 %); one image is inconclusive",
    needs="attack",
    applies=_applies,
    cost=lambda settings: len(_FACTORS) * own_cost(settings),
    measure=_measure,
    judge=retried.judge("another step size"),
    settle="run again with another --step-size, or with --attack standard",
)
