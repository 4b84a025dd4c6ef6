"""Denoising score matching with EDM preconditioning.

Minimise E lambda(s) mean (D(x + s n; s) - x)^2, ln s ~ N(P_mean, P_std^2),
lambda(s) = (s^2 + s_data^2) / (s s_data)^2, in model units. Restricted to a few noise levels or an
interval of them, s is drawn from there instead. Label dropout hides the class of some images, so
that a class-conditional network learns to denoise without labels too.

Source: [Karras2022], table 1; label dropout: [Ho2022], algorithm 1. Restricted
noise: [Carlini2023], table 4.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from advpure.base.units import to_model
from advpure.core.denoisers import EDMDenoiser, checked_range
from advpure.networks.weights import LoadedNetwork
from advpure.training.labelled import with_labels
from advpure.training.levels import LEVELS, Levels
from advpure.training.noise_ranges import check_start
from advpure.training.randomness import normal, uniform
from advpure.training.tasks import Batch, Task, take, validation_batch

_DEFAULTS = {
    "sigma_data": 0.5,
    "sigma_min": 0.002,
    "sigma_max": 80.0,
    "p_mean": -1.2,
    "p_std": 1.2,
    "label_dropout": 0.0,
    **LEVELS,
}


class EDMTask(Task):
    """Train a denoiser.

    Args:
        dataset: Data set that is validated on.
        settings: sigma_data, sigma_min, sigma_max, p_mean, p_std, model units; sigmas or
            sigma_range (see `advpure.training.levels`, [0, 1] units) instead of the last two;
            label_dropout, the probability in [0, 1) that an image comes without its label.
        teacher: None, or an EDM denoiser of the same noise range to train on from.
    """

    def __init__(
        self, dataset: str, settings: Mapping[str, Any], teacher: LoadedNetwork | None = None
    ) -> None:
        """Check the settings and read the validation images."""
        values = take(settings, _DEFAULTS)
        self.label_dropout = float(values.pop("label_dropout"))
        self.p_mean, self.p_std = float(values.pop("p_mean")), float(values.pop("p_std"))
        chosen = {name: values.pop(name) for name in LEVELS}
        self.levels = Levels.of(chosen) if any(chosen.values()) else None
        self.range = checked_range(values)
        check_start(teacher, self.range, "edm")
        self.held_out = validation_batch(dataset, 256)

    def losses(self, network: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        """Return the weighted squared error of each image, [B]."""
        clean = to_model(batch.images)
        sigma = self._draw(len(clean), generator).to(clean.device)
        noise = normal(clean.shape, generator).to(clean.device)
        labels = self._hidden(batch.labels, generator) if network.training else batch.labels
        denoised = EDMDenoiser(with_labels(network, labels), **self.range)(
            clean + sigma[:, None, None, None] * noise, sigma
        )
        data = self.range["sigma_data"]
        weight = (sigma**2 + data**2) / (sigma * data) ** 2
        return weight * (denoised - clean).square().flatten(1).mean(dim=1)

    def _draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw noise levels [count], model units."""
        if self.levels is not None:
            lowest = torch.tensor(self.range["sigma_min"], dtype=torch.float32, device="cpu")
            return torch.maximum(2.0 * self.levels.draw(count, generator), lowest)
        return (normal((count,), generator) * self.p_std + self.p_mean).exp()

    def _hidden(self, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Hide labels [B] at random: -1 asks for the mean class."""
        if not self.label_dropout:
            return labels
        hidden = uniform(labels.shape, generator) < self.label_dropout
        return labels.masked_fill(hidden.to(labels.device), -1)

    def facts(self) -> dict[str, Any]:
        """Return the noise range and sigma_data, model units, and a restriction of the noise."""
        if self.levels is None:
            return dict(self.range)
        return {**self.range, "trained_sigma": str(self.levels)}
