"""From names to working objects: denoisers, classifiers, purifiers, defenses.

Everything that a result depends on ends up in `describe`: options with their defaults, gradient,
policy, tile, and the SHA-256 of every weights file.
"""

import dataclasses
import inspect
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from advpure.data import dataset_info
from advpure.defense import Defense, Policy
from advpure.denoisers import DENOISERS, Denoiser
from advpure.errors import BadInput
from advpure.gradients import GradientMode
from advpure.models import list_models, model_path
from advpure.options import read_options
from advpure.purifier import Purifier
from advpure.purifiers import PURIFIERS
from advpure.purifiers.base import Recipe
from advpure.randomness import RandomnessConfig
from advpure.weights import load_network, sha256


class _Loaded(NamedTuple):
    module: nn.Module
    metadata: dict[str, Any]
    identity: dict[str, str]


def _load(model: str | Path) -> _Loaded:
    """Load a shipped network by name, or a weights file by path."""
    path = Path(model)
    if not path.suffix:
        path = model_path(str(model))
    stamp = path.stat() if path.is_file() else None
    return _load_file(path, (stamp.st_size, stamp.st_mtime_ns) if stamp else None)


@lru_cache(maxsize=16)
def _load_file(path: Path, stamp: tuple[int, int] | None) -> _Loaded:
    network, metadata = load_network(path)
    return _Loaded(network, metadata, {"name": path.stem, "sha256": sha256(path)})


def load_denoiser(model: str | Path) -> Denoiser:
    """Load a denoiser D(x; sigma) -> x0.

    Args:
        model: Name of a shipped network, such as ``digits-edm``, or a path to a weights file.

    Raises:
        BadInput: for an unknown name, a file that cannot be used, or a network that is no
            denoiser.
    """
    network, metadata, _ = _load(model)
    task = str(metadata.get("task"))
    if task not in DENOISERS:
        raise BadInput(
            f"network {str(model)!r} of task {task!r}",
            "is no denoiser",
            f"use one of {', '.join(name for name in list_models() if 'classifier' not in name)}",
        )
    kind: Callable[..., Denoiser] = DENOISERS.get(task)
    parameters = inspect.signature(kind).parameters.values()
    wanted = [each.name for each in parameters if each.kind is each.KEYWORD_ONLY]
    for name in wanted:
        if name not in metadata:
            raise BadInput(
                f"network {str(model)!r} of task {task!r}",
                f"does not say its {name}",
                f"store {', '.join(wanted)} in its metadata",
            )
    span = {name: float(metadata[name]) for name in wanted}
    return kind(network, **span).eval()


def load_classifier(dataset: str = "digits", weights: str | Path | None = None) -> nn.Module:
    """Load the classifier of a data set: images in [0, 1], [B, C, H, W], to logits [B, K].

    Args:
        dataset: A data set's name.
        weights: Another weights file or shipped name.

    Raises:
        BadInput: when the data set has no shipped classifier and none is given.

    Example:
        >>> from advpure import load_images
        >>> load_classifier("digits")(load_images("digits", n=1).images).argmax(1).tolist()
        [0]
    """
    return _load(_classifier_name(dataset, weights)).module


def _classifier_name(dataset: str, weights: str | Path | None) -> str | Path:
    name = weights or dataset_info(dataset).classifier
    if name is None:
        raise BadInput(
            f"data set {dataset!r}", "has no classifier here", "pass classifier=FILE.safetensors"
        )
    return name


def make_recipe(name: str, options: dict[str, Any]) -> Recipe:
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
    return read_options(PURIFIERS.get(name), options, name)


