"""The optimiser of a recipe, and how its learning rate rises and falls."""

import functools
import math
from collections.abc import Callable

import torch
from torch import nn

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


def make_optimizer(recipe: Recipe, network: nn.Module) -> tuple[list[float], torch.optim.Optimizer]:
    """Return the peak learning rate of every group of parameters, and the optimiser over them.

    Offsets make a group of their own only where `bias_rate` is not 1.
    """
    make = _OPTIMIZERS[recipe.optimizer]
    if recipe.optimizer == "sgd":
        make = functools.partial(make, momentum=recipe.momentum)
    parameters = list(network.parameters())
    groups = [(1.0, parameters)]
    if recipe.bias_rate != 1.0:
        offsets = [parameter for parameter in parameters if parameter.ndim < 2]
        others = [parameter for parameter in parameters if parameter.ndim >= 2]
        groups = [(1.0, others), (recipe.bias_rate, offsets)]
    rates = [recipe.learning_rate * factor for factor, _ in groups]
    settings = [
        {"params": chosen, "lr": rate, "weight_decay": recipe.weight_decay / factor}
        for rate, (factor, chosen) in zip(rates, groups, strict=True)
    ]
    return rates, make(settings, lr=recipe.learning_rate)
