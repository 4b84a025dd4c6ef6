"""The evaluation says what an attacker may do and know.

A robust accuracy without norm, radius and what the attacker knows of the randomness is no claim
that anybody could refute. Runs of `advpure attack` always say these; what is missing is named.

What to do: state norm, radius, and whether attack and decision share their randomness.
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
from advpure.statistics.estimates import find

_STATED = ("threat_model.norm", "threat_model.eps", "decisions.randomness", "decisions.draws")


def _measure(evaluation: Evaluation) -> Iterator[Value]:
    for path in _STATED:
        group, _, name = path.partition(".")
        stated = (evaluation.settings.get(group) or {}).get(name) is not None
        yield Value(f"states {path}", ONE, float(stated))


def _judge(numbers: Measured, settings: Settings) -> Finding:
    missing = [path for path in _STATED if not numbers.one(f"states {path}")]
    if missing:
        return failed(f"the settings do not say {', '.join(missing)}", float(len(missing)))
    model = {path: find(settings, path) for path in _STATED}
    return passed(
        f"{model['threat_model.norm']} {model['threat_model.eps']:.4g}, "
        f"{model['decisions.randomness']} randomness, {model['decisions.draws']} decisions each",
        0.0,
    )


CHECK = Check(
    name="threat-model",
    about="norm, radius and what the attacker knows of the randomness are stated",
    source="[Carlini2019]",
    threshold="any of them missing",
    measure=_measure,
    judge=_judge,
    settle="state it with --norm, --eps and --fix-random or --fresh-random",
)
