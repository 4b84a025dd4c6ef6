"""Purifiers: a recipe, its denoiser, and what stands behind it, from names or objects."""

import dataclasses
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from advpure.base.defaults import DEFAULT_DATASET
from advpure.base.errors import BadInput
from advpure.base.imports import code_of
from advpure.base.validation import shown
from advpure.core.defense import Defense
from advpure.core.denoisers import check_covered
from advpure.core.gradients import GradientMode
from advpure.core.lowered import denoiser_in, lower
from advpure.core.own_recipe import OwnRecipe
from advpure.core.precision import Precision, check_precision
from advpure.core.purifier import Purifier
from advpure.core.randomness import RandomnessConfig
from advpure.core.recipe import NoiseStrength, Recipe
from advpure.data import Source, dataset_info
from advpure.loading.boosters import load_booster
from advpure.loading.denoisers import named_denoiser, note_other_kind, own_denoiser
from advpure.loading.weights import tile_for
from advpure.models import list_models
from advpure.networks.weights import state_sha256
from advpure.options import read_options
from advpure.purifiers import PURIFIERS

_FAR = 0.5
"""By how much a purifier may leave [0, 1] and be one of images in [0, 1] all the same."""


def make_recipe(name: Any, options: dict[str, Any]) -> Recipe:
    """Check a purifier's options, given as values or as text, and fill in the defaults.

    Args:
        name: A purifier's name.
        options: Field names and values of its settings class.

    Raises:
        BadInput: for an unknown name or option, or a value of the wrong kind.

    Example:
        >>> make_recipe("ddpm", {"t": "50"}).index
        49
    """
    return read_options(PURIFIERS.get(name), options, _title(name))


def load_purifier(
    name: Any,
    dataset: Source = DEFAULT_DATASET,
    *,
    t: int | None = None,
    sigma: float | None = None,
    xi: RandomnessConfig | None = None,
    gradient: GradientMode | None = None,
    tile: int | None = None,
    weights: str | Path | None = None,
    denoiser: Any = None,
    boost: Any = None,
    boost_options: Mapping[str, Any] | None = None,
    precision: Precision = "float32",
    **options: Any,
) -> Purifier:
    """Load a purifier: a module from images in [0, 1] to purified images.

    Args:
        name: A name in `advpure.purifiers.PURIFIERS`, such as ``cm`` or ``ddpm``, code of yours as
            ``file.py:attribute`` or ``package.module:attribute``, or an object: a module or
            function of images in [0, 1], a chain, or a purifier that is built; see
            docs/your-model.md.
        dataset: The data set whose shipped networks and tile it uses.
        t: Strength in time steps.
        sigma: Strength as noise level in [0, 1] units, instead of t.
        xi: Randomness configuration.
        gradient: ``full``, ``checkpoint``, ``bpda`` or ``surrogate``; exact by default.
        tile: Compute tile; the data set's by default, 0 for none.
        weights: Another weights file, shipped network or official ``NAME:FILE`` for the denoiser.
        denoiser: A denoiser instead, an object or code of yours; not together with weights.
        boost: A booster behind it, see `load_booster`; None for none.
        boost_options: Fields of `advpure.boosting.settings.BoostSettings`.
        precision: What the network is computed in, see `advpure.core.precision`.
        options: The purifier's own options, or the arguments of code of yours.

    Raises:
        BadInput: for names, options or files that cannot be used.

    Example:
        >>> load_purifier("ddpm", "digits", t=50).chain.evaluations
        50
        >>> import torch
        >>> purifier = load_purifier(lambda images: images / 2, "digits")
        >>> purifier(torch.ones(1, 1, 8, 8)).max().item()
        0.5
    """
    purifier = assemble_purifier(
        name,
        dataset,
        t=t,
        sigma=sigma,
        xi=xi,
        gradient=gradient,
        tile=tile,
        weights=weights,
        denoiser=denoiser,
        boost=boost,
        boost_options=boost_options,
        precision=precision,
        **options,
    )
    if precision != "float32" and purifier.denoiser is None and purifier.model is None:
        rule = f"means nothing to {purifier.name}, which holds no network"
        raise BadInput(f"precision {precision}", rule, "leave it out")
    if purifier.model is not None and purifier.model.answers == "classes":
        raise BadInput(
            purifier.model.name,
            "answers with logits, so it is a whole defense",
            "use what measures a defense, such as advpure attack or load_defense",
        )
    return purifier


