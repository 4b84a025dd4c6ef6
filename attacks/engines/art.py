"""Attacks of the Adversarial Robustness Toolbox, by the names of its classes [Nicolae2018].

They return images and no verdict; the verdict is the answer of the model to what was returned. The
step of an attack, ``eps_step``, is a quarter of the radius where it is not given: the library's own
default of 0.1 is wider than most balls.
"""

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from advpure.attacks.engines.contract import Library
from advpure.attacks.engines.lockstep import Finding, Task
from advpure.base.extras import optional

_DISTRIBUTION = "adversarial-robustness-toolbox"
_BOTH, _LINF, _L2 = ("linf", "l2"), ("linf",), ("l2",)
_ATTACKS = {
    "AutoAttack": _BOTH,
    "AutoConjugateGradient": _BOTH,
    "AutoProjectedGradientDescent": _BOTH,
    "BasicIterativeMethod": _LINF,
    "BoundaryAttack": _L2,
    "CarliniL2Method": _L2,
    "CarliniLInfMethod": _LINF,
    "DeepFool": _L2,
    "FastGradientMethod": _BOTH,
    "GeoDA": _BOTH,
    "HopSkipJump": _BOTH,
    "MomentumIterativeMethod": _BOTH,
    "NewtonFool": _L2,
    "ProjectedGradientDescent": _BOTH,
    "SquareAttack": _BOTH,
}
_FILLED = ("estimator", "classifier", "batch_size", "verbose", "summary_writer")


def names() -> list[str]:
    """Return the attacks that move within a ball, or make the smallest change."""
    make("DeepFool")
    return list(_ATTACKS)


def make(name: str) -> Any:
    """Return the class of an attack."""
    with optional("art", "art", distribution=_DISTRIBUTION):
        import art.attacks.evasion
    return getattr(art.attacks.evasion, name)


def norms(name: str) -> tuple[str, ...]:
    """Return the norms that an attack can be held in."""
    return _ATTACKS[name]


def attack(name: str, made: Any, options: Mapping[str, Any], task: Task) -> Finding:
    """Attack one image."""
    with optional("art", "art", distribution=_DISTRIBUTION):
        from art.estimators.classification import PyTorchClassifier

    model = PyTorchClassifier(
        task.view,
        loss=nn.CrossEntropyLoss(),
        input_shape=tuple(task.image.shape[1:]),
        nb_classes=task.classes,
        clip_values=(0.0, 1.0),
        device_type="cpu",
    )
    ours = {
        "eps": task.eps,
        "norm": {"linf": np.inf, "l2": 2}[task.norm],
        "targeted": False,
        "batch_size": 1,
        "verbose": False,
    }
    known = inspect.signature(made).parameters
    filled = {key: value for key, value in ours.items() if key in known}
    given = dict(options)
    if given.get("eps_step", ...) is None:
        given["eps_step"] = task.eps / 4
    found = made(model, **filled, **given).generate(task.image.numpy(), task.label.numpy())
    return Finding(torch.from_numpy(np.asarray(found)))


LIBRARY = Library(
    distribution=_DISTRIBUTION,
    names=names,
    make=make,
    norms=norms,
    attack=attack,
    taken=_FILLED,
    changed={"eps_step": (float | None, None)},
)
