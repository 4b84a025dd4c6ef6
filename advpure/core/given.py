"""Models that are given to a function as objects: the purifier or defense that they make.

A purifier is a `Purifier`, a `Chain`, or a module or function from images in [0, 1] to images,
whose randomness is keyed like that of one loaded by name (`advpure.core.own`). A defense is a
`Defense`, or a pair of a purifier (None for none) and a classifier from images to logits.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar, cast

from torch import Tensor, nn

from advpure.base.errors import BadInput
from advpure.base.fingerprint import fingerprint
from advpure.base.units import check_images
from advpure.base.validation import shown
from advpure.core.chain import Chain
from advpure.core.defense import Defense
from advpure.core.denoisers import Denoiser
from advpure.core.own import OwnModel
from advpure.core.own_recipe import own_step
from advpure.core.purifier import Purifier
from advpure.core.randomness import RandomnessConfig
from advpure.core.steady import is_trusted

F = TypeVar("F", bound=Callable[..., Any])


def as_purifier(given: Any, images: Tensor) -> Purifier:
    """Return the purifier that an object makes.

    Args:
        given: A purifier, a defense (its purifier), a chain, None for no purifier, or a module or
            function of images.
        images: [B, C, H, W], such as it will meet.

    Raises:
        BadInput: for what is no purifier of such images.

    Returns:
        The purifier; one that draws random numbers under seed 0, until it is told otherwise.

    Cost: of a module or function two calls on two rows, and two more where it is in training mode.

    Example:
        >>> import torch
        >>> purifier = as_purifier(lambda x: x + torch.rand_like(x), torch.zeros(1, 1, 2, 2))
        >>> purifier.is_random
        True
    """
    if isinstance(given, Purifier):
        return given
    if isinstance(given, Defense):
        return given.purifier
    if given is None:
        return Purifier("none", Chain())
    if isinstance(given, Chain):
        return _identified(Purifier("chain", given), given)
    if isinstance(given, Denoiser):
        fix = "pass denoiser= to load_purifier, with the name of a chain"
        raise BadInput(f"a {type(given).__name__}", "is a denoiser, not a purifier", fix)
    name = getattr(given, "__name__", type(given).__name__)
    if not callable(given):
        fix = "pass a module or function from images to images"
        raise BadInput(f"purifier {shown(given)}", "cannot be called", fix)
    check_images(images)
    model = OwnModel(given, f"purifier {name}").examine(tuple(images.shape[1:]))
    if model.answers != "images":
        fix = "pass it alone, without a classifier"
        raise BadInput(model.name, "answers with logits, so it is a whole defense", fix)
    model.training = False
    return _identified(Purifier(name, Chain([own_step(model)]), model=model), given)


def _identified(purifier: Purifier, given: Any) -> Purifier:
    """Say what a purifier is made of, and let one that draws do so under seed 0."""
    purifier.settings |= {"purifier": purifier.name, "code": fingerprint(given)}
    if purifier.model is not None:
        purifier.settings["draws"] = purifier.model.draws
    if purifier.is_random:
        purifier.xi = RandomnessConfig(0)
    purifier.training = False
    return purifier


def as_defense(given: Any, images: Tensor) -> Any:
    """Return the defense that a pair of a purifier and a classifier makes; others as they are.

    Args:
        given: A tuple of two, or a model.
        images: [B, C, H, W], such as it will meet.

    Returns:
        A `Defense` under seed 0 and without a tile, or what was given.

    Raises:
        BadInput: for a pair that is none.
    """
    if not isinstance(given, tuple):
        return given
    if len(given) != 2:
        fix = "pass (purifier, classifier), or one model"
        raise BadInput(f"a model of {len(given)} parts", "is no pair", fix)
    purifier, judge = as_purifier(given[0], images), given[1]
    if not (isinstance(judge, nn.Module) and is_trusted(judge)):
        name = getattr(judge, "__name__", type(judge).__name__)
        if not callable(judge):
            fix = "pass a module or function from images to logits"
            raise BadInput(f"classifier {shown(judge)}", "cannot be called", fix)
        judge = OwnModel(judge, f"classifier {name}").examine(tuple(images.shape[1:]))
        judge.training = False
        if judge.answers != "classes":
            raise BadInput(judge.name, "answers with images", "return logits [B, classes]")
    defense = Defense(purifier, judge, xi=purifier.xi or RandomnessConfig(0))
    defense.training = False
    return defense


def takes_pairs(function: F, model: str = "model") -> F:
    """Let a function of a model and images also take a pair of a purifier and a classifier.

    Args:
        function: It has a parameter `images`.
        model: Name of the parameter of the model.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*given: Any, **named: Any) -> Any:
        if isinstance(named.get(model), tuple) or any(isinstance(each, tuple) for each in given):
            bound = signature.bind(*given, **named)
            held = bound.arguments
            if isinstance(held.get(model), tuple):
                check_images(held["images"])
                held[model] = as_defense(held[model], held["images"])
            return function(*bound.args, **bound.kwargs)
        return function(*given, **named)

    return cast(F, call)
