"""Consistency distillation from an EDM denoiser.

Pick neighbouring nodes t > s of the Karras grid, x_t = x + t z, one Heun step of the teacher's
probability-flow ODE to x_s, and minimise d(f(x_t, t), stop_gradient f(x_s, s)). The target uses
the current parameters.

Source: Song et al. 2023, algorithm 2; the released JAX code's stop-gradient target; spec 9.2.
The pseudo-Huber distance is that of Song & Dhariwal 2023, c = 0.00054 sqrt(d).
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from advpure.denoisers import ConsistencyDenoiser, Denoiser, EDMDenoiser
from advpure.errors import BadInput
from advpure.schedules import karras_grid
from advpure.training.randomness import step_generator
from advpure.training.tasks import Batch, Task, take, validation_batch
from advpure.units import to_model
from advpure.weights import LoadedNetwork

_DEFAULTS = {"nodes": 18, "distance": "huber"}


def heun_step(teacher: Denoiser, x: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """Move along dx/dt = (x - D(x; t)) / t from t to s by one step of Heun's method.

    Args:
        teacher: The denoiser D.
        x: States at noise level t, model units, [B, C, H, W].
        t: Noise levels, [B], positive.
        s: Noise levels to reach, [B], positive.

    Returns:
        States at s, [B, C, H, W]; the error is of third order in t - s. Two evaluations.
    """
    gap = (s - t)[:, None, None, None]
    slope = (x - teacher(x, t)) / t[:, None, None, None]
    guess = x + gap * slope
    corrected = (guess - teacher(guess, s)) / s[:, None, None, None]
    return x + gap * (slope + corrected) / 2


def distance(a: Tensor, b: Tensor, kind: str) -> Tensor:
    """Return the distance of each pair of images, [B].

    Args:
        a: Images [B, C, H, W].
        b: Images [B, C, H, W].
        kind: `l2` (mean squared error) or `huber` (sqrt(|a - b|^2 + c^2) - c over the image).
    """
    squared = (a - b).square().flatten(1)
    if kind == "l2":
        return squared.mean(dim=1)
    c = 0.00054 * math.sqrt(squared.shape[1])
    return (squared.sum(dim=1) + c**2).sqrt() - c


class ConsistencyTask(Task):
    """Distil a teacher into a one-step model.

    Args:
        dataset: Data set that is validated on.
        settings: nodes (of the grid), distance (`huber` or `l2`).
        teacher: A network that the EDM task trained; its noise range is taken over.
    """

    metric_name = "validation_loss"

    def __init__(self, dataset: str, settings: Mapping[str, Any], teacher: LoadedNetwork) -> None:
        """Check the settings and the teacher, read the validation images."""
        values = take(settings, _DEFAULTS)
        if values["distance"] not in ("huber", "l2"):
            raise BadInput(f"distance {values['distance']!r}", "is unknown", "use huber or l2")
        if teacher.metadata.get("task") != "edm":
            raise BadInput("teacher", "is not a denoiser of the edm task", "give an EDM network")
        self.kind, self.nodes = str(values["distance"]), int(values["nodes"])
        names = ("sigma_data", "sigma_min", "sigma_max")
        self.range = {name: float(teacher.metadata[name]) for name in names}
        self.teacher = EDMDenoiser(teacher.network, **self.range)
        grid = karras_grid(self.nodes, self.range["sigma_min"], self.range["sigma_max"])
        self.grid = torch.as_tensor(grid, dtype=torch.float32)
        self.held_out = validation_batch(dataset, 256)

    def losses(self, network: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        """Return the distance between neighbouring outputs for each image, [B]."""
        clean = to_model(batch.images)
        node = torch.randint(0, self.nodes - 1, (len(clean),), generator=generator)
        noise = torch.randn(clean.shape, generator=generator).to(clean.device)
        t, s = self.grid[node].to(clean.device), self.grid[node + 1].to(clean.device)
        student = ConsistencyDenoiser(network, **self.range)
        noisy = clean + t[:, None, None, None] * noise
        with torch.no_grad():  # the target is a constant: that is the method's stop-gradient
            self.teacher.to(clean.device)
            target = student(heun_step(self.teacher, noisy, t, s), s)
        return distance(student(noisy, t), target, self.kind)

    def metric(self, network: nn.Module) -> float:
        """Return the mean loss on held-out images with fixed noise."""
        device = next(network.parameters()).device
        batch = Batch(self.held_out.images.to(device), self.held_out.labels.to(device))
        with torch.no_grad():  # a number for the log: nothing differentiates it
            return float(self.losses(network, batch, step_generator(0, "validation")).mean())

    def facts(self) -> dict[str, Any]:
        """Return the noise range, sigma_data and the number of nodes, model units."""
        return {**self.range, "nodes": self.nodes}
