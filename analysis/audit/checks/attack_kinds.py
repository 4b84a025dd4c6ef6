"""Several kinds of attack were tried.

A defense that hides its gradient looks robust to whatever follows gradients, one that hides one
class behind another to whatever leaves classes instead of aiming at them, and one start can be a
trap. The guideline asks for targeted and untargeted attacks, ten restarts, and one attack without
gradients.

What to do: `--attack standard` has all of them; `black-box`, `restarts` and `transfer` try some
here.
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
from advpure.attacks.standard import StandardSettings

_KINDS = ("gradient", "gradient-free", "targeted", "restarts")


def _measure(evaluation: Evaluation) -> Iterator[Value]:
    attack = evaluation.settings["attack"]
    name = attack["name"]
    has = {
        "gradient": evaluation.recorded.follows_gradients,
        "gradient-free": not evaluation.recorded.follows_gradients,
        "targeted": name == "apgd-targeted",
        "restarts": attack.get("restarts", 1) > 1,
    }
    if name == "standard":
        plan = StandardSettings(**{k: v for k, v in attack.items() if k != "name"}).plan
        has |= {
            "gradient": True,
            "gradient-free": plan.queries > 0,
            "targeted": plan.targets > 0,
            "restarts": plan.restarts > 0,
        }
    for kind in _KINDS:
        yield Value(kind, ONE, float(has[kind]))


def _judge(numbers: Measured, settings: Settings) -> Finding:
    missing = [kind for kind in _KINDS if not numbers.one(kind)]
    count = float(len(_KINDS) - len(missing))
    if missing:
        told = f"the attack has no part that is: {', '.join(missing)}"
        standard = settings["attack"]["name"] == "standard"
        return open_question(told, count, settle="raise --budget" if standard else "")
    return passed("gradients, none, targets and restarts are all part of the attack", count)


CHECK = Check(
    name="attack-kinds",
    about="gradient, gradient-free, targeted and restarted attacks were tried",
    source="[Carlini2019]",
    threshold="never a failure; a missing kind is inconclusive",
    measure=_measure,
    judge=_judge,
    settle="run --attack standard on the same images",
)
