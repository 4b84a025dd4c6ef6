"""Attacks of torchattacks, by its names, such as PGD or APGD [Kim2020].

They return images and no verdict; the verdict is the answer of the model to what was returned.
"""

import inspect
from collections.abc import Mapping
from functools import cache
from typing import Any

from advpure.attacks.engines.contract import Library
from advpure.attacks.engines.lockstep import Finding, Task
from advpure.base.extras import optional

_EUCLIDEAN = ("CW", "DeepFool", "PGDL2", "PGDRSL2")
_ELSEWHERE = ("EADEN", "EADL1", "GN", "JSMA", "OnePixel", "Pixle", "SparseFool", "VANILA")
"""Attacks in l0 or l1, and what is no attack."""
_FILLED = ("model", "n_classes", "verbose")


@cache
def _attacks() -> dict[str, Any]:
    with optional("torchattacks", "torchattacks"):
        import torchattacks
    return {
        name: getattr(torchattacks, name)
        for name in torchattacks.__all__
        if name not in _ELSEWHERE and not _needed(getattr(torchattacks, name))
    }


def _needed(made: Any) -> list[str]:
    """Return the parameters beside the model that have no default."""
    parameters = inspect.signature(made).parameters.values()
    return [each.name for each in parameters if each.default is each.empty and each.name != "model"]


def names() -> list[str]:
    """Return the attacks that move within a ball of linf or l2, or make the smallest l2 change."""
    return sorted(_attacks())


def make(name: str) -> Any:
    """Return the class of an attack."""
    return _attacks()[name]


def norms(name: str) -> tuple[str, ...]:
    """Return the norms that an attack can be held in."""
    if "norm" in inspect.signature(make(name)).parameters:
        return ("linf", "l2")
    return ("l2",) if name in _EUCLIDEAN else ("linf",)


def attack(name: str, made: Any, options: Mapping[str, Any], task: Task) -> Finding:
    """Attack one image."""
    ours = {
        "eps": task.eps,
        "norm": {"linf": "Linf", "l2": "L2"}[task.norm],
        "n_classes": task.classes,
        "seed": task.seed,
        "verbose": False,
    }
    known = inspect.signature(made).parameters
    filled = {key: value for key, value in ours.items() if key in known}
    return Finding(made(task.view, **filled, **options)(task.image, task.label))


LIBRARY = Library(
    distribution="torchattacks", names=names, make=make, norms=norms, attack=attack, taken=_FILLED
)
