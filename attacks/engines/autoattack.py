"""AutoAttack as published, from the package pyautoattack: the ensemble and its members [Croce2020].

``standard``, ``plus`` and ``rand`` are the versions; ``apgd-ce`` and the others are members alone.
Its verdict is its own: the images that it calls robust come back unchanged.
"""

import logging
from collections.abc import Mapping
from typing import Any

from advpure.attacks.engines.contract import Library
from advpure.attacks.engines.lockstep import Finding, Task
from advpure.base.extras import optional

_VERSIONS = ("standard", "plus", "rand")
_MEMBERS = ("apgd-ce", "apgd-dlr", "apgd-t", "fab", "fab-t", "square")


def names() -> list[str]:
    """Return versions and members."""
    with optional("pyautoattack", "autoattack"):
        import pyautoattack
    return [*_VERSIONS, *_MEMBERS] if pyautoattack.AutoAttack else []


def configure(
    n_iter: int | None = None,
    n_queries: int | None = None,
    n_restarts: int | None = None,
    n_target_classes: int | None = None,
    eot_iter: int | None = None,
) -> dict[str, int]:
    """Return the settings of the members that are given; the version's own stay otherwise.

    Args:
        n_iter: Steps of the APGD and FAB members.
        n_queries: Queries of Square.
        n_restarts: Starts of the APGD, FAB and Square members.
        n_target_classes: Classes that the targeted members go to.
        eot_iter: Passes a gradient of the APGD members.
    """
    given = {
        "n_iter": n_iter,
        "n_queries": n_queries,
        "n_restarts": n_restarts,
        "n_target_classes": n_target_classes,
        "eot_iter": eot_iter,
    }
    return {key: value for key, value in given.items() if value is not None}


def make(name: str) -> Any:
    """Return the function whose parameters are the options."""
    return configure


def norms(name: str) -> tuple[str, ...]:
    """Return the norms that it knows and we judge."""
    return ("linf", "l2")


def attack(name: str, made: Any, options: Mapping[str, Any], task: Task) -> Finding:
    """Attack one image."""
    with optional("pyautoattack", "autoattack"):
        from pyautoattack import AutoAttack

    norm = {"linf": "Linf", "l2": "L2"}[task.norm]
    which: dict[str, Any] = {"version": name}
    if name in _MEMBERS:
        which = {"version": "custom", "attacks": [name]}
    logging.getLogger("auto-attack").setLevel(logging.ERROR)
    ensemble = AutoAttack(task.view, norm=norm, eps=task.eps, seed=task.seed, device="cpu", **which)
    members = (ensemble.apgd, ensemble.apgd_targeted, ensemble.fab, ensemble.square)
    for member in members:
        if hasattr(member, "n_target_classes"):
            member.n_target_classes = min(member.n_target_classes, task.classes - 1)
        for key, value in made(**options).items():
            if hasattr(member, key):
                setattr(member, key, value)
    found, says = ensemble.run_standard_evaluation(task.image, task.label, batch_size=1)
    return Finding(found, bool((says != task.label).any()))


LIBRARY = Library(distribution="pyautoattack", names=names, make=make, norms=norms, attack=attack)
