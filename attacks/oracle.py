"""What an attack may ask of the model under attack: gradients and verdicts, with counted passes.

Here, and only here, it is decided which randomness a pass sees:

* fixed, one pass: the model's own xi, so the verdict comes from the very pass of the gradient;
* fixed, several passes: fold("eot", j), the same at every step; verdicts use the model's own xi;
* fresh: fold("attack", step, j), disjoint from every fold that reports use.

Losses are those of what a defense says an attack is to climb, successes those of what decides; see
`Answer`.

All rows are handled in tiles of the model's `tile`, so a row's gradient has the same bits in any
batch.
"""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from advpure.attacks.losses import LOSSES, succeeds, towards
from advpure.attacks.settings import AttackSettings, GradientSettings
from advpure.base.errors import BadInput, ModelFault
from advpure.base.units import check_images, check_labels, check_radius
from advpure.core.defense import Answer, Defense
from advpure.core.gradients import differentiating, plain
from advpure.core.purifier import Bound
from advpure.core.randomness import Ids, RandomnessConfig, check_ids
from advpure.core.steady import check_steady
from advpure.core.tiling import tiled

Model = Callable[[Tensor], Tensor]
View = Callable[[Tensor, Tensor], Answer]


class Batch(NamedTuple):
    """Checked input: images [B, C, H, W] in [0, 1], labels [B] int64, ids [B] int64 on the CPU."""

    images: Tensor
    labels: Tensor
    ids: Tensor


class Standing(NamedTuple):
    """In how many draws the attack failed [B], and the mean margin by which it won [B]."""

    failed: Tensor
    margin: Tensor


class Verdict(NamedTuple):
    """Loss [B] and whether the goal of the attack is reached [B]."""

    loss: Tensor
    success: Tensor


class Slope(NamedTuple):
    """Gradient [B, C, H, W] of the loss, the loss [B], and whether the goal is reached [B]."""

    gradient: Tensor
    loss: Tensor
    success: Tensor


def check_batch(
    model: Model,
    images: Tensor,
    labels: Tensor,
    ids: Ids | None,
    settings: AttackSettings | None = None,
    *,
    xi: RandomnessConfig | None = None,
) -> Batch:
    """Refuse input that cannot be attacked, and a model that is no function of it.

    Args:
        model: The model under attack; ids that it is bound to are the default ids.
        images: [B, C, H, W], floating point in [0, 1], B >= 1.
        labels: [B], class indices.
        ids: Data-set indices [B], each once; None means those of the model, else 0 .. B-1.
        settings: Threat model and randomness. Under fresh randomness a plain callable need not
            give equal answers to equal calls.
        xi: Under which configuration a model with `at` is asked; None for its own.

    Raises:
        BadInput: naming the first rule that is broken.

    Cost: two passes on two images, once for each model that was not loaded by name.
    """
    check_model(model)
    check_images(images)
    if not images.numel():
        raise BadInput(f"images of shape {tuple(images.shape)}", "are empty", "pass at least one")
    check_labels(labels, len(images))
    if settings is not None:
        check_radius(settings.eps, images.dtype)
        step = getattr(settings, "step_size", None)
        if step is not None:
            check_radius(step, images.dtype, "step size")
    if ids is None:
        ids = getattr(model, "ids", None)
    known = range(len(images)) if ids is None else ids
    listed = check_ids(known, len(images), distinct=True)
    with torch.inference_mode(False):
        batch = Batch(
            images.detach().clamp(0.0, 1.0),
            labels.to(images.device, torch.int64, copy=True),
            torch.tensor(listed, dtype=torch.int64, device="cpu"),
        )
        _check_steady(model, batch, settings is None or settings.randomness == "fixed", xi)
    return batch


def check_model(model: object) -> None:
    """Refuse what cannot be called.

    Raises:
        BadInput: naming its type.
    """
    if not callable(model):
        raise BadInput(
            f"a model of type {type(model).__name__}",
            "cannot be called",
            "pass a map from images [B, C, H, W] to logits",
        )


