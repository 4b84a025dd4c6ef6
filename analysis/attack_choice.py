"""An attack by name, with the threat model of the run that asks for it."""

from collections.abc import Mapping
from typing import Any

from advpure.attacks.registry import find, settings_type
from advpure.attacks.settings import AttackSettings
from advpure.errors import BadInput
from advpure.options import read_options


def attack_settings(
    name: str, options: Mapping[str, Any], *, eps: float, norm: str, randomness: str
) -> AttackSettings:
    """Resolve an attack's settings; the threat model and the labels are the run's, not its own.

    Args:
        name: A name in `advpure.attacks.ATTACKS`.
        options: The attack's own settings, values or text.
        eps: Radius in [0, 1] units.
        norm: ``linf`` or ``l2``.
        randomness: ``fixed`` or ``fresh``, unless the options say.

    Raises:
        BadInput: for an unknown name, an option that belongs to the run, or a targeted attack.

    Example:
        >>> attack_settings("pgd", {"steps": "5"}, eps=0.1, norm="linf", randomness="fixed").steps
        5
    """
    run = find(name)
    for owned in options.keys() & {"eps", "norm"}:
        raise BadInput(
            f"attack option {owned}={options[owned]}",
            "belongs to the threat model of the whole run",
            f"use --{owned}",
        )
    chosen = {"randomness": randomness, **options}
    resolved = read_options(settings_type(run), {"eps": eps, "norm": norm, **chosen}, name)
    if resolved.targeted:
        raise BadInput(
            "attack option targeted=true",
            "has no classes to reach in a run that measures accuracy",
            f"call advpure.attacks.{run.__name__} with the labels to reach",
        )
    return resolved
