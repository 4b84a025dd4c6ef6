"""Every step of the chain passes its gradient on, and at a size that floats can hold.

A gradient that goes back through many steps can vanish on the way, explode, or be led astray in
one of them, while the whole has a plausible size. The gradient of the margin is taken back through
the purifier step by step, with the noise held. Its norm before each step is compared with that at
the purified image, and what each step passes on with finite differences of that step alone.
It misses steps between those that are looked at, of chains longer than 64.

What to do: write the step that is named so that autograd sees it; `advpure check-grad`.
"""

import statistics
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from advpure.analysis.audit.attempts import purifies
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
from advpure.attacks.losses import LOSSES
from advpure.base.units import to_model, to_unit
from advpure.core.chain import Noise
from advpure.core.defense import classified
from advpure.core.gradients import pull_back

_IMAGES, _DIRECTIONS, _LOOKED_AT = 4, 2, 64
_REACHES = (4e-3, 1e-3)
_PASSES = 4 * len(_REACHES) * _DIRECTIONS + 1
_AGREE, _ROUNDING = 0.05, 64 * 1.2e-7
_LEAST, _MOST, _MISS = 1e-12, 1e8, 0.3
_SIZE, _ERROR = "size before ", "missed by "

Move = Callable[[Tensor], Tensor]


class _Way(NamedTuple):
    """States [B, C, H, W] of a purification, and every step with its noise put in.

    Attributes:
        states: Before every step, and the last one.
        steps: Name and map of every step.
        end: Gradient of the margin at the last state.
    """

    states: list[Tensor]
    steps: list[tuple[str, Move]]
    end: Tensor


