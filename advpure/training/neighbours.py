"""How much of the classes a representation knows: the class of the nearest training image.

Nothing is trained, so a network without labels is measured as it is.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from advpure.base.units import to_model
from advpure.core.denoisers import network_inputs
from advpure.data import DATASETS
from advpure.training.precision import unwrapped

_CHUNK = 250


class Memory(NamedTuple):
    """Training images that an image is compared with.

    Attributes:
        images: [n, C, H, W] in [0, 1].
        labels: int64 [n].
    """

    images: Tensor
    labels: Tensor

    @classmethod
    def first(cls, dataset: str, count: int) -> "Memory":
        """Read the first training images of a data set, at most so many."""
        data = DATASETS.get(dataset).read("train")
        return cls(data.pixels[:count].float() / data.full_scale, data.labels[:count])


def represent(network: nn.Module, x: Tensor, level: float, sigma_data: float) -> Tensor:
    """Return the directions of an encoder's outputs, [n, width], float32.

    Args:
        network: Encoder, possibly in reduced precision.
        x: States [n, C, H, W], model units.
        level: Their noise level, model units.
        sigma_data: Standard deviation of the data, model units.
    """
    parts = []
    with torch.no_grad(), unwrapped(network) as inner:  # a measurement: nothing differentiates it
        for start in range(0, len(x), _CHUNK):
            part = x[start : start + _CHUNK]
            features: Tensor = inner.features(*network_inputs(part, level, sigma_data))
            parts.append(F.normalize(features.float(), dim=1))
    return torch.cat(parts)


def neighbour_classes(
    network: nn.Module, memory: Memory, x: Tensor, level: float, lowest: float, sigma_data: float
) -> Tensor:
    """Return the class of the training image whose clean representation is nearest, int64 [n].

    Args:
        network: Encoder.
        memory: The training images.
        x: States [n, C, H, W], model units.
        level: Their noise level, model units.
        lowest: The level that clean images are encoded at, model units.
        sigma_data: Standard deviation of the data, model units.
    """
    images = to_model(memory.images.to(x.device))
    known = represent(network, images, lowest, sigma_data)
    nearest = (represent(network, x, level, sigma_data) @ known.T).argmax(1)
    return memory.labels.to(x.device)[nearest]
