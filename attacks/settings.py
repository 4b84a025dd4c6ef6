"""What every attack lets its user choose, checked where it enters."""

import dataclasses
import difflib
import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeVar, get_args, get_type_hints

from advpure.attacks.losses import LossName
from advpure.errors import BadInput
from advpure.gradients import GradientMode
from advpure.units import Norm, parse_eps, parse_number

S = TypeVar("S", bound="AttackSettings")


def choose(value: object, allowed: tuple[str, ...], what: str) -> None:
    """Refuse a value that is not among the allowed ones, naming the nearest.

    Example:
        >>> choose("l1", ("linf", "l2"), "norm")
        Traceback (most recent call last):
        ...
        advpure.errors.BadInput: norm 'l1' is not known; did you mean l2? known: linf, l2
    """
    if value in allowed:
        return
    near = difflib.get_close_matches(str(value).lower(), allowed, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}? " if near else ""
    raise BadInput(f"{what} {value!r}", "is not known", f"{hint}known: {', '.join(allowed)}")


def whole(value: object, what: str, least: int) -> None:
    """Refuse anything but a whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise BadInput(f"{what} {value!r}", f"is not a whole number >= {least}", f"use {least}")


def fraction(value: object, what: str) -> None:
    """Refuse anything but a number strictly between 0 and 1."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
        raise BadInput(f"{what} {value!r}", "is not between 0 and 1", "use 0.75")


class Passes(NamedTuple):
    """Passes through the whole defense, per image.

    Attributes:
        forwards: Forward passes, those with a gradient included.
        backwards: Backward passes.
    """

    forwards: int
    backwards: int


@dataclass(frozen=True, kw_only=True)
class AttackSettings:
    """The threat model and the attack's view of the defense's randomness.

    Args:
        eps: Radius of the ball, in [0, 1] units; a text such as "8/255" is read as a number.
        norm: Norm of the ball.
        loss: What success is measured by and gradients climb, see `advpure.attacks.losses`.
        targeted: Labels are the classes to reach instead of the classes to leave.
        randomness: "fixed": every pass uses the model's own xi, as the test of success does.
            "fresh": every pass draws anew from folds of xi that no decision uses. A plain
            callable without `at` is just called in both cases.
        seed: Seed of the attack's own draws, 0 <= seed < 2**64.

    Raises:
        BadInput: naming the value, the rule and the valid names.
    """

    eps: float
    norm: Norm = "linf"
    loss: LossName = "ce"
    targeted: bool = False
    randomness: Literal["fixed", "fresh"] = "fixed"
    seed: int = 0

    def __post_init__(self) -> None:
        """Check every choice against its annotation, and the ranges of the numbers."""
        for name, hint in get_type_hints(type(self)).items():
            self._check_type(name, hint)
        object.__setattr__(self, "eps", parse_eps(self.eps, self.norm))
        whole(self.seed, "seed", 0)
        if self.seed >= 2**64:
            raise BadInput(f"seed {self.seed}", "does not fit 64 bits", "use 0 .. 2**64 - 1")

    @property
    def most_passes(self) -> Passes:
        """Bound the passes on one image from above; samples that are decided take fewer.

        Raises:
            BadInput: for an attack that does not say.
        """
        raise BadInput(
            f"the cost of {type(self).__name__}", "is not known", "write its most_passes"
        )

    def _check_type(self, name: str, hint: Any) -> None:
        value = getattr(self, name)
        what = name.replace("_", " ")
        if hint is bool and not isinstance(value, bool):
            raise BadInput(f"{what} {value!r}", "is not a yes or no", "use True or False")
        choices = [hint, *get_args(hint)]
        literals = [get_args(c) for c in choices if getattr(c, "__origin__", None) is Literal]
        optional = type(None) in get_args(hint)
        if literals and not (optional and value is None):
            choose(value, literals[0], what)


@dataclass(frozen=True, kw_only=True)
class GradientSettings(AttackSettings):
    """What attacks that follow a gradient share.

    Args:
        steps: Gradient steps.
        random_start: Start uniformly in the ball instead of at the image.
        stop: "success": a sample that is decided leaves the batch with the iterate that decided
            it; one that is misclassified from the start comes back unchanged. It has no effect
            under fresh randomness, where one draw decides nothing. "never": all steps.
        eot: Passes per gradient (expectation over transformation). With fixed randomness and more
            than one pass, pass j uses fold("eot", j) of the model's xi at every step.
        eot_mode: "gradient": mean of the gradients of the passes. "logits": gradient of the loss
            of the mean logits; keeps the graphs of all passes at once. They agree only for a loss
            that is linear in the logits (spec H17).
        gradient: Gradient mode of the defense during the attack; None keeps the defense's own.
    """

    steps: int
    random_start: bool = True
    stop: Literal["success", "never"] = "success"
    eot: int = 1
    eot_mode: Literal["gradient", "logits"] = "gradient"
    gradient: GradientMode | None = None

    def __post_init__(self) -> None:
        """Check the counts too."""
        super().__post_init__()
        whole(self.steps, "steps", 1)
        whole(self.eot, "eot", 1)

    @property
    def most_passes(self) -> Passes:
        """One gradient a step, the test of success apart where it is one, first and last tests."""
        gradients = self.steps * self.eot
        apart = self.steps if self.stops and self.eot > 1 else 0
        return Passes(gradients + apart + 3, gradients)

    @property
    def stops(self) -> bool:
        """Whether decided samples leave the batch."""
        return self.stop == "success" and self.randomness == "fixed"


def positive(value: float | str | None, what: str) -> float | None:
    """Read a positive number or fraction; None stays None."""
    if value is None:
        return None
    number = parse_number(value, what)
    if not number > 0 or not math.isfinite(number):
        raise BadInput(f"{what} {value}", "is not positive", "write for example 2/255")
    return number


def resolve(kind: type[S], settings: "AttackSettings | None", overrides: dict[str, Any]) -> S:
    """Merge given settings with keyword overrides into settings of one kind.

    Args:
        kind: The settings of the attack.
        settings: A starting point of that kind, or None for the defaults.
        overrides: Values that replace single fields.

    Raises:
        BadInput: when a name is no field, or the radius is missing, or settings are of a foreign
            kind.
    """
    for name in overrides:
        choose(name, tuple(field.name for field in dataclasses.fields(kind)), "setting")
    if settings is None:
        if "eps" not in overrides:
            raise BadInput("epsilon", "is missing", "pass for example eps='8/255'")
        return kind(**overrides)
    if not isinstance(settings, kind):
        raise BadInput(
            f"settings of type {type(settings).__name__}",
            "do not belong to this attack",
            f"pass a {kind.__name__}",
        )
    return dataclasses.replace(settings, **overrides)
