"""With the noise held fixed the attack gets through; then it is let go.

An attack on a random defense is first made to work where nothing is random: if it fails even when
it knows the noise, its failure under fresh noise is no merit of the noise. PGD with one known
noise must leave no more than the evaluation has under fresh noise.

What to do: `--fix-random` first; then `--eot`.
"""

from collections.abc import Iterator

from advpure.analysis.audit.check import (
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
from advpure.attacks import pgd
from advpure.statistics.rates import mean_interval

_TIE = 0.02


def _measure(evaluation: Evaluation) -> Iterator[Value]:
    batch = evaluation.batch
    view = evaluation.view(batch.ids, 0, "fixed")
    result = pgd(
        view,
        batch.images,
        batch.labels,
        ids=batch.ids,
        eps=evaluation.eps,
        norm=evaluation.norm,
        steps=40,
        step_size=evaluation.eps / 8,
        loss="margin",
    )
    evaluation.count(int(result.forwards.sum()), int(result.backwards.sum()))
    for i, fooled in zip(batch.ids.tolist(), result.success.tolist(), strict=True):
        yield Value("fixed", i, float(not fooled))
        yield Value("fresh", i, evaluation.before[i])


def _judge(numbers: Measured, settings: Settings) -> Finding:
    fixed, fresh = numbers.by_image("fixed"), numbers.by_image("fresh")
    gap = mean_interval([fixed[i] - fresh[i] for i in fixed], within=(-1, 1))
    told = f"with known noise PGD leaves {100 * numbers.mean('fixed'):.0f} %, the attack "
    told += f"{100 * numbers.mean('fresh'):.0f} % under fresh noise"
    low = -1.0 if gap.interval is None else gap.interval.low
    more = {"n": gap.n, "interval": gap.interval}
    return (failed if low > _TIE else passed)(told, gap.value, **more)


CHECK = Check(
    name="fixed-first",
    about="an attack that knows the noise leaves no more than one that does not",
    source="[Carlini2019], [Athalye2018]",
    threshold="Student's interval of the difference above 2 points*",
    needs="attack",
    applies=lambda settings: not is_fixed(settings),
    cost=lambda settings: 44,
    thorough=True,
    measure=_measure,
    judge=_judge,
    settle="run again with --fix-random, until it succeeds",
)