def load_purifier(
    name: str,
    dataset: str = "digits",
    *,
    t: int | None = None,
    sigma: float | None = None,
    xi: RandomnessConfig | None = None,
    gradient: GradientMode | None = None,
    tile: int | None = None,
    weights: str | Path | None = None,
    denoiser: Denoiser | None = None,
    **options: Any,
) -> Purifier:
    """Load a purifier: a module from images in [0, 1] to purified images.

    Args:
        name: A name in `advpure.purifiers.PURIFIERS`, such as ``cm`` or ``ddpm``.
        dataset: The data set whose shipped networks and tile it uses.
        t: Strength in time steps.
        sigma: Strength as noise level in [0, 1] units, instead of t.
        xi: Randomness configuration.
        gradient: ``full``, ``checkpoint``, ``bpda`` or ``surrogate``; exact by default.
        tile: Compute tile; the data set's by default, 0 for none.
        weights: Another weights file or shipped network for the denoiser.
        denoiser: A denoiser object instead.
        options: The purifier's own options.

    Raises:
        BadInput: for names, options or files that cannot be used.

    Example:
        >>> load_purifier("ddpm", t=50).chain.evaluations
        50
    """
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
    settings: dict[str, Any] = {"purifier": name, **dataclasses.asdict(recipe)}
    if denoiser is None and recipe.network is not None:
        model = weights or f"{dataset}-{recipe.network}"
        denoiser = load_denoiser(model)
        settings["denoiser"] = _load(model).identity
    elif denoiser is not None:
        settings["denoiser"] = {"name": type(denoiser).__name__}
    return Purifier(
        name,
        recipe.chain(denoiser),
        denoiser,
        settings=settings,
        surrogate=recipe.surrogate(denoiser),
        xi=xi,
        gradient=gradient,
        tile=_tile(dataset, tile),
    )


def load_defense(
    name: str,
    dataset: str = "digits",
    *,
    t: int | None = None,
    sigma: float | None = None,
    xi: RandomnessConfig | None = None,
    gradient: GradientMode | None = None,
    policy: Policy | str | None = None,
    tile: int | None = None,
    weights: str | Path | None = None,
    denoiser: Denoiser | None = None,
    classifier: nn.Module | str | Path | None = None,
    **options: Any,
) -> Defense:
    """Load a defense: purifier and classifier, a module from images in [0, 1] to logits.

    Args:
        name: A purifier's name.
        dataset: The data set whose networks and tile it uses.
        t: Strength in time steps.
        sigma: Strength as noise level in [0, 1] units, instead of t.
        xi: Randomness configuration.
        gradient: Gradient mode; exact by default.
        policy: ``single``, ``eot:K``, ``majority:K`` or a `Policy`; by default single, and
            DensePure's own vote.
        tile: Compute tile; the data set's by default, 0 for none.
        weights: Weights of the denoiser.
        denoiser: A denoiser object instead.
        classifier: A module from [0, 1] images to logits, a weights file or a shipped name.
        options: The purifier's own options.

    Raises:
        BadInput: for names, options or files that cannot be used.

    Example:
        >>> from advpure import load_images
        >>> defense = load_defense("cm", xi=RandomnessConfig(0))
        >>> images, labels, ids = load_images("digits", n=4)
        >>> defense.bind(ids)(images).shape
        torch.Size([4, 10])
    """
    purifier = load_purifier(
        name, dataset, t=t, sigma=sigma, gradient=gradient, weights=weights, denoiser=denoiser,
        tile=0, **options,
    )  # fmt: skip
    if isinstance(classifier, nn.Module):
        judge, identity = classifier, {"name": type(classifier).__name__}
    else:
        judge, _, identity = _load(_classifier_name(dataset, classifier))
    if isinstance(policy, str):
        policy = Policy.parse(policy)
    votes = PURIFIERS.get(name).votes
    if policy is None and votes > 1:
        policy = Policy("majority", votes, reverse_only=True)
    purifier.settings["classifier"] = identity
    return Defense(purifier, judge, xi=xi, policy=policy, tile=_tile(dataset, tile))


def describe(defense: Defense) -> dict[str, Any]:
    """Return everything that a defense's answers depend on, as JSON values."""
    return {
        **defense.purifier.settings,
        "gradient": defense.purifier.gradient,
        "policy": dataclasses.asdict(defense.policy),
        "tile": defense.tile,
        "evaluations": defense.evaluations,
    }


def _tile(dataset: str, tile: int | None) -> int | None:
    return dataset_info(dataset).tile if tile is None else tile or None
