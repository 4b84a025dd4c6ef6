"""Diffusion calibration: fine-tune a denoiser through a fixed classifier, its guide.

Each image x of class y gets m noises of one level sigma and m one-shot estimates
x_i = D(2 x - 1 + 2 sigma z_i; 2 sigma). With p_i = softmax F(x_i) of the guide F and their mean p,
minimise for each image

    mean_i |p_i - e_y|^2 - w [argmax p != y] J,   J = H(p) - mean_i H(p_i).

The first term is Brier's score: estimates move to where the guide is right and as sure as it should
be. The second acts where the vote of the m estimates is wrong, so that the image is not
recoverable: it spreads the answers, since an image whose answers agree on a wrong class is lost for
a certificate and one whose answers disagree abstains. J, the Jensen-Shannon divergence of the
answers, lies between 0 and log m, so the loss is bounded below by -w log m.

Re-derived: the paper names both ideas and its training code is not public. The form of the second
term, its weight, the optimiser and the number of steps are our own, and results with it are no
reproduction.

Source: after [Jeong2023], a baseline of [Li2024] (tables 2 and 6).
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from advpure.base.errors import BadInput
from advpure.base.units import to_model, to_unit
from advpure.core.denoisers import EDMDenoiser
from advpure.networks.weights import LoadedNetwork, state_sha256
from advpure.training.levels import LEVELS, Levels
from advpure.training.noise_ranges import noise_range
from advpure.training.randomness import normal
from advpure.training.tasks import Batch, Task, fixed_classifier, right, take, validation_batch

_DEFAULTS = {"guide": "", "draws": 2, "diversity": 0.1, **LEVELS, "sigmas": (0.25, 0.5, 1.0)}


def calibration_losses(logits: Tensor, labels: Tensor, *, diversity: float) -> Tensor:
    """Return the loss of every image; see the module for the formula.

    Args:
        logits: The guide's answers to the m estimates of every image, [m, B, K].
        labels: Classes, int64 [B].
        diversity: The weight w.

    Returns:
        [B]. Whether a vote is wrong is a constant, no gradient flows through it.

    Example:
        >>> wrong = torch.tensor([[[30.0, 0.0, 0.0]], [[0.0, 30.0, 0.0]]])
        >>> calibration_losses(wrong, torch.tensor([2]), diversity=0.0).tolist()
        [2.0]
        >>> round(2.0 - calibration_losses(wrong, torch.tensor([2]), diversity=1.0).item(), 4)
        0.6931
    """
    log_each = logits.log_softmax(2)
    each = log_each.exp()
    target = F.one_hot(labels, logits.shape[2]).to(logits.dtype)
    brier = (each - target).square().sum(2).mean(0)
    if not diversity:
        return brier
    log_mean = torch.logsumexp(log_each, 0) - math.log(len(logits))
    spread = (each * (log_each - log_mean)).sum(2).mean(0)
    lost = (log_mean.argmax(1) != labels).to(logits.dtype)
    return brier - diversity * lost * spread


class CalibrationTask(Task):
    """Fine-tune a denoiser through a classifier.

    Args:
        dataset: Data set that is validated on.
        settings: guide (a classifier: a shipped name or a weights file), draws (m), diversity (w),
            and sigmas or sigma_range (see `advpure.training.levels`, [0, 1] units).
        teacher: The denoiser to start from, of the EDM task; its noise range is taken over.
    """

    metric_name = "purified_accuracy"

    def __init__(
        self, dataset: str, settings: Mapping[str, Any], teacher: LoadedNetwork | None = None
    ) -> None:
        """Check the settings, load the guide, read the validation images."""
        base = {**_DEFAULTS, "sigmas": ()} if settings.get("sigma_range") else _DEFAULTS
        values = take(settings, base)
        assert teacher is not None
        self.range = noise_range(teacher, "edm")
        self.draws, self.diversity = int(values["draws"]), float(values["diversity"])
        if self.draws == 1 and self.diversity:
            raise BadInput("diversity of one draw", "is always 0", "use draws = 2")
        if not values["guide"]:
            raise BadInput("guide", "is not given", "name a classifier in the recipe's [loss]")
        self.levels, self.name = Levels.of(values), str(values["guide"])
        self.guide = fixed_classifier(self.name, dataset)
        self.held_out = validation_batch(dataset, 500)

    def answers(
        self, network: nn.Module, images: Tensor, generator: torch.Generator, draws: int
    ) -> Tensor:
        """Return the guide's logits of one-shot estimates, [draws, B, K]."""
        level = 2.0 * self.levels.draw(len(images), generator)
        noise = normal((draws, *images.shape), generator)
        level = level.clamp(min=self.range["sigma_min"])
        added = (level[:, None, None, None] * noise).to(images.device)
        noisy = (to_model(images) + added).flatten(0, 1)
        conditions = level.to(images.device).repeat(draws)
        estimates = EDMDenoiser(network, **self.range)(noisy, conditions)
        logits: Tensor = self.guide.to(images.device)(to_unit(estimates))
        return logits.reshape(draws, len(images), -1)

    def losses(self, network: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        """Return the loss of each image, [B]; one network call for all its estimates."""
        logits = self.answers(network, batch.images, generator, self.draws)
        return calibration_losses(logits, batch.labels, diversity=self.diversity)

    def score(self, network: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        """Return which images the guide classifies correctly after one denoising, [B]."""
        return right(self.answers(network, batch.images, generator, 1)[0], batch.labels)

    def facts(self) -> dict[str, Any]:
        """Return the noise range, what was drawn, and the guide."""
        return {
            **self.range,
            "task": "edm",
            "trained_sigma": str(self.levels),
            "guide": self.name,
            "guide_sha256": state_sha256(self.guide),
            "derivation": "re-derived",
        }
