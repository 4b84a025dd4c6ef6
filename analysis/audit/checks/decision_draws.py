"""Several decisions an image say how a random defense decides.

One toss of a coin a image does not tell a defense that is right nine times of ten from one that
is right always, and says nothing of the attacker who may ask twice. Mean, worst and majority come
from the same decisions, in draws that no attack has seen. Draws that agree to the last bit are one:
a seed that is set within the model makes them so, and its noise is no noise.
It misses draws that differ by less than noise of the stated level does.

What to do: `--draws 10`.
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
    is_fixed,
    passed,
)
from advpure.analysis.audit.evaluation import Evaluation


def _measure(evaluation: Evaluation) -> Iterator[Value]:
    yield Value("draws", ONE, float(evaluation.settings["decisions"]["draws"]))
    margins: dict[tuple[int, str], set[float]] = {}
    for row in evaluation.recorded.decisions:
        margins.setdefault((row["sample"], row["stage"]), set()).add(row["margin"])
    yield Value("distinct", ONE, float(max(len(each) for each in margins.values())))


def _judge(numbers: Measured, settings: Settings) -> Finding:
    draws = numbers.one("draws")
    told = f"{draws:.0f} decision{'s' if draws > 1 else ''} an image of a random defense"
    if draws > 1 and numbers.one("distinct") == 1:
        return failed(f"{told}, all equal to the last bit", 1.0)
    return failed(told, draws) if draws < 2 else passed(told, draws)


CHECK = Check(
    name="decision-draws",
    about="a random defense decides every image several times",
    source="[Athalye2018], [Lee2023]",
    threshold="one decision, or several that are equal to the last bit",
    applies=lambda settings: not is_fixed(settings),
    measure=_measure,
    judge=_judge,
    settle="run again with --draws 10",
)
