"""Adversarial training: minimise the cross-entropy on images that an attack has just changed.

Every step attacks the batch's images with the project's own projected ascent on the cross-entropy,
each image by its own exact gradient, while batch normalisation uses its running statistics; then
it learns from the result, while batch normalisation uses the batch's. The attack is

* projected gradient descent, a few steps from a uniform start in the ball [Madry2018];
* with one step of 1.25 epsilon, the fast variant of [Wong2020];
* with one step, `start` 2 and `bounded` false, the noisy variant of [deJorge2022], whose start lies
  in a ball of twice the radius and whose step is not pulled back.

One-step variants can collapse to robustness against that one step alone. So what validates is the
accuracy under ten steps on training images that are kept apart (the last `held_back` ones): a
collapse shows there, and no test image chooses anything. A teacher may have learnt from those
images; then the accuracy is a little too high, and still shows a collapse.

Source: [Madry2018], section 3; [Wong2020], algorithm 3; [deJorge2022], algorithm 1.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from advpure.attacks.balls import place
from advpure.attacks.guided import Aim, GuidedSettings, guide
from advpure.attacks.losses import cross_entropy
from advpure.base.errors import BadInput
from advpure.base.units import Norm, parse_eps
from advpure.data import RawSplit
from advpure.networks.weights import LoadedNetwork
from advpure.training.randomness import normal, uniform
from advpure.training.tasks import Batch, Task, right, take

ATTACK: Mapping[str, Any] = {
    "norm": "linf",
    "eps": "8/255",
    "attack_steps": 2,
    "step_size": 0.0,
    "start": 1.0,
    "bounded": True,
}
"""The settings of a recipe's loss that describe the attack, with their defaults."""
_DEFAULTS = {**ATTACK, "label_smoothing": 0.0, "held_back": 500}
_VALIDATION_STEPS = 10
_CHUNK = 250


@dataclass(frozen=True)
class InnerAttack:
    """The attack of an adversarial training.

    Attributes:
        settings: Steps, ball and norm of the ascent.
        eps: Radius of the threat model, [0, 1] units; the ascent's own may be infinite.
        start: Radius of the ball that first iterates are drawn from, in units of eps; 0 for none.
    """

    settings: GuidedSettings
    eps: float
    start: float

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "InnerAttack":
        """Read the settings `ATTACK`.

        A step_size of 0 stands for 1.25 eps where there is one step, else for 2.5 eps / steps.

        Raises:
            BadInput: for a radius that cannot be one.
        """
        norm: Norm = values["norm"]
        eps, steps = parse_eps(values["eps"], norm), int(values["attack_steps"])
        size = float(values["step_size"]) or (1.25 * eps if steps == 1 else 2.5 * eps / steps)
        reach = eps if values["bounded"] else math.inf
        settings = GuidedSettings(steps=steps, step_size=size, eps=reach, norm=norm)
        return cls(settings, eps, float(values["start"]))

    def __call__(
        self, network: nn.Module, batch: Batch, generator: torch.Generator | None
    ) -> Tensor:
        """Return attacked images [B, C, H, W], without a graph; see `attacking`.

        Args:
            network: Images to logits, in evaluation mode.
            batch: Images and their true classes.
            generator: Draws first iterates; None starts at the images.
        """
        start = None
        if generator is not None and self.start:
            start = self._start(batch.images, generator)
        return guide(
            away_from(network, batch.labels), batch.images, self.settings, start=start
        ).images

    def _start(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Draw first iterates, uniform in the ball of radius `start` eps."""
        reach = self.start * self.eps
        if self.settings.norm == "linf":
            offset = reach * (2.0 * uniform(images.shape, generator) - 1.0)
            return images + offset.to(images)
        direction = normal(images.shape, generator)
        share = uniform((len(images), 1, 1, 1), generator) ** (1.0 / images[0].numel())
        return place(images, direction.to(images), (reach * share).to(images))


def away_from(network: nn.Module, labels: Tensor) -> Callable[[Tensor, Tensor], Aim]:
    """Return what an untargeted attack on a classifier climbs: the cross-entropy of each row."""

    def climb(points: Tensor, rows: Tensor) -> Aim:
        return Aim(cross_entropy(network(points), labels[rows], False))

    return climb


@contextmanager
def attacking(network: nn.Module) -> Iterator[None]:
    """Put a network into evaluation mode inside, and back into training mode after it.

    Rows are independent then, so an attack has the exact gradient of each.
    """
    network.eval()
    try:
        yield
    finally:
        network.train()


def hold_back(data: RawSplit, count: int) -> tuple[RawSplit, Batch]:
    """Split training data into what is trained on and the last `count` images, which validate.

    Raises:
        BadInput: when nothing is left to train on.
    """
    size = len(data.pixels)
    if not 0 < count < size:
        raise BadInput(f"held_back {count} of {size} images", "leaves nothing", "lower it")
    images = data.pixels[-count:].float() / data.full_scale
    kept = RawSplit(data.pixels[:-count], data.labels[:-count], data.full_scale)
    return kept, Batch(images, data.labels[-count:])


class AdversarialTask(Task):
    """Train a classifier on attacked images.

    Args:
        dataset: Data set that is trained on.
        settings: norm (linf or l2), eps, attack_steps, step_size (0: see `InnerAttack.of`), start
            and bounded (see the module), label_smoothing, and held_back (images kept for
            validation).
        teacher: The classifier to start from, or None; a trained one needs fewer steps.
    """

    metric_name = "robust_accuracy"

    def __init__(
        self, dataset: str, settings: Mapping[str, Any], teacher: LoadedNetwork | None = None
    ) -> None:
        """Check the settings."""
        values = take(settings, _DEFAULTS)
        if teacher is not None and teacher.metadata.get("task") != "classifier":
            raise BadInput("teacher", "is no classifier", "give the classifier to start from")
        self.attack = InnerAttack.of(values)
        self.smoothing, self.kept = float(values["label_smoothing"]), int(values["held_back"])
        eps, norm = self.attack.eps, self.attack.settings.norm
        self.strong = InnerAttack(
            GuidedSettings(steps=_VALIDATION_STEPS, step_size=eps / 4, eps=eps, norm=norm), eps, 0.0
        )

    def divide(self, data: RawSplit) -> RawSplit:
        """Keep the last images apart."""
        kept, self.held_out = hold_back(data, self.kept)
        return kept

    def losses(self, network: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        """Return the cross-entropy of each attacked image, [B]."""
        with attacking(network):
            attacked = self.attack(network, batch, generator)
        return F.cross_entropy(
            network(attacked), batch.labels, reduction="none", label_smoothing=self.smoothing
        )

    def score(self, network: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        """Return which images are classified correctly after ten steps of a quarter eps, [B]."""
        parts = []
        for k in range(0, len(batch.labels), _CHUNK):
            part = Batch(*(each[k : k + _CHUNK] for each in batch))
            parts.append(right(network(self.strong(network, part, None)), part.labels))
        return torch.cat(parts)

    def facts(self) -> dict[str, Any]:
        """Return against what it was trained."""
        settings = self.attack.settings
        return {
            "task": "classifier",
            "trained_norm": settings.norm,
            "trained_eps": self.attack.eps,
            "trained_against": f"{settings.steps} steps of {settings.step_size:.4g}",
            "held_back": self.kept,
        }