def assemble_purifier(
    name: Any,
    dataset: Source,
    *,
    t: int | None,
    sigma: float | None,
    xi: RandomnessConfig | None = None,
    gradient: GradientMode | None,
    tile: int | None,
    weights: str | Path | None,
    denoiser: Any,
    boost: Any = None,
    boost_options: Mapping[str, Any] | None = None,
    precision: Precision = "float32",
    **options: Any,
) -> Purifier:
    """Load a purifier, or a model that is a whole defense."""
    check_precision(precision)
    if isinstance(name, Purifier | Defense):
        told = {"t": t, "sigma": sigma, "weights": weights, "denoiser": denoiser, **options}
        told["precision"] = None if precision == "float32" else precision
        return _built_purifier(name, dataset, xi, gradient, tile, told)
    if denoiser is not None and weights is not None:
        fix = "give one of them"
        raise BadInput(f"weights {weights} and a denoiser", "exclude each other", fix)
    given = {"t": t, "sigma": sigma}
    kind = PURIFIERS.get(name)
    known = {field.name for field in dataclasses.fields(kind)}
    for strength, value in given.items():
        if value is not None and strength not in known:
            raise BadInput(
                f"{strength} {value}", f"means nothing to {name}", f"leave out {strength}"
            )
    chosen = {key: value for key, value in given.items() if value is not None}
    recipe = make_recipe(name, {**chosen, **options})
    settings: dict[str, Any] = {"purifier": _title(name), **dataclasses.asdict(recipe)}
    if isinstance(denoiser, str) and recipe.network is None:
        raise BadInput(f"a denoiser for {_title(name)}", "means nothing to it", "leave it out")
    if denoiser is None and recipe.network is not None:
        shipped = f"{dataset_info(dataset).networks}-{recipe.network}"
        model = shipped if weights is None else weights
        if weights is None and model not in list_models():
            raise BadInput(
                f"data set {dataset!r}",
                f"has no network of kind {recipe.network} here",
                "pass --weights FILE or --denoiser file.py:make (weights=, denoiser= in Python)",
            )
        denoiser, settings["denoiser"] = named_denoiser(model, dataset)
    elif denoiser is not None:
        denoiser, settings["denoiser"] = own_denoiser(denoiser)
    elif weights is not None:
        raise BadInput(f"weights {weights}", f"mean nothing to {name}", "leave out the weights")
    model_name = settings.get("denoiser", {}).get("name", "")
    note_other_kind(name, recipe, denoiser, model_name)
    level = getattr(recipe, "sigma", None)
    if isinstance(recipe, NoiseStrength) and recipe.t is None:
        level = recipe.level / 2  # its default included
    if level is not None:
        check_covered(denoiser, model_name, level)
    own = recipe.model if isinstance(recipe, OwnRecipe) else None
    info = dataset_info(dataset)
    digest = PURIFIERS.digest(name)
    if digest is not None:
        settings["code"] = digest
    if own is not None:
        own.examine(info.shape, info.tile)
        settings["draws"] = own.draws
        if precision != "float32":
            lower(own, precision, info.shape, info.tile)
        if isinstance(own.function, nn.Module):
            settings["sha256"] = state_sha256(own.function)
        if gradient is None and own.answers == "images" and own.is_blind(info.shape):
            _note_blind(own.name)
        if not -_FAR <= own.span[0] <= own.span[1] <= 1 + _FAR:
            _note_range(own.name, *own.span)
    if boost is None and boost_options:
        rule = "mean nothing without a booster"
        raise BadInput("boost options", rule, "leave them out, or name one: --boost joint")
    if precision != "float32":
        settings["precision"] = precision
        if boost is not None:
            rule = "does not reach the gradients that a booster follows"
            raise BadInput(f"precision {precision}", rule, "leave one of them out")
        denoiser = None if denoiser is None else denoiser_in(denoiser, precision)
    booster = None if boost is None else load_booster(boost, dataset, boost_options)
    if booster is not None:
        if own is not None and own.answers == "classes":
            rule = "answers with logits, so no booster can stand behind it"
            raise BadInput(own.name, rule, "leave the booster out")
        settings["boost"] = booster.settings
    purifier = Purifier(
        _title(name),
        recipe.chain(denoiser),
        denoiser,
        settings=settings,
        surrogate=recipe.surrogate(denoiser),
        recipe=recipe,
        model=own,
        refiner=booster,
        xi=xi,
        gradient=gradient,
        tile=tile_for(dataset, tile),
    )
    purifier.training = False  # and not .eval(), which would switch a user's module
    is_opaque = isinstance(recipe, OwnRecipe) and denoiser is None and own is None
    if precision != "float32" and is_opaque and len(purifier.chain):
        rule = f"means nothing to {purifier.name}, a chain of steps of your own"
        raise BadInput(f"precision {precision}", rule, "let it take (denoiser), or leave it out")
    return purifier


def _built_purifier(
    built: Purifier | Defense,
    dataset: Source,
    xi: RandomnessConfig | None,
    gradient: GradientMode | None,
    tile: int | None,
    told: Mapping[str, Any],
) -> Purifier:
    """Return a view of a purifier that is built already, for the images of a data set."""
    purifier = built.purifier if isinstance(built, Defense) else built
    for option, value in told.items():
        if value is not None:
            rule = f"means nothing to a {type(built).__name__}, which is built already"
            raise BadInput(f"{option} {shown(value)}", rule, "leave it out, or name the purifier")
    view = purifier.at(xi=xi, gradient=gradient)
    settings = {each: value for each, value in purifier.settings.items() if each != "classifier"}
    if "purifier" not in settings:  # made by hand, so nobody said what it is made of
        settings = {"purifier": purifier.name, **settings, "code": code_of(purifier).sha256}
    view.settings, view.tile, view.ids = settings, tile_for(dataset, tile), None
    return view


def _title(name: Any) -> str:
    """Return what records call a purifier: its name, or that of an object."""
    return name if isinstance(name, str) else code_of(name).name


def _note_blind(name: str) -> None:
    """Say that a purifier lets no gradient through, and what the ways out cost."""
    warnings.warn(
        f"{name} lets no gradient through, so gradient attacks are blind, which is no robustness; "
        "--gradient bpda takes the identity for it, at no cost, and is weak where it moves images "
        "far; an attribute `surrogate`, a differentiable stand-in, with --gradient surrogate costs "
        "its writing and one more call a step; --attack square or rays, without gradients, costs "
        "many more calls",
        UserWarning,
        stacklevel=4,
    )


def _note_range(name: str, least: float, most: float) -> None:
    """Say that a purifier answers with images in another range than it is given."""
    warnings.warn(
        f"{name} answers images in [0, 1] with values from {least:.3g} to {most:.3g}, and what "
        "follows is about those; map them back to [0, 1] in its code",
        UserWarning,
        stacklevel=4,
    )
