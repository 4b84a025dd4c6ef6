"""From names to working objects: denoisers, classifiers, purifiers, defenses.

Everything that a result depends on ends up in `describe`: options with their defaults, gradient,
policy, tile, and the SHA-256 of every weights file.
"""

import dataclasses
import hashlib
import inspect
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from advpure.base.defaults import DEFAULT_DATASET
from advpure.base.devices import plain_defaults
from advpure.base.documents import kind_of
from advpure.base.errors import BadInput
from advpure.base.factories import read_factory
from advpure.base.imports import Code, code_of, load_code, names_code
from advpure.base.validation import as_integer, check_choice, instance, number, shown
from advpure.boosting.booster import Booster
from advpure.boosting.settings import BoostSettings
from advpure.checkpoints.choices import split_choices
from advpure.checkpoints.hub import CACHED, RANDOM, hub_network, is_hub
from advpure.checkpoints.loader import fetch, open_checkpoint, split_reference
from advpure.core.chain import Chain
from advpure.core.defense import Defense, Policy
from advpure.core.denoisers import (
    DENOISERS,
    ConsistencyDenoiser,
    Denoiser,
    EDMDenoiser,
    EpsilonDenoiser,
    FunctionDenoiser,
    check_covered,
)
from advpure.core.gradients import GradientMode
from advpure.core.levelled import LEVELLED, LevelledClassifier, NoiseLevels
from advpure.core.lowered import classifier_in, denoiser_in, lower
from advpure.core.outputs import Outputs, as_logits
from advpure.core.own import OwnModel
from advpure.core.own_recipe import OwnRecipe
from advpure.core.precision import Precision, check_precision
from advpure.core.purifier import Purifier
from advpure.core.randomness import RandomnessConfig
from advpure.core.recipe import NoiseStrength, Recipe
from advpure.core.steady import is_trusted, trust, trusted_shape
from advpure.core.tiling import check_tile
from advpure.data import DATASETS, Source, dataset_info
from advpure.data.own import is_place
from advpure.models import list_models, model_path
from advpure.networks.joint import JointClassifier
from advpure.networks.weights import (
    all_images,
    load_network,
    read_header,
    sha256,
    state_sha256,
)
from advpure.options import read_options, read_values
from advpure.own_classifiers import (
    CLASSIFIERS,
    Normalize,
    exported_classifier,
    exported_identity,
    named_classifier,
    own_classifier,
)
from advpure.purifiers import PURIFIERS

OFFICIAL = "official checkpoint"
SELECTOR = "selector"
REPRESENTATION = "representation"
_APART = {SELECTOR: "selector", LEVELLED: "levelled", REPRESENTATION: "representation"}
"""Tasks whose networks are neither denoisers nor classifiers of images alone."""
JOINT = "joint"


class _Loaded(NamedTuple):
    module: nn.Module
    metadata: dict[str, Any]
    identity: dict[str, str]


_Kind = Literal["denoiser", "classifier", "selector", "levelled", "representation"]


def _shipped(kind: _Kind, dataset: Source | None = None) -> list[str]:
    """Return the shipped networks of a kind, for the images of a data set where it is given."""
    shape = None if dataset is None else dataset_info(dataset).shape
    names = []
    for name in list_models():
        metadata = read_header(model_path(name))["metadata"]
        task = metadata["task"]
        its = "denoiser" if task in DENOISERS else _APART.get(task, "classifier")
        if its == kind and shape in (None, _shape(metadata)):
            names.append(name)
    return names


