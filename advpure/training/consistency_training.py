"""Consistency training: a one-step model without a teacher.

Both ends of a step share image and noise: minimise w d(f(x + t z, t), f-(x + s z, s)) for
neighbouring nodes t > s of a grid that is refined while training goes on. Original: f- is a moving
average with decay mu(k), nodes are drawn uniformly, w = 1. Improved: f- is a copy of the current
network (mu = 0), nodes follow a lognormal, w = 1 / (t - s). Both sides see the same dropout mask,
and the classes of the images where the network has classes.

Source: [Song2023], algorithm 3; [Song2024].
"""

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from advpure.base.errors import BadInput
from advpure.base.units import to_model
from advpure.base.validation import check_choice
from advpure.core.denoisers import ConsistencyDenoiser, checked_range
from advpure.core.schedules import karras_grid
from advpure.networks.layers import seed_dropout
from advpure.networks.weights import LoadedNetwork
from advpure.training.curricula import (
    improved_nodes,
    improved_probabilities,
    original_decay,
    original_nodes,
)
from advpure.training.distances import SETTINGS, make_distance, mean_squared
from advpure.training.labelled import with_labels
from advpure.training.noise_ranges import RANGE, check_start
from advpure.training.randomness import integers, normal
from advpure.training.tasks import Batch, Task, take, validation_batch

_ORIGINAL = {"first": 2, "last": 150, "decay": 0.9}
_IMPROVED = {"first": 10, "last": 1280, "p_mean": -1.1, "p_std": 2.0}
_SHARED = {"losses": "improved", "sigma_data": 0.5, "sigma_min": 0.002, "sigma_max": 80.0}
_LEVEL = 1.0
"""Noise level of the validation metric, model units."""


class ConsistencyTrainingTask(Task):
    """Train a one-step model from images alone.

    Args:
        dataset: Data set that is validated on.
        settings: losses (`original` or `improved`); first and last (s0 and s1); decay (mu0,
            original only); p_mean and p_std (improved only); sigma_data, sigma_min, sigma_max;
            and those of `advpure.training.distances`.
        teacher: None, or an EDM denoiser or consistency model of the same noise range to start as.
    """

    metric_name = "denoising_error"

    def __init__(
        self, dataset: str, settings: Mapping[str, Any], teacher: LoadedNetwork | None = None
    ) -> None:
        """Check the settings and read the validation images."""
        losses = settings.get("losses", _SHARED["losses"])
        check_choice(losses, ("original", "improved"), "losses")
        self.improved = losses == "improved"
        own = _IMPROVED if self.improved else _ORIGINAL
        values = take(settings, {**_SHARED, **own, **SETTINGS})
        self.values, self.kind = values, str(values["distance"])
        self.distance = make_distance(values)
        if values["first"] > values["last"]:
            raise BadInput(
                f"first {values['first']}", f"is above last {values['last']}", "lower it"
            )
        self.range = checked_range({name: values[name] for name in RANGE})
        check_start(teacher, self.range, "edm", "consistency")
        self.held_out = validation_batch(dataset, 256)
        self.target: nn.Module | None = None
        self.begin_step(0, 1)

    def start(self, network: nn.Module) -> None:
        """Make the target network, where it is one of its own."""
        if not self.improved:
            self.target = copy.deepcopy(network).requires_grad_(False)

    def begin_step(self, step: int, steps: int) -> None:
        """Choose the grid of a step."""
        count = improved_nodes if self.improved else original_nodes
        self.nodes = count(step, steps, int(self.values["first"]), int(self.values["last"]))
        ascending = karras_grid(self.nodes, self.range["sigma_min"], self.range["sigma_max"])[::-1]
        self.grid = torch.from_numpy(np.ascontiguousarray(ascending, dtype=np.float32))
        if self.improved:
            p_mean, p_std = float(self.values["p_mean"]), float(self.values["p_std"])
            self.weights = torch.from_numpy(improved_probabilities(ascending, p_mean, p_std))

    def end_step(self, network: nn.Module) -> None:
        """Move the target network by mu(k)."""
        if self.target is None:
            return
        decay = original_decay(self.nodes, int(self.values["first"]), float(self.values["decay"]))
        current = network.state_dict()
        for name, value in self.target.state_dict().items():
            value.lerp_(current[name], 1.0 - decay)

    def state(self) -> dict[str, Tensor]:
        """Return the parameters of the target network."""
        return {} if self.target is None else self.target.state_dict()

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Set the parameters of the target network."""
        if self.target is not None:
            self.target.load_state_dict(state)

    def losses(self, network: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        """Return the weighted distance between neighbouring outputs for each image, [B]."""
        clean = to_model(batch.images)
        if self.improved:
            node = torch.multinomial(self.weights, len(clean), True, generator=generator)
        else:
            node = integers(0, self.nodes - 1, (len(clean),), generator)
        noise = normal(clean.shape, generator).to(clean.device)
        s, t = self.grid[node].to(clean.device), self.grid[node + 1].to(clean.device)
        mask = generator.get_state()
        with torch.no_grad():  # the target is a constant: that is the method's stop-gradient
            other = network if self.target is None else self.target.train(network.training)
            if self.target is not None:
                seed_dropout(self.target, generator)
            nearer = clean + s[:, None, None, None] * noise
            target = self._denoise(with_labels(other, batch.labels), nearer, s)
        generator.set_state(mask)
        farther = clean + t[:, None, None, None] * noise
        online = self._denoise(with_labels(network, batch.labels), farther, t)
        lost = self.distance(online, target)
        return lost / (t - s) if self.improved else lost

    def score(self, network: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        """Return the squared one-step errors at noise level 1, [B]."""
        clean = to_model(batch.images)
        noise = normal(clean.shape, generator).to(clean.device)
        levels = torch.full((len(clean),), _LEVEL, device=clean.device, dtype=torch.float32)
        told = with_labels(network, batch.labels)
        return mean_squared(self._denoise(told, clean + _LEVEL * noise, levels), clean)

    def facts(self) -> dict[str, Any]:
        """Return the noise range, sigma_data and the final number of nodes, model units."""
        shared = {**self.range, "nodes": int(self.values["last"]) + 1, "distance": self.kind}
        return {**shared, "task": "consistency"}

    def _denoise(self, network: nn.Module, x: Tensor, levels: Tensor) -> Tensor:
        denoised: Tensor = ConsistencyDenoiser(network, **self.range)(x, levels)
        return denoised
