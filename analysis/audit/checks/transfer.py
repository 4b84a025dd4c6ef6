"""What fools the bare classifier does not beat the attack.

Images that are crafted on the undefended classifier and carried over need no gradient of the
purifier. Where they fool an image that the white-box attack leaves, that attack did not see
through the purifier.

What to do: exact gradients through the whole chain.
"""

from collections.abc import Iterator

from advpure.analysis.audit.attempts import purifies, retried, undefended
from advpure.analysis.audit.check import Check, Value
from advpure.analysis.audit.evaluation import Evaluation
from advpure.attacks import pgd


def _measure(evaluation: Evaluation) -> Iterator[Value]:
    batch, bare = evaluation.survivors, undefended(evaluation)
    after = dict(evaluation.before)
    if len(batch.ids):
        crafted = pgd(
            bare.at(ids=batch.ids),
            batch.images,
            batch.labels,
            ids=batch.ids,
            eps=evaluation.eps,
            norm=evaluation.norm,
            steps=20,
            step_size=evaluation.eps / 8,
            loss="margin",
            stop="never",
        )
        evaluation.count(int(crafted.forwards.sum()), int(crafted.backwards.sum()))
        after |= evaluation.right(crafted.images, batch)
    yield from retried.values(evaluation, after)


CHECK = Check(
    name="transfer",
    about="images crafted on the bare classifier fool nothing more",
    source="[Carlini2019]",
    threshold="paired difference beyond 0 (Tango, 95 %); one image is inconclusive",
    needs="attack",
    applies=purifies,
    cost=lambda settings: 22,
    measure=_measure,
    judge=retried.judge("an attack on the bare classifier"),
    settle="attack with exact gradients (no --gradient, no --transfer-from); through what has "
    "none, with a better stand-in",
)
