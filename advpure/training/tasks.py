"""What a task is: a loss per sample, a fixed validation metric, and what must be stored with it."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from advpure.data import load_images
from advpure.errors import BadInput
from advpure.training.recipe import Recipe
from advpure.weights import LoadedNetwork


class Batch(NamedTuple):
    """Training images in [0, 1], float32 [B, C, H, W], and their labels, int64 [B]."""

    images: Tensor
    labels: Tensor


class Task(ABC):
    """A way to train a network; one subclass a file."""

    metric_name: str
    """Name of the validation metric, for the log."""

    @abstractmethod
    def losses(self, network: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        """Return the loss of every sample, [B]; the trainer minimises the mean."""

    @abstractmethod
    def metric(self, network: nn.Module) -> float:
        """Return the validation metric: always the same images and noise."""

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """Return what users of the weights must know, JSON values."""


def take(settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Fill in the loss settings of a recipe.

    Raises:
        BadInput: for a setting that the task does not have.
    """
    unknown = sorted(set(settings) - set(defaults))
    if unknown:
        raise BadInput(
            f"loss setting {unknown[0]!r}", "is unknown", f"use {', '.join(defaults) or 'none'}"
        )
    return {**defaults, **settings}


def validation_batch(dataset: str, limit: int) -> Batch:
    """Return the first test images of a data set; they only measure, nothing is chosen by them."""
    images, labels, _ = load_images(dataset)
    return Batch(images[:limit], labels[:limit])


def make_task(recipe: Recipe, teacher: LoadedNetwork | None) -> Task:
    """Build the task of a recipe.

    Args:
        recipe: The recipe.
        teacher: The network to distil from, where the task needs one.
    """
    from advpure.training.classifier import ClassifierTask
    from advpure.training.consistency import ConsistencyTask
    from advpure.training.edm import EDMTask

    if recipe.task == "edm":
        return EDMTask(recipe.dataset, recipe.loss)
    if recipe.task == "classifier":
        return ClassifierTask(recipe.dataset, recipe.loss)
    if teacher is None:
        raise BadInput(f"recipe {recipe.name}", "has no teacher", "give one")
    return ConsistencyTask(recipe.dataset, recipe.loss, teacher)
