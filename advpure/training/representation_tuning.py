"""Classify by a representation that receives the noise level: linear probe and fine-tuning.

Stage two trains a linear head on clean images at the lowest level, with the encoder as it is
(`train_encoder` false) or along with it:  CE + eta H(p). Stage three draws m noises of one level
for each image x, asks at the nodes nearest to the level, and minimises

    mean_i CE(f(x + sigma z_i), y) + lambda mean_i KL(p || p_i) + eta H(p),

which is the loss of `advpure.training.classifier_smoothed`. There the released code leaves the head
as the probe made it (`train_head` false). A layer's learning rate is that of the last one times
`layer_decay` to the power of the layers between.

Nothing is chosen by test images: the average of the last step is what is stored.

Source: [Lei2025] and its released code; [Jeong2020], section 3; [Bao2022] for layer-wise rates.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from advpure.base.errors import BadInput
from advpure.base.units import to_model
from advpure.base.validation import whole
from advpure.core.denoisers import checked_range, network_inputs
from advpure.core.levelled import LEVELLED
from advpure.core.schedules import karras_grid
from advpure.networks.representation import HEAD, PROJECTION, RepresentationNetwork
from advpure.networks.weights import LoadedNetwork
from advpure.training.classifier_smoothed import consistency_losses
from advpure.training.levels import LEVELS, Levels
from advpure.training.noise_ranges import RANGE
from advpure.training.randomness import normal
from advpure.training.tasks import Batch, Task, right, take, validation_batch

_DEFAULTS = {
    "noises": 1,
    "consistency": 0.0,
    "entropy": 0.0,
    "label_smoothing": 0.0,
    "layer_decay": 1.0,
    "train_encoder": True,
    "train_head": True,
    **LEVELS,
}
_GRID = {"sigma_data": 0.5, "sigma_min": 0.002, "sigma_max": 80.0, "nodes": 81}


class RepresentationTuningTask(Task):
    """Train a classifier that receives the noise level.

    Args:
        dataset: Data set that is validated on.
        settings: sigmas or sigma_range (see `advpure.training.levels`, [0, 1] units; neither for
            clean images), noises (m), consistency (lambda), entropy (eta), label_smoothing,
            layer_decay, train_encoder, train_head; nodes, which must be the teacher's. Without a
            teacher also sigma_data, sigma_min and sigma_max of the grid.
        teacher: The encoder or classifier to start from, whose grid is taken over; None starts
            from nothing.
    """

    metric_name = "noisy_accuracy"

    def __init__(
        self, dataset: str, settings: Mapping[str, Any], teacher: LoadedNetwork | None = None
    ) -> None:
        """Check the settings and the teacher, read the validation images."""
        values = take(settings, {**_DEFAULTS, **(_GRID if teacher is None else {"nodes": 0})})
        stored = values if teacher is None else teacher.metadata
        if teacher is not None and stored.get("task") not in ("representation", LEVELLED):
            raise BadInput("teacher", "is no encoder of noisy images", "give an rrcm network")
        self.range = checked_range({name: stored.get(name) for name in RANGE})
        self.nodes = whole(stored.get("nodes"), "nodes of the teacher", 2)
        if values["nodes"] not in (0, self.nodes):
            raise BadInput(
                f"nodes {values['nodes']}",
                f"are not the {self.nodes} that the teacher was trained with",
                "leave nodes out, or give another teacher",
            )
        self.values, self.noises = values, int(values["noises"])
        is_clean = not (values["sigmas"] or values["sigma_range"])
        self.levels = None if is_clean else Levels.of(values)
        if values["consistency"] and (self.noises == 1 or is_clean):
            what = "clean images" if is_clean else "one noise"
            raise BadInput(
                f"consistency {values['consistency']:g} of {what}", "is 0", "use noises = 2"
            )
        grid = karras_grid(self.nodes, self.range["sigma_min"], self.range["sigma_max"])
        self.grid = torch.as_tensor(grid, dtype=torch.float32, device="cpu")
        self.held_out = validation_batch(dataset, 1000)

    def start(self, network: nn.Module) -> None:
        """Refuse a network that cannot be trained so.

        Raises:
            BadInput: for a network that is no encoder with a linear head.
        """
        if not isinstance(network, RepresentationNetwork) or not hasattr(network, HEAD):
            raise BadInput("network", "has no linear head", "give its [network] classes")

    def rate_of(self, network: nn.Module, name: str) -> float:
        """Return the factor of a parameter's layer, 0 for a part that is not trained."""
        part = name.partition(".")[0]
        if part == PROJECTION or not isinstance(network, RepresentationNetwork):
            return 0.0
        if not self.values["train_head" if part == HEAD else "train_encoder"]:
            return 0.0
        between = network.layers - network.layer_of(name)
        return float(self.values["layer_decay"]) ** between

    def losses(self, network: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        """Return the loss of each image, [B]; one network call for all its noises."""
        values, logits = self.values, self._ask(network, batch.images, generator, self.noises)
        return consistency_losses(
            logits,
            batch.labels,
            consistency=float(values["consistency"]),
            entropy=float(values["entropy"]),
            label_smoothing=float(values["label_smoothing"]),
        )

    def _ask(
        self, network: nn.Module, images: Tensor, generator: torch.Generator, draws: int
    ) -> Tensor:
        """Return the logits of noisy images, [draws, B, K]; an image keeps its level."""
        clean = to_model(images)
        if self.levels is None:
            logits: Tensor = network(*self._inputs(clean, self.range["sigma_min"]))
            return logits[None].expand(draws, -1, -1)
        level = 2.0 * self.levels.draw(len(clean), generator)
        node = self.grid[(self.grid[None, :] - level[:, None]).abs().argmin(1)].to(clean.device)
        noise = normal((draws, *clean.shape), generator).to(clean.device)
        noisy = (clean + level.to(clean.device)[:, None, None, None] * noise).flatten(0, 1)
        out: Tensor = network(*self._inputs(noisy, node.repeat(draws)[:, None, None, None]))
        return out.reshape(draws, len(clean), -1)

    def _inputs(self, x: Tensor, level: float | Tensor) -> tuple[Tensor, Tensor]:
        return network_inputs(x, level, self.range["sigma_data"])

    def score(self, network: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        """Return which images are classified correctly under their noise, [B]."""
        return right(self._ask(network, batch.images, generator, 1)[0], batch.labels)

    def facts(self) -> dict[str, Any]:
        """Return the grid, and at which noise it answers.

        A head that was trained on clean images leaves it to the representation to be the same at
        every level of the grid.
        """
        levels = self.levels
        known = {**self.range, "nodes": self.nodes, "task": LEVELLED}
        if levels is None:
            ends = (self.range["sigma_min"] / 2, self.range["sigma_max"] / 2)
            return {**known, "noise_sigmas": [], "covers": list(ends)}
        chosen = list(levels.values) or [levels.high]
        low = min(levels.values) if levels.values else max(levels.low, self.range["sigma_min"] / 2)
        return {
            **known,
            "trained_sigma": str(levels),
            "noise_sigmas": chosen,
            "covers": [low, max(chosen)],
        }
