"""Consistency distillation from an EDM denoiser.

Pick neighbouring nodes t > s of the Karras grid, x_t = x + t z, one Heun step of the teacher's
probability-flow ODE to x_s, and minimise d(f(x_t, t), stop_gradient f(x_s, s)). The target uses
the current parameters and, where there is dropout, the same mask. The student starts as its
teacher, or as another consistency model: a class-conditional one as an unconditional one.

Source: [Song2023], algorithm 2; the stop-gradient target of its released JAX code.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from advpure.base.errors import BadInput
from advpure.base.units import to_model
from advpure.core.denoisers import ConsistencyDenoiser, Denoiser, EDMDenoiser
from advpure.core.schedules import karras_grid
from advpure.models import model_path
from advpure.networks.weights import LoadedNetwork, load_network, sha256
from advpure.training.distances import SETTINGS, make_distance
from advpure.training.labelled import with_labels
from advpure.training.noise_ranges import check_start, noise_range
from advpure.training.precision import InBfloat16
from advpure.training.randomness import integers, normal
from advpure.training.tasks import Batch, Task, take, validation_batch

_DEFAULTS = {"nodes": 18, "highest": 0.0, "teacher_bfloat16": False, "edm": "", **SETTINGS}


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


class ConsistencyTask(Task):
    """Distil a teacher into a one-step model.

    Args:
        dataset: Data set that is validated on.
        settings: nodes (of the grid), highest (the highest level of it that is trained, model
            units; 0 for all of them: a purifier never meets those that only sampling starts
            from, and their large losses drown the others), teacher_bfloat16 (whether the
            teacher's network runs in bfloat16), edm (a shipped name or a weights file of the
            denoiser whose trajectories are followed; empty for the teacher), and those of
            `advpure.training.distances`.
        teacher: What the student starts as: a network that the EDM task trained, or, where `edm`
            names one, a consistency model of the same noise range.
    """

    def __init__(
        self, dataset: str, settings: Mapping[str, Any], teacher: LoadedNetwork | None = None
    ) -> None:
        """Check the settings and the teacher, read the validation images."""
        values = take(settings, _DEFAULTS)
        assert teacher is not None
        self.edm = str(values["edm"])
        self.sum = ""
        if self.edm:
            path = self.edm if self.edm.endswith(".safetensors") else model_path(self.edm)
            started, teacher, self.sum = teacher, load_network(path), sha256(path)
            check_start(started, noise_range(teacher, "edm"), "consistency")
        self.range = noise_range(teacher, "edm")
        self.distance, self.nodes = make_distance(values), int(values["nodes"])
        self.kind = str(values["distance"])
        self.teacher = InBfloat16(teacher.network, bool(values["teacher_bfloat16"]))
        grid = karras_grid(self.nodes, self.range["sigma_min"], self.range["sigma_max"])
        self.grid = torch.as_tensor(grid, dtype=torch.float32, device="cpu")
        self.highest = float(values["highest"]) or self.range["sigma_max"]
        self.first = int((self.grid > self.highest * (1 + 1e-6)).sum())
        if not self.first < self.nodes - 1:
            raise BadInput(f"highest {self.highest}", "leaves no two nodes", "raise it")
        self.held_out = validation_batch(dataset, 256)

    def losses(self, network: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        """Return the distance between neighbouring outputs for each image, [B]."""
        clean = to_model(batch.images)
        node = integers(self.first, self.nodes - 1, (len(clean),), generator)
        noise = normal(clean.shape, generator).to(clean.device)
        t, s = self.grid[node].to(clean.device), self.grid[node + 1].to(clean.device)
        student = ConsistencyDenoiser(with_labels(network, batch.labels), **self.range)
        noisy = clean + t[:, None, None, None] * noise
        mask = generator.get_state()
        with torch.no_grad():  # the target is a constant: that is the method's stop-gradient
            teacher = EDMDenoiser(self.taught(batch.labels, clean.device), **self.range)
            target = student(heun_step(teacher, noisy, t, s), s)
        generator.set_state(mask)
        return self.distance(student(noisy, t), target)

    def taught(self, labels: Tensor, device: torch.device) -> nn.Module:
        """Return the teacher's network; a conditional one receives the labels of the batch."""
        return with_labels(self.teacher.to(device), labels)

    def facts(self) -> dict[str, Any]:
        """Return the noise range, sigma_data and the number of nodes, model units."""
        known = {**self.range, "nodes": self.nodes, "distance": self.kind}
        if self.edm:
            known = {**known, "denoiser": self.edm, "denoiser_sha256": self.sum}
        return {**known, "trained_sigma": f"up to {self.highest / 2:g}"} if self.first else known