def _measure(evaluation: Evaluation) -> Iterator[Value]:
    if not evaluation.is_controlled:
        return
    ids = evaluation.first(_IMAGES).ids
    way = _walked(evaluation)
    evaluation.count(len(ids) * _PASSES, len(ids))
    ways = evaluation.directions(_DIRECTIONS, evaluation.first(_IMAGES))
    gradient, whole = way.end, _norms(way.end)
    count = len(way.steps)
    looked_at = {count * k // _LOOKED_AT for k in range(_LOOKED_AT)}
    for k in reversed(range(count)):
        (name, move), x = way.steps[k], way.states[k]
        behind, gradient = gradient, _before(move, x, gradient)
        if k in looked_at:
            errors = _errors(move, x, behind, gradient, ways)
            for i, size, one, error in zip(
                ids.tolist(), _norms(gradient).tolist(), whole.tolist(), errors, strict=True
            ):
                if one:
                    yield Value(f"{_SIZE}{k + 1} {name}", i, size / one)
                if error is not None:
                    yield Value(f"{_ERROR}{k + 1} {name}", i, error)


def _norms(gradient: Tensor) -> Tensor:
    norms: Tensor = gradient.double().flatten(1).norm(dim=1)
    return norms


def _walked(evaluation: Evaluation) -> _Way:
    """Run the purifier with its noise, and take the gradient at what the classifier is given."""
    batch, points = evaluation.first(_IMAGES), evaluation.inside[:_IMAGES]
    view = evaluation.view(batch.ids)
    noise, own = Noise(view.xi, batch.ids), view.purifier.chain.on_images
    chain = view.purifier.chain if own is None else own
    states, steps = [to_model(points) if own is None else points], list[tuple[str, Move]]()
    for step in chain:
        drawn = noise.of(step, states[-1])
        steps.append((step.name, lambda x, step=step, drawn=drawn: step.move(x, drawn)))  # type: ignore[misc]
        with torch.no_grad():  # gradients are taken step by step
            states.append(steps[-1][1](states[-1]))
    with torch.enable_grad():
        end = states[-1].detach().clone().requires_grad_()
        logits = classified(view.classifier, to_unit(end) if own is None else end, noise)
        loss = LOSSES["margin"](logits, batch.labels.to(logits.device), False)
        return _Way(states, steps, pull_back(loss, end, torch.ones_like(loss)))


def _before(move: Move, x: Tensor, gradient: Tensor) -> Tensor:
    """Return the gradient before a step from that behind it."""
    with torch.enable_grad():
        free = x.detach().clone().requires_grad_()
        return pull_back(move(free), free, gradient)


def _errors(
    move: Move, x: Tensor, behind: Tensor, before: Tensor, ways: list[Tensor]
) -> list[float | None]:
    """Return by how much of the slope each row's gradient misses it; None where none has a limit.

    Args:
        move: A step.
        x: The state before it, [B, C, H, W].
        behind: The gradient behind it.
        before: The gradient before it, as the step passes it on.
        ways: Directions whose entries have root mean square 1.
    """
    size = x.double().square().mean((1, 2, 3), keepdim=True).sqrt().clamp(min=1.0).to(x)
    missed = torch.zeros(2, len(x), dtype=torch.float64)
    for way in (each.clamp(-4, 4) * size for each in ways):
        slope, has_limit = _slope(move, x, behind, way)
        own = (before.double() * way.double()).sum((1, 2, 3)).cpu()
        missed += torch.stack([has_limit * (slope - own) ** 2, has_limit * slope**2])
    return [
        (miss / whole) ** 0.5 if whole else None
        for miss, whole in zip(*missed.tolist(), strict=True)
    ]


def _slope(move: Move, x: Tensor, behind: Tensor, way: Tensor) -> tuple[Tensor, Tensor]:
    """Return slopes [B] of a step by central differences, and 1 where two of them agree."""

    def value(at: Tensor) -> Tensor:
        with torch.no_grad():  # a difference, no gradient flows
            return move(at).double() * behind.double()

    def difference(reach: float) -> Tensor:
        return (value(x + reach * way) - value(x - reach * way)).sum((1, 2, 3)) / (2 * reach)

    slope, has_limit = torch.zeros(2, len(x), dtype=torch.float64)
    rounding = _ROUNDING * value(x).flatten(1).norm(dim=1)
    for reach in _REACHES:
        whole, half = difference(reach), difference(reach / 2)
        agree = (whole - half).abs() <= _AGREE * half.abs()
        agree &= half.abs() > 4 * rounding / reach
        new = (agree & (has_limit.to(agree.device) == 0)).cpu()
        slope = torch.where(new, half.cpu(), slope)
        has_limit = torch.where(new, 1.0, has_limit)
    return slope, has_limit


def _step(name: str) -> int:
    """Return the number of the step in the name of a size before it."""
    return int(name.removeprefix(_SIZE).split()[0])


def _judge(numbers: Measured, settings: Settings) -> Finding:
    backwards = sorted(numbers.names(_SIZE), key=_step, reverse=True)
    sizes = {name: numbers.values(name) for name in backwards}
    if not sizes:
        return open_question("no noise can be held, or the classifier has no gradient")
    n = len(next(iter(sizes.values())))
    middles = {name: statistics.median(each) for name, each in sizes.items()}
    errors = {name: statistics.median(numbers.values(name)) for name in numbers.names(_ERROR)}
    for name, middle in middles.items():
        where = f"before step {name.removeprefix(_SIZE)} the gradient's norm is {middle:.3g}"
        if not _LEAST <= middle <= _MOST:
            return failed(f"{where} times that at the purified image", middle, n=n)
    if not errors:
        return open_question("no step has slopes that have a limit", n=n)
    worst = max(errors, key=lambda each: errors[each])
    told = f"step {worst.removeprefix(_ERROR)} misses its slope by {errors[worst]:.2g} (median)"
    if errors[worst] > _MISS:
        return failed(told, errors[worst], n=n)
    least, most = min(middles.values()), max(middles.values())
    told = (
        f"over {len(sizes)} steps the gradient's norm is {least:.2g} to {most:.2g} times that at "
    )
    told += f"the purified image; slopes of steps are missed by at most {errors[worst]:.2g}"
    return passed(told, errors[worst], n=n)


CHECK = Check(
    name="chain-gradients",
    about="no step of the purifier loses, blows up or turns the gradient",
    source="[Athalye2018]",
    threshold="median norm before a step below 1e-12* or above 1e8* times that at the purified "
    "image, or a step that misses its slope by more than 0.3* (median)",
    needs="gradient",
    applies=purifies,
    cost=lambda settings: _PASSES,
    images=_IMAGES,
    measure=_measure,
    judge=_judge,
    settle="advpure check-grad",
)
