"""An unconditional consistency model from a class-conditional one.

The start is a conditional consistency model whose class tokens are replaced by their mean, as one
learnable token (the recipe says `classes = 1`). It is trained on by consistency distillation; the
trajectories are those of an EDM denoiser, of a conditional one with the mean of its tokens.

What the paper leaves open: whether it went on by distillation or by consistency training, and with
what teacher. Distillation from the EDM denoiser that has the same kind of token is our choice.

Source: [Li2024], appendix C. Distillation: see `consistency`.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from advpure.base.errors import BadInput
from advpure.models import model_path
from advpure.networks.weights import LoadedNetwork, load_network, sha256
from advpure.training.consistency import ConsistencyTask, noise_range
from advpure.training.tasks import take


class UnconditionalTask(ConsistencyTask):
    """Distil an EDM denoiser into a model that starts as a conditional one without its classes.

    Args:
        dataset: Data set that is validated on.
        settings: edm (the denoiser: a shipped name or a weights file), and those of
            `ConsistencyTask`.
        teacher: The conditional consistency model to start from; the denoiser must have its noise
            range.
    """

    def __init__(
        self, dataset: str, settings: Mapping[str, Any], teacher: LoadedNetwork | None = None
    ) -> None:
        """Check the settings, both networks, and read the validation images."""
        rest = dict(settings)
        self.name = str(take({"edm": rest.pop("edm", "")}, {"edm": ""})["edm"])
        if not self.name:
            raise BadInput("edm", "is not given", "name a denoiser in the recipe's [loss]")
        assert teacher is not None
        path = self.name if self.name.endswith(".safetensors") else model_path(self.name)
        self.sum = sha256(path)
        super().__init__(dataset, rest, load_network(path))
        started = noise_range(teacher, "consistency")
        if started != self.range:
            raise BadInput(
                f"denoiser {self.name}",
                f"has another noise range than the teacher, {started}",
                "use the denoiser that it was distilled from",
            )

    def taught(self, labels: Tensor, device: torch.device) -> nn.Module:
        """Return the teacher's network, with the mean of its tokens whatever the labels."""
        return self.teacher.to(device)

    def facts(self) -> dict[str, Any]:
        """Return the facts of a distilled model, and the denoiser."""
        return {
            **super().facts(),
            "task": "consistency",
            "denoiser": self.name,
            "denoiser_sha256": self.sum,
        }