@plain_defaults()
def _load(model: str | Path, kind: _Kind, dataset: Source | None = None) -> _Loaded:
    """Load a shipped network by name, a weights file by path, or NAME:FILE of a checkpoint.

    What it is to be, a network of a kind for a data set, is for suggestions alone. Every call makes
    a module of its own, so that `.double()` on one changes no other.
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
        path = model_path(str(model), lambda: _shipped(kind, dataset))
    network, metadata = load_network(path)
    network = network.to(memory_format=torch.channels_last)  # a fifth faster on the CPU
    if metadata.get("task") == JOINT:
        level = metadata.get("l0")
        what = f"l0 of {str(model)!r}"
        network = JointClassifier(network, None if level is None else number(level, what))
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
    model: str | Path, dataset: Source | None = None
) -> tuple[Denoiser, dict[str, str]]:
    """Load a denoiser, for the images of a data set, and what identifies it."""
    network, metadata, identity = _load(model, "denoiser", dataset)
    if dataset is not None:
        _check_shape(metadata, dataset)
    task = str(metadata.get("task"))
    if isinstance(network, Denoiser):
        return trust(network), identity
    if task not in DENOISERS:
        raise BadInput(
            f"network {str(model)!r} of task {task!r}",
            "is no denoiser",
            f"use one of {', '.join(_shipped('denoiser', dataset))}",
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
    dataset: Source = DEFAULT_DATASET,
    weights: str | Path | None = None,
    *,
    outputs: Outputs = "logits",
    normalize: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Load the classifier of a data set: images in [0, 1], [B, C, H, W], to logits [B, K].

    Args:
        dataset: A data set's name.
        weights: Another weights file or shipped name, ``NAME:FILE`` for an official checkpoint,
            such as ``resnet56-cifar10:resnet56-4bfd9763.th``, code of yours as
            ``file.py:attribute``, ``timm:NAME`` or ``torchvision:NAME``, or a TorchScript or
            `torch.export` file.
        outputs: What its network answers with: ``logits``, ``probabilities`` or ``labels``; the
            module that is returned answers with logits (`advpure.core.outputs`, also for the cost).
        normalize: MEAN/STD of the images that it takes, comma lists; see `Normalize`.
        options: Arguments of code of yours, by name.

    Raises:
        BadInput: when the data set has no shipped classifier and none is given, or a denoiser is.

    Example:
        >>> from advpure import load_images
        >>> load_classifier("digits")(load_images("digits", n=1).images).argmax(1).tolist()
        [0]
    """
    return load_judge(dataset, weights, outputs, normalize, options)[0]


def _answering(judge: nn.Module, dataset: Source, outputs: Outputs) -> nn.Module:
    """Return a classifier of a data set that answers with logits."""
    wrapped = as_logits(judge, outputs, len(dataset_info(dataset).classes))
    return trust(wrapped, trusted_shape(judge)) if is_trusted(judge) else wrapped


