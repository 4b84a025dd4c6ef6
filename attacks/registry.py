"""The attacks by name. A new attack is one file and one line here."""

import difflib
import importlib.util
from collections.abc import Callable
from typing import Any, get_args, get_type_hints

from advpure.attacks.engines.contract import LIBRARIES, engine, is_engine
from advpure.attacks.outcome import AttackResult
from advpure.attacks.settings import AttackSettings
from advpure.base.errors import BadInput
from advpure.base.imports import Code
from advpure.base.registry import Registry
from advpure.base.validation import shown, words

ATTACKS: Registry[Callable[..., AttackResult]] = Registry(
    "attack", group="advpure.attacks", adapt="advpure.attacks.registry:adapt"
)
_HERE = "advpure.attacks"

ATTACKS.register("standard", f"{_HERE}.standard:standard", about="the ensemble, by default")
ATTACKS.register("pgd", f"{_HERE}.projected:pgd", about="projected gradient descent")
ATTACKS.register("apgd", f"{_HERE}.autopgd:apgd", about="PGD that chooses its own step")
ATTACKS.register("apgd-targeted", f"{_HERE}.lanes:apgd_targeted", about="APGD towards each class")
ATTACKS.register("square", f"{_HERE}.square:square", about="random search on scores, no gradient")
ATTACKS.register("rays", f"{_HERE}.hard_label:rays", about="search on decisions alone")
ATTACKS.register(
    "low-frequency", f"{_HERE}.low_frequency:low_frequency", about="APGD along low frequencies"
)
ATTACKS.register("pgd-eot", f"{_HERE}.variants:pgd_eot", about="PGD on the mean over randomness")
ATTACKS.register("bpda", f"{_HERE}.variants:bpda", about="PGD past the purifier's gradient")
ATTACKS.register("bpda-eot", f"{_HERE}.variants:bpda_eot", about="BPDA on the mean over randomness")
ATTACKS.register("uniform-noise", f"{_HERE}.noise:uniform_noise", about="noise in the ball")


def find(name: str) -> Callable[..., AttackResult]:
    """Return the attack of a name; blanks and case do not matter, nor - against _.

    ``LIBRARY:NAME`` is an attack of another library, see `advpure.attacks.engines.contract`.

    Raises:
        BadInput: for an unknown name, with the nearest known one.

    Example:
        >>> find("PGD_EOT").__name__
        'pgd_eot'
        >>> find("autoattak:standard")
        Traceback (most recent call last):
        ...
        advpure.BadInput: attack autoattak:standard names no module, there is no autoattak; \
did you mean autoattack:standard?
    """
    if ATTACKS.takes(name) and isinstance(name, str) and not is_engine(name):
        _refuse_misspelt(name)
    return engine(name) if is_engine(name) else ATTACKS.get(_spelt(name))


def _refuse_misspelt(name: str) -> None:
    """Refuse what is nearly the name of a library and no module."""
    place, _, rest = name.partition(":")
    near = difflib.get_close_matches(place.lower(), LIBRARIES, n=1)
    if near and "." not in place and importlib.util.find_spec(place) is None:
        rule = f"names no module, there is no {place}"
        raise BadInput(f"attack {name}", rule, f"did you mean {near[0]}:{rest}?")


def attack_digest(name: str) -> str | None:
    """Return the SHA-256 of the source of an attack from outside, None for one of ours."""
    return None if is_engine(name) else ATTACKS.digest(_spelt(name))


def _spelt(name: Any) -> Any:
    if ATTACKS.takes(name):
        return name
    return words(name, "attack").strip().lower().replace("_", "-")


def adapt(code: Code) -> Callable[..., AttackResult]:
    """Return an attack of a user's code.

    Raises:
        BadInput: for what is no function with settings of its own.
    """
    if not callable(code.value):
        rule = f"is a {type(code.value).__name__}, no function"
        raise BadInput(f"attack {code.name}", rule, "see docs/new-attack.md")
    settings_type(code.value)
    attack: Callable[..., AttackResult] = code.value
    return attack


def settings_type(attack: Callable[..., Any]) -> type[AttackSettings]:
    """Return the class of an attack's settings, from the annotation of its `settings` argument.

    Raises:
        BadInput: for an attack without such an argument or annotation.

    Example:
        >>> settings_type(find("bpda")).__name__
        'BPDASettings'
    """
    try:
        hint = get_type_hints(attack).get("settings")
    except Exception:  # no function, one of a module that is not importable, a foreign object
        hint = None
    for kind in get_args(hint) or (hint,):
        if isinstance(kind, type) and issubclass(kind, AttackSettings):
            return kind
    raise BadInput(
        f"attack {shown(getattr(attack, '__name__', attack))}",
        "does not say the class of its settings",
        "annotate its argument, settings: YourSettings | None = None",
    )
