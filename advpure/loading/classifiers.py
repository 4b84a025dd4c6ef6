"""Classifiers, joint models and selectors of a data set, by name, file or code."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from torch import nn

from advpure.base.defaults import DEFAULT_DATASET
from advpure.base.errors import BadInput
from advpure.base.imports import Code, names_code
from advpure.base.validation import check_choice
from advpure.checkpoints.hub import CACHED, RANDOM, hub_network, is_hub
from advpure.checkpoints.loader import split_reference
from advpure.core.denoisers import DENOISERS, Denoiser
from advpure.core.levelled import LEVELLED
from advpure.core.lowered import classifier_in, lower
from advpure.core.outputs import Outputs, as_logits
from advpure.core.own import OwnModel
from advpure.core.precision import Precision
from advpure.core.steady import is_trusted, trust, trusted_shape
from advpure.data import Source, dataset_info
from advpure.loading.weights import (
    REPRESENTATION,
    SELECTOR,
    Loaded,
    check_shape,
    image_shape,
    load_weights,
)
from advpure.networks.joint import JointClassifier
from advpure.options import read_values
from advpure.own_classifiers import (
    CLASSIFIERS,
    Normalize,
    exported_classifier,
    exported_identity,
    named_classifier,
    own_classifier,
)


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
        return model, with_outputs(facts, outputs)
    if options:
        fix = "leave them out, or name code, file.py:make"
        raise BadInput(f"options of classifier {name}", "mean nothing to weights", fix)
    program = None if split_reference(name) is not None else exported_classifier(Path(name))
    if program is not None:
        code = exported_identity(Path(name))
        model, facts = own_classifier(program, code, dataset, outputs, normalize, state=code.sha256)
        return model, with_outputs(facts, outputs)
    judge, metadata, identity = _load_judge(name, dataset)
    check_shape(metadata, dataset)
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
    return model, with_outputs({**facts, **identity}, outputs)


def is_code(name: object) -> bool:
    """Return whether a name of a network is code of a user's, and no official checkpoint."""
    return names_code(name) and not is_hub(name) and split_reference(str(name)) is None


def with_outputs(identity: dict[str, Any], outputs: Outputs) -> dict[str, Any]:
    """Return what identifies a classifier, with what it answers with where that is not logits."""
    return identity if outputs == "logits" else {**identity, "outputs": outputs}


def _load_judge(name: str | Path, dataset: Source) -> Loaded:
    loaded = load_weights(name, "classifier", dataset)
    if isinstance(loaded.module, Denoiser) or loaded.metadata.get("task") in DENOISERS:
        raise BadInput(f"network {str(name)!r}", "is no classifier", "pass it as weights")
    task = loaded.metadata.get("task")
    if task in (SELECTOR, REPRESENTATION):
        fix = "pass it as selector" if task == SELECTOR else "train a classifier from it"
        raise BadInput(f"network {str(name)!r}", "is no classifier", fix)
    if task == LEVELLED:
        rule, fix = "receives the noise level of its images", "use --defense rrcm"
        raise BadInput(f"classifier {str(name)!r}", rule, fix)
    trust(loaded.module, image_shape(loaded.metadata))
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
    selector, metadata, identity = load_weights(weights, "selector", dataset)
    if metadata.get("task") != SELECTOR:
        raise BadInput(
            f"network {str(weights)!r}",
            "is no selector",
            "train one, see advpure train digits-selector-025",
        )
    check_shape(metadata, dataset)
    return selector, identity


def _classifier_name(dataset: Source, weights: str | Path | None) -> str | Path:
    name = dataset_info(dataset).classifier if weights is None else weights
    if name is None:
        raise BadInput(
            f"data set {dataset!r}",
            "has no classifier here",
            "pass --classifier FILE (classifier=FILE in Python)",
        )
    return name


def answering(judge: nn.Module, dataset: Source, outputs: Outputs) -> nn.Module:
    """Return a classifier of a data set that answers with logits."""
    wrapped = as_logits(judge, outputs, len(dataset_info(dataset).classes))
    return trust(wrapped, trusted_shape(judge)) if is_trusted(judge) else wrapped


def lowered(judge: nn.Module, precision: Precision, outputs: Outputs, dataset: Source) -> nn.Module:
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
