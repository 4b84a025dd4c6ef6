"""What every attack lets its user choose, checked where it enters."""

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, get_args

from annotated_types import Ge, Le, Lt

from advpure.attacks.losses import LossName
from advpure.base.errors import BadInput
from advpure.base.units import Norm, parse_eps, refuse_l1
from advpure.base.validation import check_choice, validate
from advpure.core.gradients import GradientMode

S = TypeVar("S", bound="AttackSettings")
Count = Annotated[int, Ge(1), Le(10**6)]
"""How often something is done to one image."""


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
    seed: Annotated[int, Ge(0), Lt(2**64)] = 0

    def __post_init__(self) -> None:
        """Check every choice against its annotation, and the ranges of the numbers."""
        refuse_l1(self.norm)
        check_choice(self.norm, get_args(Norm), "norm")
        object.__setattr__(self, "eps", parse_eps(self.eps, self.norm))
        validate(self)

    @property
    def most_passes(self) -> Passes:
        """Bound the passes on one image from above; samples that are decided take fewer.

        Raises:
            BadInput: for an attack that does not say.
        """
        raise BadInput(
            f"the cost of {type(self).__name__}", "is not known", "write its most_passes"
        )


SELECTION = 20
"""Draws by which fresh randomness chooses among candidates, see `Oracle.select`."""


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
            that is linear in the logits.
        gradient: Gradient mode of the defense during the attack; None keeps the defense's own.
    """

    steps: Count
    random_start: bool = True
    stop: Literal["success", "never"] = "success"
    eot: Count = 1
    eot_mode: Literal["gradient", "logits"] = "gradient"
    gradient: GradientMode | None = None

    def __post_init__(self) -> None:
        """Check, and refuse a way to average what is one pass."""
        super().__post_init__()
        if self.eot == 1 and self.eot_mode != "gradient":
            rule = "averages nothing of one pass"
            raise BadInput(f"eot_mode {self.eot_mode}", rule, "use eot 2 or more, or leave it out")

    @property
    def most_passes(self) -> Passes:
        """One gradient a step, the test of success apart where it is one, first and last tests."""
        gradients = self.steps * self.eot
        apart = self.steps if self.stops and self.eot > 1 else 0
        last = self.eot if self.randomness == "fresh" else 1
        return Passes(gradients + apart + last + 2, gradients)

    @property
    def stops(self) -> bool:
        """Whether decided samples leave the batch."""
        return self.stop == "success" and self.randomness == "fixed"


@dataclass(frozen=True, kw_only=True)
class RestartSettings(GradientSettings):
    """What attacks that start again from other random points share.

    Args:
        restarts: Runs of all steps, each from another random point; only samples that no run has
            decided start again. The best result of a sample is kept: under fresh randomness that
            of the fewest right answers in 20 draws that no gradient and no report sees.
    """

    restarts: Count = 1

    def __post_init__(self) -> None:
        """Check, and refuse to repeat what would be the same."""
        super().__post_init__()
        if self.restarts > 1 and not self.random_start:
            raise BadInput(
                f"{self.restarts} restarts",
                "are all alike without a random start",
                "leave out random_start=false",
            )

    @property
    def most_passes(self) -> Passes:
        """Those of one run for each restart, and those that choose among several."""
        once = super().most_passes
        chosen = SELECTION if self.randomness == "fresh" else 1
        apart = chosen if self.restarts > 1 else 0
        return Passes(self.restarts * (once.forwards + apart), self.restarts * once.backwards)


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
        check_choice(name, tuple(field.name for field in dataclasses.fields(kind)), "setting")
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
