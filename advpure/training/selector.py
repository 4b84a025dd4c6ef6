"""Train the selector of a composition: does the certified classifier know this image under noise?

The certified classifier f answers m noises of level sigma. The target of an image x of class y is

    q(x) = 1 if at least a share p of the answers is y, else 0,

and the selector s, a network of two answers, sees one more noisy version of the same image:
minimise w_q CE(s(x + sigma z), q(x)), with w_0 the weight of images that are left to the core and
w_1 = 1. It learns from the images that f was trained on, which f knows better than new ones; p near
1 and a large w_0 make up for some of that. None of it touches the guarantee: a composition is
certified for whatever its selector answers, see `advpure.analysis.certification.composition`.

Source: in the spirit of ACES ([Horvath2022]), whose selection network
was not published: target, weights and network are ours (re-derived).
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from advpure.base.errors import BadInput
from advpure.networks.weights import LoadedNetwork, state_sha256
from advpure.training.levels import LEVELS, Levels
from advpure.training.randomness import normal, step_generator
from advpure.training.tasks import Batch, Task, fixed_classifier, take, validation_batch

_DEFAULTS = {"certified": "", "draws": 8, "share": 0.9, "core_weight": 1.0, **LEVELS}


def selection_targets(classes: Tensor, labels: Tensor, share: float) -> Tensor:
    """Return q, int64 [B]; see the module.

    Args:
        classes: Answers of the certified classifier to m noises of every image, [m, B].
        labels: Classes, [B].
        share: Least share p of right answers.

    Example:
        >>> selection_targets(torch.tensor([[3, 3], [3, 1]]), torch.tensor([3, 3]), 0.75).tolist()
        [1, 0]
    """
    least = math.ceil(share * len(classes) - 1e-9)  # 0.55 of 20 are 11, not 11.000000000000002
    return ((classes == labels).sum(0) >= least).long()


class SelectorTask(Task):
    """Train a selector.

    Args:
        dataset: Data set that is validated on.
        settings: certified (a classifier: a shipped name or a weights file), draws (m), share (p),
            core_weight (w_0), and sigmas or sigma_range (see `advpure.training.levels`, [0, 1]
            units).
        teacher: None.
    """

    metric_name = "balanced_accuracy"

    def __init__(
        self, dataset: str, settings: Mapping[str, Any], teacher: LoadedNetwork | None = None
    ) -> None:
        """Check the settings, load the certified classifier, read the validation images."""
        values = take(settings, _DEFAULTS)
        self.draws, self.share = int(values["draws"]), float(values["share"])
        self.weight, self.levels = float(values["core_weight"]), Levels.of(values)
        if not values["certified"]:
            raise BadInput("certified", "is not given", "name a classifier in the recipe's [loss]")
        self.name = str(values["certified"])
        self.certified = fixed_classifier(self.name, dataset)
        self.held_out = validation_batch(dataset, 1000)

    def examples(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return noisy images [B, C, H, W] for the selector, and their targets [B]."""
        images, count = batch.images, len(batch.labels)
        level = self.levels.draw(count, generator)[:, None, None, None]
        noise = normal((self.draws + 1, *images.shape), generator)
        noisy = images + (level * noise).to(images.device)
        with torch.no_grad():  # the certified classifier stays as it is
            logits = self.certified.to(images.device)(noisy[1:].flatten(0, 1))
        classes = logits.argmax(1).reshape(self.draws, count)
        return noisy[0], selection_targets(classes, batch.labels, self.share)

    def losses(self, network: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        """Return the weighted loss of each image, [B]."""
        noisy, targets = self.examples(batch, generator)
        weights = torch.where(targets == 1, 1.0, self.weight)
        return weights * F.cross_entropy(network(noisy), targets, reduction="none")

    def metric(self, network: nn.Module) -> float:
        """Return the mean of the shares of right choices of held-out images to 1 and to 0."""
        batch = self.held_out.to(network)
        noisy, targets = self.examples(batch, step_generator(0, "validation"))
        with torch.no_grad():  # a number for the log: nothing differentiates it
            right = (network(noisy).argmax(1) == targets).float()
        shares = [float(right[targets == q].mean()) for q in (0, 1) if bool((targets == q).any())]
        return sum(shares) / len(shares)

    def facts(self) -> dict[str, Any]:
        """Return the noise levels, and the certified classifier that it selects."""
        return {
            "task": "selector",
            "trained_sigma": str(self.levels),
            "noise_sigmas": list(self.levels.values) or [self.levels.high],
            "certified": self.name,
            "certified_sha256": state_sha256(self.certified),
            "derivation": "re-derived",
        }
