"""An attack by name, with the threat model of the run that asks for it."""

from collections.abc import Collection, Mapping
from typing import Any

import torch

from advpure.attacks.registry import find, settings_type
from advpure.attacks.settings import AttackSettings, GradientSettings
from advpure.attacks.standard import StandardSettings
from advpure.base.errors import BadInput
from advpure.base.units import check_radius, check_reach
from advpure.base.validation import words
from advpure.core.defense import Defense
from advpure.core.gradients import GradientMode
from advpure.options import read_options


def attack_settings(
    name: str,
    options: Mapping[str, Any],
    *,
    eps: float,
    norm: str,
    randomness: str,
    is_random: bool = True,
) -> AttackSettings:
    """Resolve an attack's settings; the threat model and the labels are the run's, not its own.

    Args:
        name: A name in `advpure.attacks.ATTACKS`.
        options: The attack's own settings, values or text.
        eps: Radius in [0, 1] units.
        norm: ``linf`` or ``l2``.
        randomness: ``fixed`` or ``fresh``, as the run decides.
        is_random: Whether the defense draws noise. The standard attack on one that draws none is
            that under fixed randomness, whose budget pays for more.

    Raises:
        BadInput: for a radius or a step below the spacing of float32, an unknown name, an option
            that belongs to the run or contradicts it, or a targeted attack.

    Example:
        >>> attack_settings("pgd", {"steps": "5"}, eps=0.1, norm="linf", randomness="fixed").steps
        5
    """
    run = find(name)
    check_radius(eps, torch.float32)  # as the images of every data set
    for owned in options.keys() & {"eps", "norm"}:
        raise BadInput(
            f"attack option {owned}={options[owned]}",
            "belongs to the threat model of the whole run",
            f"use --{owned}",
        )
    own = options.get("randomness", randomness)
    if own != randomness:
        raise BadInput(
            f"attack option randomness={own}",
            f"contradicts the {randomness} randomness of the whole run",
            "leave it out: an attack sees what decides",
        )
    kind = settings_type(run)
    if kind is StandardSettings and not is_random:
        randomness = "fixed"
    chosen = {"eps": eps, "norm": norm, **options, "randomness": randomness}
    resolved = read_options(kind, chosen, name)
    step = getattr(resolved, "step_size", None)
    if step is not None:
        check_radius(step, torch.float32, "step size")
        check_reach(step, norm, "step size")
    if resolved.targeted:
        raise BadInput(
            "attack option targeted=true",
            "has no classes to reach in a run that measures accuracy",
            f"call advpure.attacks.{run.__name__} with the labels to reach",
        )
    return resolved


AUTO = "auto"
"""In place of an attack: the standard one, unless an option means another."""
_OF_STANDARD = frozenset({"budget", "eot", "seed", "gradient", "randomness"})


def chosen_attack(name: str, options: Collection[str], *, is_paper: bool, is_moved: bool) -> str:
    """Return the attack that a run means.

    Args:
        name: An attack's name, or "auto".
        options: Names of the options given for the attack.
        is_paper: Whether the protocol of the paper is asked for, PGD-40 of epsilon / 30.
        is_moved: Whether the images are crafted under another randomness than decides.

    Raises:
        BadInput: for the paper's protocol beside another attack or an option that it fixes, or for
            a transfer of the standard attack, which stops at the border that it has just crossed.

    Example:
        >>> [chosen_attack("auto", o, is_paper=False, is_moved=False) for o in ([], ["steps"])]
        ['standard', 'pgd']
    """
    plain = words(name, "attack").strip().lower().replace("_", "-")
    if is_paper:
        if plain not in (AUTO, "pgd"):
            raise BadInput(
                f"attack {name}", "is not the paper's, which is pgd", "leave out --protocol paper"
            )
        for option in set(options) - {"seed"}:
            raise BadInput(
                f"attack option {option}",
                "is fixed by the paper's protocol",
                "leave it out, or leave out --protocol paper",
            )
        return "pgd"
    if is_moved and plain == "standard":
        raise BadInput(
            "attack standard",
            "stops at the border, where a transfer to another seed fails",
            "use pgd or apgd with --transfer-from",
        )
    if plain != AUTO:
        return name
    return "pgd" if is_moved or set(options) - _OF_STANDARD else "standard"


def refuse_two_gradients(
    attack: str, settings: AttackSettings | None, gradient: GradientMode | None
) -> None:
    """Refuse a gradient mode of the defense that the attack replaces by its own, or never uses.

    Args:
        attack: The attack's name.
        settings: Its settings; None for what is no attack.
        gradient: The mode that the run asks of the defense, None where it does not say.

    Raises:
        BadInput: when both say, and differ; for an attack without backward passes.

    Example:
        >>> chosen = attack_settings("bpda", {}, eps=0.1, norm="linf", randomness="fixed")
        >>> refuse_two_gradients("bpda", chosen, "full")
        Traceback (most recent call last):
        ...
        advpure.BadInput: gradient 'full' contradicts attack bpda, which sees the gradient \
'bpda'; leave one of them out
    """
    own = getattr(settings, "gradient", None)
    if own is not None and gradient is not None and own != gradient:
        raise BadInput(
            f"gradient {gradient!r}",
            f"contradicts attack {attack}, which sees the gradient {own!r}",
            "leave one of them out",
        )
    if gradient is not None and settings is not None and _is_blind(settings):
        rule = f"means nothing to attack {attack}, which takes no gradient"
        raise BadInput(f"gradient {gradient!r}", rule, "leave it out")


def _is_blind(settings: AttackSettings) -> bool:
    """Return whether an attack is known to take no gradient."""
    try:
        return settings.most_passes.backwards == 0
    except BadInput:  # an attack from outside may not say
        return False


def refuse_idle_randomness(name: str, draws: int, source_seed: int | None) -> None:
    """Refuse what has no effect on a defense that draws no noise.

    Args:
        name: The defense.
        draws: Decisions per image.
        source_seed: Seed of a transfer, if there is one.

    Raises:
        BadInput: for several decisions, or a transfer.
    """
    told = f"mean{'s' if draws == 1 else ''} nothing to {name}, which draws no noise"
    if draws > 1:
        raise BadInput(f"{draws} draws", told, "leave out --draws")
    if source_seed is not None:
        raise BadInput(f"transfer from seed {source_seed}", told, "leave out --transfer-from")


def refuse_idle_average(
    attack: str, settings: AttackSettings, options: Collection[str], defense: Defense
) -> None:
    """Refuse passes per gradient that were asked for and are all the same.

    Args:
        attack: The attack's name.
        settings: Its settings.
        options: Names of the options given for it; a default of several passes costs time alone.
        defense: What it attacks.

    Raises:
        BadInput: for several passes through a defense that draws no noise, or by an attack that
            averages under fresh randomness alone.
    """
    passes = getattr(settings, "eot", 1)
    if passes == 1 or "eot" not in options:
        return
    if not defense.is_random:
        rule = f"means nothing to {defense.purifier.name}, which draws no noise"
        raise BadInput(f"eot {passes}", rule, "leave it out")
    if settings.randomness == "fixed" and not isinstance(settings, GradientSettings):
        rule = f"means nothing to attack {attack} under fixed randomness"
        raise BadInput(f"eot {passes}", rule, "leave it out, or use fresh randomness")
