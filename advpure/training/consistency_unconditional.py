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
from advpure.networks.weights import LoadedNetwork
from advpure.training.consistency import ConsistencyTask


class UnconditionalTask(ConsistencyTask):
    """Distil an EDM denoiser into a model that starts as a conditional one without its classes.

    Args:
        dataset: Data set that is validated on.
        settings: Those of `ConsistencyTask`, of which edm is needed.
        teacher: The conditional consistency model to start from; the denoiser must have its noise
            range.
    """

    def __init__(
        self, dataset: str, settings: Mapping[str, Any], teacher: LoadedNetwork | None = None
    ) -> None:
        """Check the settings, both networks, and read the validation images."""
        if not settings.get("edm"):
            raise BadInput("edm", "is not given", "name a denoiser in the recipe's [loss]")
        super().__init__(dataset, settings, teacher)

    def taught(self, labels: Tensor, device: torch.device) -> nn.Module:
        """Return the teacher's network, with the mean of its tokens whatever the labels."""
        return self.teacher.to(device)

    def facts(self) -> dict[str, Any]:
        """Return the facts of a distilled model."""
        return {**super().facts(), "task": "consistency"}