def _check_steady(
    model: Model, batch: Batch, repeatable: bool, xi: RandomnessConfig | None
) -> None:
    """Refuse a model that is in training mode, random or learning."""
    if isinstance(model, Bound):
        model.check_steady(batch.images, repeatable=repeatable)
        return
    driven = hasattr(model, "at")
    xi = xi or getattr(model, "xi", None)
    if xi is not None and xi.scope == "fresh":
        xi = dataclasses.replace(xi, scope="sample")

    given = {} if xi is None else {"xi": xi}

    def view(x: Tensor) -> Tensor:
        own = cast(Any, model).at(ids=batch.ids[: len(x)], **given) if driven else model
        return cast(Tensor, own(x))

    fix = "call model.eval(), fix its randomness, or use randomness='fresh'"
    ask = tiled(view, getattr(model, "tile", None))
    check_steady(model, ask, batch.images, repeatable=repeatable or driven, fix=fix)


def check_logits(logits: Tensor, labels: Tensor) -> None:
    """Refuse outputs that are no finite logits [B, classes] covering all labels.

    Raises:
        BadInput: also for probabilities, whose gradient vanishes where the model is confident.
    """
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(labels):
        shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise BadInput(
            f"model output of shape {shape}",
            f"is not [{len(labels)}, classes]",
            "return logits, or say outputs='labels' where the model is loaded",
        )
    if not logits.is_floating_point():
        name = str(logits.dtype).removeprefix("torch.")
        raise BadInput(
            f"model output of dtype {name}",
            "is not floating point",
            "return real logits, or say outputs='labels' where the model is loaded",
        )
    classes, values = logits.shape[1], logits.detach()
    if classes < 2:
        raise BadInput(
            f"model output of {classes} classes", "decides nothing", "return two or more"
        )
    if int(labels.max()) >= classes:
        raise BadInput(
            f"label {int(labels.max())}",
            f"is outside the {classes} classes of the model",
            f"use 0 .. {classes - 1}",
        )
    low, high = _extremes(values)
    if not (math.isfinite(low) and math.isfinite(high)):
        rule, fix = "contain NaN or infinite values", "mend the model or its input"
        raise ModelFault("logits", rule, fix, "not-finite")
    if low >= 0 and (values.sum(dim=1) - 1).abs().max() < 1e-3:
        raise ModelFault(
            "model outputs",
            "look like probabilities (non-negative rows that sum to 1)",
            "return the logits before the softmax, or say outputs='probabilities' "
            "(--outputs probabilities) where the model is loaded",
            "probabilities",
        )


