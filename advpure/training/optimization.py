"""The optimiser of a recipe, and how its learning rate rises and falls."""

import functools
import math
from collections.abc import Callable

import torch
from torch import nn

from advpure.base.errors import BadInput
from advpure.training.recipe import Recipe

_OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "radam": torch.optim.RAdam,
    "sgd": functools.partial(torch.optim.SGD, nesterov=True),
}


def rate_factor(recipe: Recipe, step: int, begun: int = 0) -> float:
    """Return the learning rate at a step as a share of its peak: warm-up, then the decay.

    Args:
        recipe: Its `warmup`, `decay` and `steps` count.
        step: The step, from 0.
        begun: The step at which the optimiser started anew, and with it the warm-up.
    """
    warm = min(1.0, (step - begun + 1) / recipe.warmup) if recipe.warmup else 1.0
    if recipe.decay == "constant":
        return warm
    if recipe.decay == "linear":
        left = (recipe.steps - step) / max(recipe.steps - recipe.warmup, 1)
        return min(warm, max(left, 0.0))
    return warm * 0.5 * (1.0 + math.cos(math.pi * min(step / recipe.steps, 1.0)))


def make_optimizer(
    recipe: Recipe, network: nn.Module, rate_of: Callable[[str], float] = lambda name: 1.0
) -> tuple[list[float], torch.optim.Optimizer]:
    """Return the peak learning rate of every group of parameters, and the optimiser over them.

    Offsets make a group of their own only where `bias_rate` is not 1.

    Args:
        recipe: Its optimiser and rates.
        network: Parameters that are not trained get no gradient from here on.
        rate_of: Maps the name of a parameter to a factor on its learning rate, 0 for one that is
            not trained.

    Raises:
        BadInput: when nothing is trained.
    """
    make = _OPTIMIZERS[recipe.optimizer]
    if recipe.optimizer == "sgd":
        make = functools.partial(make, momentum=recipe.momentum)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        rate = rate_of(name) if recipe.trains(name) else 0.0
        parameter.requires_grad_(rate > 0)
        if rate > 0:
            factor = recipe.bias_rate if parameter.ndim < 2 else 1.0
            groups.setdefault((factor, rate), []).append(parameter)
    if not groups:
        raise BadInput(f"recipe {recipe.name}", "trains no parameter", "train encoder or head")
    order = sorted(groups, key=lambda group: group[0] != 1.0)  # offsets last
    rates = [recipe.learning_rate * factor * rate for factor, rate in order]
    settings = [
        {"params": groups[group], "lr": peak, "weight_decay": recipe.weight_decay / group[0]}
        for peak, group in zip(rates, order, strict=True)
    ]
    return rates, make(settings, lr=recipe.learning_rate)
