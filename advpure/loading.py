"""From names to working objects: denoisers, classifiers, purifiers, defenses.

Everything that a result depends on ends up in `describe`: options with their defaults, gradient,
policy, tile, and the SHA-256 of every weights file.
"""

import dataclasses
import inspect
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from advpure.base.defaults import DEFAULT_DATASET
from advpure.base.devices import plain_defaults
from advpure.base.documents import kind_of
from advpure.base.errors import BadInput
from advpure.base.validation import as_integer, instance, number
from advpure.checkpoints.choices import split_choices
from advpure.checkpoints.loader import fetch, open_checkpoint, split_reference
from advpure.core.defense import Defense, Policy
from advpure.core.denoisers import (
    DENOISERS,
    ConsistencyDenoiser,
    Denoiser,
    EDMDenoiser,
    EpsilonDenoiser,
    check_covered,
)
from advpure.core.gradients import GradientMode
from advpure.core.outputs import Outputs, as_logits
from advpure.core.purifier import Purifier
from advpure.core.randomness import RandomnessConfig
from advpure.core.recipe import NoiseStrength, Recipe
from advpure.core.steady import is_trusted, trust, trusted_shape
from advpure.core.tiling import check_tile
from advpure.data import DATASETS, dataset_info
from advpure.models import list_models, model_path
from advpure.networks.weights import load_network, sha256, state_sha256
from advpure.options import read_options
from advpure.purifiers import PURIFIERS

OFFICIAL = "official checkpoint"
SELECTOR = "selector"


class _Loaded(NamedTuple):
    module: nn.Module
    metadata: dict[str, Any]
    identity: dict[str, str]


@plain_defaults()
def _load(model: str | Path) -> _Loaded:
    """Load a shipped network by name, a weights file by path, or NAME:FILE of a checkpoint.

    Every call makes a module of its own, so that `.double()` on one changes no other.
    """
    instance(model, (str, Path), "network", "name a shipped one, or a file")
    official = split_reference(model)
    if official is not None:
        name, path = official.entry.name, official.path or fetch(official.entry)
        module, choices = open_checkpoint(name, path)
        identity = {"name": name, "sha256": sha256(split_choices(path).path), **choices}
        return _Loaded(module, {"task": OFFICIAL}, identity)
    path = Path(model)
    if not str(model) or (not path.suffix and len(path.parts) == 1 and kind_of(path) != "folder"):
        path = model_path(str(model))
    network, metadata = load_network(path)
    network = network.to(memory_format=torch.channels_last)  # a fifth faster on the CPU
    return _Loaded(network, metadata, {"name": path.stem, "sha256": sha256(path)})


def _identity(module: nn.Module) -> dict[str, str]:
    """Describe a module that came as an object: its class, and a digest of its state."""
    return {"name": type(module).__name__, "sha256": state_sha256(module)}


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
    return _load_denoiser(model)[0]


