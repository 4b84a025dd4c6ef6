"""Attacks of foolbox, by the names of `foolbox.attacks`, such as LinfPGD [Rauber2017].

foolbox clips into the ball and the box and tests again itself; its verdict is that test.
"""

import inspect
from collections.abc import Mapping
from typing import Any

import foolbox
from foolbox.models.pytorch import PyTorchModel

from advpure.attacks.engines.contract import Library
from advpure.attacks.engines.lockstep import Finding, Task

_NORMS = {float("inf"): "linf", 2.0: "l2"}


def names() -> list[str]:
    """Return the attacks that have a distance in linf or l2 and need no argument."""
    return [name for name in dir(foolbox.attacks) if _norm(getattr(foolbox.attacks, name))]


def _norm(made: Any) -> str | None:
    is_attack = inspect.isclass(made) and not inspect.isabstract(made)
    size = getattr(getattr(made, "distance", None), "p", None) if is_attack else None
    if size not in _NORMS:
        return None
    needed = [
        each
        for each in inspect.signature(made).parameters.values()
        if each.default is each.empty and each.kind not in (each.VAR_KEYWORD, each.VAR_POSITIONAL)
    ]
    return None if needed else _NORMS[size]


def make(name: str) -> Any:
    """Return the class of an attack."""
    return getattr(foolbox.attacks, name)


def norms(name: str) -> tuple[str, ...]:
    """Return the norm of an attack's distance."""
    return tuple(filter(None, (_norm(make(name)),)))


def attack(name: str, made: Any, options: Mapping[str, Any], task: Task) -> Finding:
    """Attack one image."""
    model = PyTorchModel(task.view, bounds=(0, 1), device="cpu")
    _, found, fooled = made(**options)(model, task.image, task.label, epsilons=task.eps)
    return Finding(found, bool(fooled.item()))


LIBRARY = Library(
    distribution="foolbox",
    names=names,
    make=make,
    norms=norms,
    attack=attack,
    taken=("tensorboard",),  # a folder of its logs, not a setting of the attack
)
