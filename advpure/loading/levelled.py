"""Classifiers that receive the noise level of their images."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from advpure.base.defaults import DEFAULT_DATASET
from advpure.base.errors import BadInput
from advpure.base.imports import code_of
from advpure.core.levelled import LEVELLED, LevelledClassifier, NoiseLevels
from advpure.core.steady import trust
from advpure.data import dataset_info
from advpure.loading.classifiers import is_code
from advpure.loading.weights import check_shape, identity_of, load_weights
from advpure.models import list_models, model_path
from advpure.networks.weights import all_images, read_header


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
    return named_levelled(dataset, weights)[0]


def named_levelled(
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
    parts = [load_weights(name, "levelled") for name in names]
    levels = []
    for name, part in zip(names, parts, strict=True):
        if part.metadata.get("task") != LEVELLED:
            raise BadInput(
                f"network {name!r} of task {str(part.metadata.get('task'))!r}",
                "is no classifier that receives the noise level",
                "train one, see advpure train digits-rrcm",
            )
        check_shape(part.metadata, dataset)
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


def judge_of_level(
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
        judge, identity = classifier, identity_of(classifier)
    elif classifier is None or (isinstance(classifier, str | Path) and not is_code(classifier)):
        judge, identity = named_levelled(dataset, classifier)
    else:
        named = classifier if isinstance(classifier, str) else code_of(classifier).name
        rule, fix = "does not receive the noise level", "name weights of a levelled classifier"
        raise BadInput(f"classifier {named}", rule, fix)
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
