"""Train a classifier for randomized smoothing: Gaussian noise, and optionally consistency.

Each image x gets m noises of the same level sigma. With p_i = softmax f(x + sigma z_i) and their
mean p, minimise for each image

    mean_i CE(f(x + sigma z_i), y) + lambda mean_i KL(p || p_i) + eta H(p).

m = 1 and lambda = eta = 0 is Gaussian augmentation, the baseline of Cohen; m = 2 with eta = 0.5 and
lambda = 20 (sigma 0.25) or 10 (0.5 and 1) is consistency regularisation. The noisy images are not
clipped, as those of the certificate are not.

Source: [Cohen2019], section 3.3; [Jeong2020], section 3.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from advpure.base.errors import BadInput
from advpure.networks.weights import LoadedNetwork
from advpure.training.levels import LEVELS, Levels
from advpure.training.randomness import normal
from advpure.training.tasks import Batch, Task, right, take, validation_batch

_DEFAULTS = {"noises": 1, "consistency": 0.0, "entropy": 0.0, "label_smoothing": 0.0, **LEVELS}


def consistency_losses(
    logits: Tensor,
    labels: Tensor,
    *,
    consistency: float = 0.0,
    entropy: float = 0.0,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Return the loss of every image; see the module for the formula.

    Args:
        logits: Answers to the m noises of every image, [m, B, K].
        labels: Classes, int64 [B].
        consistency: The weight lambda.
        entropy: The weight eta.
        label_smoothing: Share of every target that is spread over all classes.

    Returns:
        [B]. Logarithms are of softmax, so nothing overflows where a probability vanishes.

    Example:
        >>> sure = torch.tensor([[[9.0, -9.0]], [[9.0, -9.0]]])
        >>> consistency_losses(sure, torch.tensor([0]), consistency=20.0, entropy=0.5).item() < 1e-5
        True
    """
    draws, rows, classes = logits.shape
    each = F.cross_entropy(
        logits.reshape(draws * rows, classes),
        labels.repeat(draws),
        reduction="none",
        label_smoothing=label_smoothing,
    ).reshape(draws, rows)
    lost = each.mean(0)
    if not (consistency or entropy):
        return lost
    log_each = logits.log_softmax(2)
    log_mean = torch.logsumexp(log_each, 0) - math.log(draws)
    mean = log_mean.exp()
    divergence = (mean * (log_mean - log_each)).sum(2).mean(0)
    return lost + consistency * divergence - entropy * (mean * log_mean).sum(1)


class SmoothedClassifierTask(Task):
    """Train the base classifier of a smoothed one.

    Args:
        dataset: Data set that is validated on.
        settings: noises (m), consistency (lambda), entropy (eta), label_smoothing, and sigmas or
            sigma_range (see `advpure.training.levels`, [0, 1] units).
        teacher: None.
    """

    metric_name = "noisy_accuracy"

    def __init__(
        self, dataset: str, settings: Mapping[str, Any], teacher: LoadedNetwork | None = None
    ) -> None:
        """Check the settings and read the validation images."""
        values = take(settings, _DEFAULTS)
        self.noises, self.smoothing = int(values["noises"]), float(values["label_smoothing"])
        self.consistency, self.entropy = float(values["consistency"]), float(values["entropy"])
        self.levels = Levels.of(values)
        if self.noises == 1 and self.consistency:
            raise BadInput(
                f"consistency {self.consistency:g} of one noise", "is always 0", "use noises = 2"
            )
        self.held_out = validation_batch(dataset, 1000)

    def noisy(self, images: Tensor, generator: torch.Generator, draws: int) -> Tensor:
        """Add noise to images, [draws * B, C, H, W]; an image keeps its level over the draws."""
        level = self.levels.draw(len(images), generator)[:, None, None, None]
        noise = normal((draws, *images.shape), generator)
        return (images + (level * noise).to(images.device)).flatten(0, 1)

    def losses(self, network: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        """Return the loss of each image, [B]; one network call for all its noises."""
        logits = network(self.noisy(batch.images, generator, self.noises))
        return consistency_losses(
            logits.reshape(self.noises, len(batch.labels), -1),
            batch.labels,
            consistency=self.consistency,
            entropy=self.entropy,
            label_smoothing=self.smoothing,
        )

    def score(self, network: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        """Return which images are classified correctly under noise, [B]."""
        return right(network(self.noisy(batch.images, generator, 1)), batch.labels)

    def facts(self) -> dict[str, Any]:
        """Return at which noise it answers."""
        return {
            "task": "classifier",
            "trained_sigma": str(self.levels),
            "noise_sigmas": list(self.levels.values) or [self.levels.high],
        }
