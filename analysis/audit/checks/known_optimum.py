"""The attack finds the optimum where it is known.

On a linear model the best change is the sign (or the direction) of its weights, in closed form.
Images of both classes that need half and three quarters of the ball are given to the evaluation's
own attack, in one batch: one that projects to nothing, in another norm or onto another box, takes
steps that do not arrive, has a wrong sign or stops with the first image fails there, where no
network is to blame. The weights differ in size, so that a ball of another norm holds no optimum.
What it returns must lie inside the ball and the box.
It misses what needs a network to show, such as a gradient that is scaled by the batch.

What to do: print the size of what the attack returns; `docs/new-attack.md`.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from advpure.analysis.audit.check import (
    ONE,
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
from advpure.attacks.registry import find
from advpure.base.errors import BadInput
from advpure.core.chain import Chain
from advpure.core.defense import Defense
from advpure.core.purifier import Purifier
from advpure.core.randomness import RandomnessConfig
from advpure.data import Images

_SHARES, _IMAGES, _WIDEST = (0.5, 0.75), 4, 0.2
_ROUNDING = 1e-4


class _Linear(nn.Module):
    """Two classes by the sign of w . (x - c)."""

    def __init__(self, weights: Tensor, centre: Tensor) -> None:
        super().__init__()
        self.weights, self.centre = weights, centre
        self.training = False

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [B, 3], the last class far away."""
        score = ((images - self.centre) * self.weights).sum((1, 2, 3))
        return torch.stack([-score, score, -1e3 - 0 * score], dim=1)


def _measure(evaluation: Evaluation) -> Iterator[Value]:
    eps = min(evaluation.eps, _WIDEST)
    weights, centre = _linear(tuple(evaluation.batch.images.shape[1:]))
    images, labels, ids = _around(weights, centre, eps, evaluation.norm)
    chosen, run = _chosen(evaluation, eps), find(evaluation.attack_name)
    model = Defense(Purifier("none", Chain()), _Linear(weights, centre), xi=RandomnessConfig(0))
    try:
        result: Any = run(model.at(ids=ids), images, labels, chosen, ids=ids)
    except Exception:  # somebody's attack may ask a model for anything
        return
    moved = (result.images.double() - images.double()).flatten(1)
    far = moved.abs().amax(1) if evaluation.norm == "linf" else moved.norm(dim=1)
    outside = (result.images.clamp(0, 1) - result.images).abs().amax((1, 2, 3)).double()
    fooled = (model.at(ids=ids)(result.images.clamp(0, 1)).argmax(1) != labels).double()
    yield Value("gradient", ONE, float(evaluation.recorded.follows_gradients))
    for k, share in enumerate(_SHARES):
        rows = slice(k, None, len(_SHARES))
        yield Value(f"fooled at {share:g}", ONE, float(fooled[rows].mean()))
        yield Value(f"size at {share:g}", ONE, float(far[rows].max()) / eps)
        yield Value(f"outside at {share:g}", ONE, float(outside[rows].max()))


def _linear(shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return weights [C, H, W] of either sign, sizes exp(z), z normal, and points of the border."""
    xi = RandomnessConfig(0, "counter").fold("audit", "optimum")
    sizes = xi.normal([0], "forward", 0, shape)[0].exp()
    signs = torch.where(xi.uniform([0], 0, shape)[0] < 0.5, -1.0, 1.0)
    return signs * sizes, 0.25 + 0.5 * xi.uniform([1], 0, shape)[0]


def _around(weights: Tensor, centre: Tensor, eps: float, norm: str) -> Images:
    """Return images of both classes that need the shares of the ball in turn, in one batch."""
    xi = RandomnessConfig(0, "counter").fold("audit", "optimum")
    ids = torch.arange(2 * _IMAGES, dtype=torch.int64, device="cpu")
    labels = ids // len(_SHARES) % 2
    way = weights.sign() if norm == "linf" else weights / weights.norm()
    jitter = 0.1 * (xi.uniform(ids, 1, tuple(weights.shape)) - 0.5)
    along = (jitter * weights).sum((1, 2, 3), keepdim=True) / weights.square().sum()
    reach = eps * torch.tensor(_SHARES).repeat(_IMAGES) * (2 * labels - 1)
    return Images(centre + reach.reshape(-1, 1, 1, 1) * way + jitter - along * weights, labels, ids)


def _chosen(evaluation: Evaluation, eps: float) -> Any:
    assert evaluation.loaded is not None
    chosen = evaluation.loaded.attack_settings
    changes: dict[str, Any] = {"eps": eps, "randomness": "fixed"}
    if getattr(chosen, "loss", "") == "dlr":
        changes["loss"] = "margin"
    if getattr(chosen, "step_size", None) is not None:
        changes["step_size"] = chosen.step_size * eps / evaluation.eps  # type: ignore[attr-defined]
    try:
        return replace(chosen, **changes)
    except (BadInput, TypeError):
        return chosen


def _judge(numbers: Measured, settings: Settings) -> Finding:
    if not numbers.has(f"fooled at {_SHARES[-1]:g}"):
        return open_question("the attack cannot be run on a linear model")
    solved = [numbers.one(f"fooled at {share:g}") for share in _SHARES]
    sizes = [numbers.one(f"size at {share:g}") for share in _SHARES]
    outside = max(numbers.one(f"outside at {share:g}") for share in _SHARES)
    told = (
        f"of linear models that need 50 and 75 % of the ball it fools {100 * solved[0]:.0f} and "
        f"{100 * solved[1]:.0f} %, with changes of up to {max(sizes):.3g} epsilon"
    )
    if max(sizes) > 1 + _ROUNDING or outside > _ROUNDING:
        return failed(f"{told}: outside the ball or the box", max(sizes))
    if min(solved) < 1.0 and not numbers.one("gradient"):
        return open_question(f"{told}, without gradients", min(solved))
    return (passed if min(solved) == 1.0 else failed)(told, min(solved))


CHECK = Check(
    name="known-optimum",
    about="the attack solves linear models, and stays inside ball and box",
    source="[Carlini2019]",
    threshold="any of eight images not fooled, or any outside",
    needs="attack",
    measure=_measure,
    judge=_judge,
    settle="mend the attack, or use one of advpure models",
)
