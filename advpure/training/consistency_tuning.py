"""Consistency fine-tuning: pull one-step outputs towards the clean images.

Minimise E d(x, f(x + t0 z, t*)) with t0 = 2 sigma, sigma drawn for each image from a short list or
uniformly from an interval, and t* the node of the grid nearest to t0. Only f itself is trained.

Source: [Li2024], section 3.3 and its released code.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from advpure.base.units import to_model
from advpure.base.validation import whole
from advpure.core.denoisers import ConsistencyDenoiser
from advpure.core.schedules import karras_grid
from advpure.networks.weights import LoadedNetwork
from advpure.training.distances import SETTINGS, make_distance
from advpure.training.levels import LEVELS, Levels
from advpure.training.noise_ranges import noise_range
from advpure.training.randomness import normal
from advpure.training.tasks import Batch, Task, take, validation_batch

_DEFAULTS = {**SETTINGS, **LEVELS, "distance": "lpips", "sigmas": (0.25, 0.5, 1.0)}


class ConsistencyTuningTask(Task):
    """Fine-tune a one-step model.

    Args:
        dataset: Data set that is validated on.
        settings: sigmas or sigma_range (see `advpure.training.levels`, [0, 1] units), and those of
            `advpure.training.distances`.
        teacher: The consistency model to start from; its grid and noise range are taken over.
    """

    def __init__(
        self, dataset: str, settings: Mapping[str, Any], teacher: LoadedNetwork | None = None
    ) -> None:
        """Check the settings and read the validation images."""
        base = {**_DEFAULTS, "sigmas": ()} if settings.get("sigma_range") else _DEFAULTS
        values = take(settings, base)
        assert teacher is not None
        self.range = noise_range(teacher, "consistency")
        self.nodes = whole(teacher.metadata.get("nodes"), "nodes of the teacher", 2)
        self.levels = Levels.of(values)
        self.kind, self.distance = str(values["distance"]), make_distance(values)
        grid = karras_grid(self.nodes, self.range["sigma_min"], self.range["sigma_max"])
        self.grid = torch.as_tensor(grid, dtype=torch.float32, device="cpu")
        self.held_out = validation_batch(dataset, 256)

    def losses(self, network: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        """Return the distance of each image to its one-step output, [B]."""
        clean = to_model(batch.images)
        level = 2.0 * self.levels.draw(len(clean), generator)
        noise = normal(clean.shape, generator).to(clean.device)
        node = (self.grid[None, :] - level[:, None]).abs().argmin(dim=1)
        noisy = clean + level.to(clean.device)[:, None, None, None] * noise
        student = ConsistencyDenoiser(network, **self.range)
        return self.distance(student(noisy, self.grid[node].to(clean.device)), clean)

    def facts(self) -> dict[str, Any]:
        """Return the noise range, the grid, and what was drawn."""
        shared = {**self.range, "nodes": self.nodes, "distance": self.kind}
        return {**shared, "task": "consistency", "trained_sigma": str(self.levels)}
