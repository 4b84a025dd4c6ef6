"""Fine-tune a classifier on what a denoiser makes of noisy images.

Each visit of an image draws new noise: minimise the cross-entropy of the classifier on
clip(D(2 x - 1 + 2 sigma z; 2 sigma)), in [0, 1]. The denoiser is fixed.

Source: [Carlini2023], table 1, "finetuned".
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from advpure.base.errors import BadInput
from advpure.base.units import to_model, to_unit
from advpure.core.denoisers import Denoiser
from advpure.networks.weights import LoadedNetwork, sha256
from advpure.training.levels import LEVELS, Levels
from advpure.training.randomness import normal, step_generator
from advpure.training.tasks import Batch, Task, right, take, validation_batch

_DEFAULTS = {"denoiser": "", "label_smoothing": 0.0, **LEVELS}


class DenoisedClassifierTask(Task):
    """Fine-tune a classifier behind a denoiser.

    Args:
        dataset: Data set that is validated on.
        settings: denoiser (a shipped name or a weights file), label_smoothing, and sigmas or
            sigma_range (see `advpure.training.levels`).
        teacher: The classifier to start from.
    """

    metric_name = "denoised_accuracy"

    def __init__(
        self, dataset: str, settings: Mapping[str, Any], teacher: LoadedNetwork | None = None
    ) -> None:
        """Check the settings, load the denoiser, read and denoise the validation images."""
        values = take(settings, _DEFAULTS)
        if teacher is None or teacher.metadata.get("task") != "classifier":
            raise BadInput("teacher", "is no classifier", "give the classifier to start from")
        if not values["denoiser"]:
            raise BadInput("denoiser", "is not given", "name one in the recipe's [loss]")
        self.name, self.smoothing = str(values["denoiser"]), float(values["label_smoothing"])
        self.levels = Levels.of(values)
        self.denoiser, self.sum = _load(self.name)
        held_out = validation_batch(dataset, 500)
        purified = self.purify(held_out.images, step_generator(0, "validation"))
        self.held_out = Batch(purified, held_out.labels)

    def purify(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Add noise and denoise once.

        Args:
            images: [B, C, H, W] in [0, 1].
            generator: Draws levels and noise.

        Returns:
            Images in [0, 1], of the same shape, without gradient.
        """
        level = self.levels.draw(len(images), generator).to(images.device)
        noise = normal(images.shape, generator).to(images.device)
        noisy = to_model(images) + 2.0 * level[:, None, None, None] * noise
        with torch.no_grad():  # the denoiser is fixed and the images are data
            self.denoiser.to(images.device)
            lowest = torch.full_like(level, self.denoiser.sigma_min)
            return to_unit(self.denoiser(noisy, torch.maximum(2.0 * level, lowest))).clamp(0, 1)

    def losses(self, network: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        """Return the cross-entropy of each denoised image, [B]."""
        purified = self.purify(batch.images, generator)
        return F.cross_entropy(
            network(purified), batch.labels, reduction="none", label_smoothing=self.smoothing
        )

    def score(self, network: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        """Return which images, denoised from fixed noise, are classified correctly, [B]."""
        return right(network(batch.images), batch.labels)

    def facts(self) -> dict[str, Any]:
        """Return which denoiser stands in front, and at which noise."""
        return {
            "task": "classifier",
            "denoiser": self.name,
            "denoiser_sha256": self.sum,
            "trained_sigma": str(self.levels),
        }


def _load(name: str) -> tuple[Denoiser, str]:
    """Load a denoiser, shipped or from a file, and its SHA-256 sum."""
    from advpure.loading import load_denoiser
    from advpure.models import model_path

    path = Path(name) if Path(name).suffix else model_path(name)
    return load_denoiser(path), sha256(path)
