"""Let a network of one resolution work on images of another.

Source: the ImageNet wrapper of DiffPure [Nie2022], which purifies 224x224 images at 256x256.
"""

from torch import Tensor, nn
from torch.nn import functional as F


class Resized(nn.Module):
    """Enlarge images, apply a module that keeps their size, and go back.

    Both ways are bilinear with align_corners off and without antialiasing, as in the original;
    white noise that was added before has .66 times its standard deviation after 256 to 224.

    Args:
        module: Maps images [B, C, size, size] to the same shape.
        size: The resolution that it works at, in pixels.
    """

    def __init__(self, module: nn.Module, size: int) -> None:
        """Wrap the module."""
        super().__init__()
        self.module, self.size = module, size

    def forward(self, images: Tensor) -> Tensor:
        """Return images [B, C, H, W] of the same shape as those that came in."""
        inner = self.module(bilinear(images, self.size, self.size))
        return bilinear(inner, images.shape[2], images.shape[3])


def bilinear(images: Tensor, height: int, width: int) -> Tensor:
    """Resize [B, C, H, W] bilinearly, align_corners off, without antialiasing."""
    if images.shape[2:] == (height, width):
        return images
    return F.interpolate(images, (height, width), mode="bilinear", align_corners=False)