@dataclass(frozen=True)
class Oracle:
    """Answer an attack's questions about a model, without ever touching its parameters.

    Args:
        model: Images [B, C, H, W] to logits [B, classes]. With a method `at` (a `Defense`) its
            randomness and gradient mode are under control; otherwise it is just called.
        settings: Threat model and randomness; `GradientSettings` to ask for gradients.
    """

    model: Model
    settings: AttackSettings

    def __post_init__(self) -> None:
        """Set the gradient mode, and refuse randomness that the settings cannot describe."""
        gradient = getattr(self.settings, "gradient", None)
        if not hasattr(self.model, "at"):
            if gradient is not None:
                raise BadInput(
                    f"gradient {gradient!r}",
                    "cannot be set on a plain callable",
                    "pass a Defense, or build the approximation into the model",
                )
            return
        if gradient is not None:
            object.__setattr__(self, "model", cast(Any, self.model).at(gradient=gradient))
        if self.settings.randomness == "fixed" and getattr(self._xi, "scope", "") == "fresh":
            raise BadInput(
                "randomness 'fixed'",
                "contradicts the defense, whose xi has scope fresh",
                "use randomness='fresh', or an xi with scope 'sample'",
            )

    @property
    def tile(self) -> int | None:
        """Rows per compute tile of the model, None if it has no such thing."""
        return cast("int | None", getattr(self.model, "tile", None))

    @property
    def passes(self) -> tuple[int, int]:
        """Forward and backward passes through the model that one gradient of a sample costs."""
        settings = self.gradient_settings
        return settings.eot + self._judges_apart, settings.eot

    def slope(
        self, images: Tensor, labels: Tensor, ids: Tensor, step: int, goals: Tensor | None = None
    ) -> Slope:
        """Return loss, gradient and verdict at images [B, C, H, W].

        Args:
            images: Points to ask about.
            labels: Classes [B].
            ids: Data-set indices [B].
            step: Number of the attack step; it selects fresh randomness.
            goals: What each row climbs [B], see `losses.towards`; None for the settings' loss.

        Returns:
            Per-sample results, detached. With several passes the loss is their mean (or the loss of
            the mean logits) and the verdict that of the mean logits, unless samples stop at
            success: then it is the model's own, at the cost of one more pass.

        Raises:
            BadInput: for logits or gradients that cannot be used.
        """
        views = [self._view(step, draw) for draw in range(self.gradient_settings.eot)]

        def ask(images: Tensor, labels: Tensor, ids: Tensor, goals: Tensor | None) -> Slope:
            return self._slope(views, images, labels, ids, goals)

        return tiled(ask, self.tile)(images, labels, ids, goals)

    def judge(
        self,
        images: Tensor,
        labels: Tensor,
        ids: Tensor,
        step: int,
        goals: Tensor | None = None,
        draws: int = 1,
    ) -> Verdict:
        """Return loss and verdict at images [B, C, H, W], without a gradient.

        With fixed randomness this is the model's own view, one pass; with fresh randomness it is
        the mean over draws of the attack, numbered by the step, which never decide a report.
        """
        fixed = self.settings.randomness == "fixed"
        views = [self._own_view] if fixed else [self._view(step, draw) for draw in range(draws)]

        def ask(images: Tensor, labels: Tensor, ids: Tensor, goals: Tensor | None) -> Verdict:
            with torch.no_grad():
                passes = [self._ask(view, images, labels, ids) for view in views]
                losses = torch.stack([self._loss(each.climbed, labels, goals) for each in passes])
                mean = torch.stack([each.decided for each in passes]).mean(dim=0)
                return Verdict(losses.mean(dim=0), succeeds(mean, labels, self.settings.targeted))

        return tiled(ask, self.tile)(images, labels, ids, goals)

    def select(self, images: Tensor, labels: Tensor, ids: Tensor, draws: int) -> Standing:
        """Return how candidates of an attack fare in the draws kept for choosing among them.

        With fresh randomness these are fold("attack", "select", k) of the model's xi, the same for
        all candidates of a sample, which neither a gradient nor a report ever sees. With fixed
        randomness there is one, the model's own.
        """
        targeted = self.settings.targeted
        views: list[View] = [self._own_view]
        if self.settings.randomness == "fresh":
            views = [self._folded("attack", "select", draw) for draw in range(draws)]

        def ask(images: Tensor, labels: Tensor, ids: Tensor) -> Standing:
            with torch.no_grad():
                passes = [self._ask(view, images, labels, ids) for view in views]
            margin = LOSSES["margin"]
            margins = torch.stack([margin(each.climbed, labels, targeted) for each in passes])
            failed = torch.stack([~succeeds(each.decided, labels, targeted) for each in passes])
            return Standing(failed.sum(dim=0), margins.mean(dim=0))

        return tiled(ask, self.tile)(images, labels, ids)

    def logits(self, images: Tensor, labels: Tensor, ids: Tensor, step: int) -> Tensor:
        """Return the logits [B, classes] of the pass that `judge` takes."""
        with torch.no_grad():
            return self.answer(images, labels, ids, step).decided

    def answer(self, images: Tensor, labels: Tensor, ids: Tensor, step: int) -> Answer:
        """Return the answer of that pass with its graph, for who takes the gradient himself."""
        view = self._own_view if self.settings.randomness == "fixed" else self._view(step, 0)

        def ask(images: Tensor, labels: Tensor, ids: Tensor) -> Answer:
            return self._ask(view, images, labels, ids)

        return tiled(ask, self.tile)(images, labels, ids)

    @property
    def gradient_settings(self) -> GradientSettings:
        """The settings, of an attack that follows gradients."""
        return cast(GradientSettings, self.settings)

    @property
    def _judges_apart(self) -> bool:
        return self.gradient_settings.stops and self.gradient_settings.eot > 1

    @property
    def _xi(self) -> RandomnessConfig | None:
        return cast("RandomnessConfig | None", getattr(self.model, "xi", None))

    def _own_view(self, images: Tensor, ids: Tensor) -> Answer:
        model = cast(Any, self.model)
        return answer_of(model.at(ids=ids) if hasattr(model, "at") else model, images)

    def _view(self, step: int, draw: int) -> View:
        xi = self._xi if hasattr(self.model, "at") else None
        fixed = self.settings.randomness == "fixed"
        if xi is None or (fixed and self.gradient_settings.eot == 1):
            return self._own_view
        return self._folded("eot", draw) if fixed else self._folded("attack", step, draw)

    def _folded(self, *names: str | int) -> View:
        xi = self._xi if hasattr(self.model, "at") else None
        if xi is None:
            return self._own_view
        if xi.scope == "fresh":
            xi = dataclasses.replace(xi, scope="sample")
        folded, model = xi.fold(*names), cast(Any, self.model)
        return lambda images, ids: answer_of(model.at(ids=ids, xi=folded), images)

    def _ask(self, view: View, images: Tensor, labels: Tensor, ids: Tensor) -> Answer:
        answer = view(images, ids)
        check_logits(answer.decided, labels)
        return answer

    def _loss(self, logits: Tensor, labels: Tensor, goals: Tensor | None) -> Tensor:
        if goals is not None:
            return towards(logits, labels, goals)
        return LOSSES[self.settings.loss](logits, labels, self.settings.targeted)

    def _slope(
        self, views: list[View], images: Tensor, labels: Tensor, ids: Tensor, goals: Tensor | None
    ) -> Slope:
        share = 1.0 / len(views)
        with differentiating():
            points, labels = plain(images).requires_grad_(), plain(labels)
            goals = None if goals is None else plain(goals)
            if self.gradient_settings.eot_mode == "logits":
                passes = [self._ask(view, points, labels, ids) for view in views]
                mean = torch.stack([each.decided for each in passes]).mean(dim=0)
                climbed = torch.stack([each.climbed for each in passes]).mean(dim=0)
                losses = self._loss(climbed, labels, goals)
                gradient = _gradient(losses, points)
            else:
                asked = (self._one(view, points, labels, ids, goals) for view in views)
                gradient, losses, mean = next(asked)
                for each in asked:  # a running sum: there may be hundreds
                    gradient, losses, mean = gradient + each[0], losses + each[1], mean + each[2]
                if len(views) > 1:
                    gradient, losses, mean = gradient * share, losses * share, mean * share
        if not all(map(math.isfinite, _extremes(gradient))):
            rule = "contain NaN or infinite values"
            raise ModelFault("gradients", rule, "mend the model", "not-finite")
        if self._judges_apart:
            with torch.no_grad():
                mean = self._ask(self._own_view, images, labels, ids).decided
        success = succeeds(mean.detach(), labels, self.settings.targeted)
        return Slope(gradient, losses.detach(), success)

    def _one(
        self, view: View, points: Tensor, labels: Tensor, ids: Tensor, goals: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return gradient, loss and deciding logits of one pass, detached."""
        answer = self._ask(view, points, labels, ids)
        loss = self._loss(answer.climbed, labels, goals)
        return _gradient(loss, points), loss.detach(), answer.decided.detach()


def answer_of(model: Model, images: Tensor) -> Answer:
    """Return what a defense answers; of another model what it returns, which is climbed too.

    A subclass with a `forward` of its own is another model.
    """
    if isinstance(model, Defense) and type(model).forward is Defense.forward:
        return model.answer(images)
    logits = model(images)
    return Answer(logits, logits)


def _extremes(values: Tensor) -> tuple[float, float]:
    """Return the least and the greatest value, both NaN where one is."""
    low, high = values.aminmax()
    return float(low), float(high)


def _gradient(losses: Tensor, points: Tensor) -> Tensor:
    """Return the gradient of the sum; a model that cuts the graph has none, that is zero."""
    if not losses.requires_grad:
        return torch.zeros_like(points)
    (gradient,) = torch.autograd.grad(losses.sum(), points, allow_unused=True)
    return torch.zeros_like(points) if gradient is None else gradient.detach()
