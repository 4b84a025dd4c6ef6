"""Generated images for a training that needs them: one evaluation of a consistency model each.

A state of pure noise, sigma_max z, is mapped to the origin of its trajectory and clipped to [0, 1].

Source: [Song2023], algorithm 1 with one step.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from advpure.base.errors import BadInput
from advpure.base.units import to_unit
from advpure.core.denoisers import ConsistencyDenoiser
from advpure.data import dataset_info
from advpure.models import model_path
from advpure.networks.weights import read_header, sha256
from advpure.training.labelled import with_labels
from advpure.training.randomness import integers, normal
from advpure.training.tasks import Batch


class OneStepGenerator:
    """A consistency model, and what says the classes of its images.

    Args:
        name: The consistency model: a shipped name or a weights file.
        dataset: The data set whose images it makes.
        labeller: Says the class of an image where the model has no classes.

    Attributes:
        sum: SHA-256 of the model's file.

    Raises:
        BadInput: for a network that is no consistency model: one evaluation of a denoiser at
            sigma_max is close to the mean image. Also for images of another shape.
    """

    def __init__(self, name: str, dataset: str, labeller: nn.Module) -> None:
        """Load the model."""
        from advpure.loading import load_denoiser

        path = Path(name) if Path(name).suffix else model_path(name)
        denoiser = load_denoiser(path)
        if not isinstance(denoiser, ConsistencyDenoiser):
            fix = "name one, such as digits-cm or cifar10-cm"
            raise BadInput(f"generator {name}", "is no consistency model", fix)
        self.denoiser, self.labeller, self.sum = denoiser, labeller, sha256(path)
        info = dataset_info(dataset)
        made = dataset_info(str(read_header(path)["metadata"]["dataset"]))
        if made.shape != info.shape:
            rule = f"makes images {list(made.shape)}, not {list(info.shape)}"
            raise BadInput(f"generator {name}", rule, f"name one for {dataset}")
        self.shape, self.classes = info.shape, len(info.classes)

    def __call__(self, count: int, generator: torch.Generator, device: torch.device) -> Batch:
        """Return so many images and their classes; classes of a conditional model are uniform."""
        model = self.denoiser.to(device)
        state = model.sigma_max * normal((count, *self.shape), generator).to(device)
        drawn = integers(0, self.classes, (count,), generator).to(device)
        network = with_labels(model.network, drawn)
        span = {name: getattr(model, name) for name in ("sigma_data", "sigma_min", "sigma_max")}
        with torch.no_grad():  # the model is fixed and its images are data
            images = to_unit(ConsistencyDenoiser(network, **span)(state, model.sigma_max))
            images = images.clamp(0.0, 1.0).contiguous()
            if network is not model.network:
                return Batch(images, drawn)
            return Batch(images, self._label(images))

    def _label(self, images: Tensor) -> Tensor:
        """Return the most likely classes."""
        logits: Tensor = self.labeller.to(images.device)(images)
        return logits.argmax(dim=1)