def _load_denoiser(
    model: str | Path, dataset: str | None = None
) -> tuple[Denoiser, dict[str, str]]:
    """Load a denoiser, for the images of a data set, and what identifies it."""
    network, metadata, identity = _load(model)
    if dataset is not None:
        _check_shape(metadata, dataset)
    task = str(metadata.get("task"))
    if isinstance(network, Denoiser):
        return trust(network), identity
    if task not in DENOISERS:
        raise BadInput(
            f"network {str(model)!r} of task {task!r}",
            "is no denoiser",
            f"use one of {', '.join(list_models(tuple(DENOISERS)))}",
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
    return trust(kind(network, **span).eval(), _shape(metadata)), identity


def load_classifier(
    dataset: str = DEFAULT_DATASET,
    weights: str | Path | None = None,
    *,
    outputs: Outputs = "logits",
) -> nn.Module:
    """Load the classifier of a data set: images in [0, 1], [B, C, H, W], to logits [B, K].

    Args:
        dataset: A data set's name.
        weights: Another weights file or shipped name, or ``NAME:FILE`` for an official
            checkpoint, such as ``resnet56-cifar10:resnet56-4bfd9763.th``.
        outputs: What its network answers with: ``logits``, ``probabilities`` or ``labels``; the
            module that is returned answers with logits (`advpure.core.outputs`, also for the cost).

    Raises:
        BadInput: when the data set has no shipped classifier and none is given, or a denoiser is.

    Example:
        >>> from advpure import load_images
        >>> load_classifier("digits")(load_images("digits", n=1).images).argmax(1).tolist()
        [0]
    """
    judge = _load_judge(_classifier_name(dataset, weights)).module
    return _answering(judge, dataset, outputs)


def _answering(judge: nn.Module, dataset: str, outputs: Outputs) -> nn.Module:
    """Return a classifier of a data set that answers with logits."""
    wrapped = as_logits(judge, outputs, len(dataset_info(dataset).classes))
    return trust(wrapped, trusted_shape(judge)) if is_trusted(judge) else wrapped


def load_judge(
    dataset: str, weights: str | Path | None, outputs: Outputs = "logits"
) -> tuple[nn.Module, dict[str, str]]:
    """Load a classifier for the images of a data set, and what identifies it in records.

    Args:
        dataset: A data set's name.
        weights: As `load_classifier`.
        outputs: Likewise.

    Raises:
        BadInput: as `load_classifier`, and for one that was trained on images of another shape.
    """
    judge, metadata, identity = _load_judge(_classifier_name(dataset, weights))
    _check_shape(metadata, dataset)
    return _answering(judge, dataset, outputs), _said(identity, outputs)


def _said(identity: dict[str, str], outputs: Outputs) -> dict[str, str]:
    """Return what identifies a classifier, with what it answers with where that is not logits."""
    return identity if outputs == "logits" else {**identity, "outputs": outputs}


def _load_judge(name: str | Path) -> _Loaded:
    loaded = _load(name)
    if isinstance(loaded.module, Denoiser) or loaded.metadata.get("task") in DENOISERS:
        raise BadInput(f"network {str(name)!r}", "is no classifier", "pass it as weights")
    if loaded.metadata.get("task") == SELECTOR:
        raise BadInput(f"network {str(name)!r}", "is no classifier", "pass it as selector")
    trust(loaded.module, _shape(loaded.metadata))
    return loaded


def load_selector(dataset: str, weights: str | Path) -> tuple[nn.Module, dict[str, str]]:
    """Load the selector of a composition, and what identifies it in records.

    Args:
        dataset: A data set's name.
        weights: Name of a shipped selector, or path of a weights file.

    Raises:
        BadInput: for a network that is no selector, or one for images of another shape.

    Example:
        >>> selector, identity = load_selector("digits", "digits-selector-025")
        >>> identity["name"]
        'digits-selector-025'
    """
    selector, metadata, identity = _load(weights)
    if metadata.get("task") != SELECTOR:
        raise BadInput(
            f"network {str(weights)!r}", "is no selector",
            "train one, see advpure train digits-selector-025",
        )  # fmt: skip
    _check_shape(metadata, dataset)
    return selector, identity


def _shape(metadata: Mapping[str, Any]) -> tuple[int, ...] | None:
    """Return the shape of the images that a network of ours was trained on, where it says."""
    trained = metadata.get("dataset")
    return dataset_info(str(trained)).shape if trained in DATASETS else None


def _check_shape(metadata: Mapping[str, Any], dataset: str) -> None:
    """Refuse a network of ours that was trained on images of another shape."""
    trained, theirs, ours = metadata.get("dataset"), _shape(metadata), dataset_info(dataset).shape
    if theirs is not None and theirs != ours:
        raise BadInput(
            f"network {metadata.get('name', 'file')!r} for {trained} images {list(theirs)}",
            f"does not fit {dataset} images {list(ours)}",
            f"choose one for {dataset}, or pass --dataset {trained}",
        )


def _classifier_name(dataset: str, weights: str | Path | None) -> str | Path:
    name = dataset_info(dataset).classifier if weights is None else weights
    if name is None:
        raise BadInput(
            f"data set {dataset!r}",
            "has no classifier here",
            "pass --classifier FILE (classifier=FILE in Python)",
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
    dataset: str = DEFAULT_DATASET,
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
        weights: Another weights file, shipped network or official ``NAME:FILE`` for the denoiser.
        denoiser: A denoiser object instead; not together with weights.
        options: The purifier's own options.

    Raises:
        BadInput: for names, options or files that cannot be used.

    Example:
        >>> load_purifier("ddpm", "digits", t=50).chain.evaluations
        50
    """
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
    settings: dict[str, Any] = {"purifier": name, **dataclasses.asdict(recipe)}
    if denoiser is None and recipe.network is not None:
        shipped = f"{dataset_info(dataset).networks}-{recipe.network}"
        model = shipped if weights is None else weights
        if weights is None and model not in list_models():
            raise BadInput(
                f"data set {dataset!r}",
                f"has no network of kind {recipe.network} here",
                "pass --weights FILE (weights=FILE in Python)",
            )
        denoiser, settings["denoiser"] = _load_denoiser(model, dataset)
    elif denoiser is not None:
        settings["denoiser"] = _identity(denoiser)
    elif weights is not None:
        raise BadInput(f"weights {weights}", f"mean nothing to {name}", "leave out the weights")
    model_name = settings.get("denoiser", {}).get("name", "")
    _note_other_kind(name, recipe, denoiser, model_name)
    level = getattr(recipe, "sigma", None)
    if isinstance(recipe, NoiseStrength) and recipe.t is None:
        level = recipe.level / 2  # its default included
    if level is not None:
        check_covered(denoiser, model_name, level)
    return Purifier(
        name,
        recipe.chain(denoiser),
        denoiser,
        settings=settings,
        surrogate=recipe.surrogate(denoiser),
        recipe=recipe,
        xi=xi,
        gradient=gradient,
        tile=_tile(dataset, tile),
    ).eval()


def _note_other_kind(name: str, recipe: Recipe, denoiser: Denoiser | None, model: str) -> None:
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
    warnings.warn(f"{model} is {there}; {name} is made for {made}", UserWarning, stacklevel=3)


def load_defense(
    name: str,
    dataset: str = DEFAULT_DATASET,
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
    outputs: Outputs = "logits",
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
        weights: Weights of the denoiser: a file, a shipped name or an official ``NAME:FILE``.
        denoiser: A denoiser object instead.
        classifier: A module from [0, 1] images to logits, or as `weights`.
        outputs: What the classifier answers with: ``logits``, ``probabilities`` or ``labels``; see
            `advpure.core.outputs`, also for the cost.
        options: The purifier's own options.

    Raises:
        BadInput: for names, options or files that cannot be used.

    Example:
        >>> from advpure import load_images
        >>> defense = load_defense("cm", "digits", xi=RandomnessConfig(0))
        >>> images, labels, ids = load_images("digits", n=4)
        >>> defense.bind(ids)(images).shape
        torch.Size([4, 10])
    """
    purifier = load_purifier(
        name, dataset, t=t, sigma=sigma, gradient=gradient, weights=weights, denoiser=denoiser,
        tile=0, **options,
    )  # fmt: skip
    if isinstance(classifier, nn.Module):
        judge = _answering(classifier, dataset, outputs)
        identity = _said(_identity(classifier), outputs)
    else:
        judge, identity = load_judge(dataset, classifier, outputs)
    if isinstance(policy, str):
        policy = Policy.parse(policy)
    votes = PURIFIERS.get(name).votes
    if policy is not None:
        instance(policy, Policy, "policy", "write eot:10, or pass a Policy")
        if policy.draws > 1 and not purifier.is_random:
            raise BadInput(
                f"policy {policy.kind}:{policy.draws}",
                f"means nothing to {name}, which draws no noise",
                "leave it out",
            )
    if policy is None and votes > 1:
        policy = Policy("majority", votes, reverse_only=True)
    purifier.settings["classifier"] = identity
    tile = _tile(dataset, tile)
    return Defense(purifier, judge, xi=xi, policy=policy, tile=tile).eval()


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
    if tile is None:
        return dataset_info(dataset).tile
    tile = check_tile(tile) if as_integer(tile) != 0 else 0
    assert tile is not None
    if tile & (tile - 1):
        raise BadInput(
            f"tile {tile}",
            "is no power of two, and only then do a row's bits not depend on its place",
            f"use {1 << tile.bit_length() - 1} or {1 << tile.bit_length()}",
        )
    return tile or None
