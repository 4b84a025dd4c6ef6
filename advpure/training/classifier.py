"""Classification by cross-entropy, with light Gaussian noise on the images."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from advpure.networks.weights import LoadedNetwork
from advpure.training.randomness import normal, uniform
from advpure.training.tasks import Batch, Task, right, take, validation_batch

_DEFAULTS = {"noise": 0.0, "label_smoothing": 0.0}


class ClassifierTask(Task):
    """Train a classifier of images in [0, 1].

    Args:
        dataset: Data set that is validated on.
        settings: noise (largest standard deviation, [0, 1] units; each image draws its own
            between 0 and it) and label_smoothing.
        teacher: None.
    """

    metric_name = "test_accuracy"

    def __init__(
        self, dataset: str, settings: Mapping[str, Any], teacher: LoadedNetwork | None = None
    ) -> None:
        """Check the settings and read the validation images."""
        values = take(settings, _DEFAULTS)
        self.noise, self.smoothing = float(values["noise"]), float(values["label_smoothing"])
        self.held_out = validation_batch(dataset, 1000)

    def losses(self, network: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        """Return the cross-entropy of each image, [B]."""
        images = batch.images
        if self.noise:
            level = self.noise * uniform((len(images), 1, 1, 1), generator)
            images = images + (level * normal(images.shape, generator)).to(images.device)
        return F.cross_entropy(
            network(images), batch.labels, reduction="none", label_smoothing=self.smoothing
        )

    def score(self, network: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        """Return which images are classified correctly, [B]."""
        return right(network(batch.images), batch.labels)

    def facts(self) -> dict[str, Any]:
        """Return nothing: images go in as they are."""
        return {}
