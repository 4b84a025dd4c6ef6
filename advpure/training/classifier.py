"""Classification by cross-entropy, with light Gaussian noise on the images."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from advpure.networks.weights import LoadedNetwork
from advpure.training.tasks import Batch, Task, take, validation_batch

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
            level = self.noise * torch.rand(
                len(images), 1, 1, 1, generator=generator, dtype=torch.float32, device="cpu"
            )
            noise = torch.randn(
                images.shape, generator=generator, dtype=torch.float32, device="cpu"
            )
            images = images + (level * noise).to(images.device)
        return F.cross_entropy(
            network(images), batch.labels, reduction="none", label_smoothing=self.smoothing
        )

    def metric(self, network: nn.Module) -> float:
        """Return the accuracy on up to 1,000 held-out images."""
        batch = self.held_out.to(network)
        with torch.no_grad():  # a number for the log: nothing differentiates it
            predicted = network(batch.images).argmax(dim=1)
        return float((predicted == batch.labels).float().mean())

    def facts(self) -> dict[str, Any]:
        """Return nothing: images go in as they are."""
        return {}
