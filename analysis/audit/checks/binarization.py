"""The attack finds an adversarial image that is known to be there.

Each image becomes a task of two classes: noisy copies of it well inside the ball, and one point
at its border that is the other class. A linear read-out of the classifier's features, behind the
purifier, tells them apart, so an adversarial image exists by construction. The evaluation's
attack has to find one, and noise must not. Eleven of thirteen published evaluations fail this
test. Features are those before the last linear layer, else the logits. Under fixed randomness they
are those of one known noise; under fresh randomness their means over ten draws are told apart, the
attack meets fresh draws, and an image counts as found that most of ten others decide so.

What to do: mend the attack until it finds what is there; then attack the defense again.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from advpure.analysis.audit.attempts import fewer, most, own_cost
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
from advpure.attacks.registry import find
from advpure.core.chain import Noise
from advpure.core.defense import Defense, classified
from advpure.core.randomness import RandomnessConfig
from advpure.core.tiling import tiled
from advpure.data import Images

_IMAGES, _INNER, _GAP = 8, 49, 0.95
_LEAST, _NOISE, _RIDGE = 0.95, 0.5, 1e-2
_DRAWS, _TOSSES, _MAJORITY = 10, 20, 0.5
_CLOSE, _ROOM = 0.1, 0.5
"""Where the border is between the planted point (0) and the nearest other (1): noise needs room."""


def _measure(evaluation: Evaluation) -> Iterator[Value]:
    for k in range(min(_IMAGES, len(evaluation.batch.ids))):
        one = Images(*(part[k : k + 1] for part in evaluation.batch))
        task = _task(evaluation, one)
        if task is None:
            continue
        found, by_noise = _found(evaluation, one, task)
        yield Value("found", int(one.ids[0]), float(found))
        yield Value("by noise", int(one.ids[0]), float(by_noise))


class _Readout(nn.Module):
    """Two classes by a linear function of a classifier's features."""

    def __init__(self, classifier: nn.Module, weights: Tensor, bias: float) -> None:
        super().__init__()
        self.classifier, self.weights, self.bias = classifier, weights, bias
        self.training = False

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [B, 2]; the second is the planted class."""
        score = features(self.classifier, images) @ self.weights - self.bias
        return torch.stack([-score, score], dim=1)


def features(classifier: nn.Module, images: Tensor) -> Tensor:
    """Return what goes into the last linear layer of a classifier, [B, F]; else its logits."""
    layers = [each for each in classifier.modules() if isinstance(each, nn.Linear)]
    kept: list[Tensor] = []
    handle = None
    if layers:
        handle = layers[-1].register_forward_pre_hook(lambda _, given: kept.append(given[0]))
    ids = torch.zeros(len(images), dtype=torch.int64, device="cpu")
    try:
        logits = classified(classifier, images, Noise(RandomnessConfig(0), ids))
    finally:
        if handle is not None:
            handle.remove()
    shown = kept[-1] if kept else logits
    return (shown if shown.ndim == 2 and len(shown) == len(images) else logits).flatten(1)


def _task(evaluation: Evaluation, one: Images) -> Defense | None:
    """Return a defense of two classes with an adversarial image at the border of the ball."""
    shape, like = tuple(one.images.shape[1:]), one.images
    xi = RandomnessConfig(0, "counter").fold("audit", "binarization")
    drawn = torch.cat([2 * xi.uniform(one.ids, k, shape) - 1 for k in range(_INNER + 1)]).to(like)
    if evaluation.norm == "linf":
        inner = _GAP * evaluation.eps * drawn[:_INNER]
        outer = evaluation.eps * drawn[_INNER:].sign()
    else:
        unit = drawn / drawn.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)
        inner, outer = _GAP * evaluation.eps * unit[:_INNER], evaluation.eps * unit[_INNER:]
    points = torch.cat([like + inner, like + outer]).clamp(0, 1)
    known = _features(evaluation, points, one.ids.repeat(_INNER + 1))
    centre, spread = known[:-1].mean(0), known[:-1] - known[:-1].mean(0)
    cover = spread.T @ spread / _INNER
    cover += _RIDGE * cover.diagonal().mean().clamp(min=1e-12) * torch.eye(len(cover)).double()
    weights = torch.linalg.solve(cover, known[-1] - centre)
    inside, at_border = (known[:-1] @ weights).max(), known[-1] @ weights
    if not bool(at_border > inside):
        return None
    size = (at_border - inside).clamp(min=1e-12)
    room = _CLOSE if evaluation.fixed else _ROOM
    weights, bias = (
        weights * 20 / size,
        float((at_border - room * (at_border - inside)) * 20 / size),
    )
    view = evaluation.view(one.ids, 0)
    readout = _Readout(view.classifier, weights.float().to(like), bias)
    task = Defense(view.purifier, readout, xi=view.xi, tile=view.tile)
    if not evaluation.fixed:
        shares = _planted(evaluation, task, torch.stack([points[-1], like[0]]), one.ids.repeat(2))
        if not shares[0] > _MAJORITY >= shares[1]:
            return None  # the noise drowns the difference
    return task


def _features(evaluation: Evaluation, points: Tensor, ids: Tensor) -> Tensor:
    """Return features of points, [B, F] in float64: of one noise, or means over fresh draws."""
    total = torch.zeros(())
    draws = 1 if evaluation.fixed else _DRAWS
    for draw in range(draws):
        view = evaluation.view(ids, draw)

        def read(x: Tensor, i: Tensor, view: Defense = view) -> Tensor:
            return features(view.classifier, view.purifier.purify(x, Noise(view.xi, i)))

        evaluation.count(len(points))
        with torch.no_grad():  # features, no gradient flows
            total = total + tiled(read, view.tile)(points, ids).double().cpu()
    return total / draws


def _planted(evaluation: Evaluation, task: Defense, points: Tensor, ids: Tensor) -> list[float]:
    """Return in which share of decisions each point is of the planted class."""
    draws = 1 if evaluation.fixed else _DRAWS
    total = torch.zeros(len(points))
    for draw in range(draws):
        view = task.at(ids=ids)
        if not evaluation.fixed and task.xi is not None:
            view = task.at(ids=ids, xi=task.xi.fold("planted", draw))
        evaluation.count(len(points))
        with torch.no_grad():  # a decision
            total += view(points).argmax(1).cpu() == 1
    shares: list[float] = (total / draws).tolist()
    return shares


def _found(evaluation: Evaluation, one: Images, task: Defense) -> tuple[bool, bool]:
    """Return whether the evaluation's attack, and noise, find the planted class."""
    assert evaluation.loaded is not None
    zero = torch.zeros_like(one.labels)
    changes = fewer(evaluation)
    if evaluation.fixed:
        changes["randomness"] = "fixed"
    if "loss" in evaluation.settings["attack"] and evaluation.settings["attack"]["loss"] == "dlr":
        changes["loss"] = "margin"
    chosen = replace(evaluation.loaded.attack_settings, **changes)
    view, run = task.at(ids=one.ids), find(evaluation.attack_name)
    result: Any = run(view, one.images, zero, chosen, ids=one.ids)
    evaluation.count(int(result.forwards.sum()), int(result.backwards.sum()))
    many = torch.arange(_TOSSES, dtype=torch.int64, device="cpu")
    noise = find("uniform-noise")(
        task.at(ids=many),
        one.images.repeat(_TOSSES, 1, 1, 1),
        zero.repeat(_TOSSES),
        ids=many,
        eps=evaluation.eps,
        norm=evaluation.norm,
    )
    evaluation.count(int(noise.forwards.sum()))
    shares = _planted(
        evaluation,
        task,
        torch.cat([result.images, noise.images]),
        one.ids.repeat(_TOSSES + 1),
    )
    return shares[0] > _MAJORITY, max(shares[1:]) > _MAJORITY


def _cost(settings: Settings) -> int:
    draws = 1 if is_fixed(settings) else _DRAWS
    return (_INNER + _TOSSES + 4) * draws + _TOSSES + min(own_cost(settings), most(settings))


def _judge(numbers: Measured, settings: Settings) -> Finding:
    n = len(numbers.values("found"))
    if not n:
        return open_question("features do not tell the planted point apart on any image")
    rate, noise = numbers.mean("found"), numbers.mean("by noise")
    told = f"the attack finds {100 * rate:.0f} % of {n} planted images, noise {100 * noise:.0f} %"
    if noise > _NOISE:
        return open_question(f"{told}: the test is too easy here", rate, n=n)
    return (passed if rate >= _LEAST else failed)(told, rate, n=n)


CHECK = Check(
    name="binarization",
    about="the attack finds adversarial images that were planted",
    source="[Zimmermann2022]",
    threshold="fewer than 95 % found",
    needs="attack",
    cost=_cost,
    thorough=True,
    images=_IMAGES,
    measure=_measure,
    judge=_judge,
    settle="mend the attack until it finds what is planted",
)