def load_judge(
    dataset: Source,
    weights: str | Path | None,
    outputs: Outputs = "logits",
    normalize: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> tuple[nn.Module, dict[str, Any]]:
    """Load a classifier for the images of a data set, and what identifies it in records.

    Args:
        dataset: A data set's name.
        weights: As `load_classifier`.
        outputs: Likewise.
        normalize: Likewise.
        options: Likewise.

    Raises:
        BadInput: as `load_classifier`, and for one that was trained on images of another shape, or
            whose weights are those of a known network, which answers with logits, where the outputs
            are said to be something else.
    """
    name = _classifier_name(dataset, weights)
    if is_hub(name):
        return _hub_judge(str(name), dataset, outputs, normalize, options or {})
    if is_code(name) or (isinstance(name, str) and name in CLASSIFIERS):
        model, facts = named_classifier(str(name), dataset, outputs, normalize, options)
        return model, _said(facts, outputs)
    if options:
        fix = "leave them out, or name code, file.py:make"
        raise BadInput(f"options of classifier {name}", "mean nothing to weights", fix)
    program = None if split_reference(name) is not None else exported_classifier(Path(name))
    if program is not None:
        code = exported_identity(Path(name))
        model, facts = own_classifier(program, code, dataset, outputs, normalize, state=code.sha256)
        return model, _said(facts, outputs)
    judge, metadata, identity = _load_judge(name, dataset)
    _check_shape(metadata, dataset)
    check_choice(outputs, get_args(Outputs), "outputs")
    if outputs != "logits":
        rule = f"contradicts classifier {name}, whose network answers with logits"
        raise BadInput(f"outputs {outputs!r}", rule, "leave it out")
    if normalize is None:
        return judge, identity
    # Not trusted any more: a first call asks whether it is steady, as of any other module.
    before = Normalize(normalize)
    return nn.Sequential(before, judge).eval(), {**identity, "normalize": normalize}


def _hub_judge(
    name: str,
    dataset: Source,
    outputs: Outputs,
    normalize: str | None,
    options: Mapping[str, Any],
) -> tuple[nn.Module, dict[str, Any]]:
    """Load a classifier of timm or torchvision, see `advpure.checkpoints.hub`."""
    fields = {"weights": (str, CACHED), "classes": (int | None, None)}
    chosen = read_values(fields, options, f"classifier {name}")
    classes = chosen["classes"] or len(dataset_info(dataset).classes)
    network, identity = hub_network(name, classes=classes, weights=chosen["weights"])
    code = Code(name, network, identity["sha256"], "")
    model, facts = own_classifier(
        network, code, dataset, outputs, normalize, is_untrained=chosen["weights"] == RANDOM
    )
    return model, _said({**facts, **identity}, outputs)


def is_code(name: object) -> bool:
    """Return whether a name of a network is code of a user's, and no official checkpoint."""
    return names_code(name) and not is_hub(name) and split_reference(str(name)) is None


def _said(identity: dict[str, Any], outputs: Outputs) -> dict[str, Any]:
    """Return what identifies a classifier, with what it answers with where that is not logits."""
    return identity if outputs == "logits" else {**identity, "outputs": outputs}


def _load_judge(name: str | Path, dataset: Source) -> _Loaded:
    loaded = _load(name, "classifier", dataset)
    if isinstance(loaded.module, Denoiser) or loaded.metadata.get("task") in DENOISERS:
        raise BadInput(f"network {str(name)!r}", "is no classifier", "pass it as weights")
    task = loaded.metadata.get("task")
    if task in (SELECTOR, REPRESENTATION):
        fix = "pass it as selector" if task == SELECTOR else "train a classifier from it"
        raise BadInput(f"network {str(name)!r}", "is no classifier", fix)
    if task == LEVELLED:
        rule, fix = "receives the noise level of its images", "use --defense rrcm"
        raise BadInput(f"classifier {str(name)!r}", rule, fix)
    trust(loaded.module, _shape(loaded.metadata))
    return loaded


def load_joint(
    dataset: Source, weights: str | Path | None = None
) -> tuple[JointClassifier, dict[str, Any]]:
    """Load a joint classifier and discriminator, and what identifies it in records.

    Args:
        dataset: A data set's name.
        weights: As `load_classifier`; None for the shipped joint model. A classifier that was not
            trained to discriminate is taken too, and has no reference level `l0`.

    Raises:
        BadInput: as `load_judge`.

    Example:
        >>> load_joint("digits", "digits-classifier")[0].l0 is None
        True
    """
    name = f"{dataset_info(dataset).networks}-joint" if weights is None else weights
    judge, identity = load_judge(dataset, name)
    if isinstance(judge, JointClassifier):
        return judge, identity
    joint = JointClassifier(judge)
    return trust(joint, trusted_shape(judge)) if is_trusted(judge) else joint, identity


def load_selector(dataset: Source, weights: str | Path) -> tuple[nn.Module, dict[str, str]]:
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
    selector, metadata, identity = _load(weights, "selector", dataset)
    if metadata.get("task") != SELECTOR:
        raise BadInput(
            f"network {str(weights)!r}",
            "is no selector",
            "train one, see advpure train digits-selector-025",
        )
    _check_shape(metadata, dataset)
    return selector, identity


def load_levelled(
    dataset: str = DEFAULT_DATASET, weights: str | Path | None = None
) -> LevelledClassifier:
    """Load the classifiers of a data set that receive the noise level, as one.

    Args:
        dataset: A data set's name.
        weights: Shipped names or weights files, one or a comma list; None for all that ship for
            the data set. Each level goes to the one that was trained for the fewest.

    Returns:
        The classifier; `at(sigma)` gives it the noise level.

    Raises:
        BadInput: when there are none, and for networks of another kind or for other images.

    Example:
        >>> classifier = load_levelled("digits").at(0.25)
        >>> round(classifier.node, 5)
        0.49271
    """
    return _load_levelled(dataset, weights)[0]


def _load_levelled(
    dataset: str, weights: str | Path | None
) -> tuple[LevelledClassifier, dict[str, Any]]:
    """Load classifiers that receive the noise level, and what identifies them in records."""
    if weights is None:
        shipped = f"{dataset_info(dataset).networks}-rrcm"
        names = [each for each in list_models() if each.startswith(shipped)]
        names = [each for each in names if _tuned_at(each)]
        if not names:
            raise BadInput(
                f"data set {dataset!r}",
                "has no classifier here that receives the noise level",
                f"train one, advpure train {shipped}, and pass --classifier FILE",
            )
    else:
        names = [name for name in str(weights).split(",") if name]
    parts = [_load(name, "levelled") for name in names]
    levels = []
    for name, part in zip(names, parts, strict=True):
        if part.metadata.get("task") != LEVELLED:
            raise BadInput(
                f"network {name!r} of task {str(part.metadata.get('task'))!r}",
                "is no classifier that receives the noise level",
                "train one, see advpure train digits-rrcm",
            )
        _check_shape(part.metadata, dataset)
        levels.append(NoiseLevels.of(part.metadata, name))
    sums = [part.identity["sha256"] for part in parts]
    together = sums[0] if len(sums) == 1 else hashlib.sha256("".join(sums).encode()).hexdigest()
    identity = {
        "name": ",".join(part.identity["name"] for part in parts),
        "sha256": together,
        "nodes": [each.nodes for each in levels],
        **(
            {"images_seen": seen}
            if (seen := sum(all_images(each.metadata) for each in parts))
            else {}
        ),
    }
    classifier = LevelledClassifier([part.module for part in parts], levels)
    return classifier, identity


def _tuned_at(name: str) -> Sequence[float]:
    """Return the levels that a shipped network was tuned to classify at, none for another kind."""
    metadata = read_header(model_path(name))["metadata"]
    levels: Sequence[float] = metadata.get("noise_sigmas", ())
    return levels if metadata.get("task") == LEVELLED else ()


def _judge_of_level(
    recipe: Any, dataset: str, classifier: Any, idle: Mapping[str, Any]
) -> tuple[LevelledClassifier, dict[str, Any]]:
    """Load the classifier of a purifier that leaves its noise, for its level.

    Raises:
        BadInput: for a classifier of another kind, another N, or settings that mean nothing to it.
    """
    for name, value in idle.items():
        if value:
            raise BadInput(f"{name} {value}", "means nothing to rrcm", "leave it out")
    if isinstance(classifier, LevelledClassifier):
        judge, identity = classifier, _identity(classifier)
    elif classifier is None or isinstance(classifier, str | Path):
        judge, identity = _load_levelled(dataset, classifier)
    else:
        rule, fix = "does not receive the noise level", "name weights of a levelled classifier"
        raise BadInput(f"classifier {code_of(classifier).name}", rule, fix)
    for levels in judge.levels if recipe.nodes is not None else ():
        if levels.nodes != recipe.nodes:
            raise BadInput(
                f"nodes {recipe.nodes}",
                f"are not the N of the classifier, which was trained with {levels.nodes}",
                "leave nodes out",
            )
    return _of_level(judge, recipe.level / 2, dataset), identity


def _of_level(judge: LevelledClassifier, sigma: float, dataset: str) -> LevelledClassifier:
    """Return a levelled classifier for one level, known to be steady."""
    view = judge.at(sigma)
    trust(view, dataset_info(dataset).shape)
    return view


def _shape(metadata: Mapping[str, Any]) -> tuple[int, ...] | None:
    """Return the shape of the images that a network of ours was trained on, where it says.

    Raises:
        BadInput: for a data set that nobody knows, or one whose images are of another size than
            the settings of the network say.
    """
    trained = metadata.get("dataset")
    if trained is None or (trained not in DATASETS and (is_place(trained) or "/" in str(trained))):
        return None  # files and folders of a user may be elsewhere by now
    called = f"network {metadata.get('name', 'file')!r}"
    if not isinstance(trained, str) or not (trained in DATASETS or DATASETS.takes(trained)):
        rule = f"says that it was trained on {shown(trained)}, which is no data set here"
        raise BadInput(called, rule, f"obtain it again; known: {', '.join(DATASETS)}")
    if trained not in DATASETS:  # code of a user, which is not run for this
        return None
    shape, config = dataset_info(trained).shape, metadata.get("config") or {}
    said = (config.get("image_channels", shape[0]), config.get("image_size", shape[1]))
    if said != shape[:2]:
        rule = f"says {said[0]} channels of side {said[1]}, and {trained} images {list(shape)}"
        raise BadInput(called, rule, "obtain it again")
    return shape


def _check_shape(metadata: Mapping[str, Any], dataset: Source) -> None:
    """Refuse a network of ours that was trained on images of another shape."""
    trained, theirs, ours = metadata.get("dataset"), _shape(metadata), dataset_info(dataset).shape
    if theirs is not None and theirs != ours:
        raise BadInput(
            f"network {metadata.get('name', 'file')!r} for {trained} images {list(theirs)}",
            f"does not fit {dataset} images {list(ours)}",
            f"choose one for {dataset}, or pass --dataset {trained}",
        )
    size = (metadata.get("config") or {}).get("image_size", ours[1])
    if theirs is None and size not in ours[1:]:
        raise BadInput(
            f"network {metadata.get('name', 'file')!r} for images of side {size}",
            f"does not fit {dataset} images {list(ours)}",
            f"choose one for {dataset}",
        )


def _classifier_name(dataset: Source, weights: str | Path | None) -> str | Path:
    name = dataset_info(dataset).classifier if weights is None else weights
    if name is None:
        raise BadInput(
            f"data set {dataset!r}",
            "has no classifier here",
            "pass --classifier FILE (classifier=FILE in Python)",
        )
    return name


def load_booster(
    model: Any,
    dataset: str = DEFAULT_DATASET,
    options: Mapping[str, Any] | None = None,
    *,
    debias: Tensor | None = None,
) -> Booster:
    """Load a booster, which refines images of a data set by a joint model.

    Args:
        model: ``joint`` or ``robust`` for the shipped network of the data set, another shipped
            name, a weights file, an official ``NAME:FILE``, code of yours as
            ``file.py:attribute``, or a module from images in [0, 1] to logits.
        dataset: A data set's name.
        options: Fields of `advpure.boosting.settings.BoostSettings`, as values or as text.
        debias: What is added to the logits, [K], before a class is chosen.

    Raises:
        BadInput: for a name, file or option that cannot be used, a model of images of another
            shape, or a loss that needs an l0 which the model does not have.
    """
    title = model if isinstance(model, str | Path) else type(model).__name__
    settings = read_options(BoostSettings, dict(options or {}), f"booster {title}")
    taken = {} if settings.schedule is None else {"schedule": settings.schedule}
    settings = settings.for_images(math.prod(dataset_info(dataset).shape))
    if isinstance(model, nn.Module):
        return Booster(model, settings, debias=debias, identity={**_identity(model), **taken})
    instance(model, (str, Path), "booster", "name joint, a file, or file.py:NAME")
    shipped, known = f"{dataset_info(dataset).networks}-{model}", list_models()
    is_word = len(Path(model).parts) == 1 and not Path(model).suffix and ":" not in str(model)
    if is_word and model not in known and shipped not in known and kind_of(Path(model)) is None:
        rule = f"has no shipped network {shipped}"
        raise BadInput(f"data set {dataset!r}", rule, "name weights: --boost FILE")
    joint, identity = load_joint(dataset, shipped if shipped in known else model)
    function = getattr(joint.network, "function", None)
    if isinstance(joint.network, OwnModel):
        if joint.network.is_random:
            fix = "name a model without randomness"
            raise BadInput(f"booster {model}", "draws random numbers", fix)
        level = getattr(function, "l0", None)
        joint.l0 = None if level is None else number(level, f"l0 of {model}")
    return Booster(joint, settings, debias=debias, identity={**identity, **taken})


def lineage(model: str | Path) -> set[str]:
    """Return the sha256 of a network and, of one of ours, of those whose weights it began with.

    Args:
        model: A shipped name or a weights file. A teacher that is not here ends the chain.

    Raises:
        BadInput: for a file that is missing.
    """
    path = Path(model)
    if not path.suffix and len(path.parts) == 1 and kind_of(path) != "folder":
        path = model_path(str(model))
    own = {sha256(path)}
    if path.suffix != ".safetensors":
        return own
    try:
        metadata = read_header(path)["metadata"]
    except BadInput:  # a file of somebody else's
        return own
    teacher, digest = metadata.get("teacher"), metadata.get("teacher_sha256")
    if not teacher or not digest:
        return own
    try:
        before = lineage(str(teacher))
    except BadInput:
        return own | {str(digest)}
    return own | {str(digest)} | (before if digest in before else set())


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
        >>> purifier = load_purifier(lambda images: images / 2, "digits")
        >>> purifier(torch.ones(1, 1, 8, 8)).max().item()
        0.5
    """
    purifier = _load_purifier(
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


def _load_purifier(
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
        denoiser, settings["denoiser"] = _load_denoiser(model, dataset)
    elif denoiser is not None:
        denoiser, settings["denoiser"] = own_denoiser(denoiser)
    elif weights is not None:
        raise BadInput(f"weights {weights}", f"mean nothing to {name}", "leave out the weights")
    model_name = settings.get("denoiser", {}).get("name", "")
    _note_other_kind(name, recipe, denoiser, model_name)
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
        tile=_tile(dataset, tile),
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
    view.settings, view.tile, view.ids = settings, _tile(dataset, tile), None
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


_FAR = 0.5
"""By how much a purifier may leave [0, 1] and be one of images in [0, 1] all the same."""


def _note_range(name: str, least: float, most: float) -> None:
    """Say that a purifier answers with images in another range than it is given."""
    warnings.warn(
        f"{name} answers images in [0, 1] with values from {least:.3g} to {most:.3g}, and what "
        "follows is about those; map them back to [0, 1] in its code",
        UserWarning,
        stacklevel=4,
    )


def own_denoiser(given: Any) -> tuple[Denoiser, dict[str, Any]]:
    """Return a denoiser of a user's, by name or an object, and what identifies it in records.

    A function or module of (state, sigma), both in model units, will do.

    Raises:
        BadInput: for what is no denoiser.

    Example:
        >>> own_denoiser(lambda x, sigma: x / (1 + sigma**2))[0](torch.ones(1, 1, 1, 1), 1.0).item()
        0.5
    """
    if isinstance(given, Denoiser):
        return given, _identity(given)
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
    warnings.warn(f"{model} is {there}; {name} is made for {made}", UserWarning, stacklevel=4)


def load_defense(
    name: Any,
    dataset: Source = DEFAULT_DATASET,
    *,
    t: int | None = None,
    sigma: float | None = None,
    xi: RandomnessConfig | None = None,
    gradient: GradientMode | None = None,
    policy: Policy | str | None = None,
    tile: int | None = None,
    weights: str | Path | None = None,
    denoiser: Any = None,
    classifier: nn.Module | Callable[..., Any] | str | Path | None = None,
    outputs: Outputs = "logits",
    normalize: str | None = None,
    classifier_options: Mapping[str, Any] | None = None,
    boost: Any = None,
    boost_options: Mapping[str, Any] | None = None,
    precision: Precision = "float32",
    **options: Any,
) -> Defense:
    """Load a defense: purifier and classifier, a module from images in [0, 1] to logits.

    Args:
        name: A purifier as in `load_purifier`, or a model that is a whole defense, from images in
            [0, 1] to logits; then without a classifier.
        dataset: The data set whose networks and tile it uses.
        t: Strength in time steps.
        sigma: Strength as noise level in [0, 1] units, instead of t.
        xi: Randomness configuration.
        gradient: Gradient mode; exact by default.
        policy: ``single``, ``eot:K``, ``majority:K`` or a `Policy`; by default single, and
            DensePure's own vote.
        tile: Compute tile; the data set's by default, 0 for none.
        weights: Weights of the denoiser: a file, a shipped name or an official ``NAME:FILE``.
        denoiser: A denoiser instead, an object or code of yours.
        classifier: A module or function from [0, 1] images to logits, or as in `load_classifier`.
        outputs: What the classifier answers with: ``logits``, ``probabilities`` or ``labels``; see
            `advpure.core.outputs`, also for the cost.
        normalize: MEAN/STD of the images that the classifier takes, comma lists.
        classifier_options: Arguments of a classifier that is code of yours.
        boost: A booster between purifier and classifier, see `load_booster`; None for none.
        boost_options: Fields of `advpure.boosting.settings.BoostSettings`.
        precision: What purifier and classifier are computed in: ``float32``, ``bfloat16`` or
            ``float16``; see `advpure.core.precision`.
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
    purifier = _load_purifier(
        name,
        dataset,
        t=t,
        sigma=sigma,
        gradient=gradient,
        weights=weights,
        denoiser=denoiser,
        tile=0,
        boost=boost,
        boost_options=boost_options,
        precision=precision,
        **options,
    )
    judge: nn.Module
    is_whole = purifier.model is not None and purifier.model.answers == "classes"
    if isinstance(name, Defense):
        if classifier is not None or normalize is not None:
            fix = "leave --classifier and --normalize out"
            raise BadInput(f"defense {name.purifier.name}", "has its classifier", fix)
        known = name.purifier.settings.get("classifier")
        judge, identity = name.classifier, known or _identity(name.classifier)
        policy = name.policy if policy is None else policy
    elif is_whole:
        assert purifier.model is not None
        if classifier is not None or normalize is not None:
            fix = "leave --classifier and --normalize out"
            raise BadInput(purifier.model.name, "is a whole defense, with its classifier", fix)
        judge, identity = purifier.model, {"name": purifier.name, "is": "the whole defense"}
        purifier = Purifier(purifier.name, Chain(), settings=purifier.settings, gradient=gradient)
    elif PURIFIERS.get(name).levelled:
        idle = {"normalize": normalize, "classifier_options": classifier_options}
        judge, identity = _judge_of_level(purifier.recipe, dataset, classifier, idle)
    elif classifier is None or isinstance(classifier, str | Path):
        judge, identity = load_judge(dataset, classifier, outputs, normalize, classifier_options)
    elif isinstance(classifier, nn.Module) and is_trusted(classifier) and normalize is None:
        judge = _answering(classifier, dataset, outputs)
        identity = _said(_identity(classifier), outputs)
    else:
        judge, identity = own_classifier(
            classifier, code_of(classifier), dataset, outputs, normalize, is_strict=False
        )
        identity = _said(identity, outputs)
    if precision != "float32" and not is_whole:
        judge = _lowered(judge, precision, outputs, dataset)
    if isinstance(policy, str):
        policy = Policy.parse(policy)
    votes = PURIFIERS.get(name).votes
    if policy is not None:
        instance(policy, Policy, "policy", "write eot:10, or pass a Policy")
        is_random = purifier.is_random or (isinstance(judge, OwnModel) and judge.is_random)
        if policy.draws > 1 and not is_random:
            raise BadInput(
                f"policy {policy.kind}:{policy.draws}",
                f"means nothing to {purifier.name}, which draws no noise",
                "leave it out",
            )
    if policy is None and votes > 1:
        policy = Policy("majority", votes, reverse_only=True)
    purifier.settings["classifier"] = identity
    tile = _tile(dataset, tile)
    defense = Defense(purifier, judge, xi=xi, policy=policy, tile=tile)
    defense.training = purifier.training = False  # and not .eval(), which would switch the parts
    return defense


def _lowered(
    judge: nn.Module, precision: Precision, outputs: Outputs, dataset: Source
) -> nn.Module:
    """Return a classifier that is computed in a lower precision.

    Raises:
        BadInput: for one that cannot be, or whose logits would be logarithms of rounded numbers.
    """
    if outputs == "probabilities":
        rule = "rounds probabilities, and their logarithms are the logits"
        raise BadInput(f"precision {precision}", rule, "let the classifier answer with logits")
    if isinstance(judge, OwnModel):
        lower(judge, precision, dataset_info(dataset).shape, dataset_info(dataset).tile)
        return judge
    return classifier_in(judge, precision)


def describe(defense: Defense) -> dict[str, Any]:
    """Return everything that a defense's answers depend on, as JSON values."""
    return {
        **defense.purifier.settings,
        "gradient": defense.purifier.gradient,
        "policy": dataclasses.asdict(defense.policy),
        "tile": defense.tile,
        "evaluations": defense.evaluations,
    }


def _tile(dataset: Source, tile: int | None) -> int | None:
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
