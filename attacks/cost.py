"""What an attack may cost, before it runs."""

from typing import NamedTuple

from advpure.attacks.noise import NoiseSettings
from advpure.attacks.settings import AttackSettings, GradientSettings


class Passes(NamedTuple):
    """Passes through the whole defense, per image.

    Attributes:
        forwards: Forward passes, those with a gradient included.
        backwards: Backward passes.
    """

    forwards: int
    backwards: int


def most_passes(settings: AttackSettings) -> Passes:
    """Bound the passes of an attack on one image from above; samples that are decided take fewer.

    Args:
        settings: The resolved settings of the attack.

    Raises:
        TypeError: for settings of an unknown family.

    Example:
        >>> from advpure.attacks.projected import PGDSettings
        >>> most_passes(PGDSettings(eps=0.1, steps=40))
        Passes(forwards=43, backwards=40)
    """
    if isinstance(settings, NoiseSettings):
        return Passes(settings.draws + 1, 0)
    if isinstance(settings, GradientSettings):
        gradients = settings.steps + (1 if settings.steps and _looks_back(settings) else 0)
        judged = gradients if settings.stops and settings.eot > 1 else 0
        return Passes(gradients * settings.eot + judged + 3, gradients * settings.eot)
    raise TypeError(f"no bound for {type(settings).__name__}; give it one here")


def _looks_back(settings: GradientSettings) -> bool:
    """Whether the attack takes one more gradient than steps (APGD's start)."""
    from advpure.attacks.autopgd import APGDSettings

    return isinstance(settings, APGDSettings)
