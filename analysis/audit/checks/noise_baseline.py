"""The attack beats noise in the same ball.

Uniform noise knows nothing of the model. Where it fools an image that the attack leaves, or
leaves no more images than the attack does, the attack did not work: a sign of obfuscated
gradients.

What to do: suspect the attack before the defense is praised; `--attack standard`.
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
    open_question,
    passed,
)
from advpure.analysis.audit.evaluation import Evaluation

_ENOUGH = 8


def _measure(evaluation: Evaluation) -> Iterator[Value]:
    noisy, robust = evaluation.recorded.noisy, evaluation.recorded.robust
    for i, right in robust.items():
        yield Value("clean", i, evaluation.recorded.clean[i])
        yield Value("noise", i, noisy[i])
        yield Value("attack", i, right)


def _judge(numbers: Measured, settings: Settings) -> Finding:
    noise, attack = numbers.by_image("noise"), numbers.by_image("attack")
    n, a, b = len(noise), numbers.mean("noise"), numbers.mean("attack")
    told = f"{100 * a:.1f} % right under noise, {100 * b:.1f} % under attack, of {n} images"
    if b >= a > 0 and b >= numbers.mean("clean"):
        told = f"{told}: neither fools anything, which unbounded and known-optimum explain"
        return open_question(told, a - b, n=n)
    if b >= a > 0:
        done = failed if n >= _ENOUGH else open_question
        return done(f"{told}: the attack is no better than noise", a - b, n=n)
    if is_fixed(settings):
        better = sum(noise[i] < attack[i] for i in noise)
        if better:
            told = f"{told}; noise alone fools {better} that the attack leaves"
            return open_question(told, a - b, n=n)
    return passed(told, a - b, n=n)


CHECK = Check(
    name="noise-baseline",
    about="the attack fools more than noise in the ball does",
    source="[Carlini2019], [Athalye2018]",
    threshold="no better than noise; nothing fooled, or an image by noise only, is inconclusive",
    measure=_measure,
    judge=_judge,
    settle="run --attack standard on the same images",
)
