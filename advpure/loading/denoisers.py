"""Denoisers by name, by file, or as code of a user's."""

import inspect
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from advpure.base.errors import BadInput
from advpure.base.factories import read_factory
from advpure.base.imports import code_of, load_code
from advpure.base.validation import number
from advpure.core.denoisers import (
    DENOISERS,
    ConsistencyDenoiser,
    Denoiser,
    EDMDenoiser,
    EpsilonDenoiser,
    FunctionDenoiser,
)
from advpure.core.recipe import Recipe
from advpure.core.steady import trust
from advpure.data import Source
from advpure.loading.weights import check_shape, identity_of, image_shape, load_weights, shipped
from advpure.networks.weights import state_sha256


def load_denoiser(model: str | Path) -> Denoiser:
    """Load a denoiser D(x; sigma) -> x0.

    Args:
        model: Name of a shipped network, such as ``digits-edm``, a path to a weights file, or
            ``NAME:FILE`` for an official checkpoint, such as
            ``pesser-ddpm-cifar10:model-790000.ckpt`` (`advpure models list` names them all; those
            on the model hub need no file).

    Raises:
        BadInput: for an unknown name, a file that cannot be used, or a network that is no
            denoiser.
    """
    return named_denoiser(model)[0]


def named_denoiser(
    model: str | Path, dataset: Source | None = None
) -> tuple[Denoiser, dict[str, str]]:
    """Load a denoiser, for the images of a data set, and what identifies it."""
    network, metadata, identity = load_weights(model, "denoiser", dataset)
    if dataset is not None:
        check_shape(metadata, dataset)
    task = str(metadata.get("task"))
    if isinstance(network, Denoiser):
        return trust(network), identity
    if task not in DENOISERS:
        raise BadInput(
            f"network {str(model)!r} of task {task!r}",
            "is no denoiser",
            f"use one of {', '.join(shipped('denoiser', dataset))}",
        )
    kind: Callable[..., Denoiser] = DENOISERS.get(task)
    parameters = inspect.signature(kind).parameters.values()
    wanted = [each for each in parameters if each.kind is each.KEYWORD_ONLY]
    for name in (each.name for each in wanted if each.default is each.empty):
        if name not in metadata:
            raise BadInput(
                f"network {str(model)!r} of task {task!r}",
                f"does not say its {name}",
                f"store {', '.join(each.name for each in wanted)} in its metadata",
            )
    span = {
        each.name: number(metadata[each.name], f"{each.name} of {str(model)!r}")
        for each in wanted
        if each.name in metadata
    }
    return trust(kind(network, **span).eval(), image_shape(metadata)), identity


def own_denoiser(given: Any) -> tuple[Denoiser, dict[str, Any]]:
    """Return a denoiser of a user's, by name or an object, and what identifies it in records.

    A function or module of (state, sigma), both in model units, will do.

    Raises:
        BadInput: for what is no denoiser.

    Example:
        >>> import torch
        >>> own_denoiser(lambda x, sigma: x / (1 + sigma**2))[0](torch.ones(1, 1, 1, 1), 1.0).item()
        0.5
    """
    if isinstance(given, Denoiser):
        return given, identity_of(given)
    code = load_code(given, "denoiser") if isinstance(given, str) else code_of(given)
    built = code.value if _is_two_argument(code.value) else read_factory(code).build({})
    if not isinstance(built, Denoiser):
        if not callable(built) or isinstance(built, Recipe | type):
            rule = f"gives a {type(built).__name__}, no denoiser"
            fix = "give a Denoiser, or a function of (state, sigma)"
            raise BadInput(f"denoiser {code.name}", rule, fix)
        built = FunctionDenoiser(built)
    identity = {"name": code.name, "code": code.sha256, "sha256": state_sha256(built)}
    return built, identity


def _is_two_argument(value: Any) -> bool:
    """Return whether a function takes a state and a level, and makes nothing."""
    return inspect.isroutine(value) and len(read_factory(code_of(value)).required) == 2


def note_other_kind(name: str, recipe: Recipe, denoiser: Denoiser | None, model: str) -> None:
    """Say that a purifier is given a network of another kind than it was made for.

    Both kinds map a noisy state to an image, so the chain runs; what it is called is then not what
    it does.
    """
    consistent = isinstance(denoiser, ConsistencyDenoiser)
    wanted = (recipe.network or "").startswith("cm")
    if consistent == wanted or not isinstance(denoiser, EDMDenoiser | EpsilonDenoiser):
        return
    kinds = (
        "a denoiser, which estimates the mean image",
        "a consistency model, which samples an image",
    )
    there, made = kinds[consistent], "consistency models" if wanted else "denoisers"
    warnings.warn(f"{model} is {there}; {name} is made for {made}", UserWarning, stacklevel=4)
