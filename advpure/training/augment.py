"""Label-preserving changes of training images, drawn from a given generator."""

import torch
from torch import Tensor
from torch.nn import functional as F

from advpure.training.randomness import integers, uniform


def shift_images(
    images: Tensor, pixels: int, generator: torch.Generator, *, reflect: bool = False
) -> Tensor:
    """Move every image by a whole number of pixels, up to `pixels` in each direction.

    Args:
        images: [B, C, H, W].
        pixels: Largest distance.
        generator: CPU generator.
        reflect: Whether what moves in mirrors the image; otherwise it is 0.
    """
    if pixels == 0:
        return images
    batch, _, height, width = images.shape
    offsets = integers(0, 2 * pixels + 1, (2, batch), generator).to(images.device)
    padded = F.pad(images, (pixels,) * 4, mode="reflect" if reflect else "constant")
    rows = offsets[0][:, None] + torch.arange(height, device=images.device, dtype=torch.int64)
    columns = offsets[1][:, None] + torch.arange(width, device=images.device, dtype=torch.int64)
    index = torch.arange(batch, device=images.device, dtype=torch.int64)[:, None, None]
    moved = padded.permute(0, 2, 3, 1)[index, rows[:, :, None], columns[:, None, :]]
    return moved.permute(0, 3, 1, 2).contiguous()


def flip_images(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror every image [B, C, H, W] left to right with probability 1/2."""
    return mirror(images, uniform((len(images),), generator) < 0.5)


def mirror(images: Tensor, chosen: Tensor) -> Tensor:
    """Mirror the chosen ([B], bool) of the images [B, C, H, W] left to right."""
    return torch.where(chosen.to(images.device)[:, None, None, None], images.flip(-1), images)
