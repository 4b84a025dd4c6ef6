"""How far a purifier has carried an image, after every step of its chain.

The state after a step is set to the scale of an image first: noising shrinks a variance-preserving
state, and that shrinkage is no distance.
"""

import torch
from torch import Tensor

from advpure.base.units import to_model, to_unit
from advpure.core.purifier import Purifier


def distance(purifier: Purifier, images: Tensor) -> Tensor:
    """Return the L2 distance between the image and the state after every step.

    Args:
        purifier: A purifier bound to the ids of the rows.
        images: [B, C, H, W] in [0, 1].

    Returns:
        [B, steps], [0, 1] units; [B, 0] for a chain without steps. Cost: one purification.

    Example:
        >>> from advpure import RandomnessConfig, load_purifier
        >>> purifier = load_purifier("onestep-edm", "digits", xi=RandomnessConfig(0)).bind([0])
        >>> distance(purifier, torch.full((1, 1, 8, 8), 0.5)).shape
        torch.Size([1, 2])
    """
    lengths = [
        (to_unit(to_model(state) / step.scale) - images).flatten(1).norm(dim=1)
        for step, state in purifier.trajectory(images)
    ]
    return torch.stack(lengths, 1) if lengths else images.new_zeros((len(images), 0))
