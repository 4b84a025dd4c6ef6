"""How images are boosted: what is descended, in which steps, and when an image is left alone."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import resources
from typing import Annotated, Literal

from annotated_types import Ge, Le

from advpure.attacks.guided import GuidedSettings
from advpure.base.errors import BadInput
from advpure.base.idle import refuse_idle
from advpure.base.kinds import Limit, NotNegative, Positive
from advpure.base.units import Norm, refuse_l1
from advpure.base.validation import check_choice, validate

LossName = Literal["ce", "bce", "difference", "reference"]
Method = Literal["pgd", "sgld"]
Steps = Annotated[int, Ge(1), Le(10_000)]
DEFAULT_GENERATOR = "ct-1"
MEASURED: Literal["measured"] = "measured"
PUBLISHED_NUMBERS = 64 * 64 * 3
"""Numbers of the images that the published step sizes are for."""


@dataclass(frozen=True, kw_only=True)
class BoostSettings:
    """Settings of a booster.

    Attributes:
        loss: What PGD descends. ``ce``: l_CE. ``bce``: -l_BCE. ``difference``: l_CE - l_BCE.
            ``reference``: l_CE + (l_BCE - l0)^2 / 2. See `advpure.boosting.objective`.
        method: ``pgd`` or ``sgld``, which climbs the logit of the class under noise.
        generator: Whose published steps and step size to take, e.g. cd-1. Default: ct-1. A booster
            of a data set scales the size to its images, see `for_images`.
        steps: Steps instead.
        step_size: Their size instead, l2 in [0, 1] units; a factor of a raw gradient.
        eps: Radius of the ball around the image, [0, 1] units; inf for none.
        norm: Of steps and ball: ``l2``, or ``linf``, steps of the gradient's sign, since the source
            names none. Published sizes are then taken as they stand.
        direction: ``unit``: steps of one size. ``raw``: the gradient itself.
        centre: ``image``, or ``first``: the ball lies around the first iterate, as in the published
            code of the classifier's booster.
        noise: Of sgld: standard deviation of a step's noise, [0, 1] units.
        stop: Leave an image alone as soon as its l_BCE has reached l0. Default: for reference.
        l0: Level of real images, in place of the model's own: the mean over them of softplus(f_c).
            For models whose files have none. ``measured``: over training images of the data set,
            where it has a say, by `advpure.loading.load_booster`.
        printed: Take the signs of equation 12 and of algorithm 3 as they are printed, which lead
            away from real images.

    Source: [Golan2024], equations 11 and 12, algorithms 2 and 3, table 5; [Ganz2022] for the
    classifier alone.
    """

    loss: LossName = "reference"
    method: Method = "pgd"
    generator: str | None = None
    steps: Steps | None = None
    step_size: Positive | None = None
    eps: Limit = math.inf
    norm: Norm = "l2"
    direction: Literal["unit", "raw"] = "unit"
    centre: Literal["image", "first"] = "image"
    noise: NotNegative = 0.01
    stop: bool | None = None
    l0: NotNegative | Literal["measured"] | None = None
    printed: bool = False

    def __post_init__(self) -> None:
        """Check every field, and refuse what changes nothing beside the others.

        Raises:
            BadInput: naming the setting and the rule.
        """
        refuse_l1(self.norm)
        validate(self)
        if self.generator is not None:
            check_choice(self.generator, tuple(schedules()), "generator")
            if self.steps is not None and self.step_size is not None:
                rule = "says nothing beside steps and a step size"
                raise BadInput(f"generator {self.generator}", rule, "leave it out")
        if self.method == "sgld":
            names = ("loss", "eps", "norm", "centre")
            refuse_idle(self, names, "means nothing to sgld", "leave it out, or use method pgd")
        else:
            refuse_idle(self, ("noise",), "means nothing to pgd", "leave it out, or use sgld")
            if self.printed and self.loss != "reference":
                rule = f"means nothing to loss {self.loss}"
                raise BadInput("printed", rule, "leave it out, or use reference")
        if not self.uses_reference and self.l0 != MEASURED:
            refuse_idle(self, ("l0",), "means nothing without loss reference or stop")
        if math.isinf(self.eps):
            refuse_idle(self, ("centre",), "means nothing without a ball", "give eps")
            if self.direction == "raw":
                refuse_idle(
                    self, ("norm",), "means nothing to raw steps without a ball", "give eps"
                )

    @property
    def uses_reference(self) -> bool:
        """Whether the level l0 of real images has a say."""
        return self.stops or (self.method == "pgd" and self.loss == "reference")

    @property
    def stops(self) -> bool:
        """Whether an image is left alone once it is real enough."""
        by_loss = self.method == "pgd" and self.loss == "reference" and not self.printed
        return by_loss if self.stop is None else self.stop

    @property
    def count(self) -> int:
        """Steps."""
        return int(self._scheduled("steps")) if self.steps is None else self.steps

    @property
    def size(self) -> float:
        """The size of a step."""
        return self._scheduled("step_size") if self.step_size is None else self.step_size

    @property
    def schedule(self) -> str | None:
        """The generator whose published steps or step size are taken; None for neither."""
        taken = self.steps is None or self.step_size is None
        return (self.generator or DEFAULT_GENERATOR) if taken else None

    def for_images(self, numbers: int) -> "BoostSettings":
        """Return settings with steps and step size of their own, for images of so many numbers.

        Published sizes are for 64 x 64 x 3 numbers. For others they are scaled by the root of the
        share, which keeps how far a pixel moves; those of raw gradients and of l-inf steps are left
        as they are.

        Raises:
            BadInput: for a ball that holds all such images, wherever its centre.

        Example:
            >>> BoostSettings(generator="cd-1").for_images(3 * 32 * 32).size
            0.075
        """
        size, farthest = self.size, math.sqrt(numbers) if self.norm == "l2" else 1.0
        if self.eps > farthest and not math.isinf(self.eps):
            rule = f"reaches beyond every image of {numbers:,} numbers"
            raise BadInput(f"eps {self.eps:g}", rule, f"use at most {farthest:.3g}, or none")
        if self.step_size is None and self.direction == "unit" and self.norm == "l2":
            size *= math.sqrt(numbers / PUBLISHED_NUMBERS)
        return replace(self, generator=None, steps=self.count, step_size=size)

    def _scheduled(self, name: str) -> float:
        return schedules()[self.generator or DEFAULT_GENERATOR][name]

    @classmethod
    def classifier_alone(
        cls, eps: float, *, labelled: bool = True, centre: Literal["image", "first"] = "image"
    ) -> "BoostSettings":
        """Return the schedule of boosting by a robust classifier alone.

        Args:
            eps: Radius, l2 in [0, 1] units; 1 to 15 in the source, by generator.
            labelled: Whether the generator gives classes: 7 steps of 1.5 eps / 7; else 30 of
                eps / 30.
            centre: ``first`` is what the published code does.

        Source: [Ganz2022], and its published notebooks.

        Example:
            >>> settings = BoostSettings.classifier_alone(7.0)
            >>> settings.count, settings.size
            (7, 1.5)
        """
        own = GuidedSettings.bigroc(eps, labelled=labelled, centre=centre)
        shared = ("steps", "step_size", "eps", "centre")
        return cls(loss="ce", **{name: getattr(own, name) for name in shared})


@lru_cache(maxsize=1)
def schedules() -> Mapping[str, Mapping[str, float]]:
    """Return the published steps and step sizes by generator.

    Example:
        >>> dict(schedules()["cd-1"])
        {'steps': 15, 'step_size': 0.15}
    """
    text = (resources.files(__package__) / "schedules.json").read_text()
    listed: Mapping[str, Mapping[str, float]] = json.loads(text)["schedules"]
    return listed
