"""A longer attack of the same kind fools nothing more.

Forty steps on the margin, of an eighth of epsilon and from a random start, are a plain attack
that any evaluation should have beaten. Under fresh randomness they are ten, each a mean of eight
draws.

What to do: `--attack standard`.
"""

from advpure.analysis.audit.attempts import attempt
from advpure.analysis.audit.check import is_fixed
from advpure.analysis.audit.evaluation import Evaluation


def _options(evaluation: Evaluation) -> dict[str, object]:
    if evaluation.fixed:
        return {"steps": 40, "step_size": evaluation.eps / 8, "loss": "margin"}
    return {"steps": 10, "step_size": evaluation.eps / 4, "loss": "margin", "eot": 8}


CHECK = attempt(
    name="stronger-attack",
    about="40 steps of PGD on the margin fool nothing more",
    source="[Carlini2019], [Tramer2020]",
    words="PGD on the margin",
    attack="pgd",
    options=_options,
    cost=lambda settings: 44 if is_fixed(settings) else 92,
    settle="run --attack standard on the same images",
)
