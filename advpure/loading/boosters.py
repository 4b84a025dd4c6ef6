"""Boosters: joint models with the settings by which they refine images."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from advpure.base.defaults import DEFAULT_DATASET
from advpure.base.documents import kind_of
from advpure.base.errors import BadInput
from advpure.base.validation import instance, number
from advpure.boosting.booster import Booster
from advpure.boosting.settings import MEASURED, BoostSettings
from advpure.core.own import OwnModel
from advpure.core.tiling import tiled
from advpure.data import dataset_info, load_images
from advpure.loading.classifiers import load_joint
from advpure.loading.weights import identity_of
from advpure.models import list_models
from advpure.networks.joint import generated_losses, realness
from advpure.options import read_options

_REAL = 500
"""Real images, at least, that l0 is measured over."""


def load_booster(
    model: Any,
    dataset: str = DEFAULT_DATASET,
    options: Mapping[str, Any] | None = None,
    *,
    debias: Tensor | None = None,
) -> Booster:
    """Load a booster, which refines images of a data set by a joint model.

    Args:
        model: ``joint``, ``robust-l2`` ... for a shipped network of the data set, another shipped
            name, a weights file, an official ``NAME:FILE``, code of yours as
            ``file.py:attribute``, or a module from images in [0, 1] to logits.
        dataset: A data set's name.
        options: Fields of `advpure.boosting.settings.BoostSettings`, as values or as text. With
            ``l0=measured`` it is the mean over 500 to 1,000 training images, spread over the split.
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
        settings, own = _levelled(model, settings, dataset)
        identity = {**identity_of(model), **taken, **own}
        return Booster(model, settings, debias=debias, identity=identity)
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
    settings, own = _levelled(joint, settings, dataset)
    return Booster(joint, settings, debias=debias, identity={**identity, **taken, **own})


def _levelled(
    model: nn.Module, settings: BoostSettings, dataset: str
) -> tuple[BoostSettings, dict[str, str]]:
    """Return settings with l0 as a number, and over which images it was measured."""
    if settings.l0 != MEASURED:
        return settings, {}
    if not settings.uses_reference:
        return replace(settings, l0=None), {}
    info = dataset_info(dataset)
    subset = f"train/every-{max(1, info.splits.get('train', 1) // _REAL)}"
    images = load_images(dataset, subset=subset)
    with torch.no_grad():  # a measurement
        level = realness(tiled(model, info.tile)(images.images), images.labels)
    l0 = float(generated_losses(level).double().mean())
    return replace(settings, l0=l0), {"l0_measured_over": subset}
