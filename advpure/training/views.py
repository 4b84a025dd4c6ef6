"""Two views of an image that share little but what it shows.

Each is a random crop, resized back; then brightness, contrast, saturation and hue change, colour
goes, the image is blurred, solarised or mirrored, each by chance. Both views draw from one
generator, image by image, so a view depends neither on the device nor on other images.

Images of one channel have neither saturation nor hue. The order of the four changes of colour is
fixed here; torchvision draws it.

Source: [Grill2020], appendix B, with the strengths of the released code of [Lei2025].
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from advpure.base.errors import BadInput
from advpure.training.augment import mirror
from advpure.training.randomness import uniform

VIEWS: Mapping[str, Any] = {
    "crop": 0.08,
    "jitter": (0.4, 0.4, 0.2, 0.1),
    "jitter_share": 0.8,
    "grey": 0.2,
    "blur": (1.0, 0.1),
    "solarize": 0.2,
    "mirror": True,
}
"""The settings of a recipe's loss that describe views, with their defaults."""

_RATIO = (3 / 4, 4 / 3)
_BLUR = (0.1, 2.0)
_REACH = 4
_LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Views:
    """How strongly two views of an image differ.

    Attributes:
        crop: Smallest share of the area that a crop keeps; the largest is 1, and 1 is no crop.
        jitter: Greatest change of brightness, contrast, saturation (factors 1 +- x) and hue
            (turns, +- x).
        jitter_share: Share of the images whose colours change.
        grey: Share of the images that lose their colour.
        blur: Share of the images that are blurred, by 0.1 to 2 pixels, in the first and in the
            second view; strong at 32 pixels, (0, 0) for never.
        solarize: Share of the images of the second view whose bright half is inverted.
        mirror: Whether half of the images are mirrored left to right.
    """

    crop: float
    jitter: tuple[float, ...]
    jitter_share: float
    grey: float
    blur: tuple[float, ...]
    solarize: float
    mirror: bool

    def __post_init__(self) -> None:
        """Refuse lists of the wrong length.

        Raises:
            BadInput: naming the setting.
        """
        for name, wanted in (("jitter", 4), ("blur", 2)):
            given = getattr(self, name)
            if len(given) != wanted:
                rule, fix = f"does not have {wanted} numbers", f"write {list(VIEWS[name])}"
                raise BadInput(f"{name} {list(given)}", rule, fix)

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> "Views":
        """Read the settings of a recipe's loss."""
        return cls(**{name: settings[name] for name in VIEWS})

    def pair(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return both views of images in [0, 1], [B, C, H, W], in [0, 1]."""
        first = self._view(images, generator, self.blur[0], 0.0)
        return first, self._view(images, generator, self.blur[1], self.solarize)

    def _view(
        self, images: Tensor, generator: torch.Generator, blurred: float, solarized: float
    ) -> Tensor:
        count = len(images)

        def chosen(share: float) -> Tensor:
            drawn = uniform((count,), generator) < share
            return drawn.to(images.device)[:, None, None, None]

        view = crop_images(images, self.crop, generator) if self.crop < 1 else images
        if self.jitter_share:
            view = torch.where(
                chosen(self.jitter_share), change_colours(view, self.jitter, generator), view
            )
        if self.grey and images.shape[1] == 3:
            view = torch.where(chosen(self.grey), _grey(view).expand_as(view), view)
        if blurred:
            view = torch.where(chosen(blurred), blur_images(view, generator), view)
        if solarized:
            view = torch.where(chosen(solarized) & (view >= 0.5), 1.0 - view, view)
        return mirror(view, uniform((count,), generator) < 0.5) if self.mirror else view


def crop_images(images: Tensor, least: float, generator: torch.Generator) -> Tensor:
    """Cut a random rectangle out of every image and stretch it bilinearly to the whole.

    Its share of the area is uniform between `least` and 1, its ratio of sides log-uniform between
    3/4 and 4/3; a side that is longer than the image is cut to it.

    Args:
        images: [B, C, H, W].
        least: Smallest share of the area, in (0, 1].
        generator: CPU generator.
    """
    count, _, height, width = images.shape
    u = uniform((4, count), generator)
    area = least + (1.0 - least) * u[0]
    low, high = (torch.tensor(ratio).log() for ratio in _RATIO)
    root = ((low + (high - low) * u[1]) / 2).exp()
    across, down = (area.sqrt() * root).clamp(max=1), (area.sqrt() / root).clamp(max=1)
    left, top = (2 * u[2] - 1) * (1 - across), (2 * u[3] - 1) * (1 - down)
    zero = torch.zeros_like(left)
    rows = [torch.stack([across, zero, left], 1), torch.stack([zero, down, top], 1)]
    theta = torch.stack(rows, 1).to(images)
    grid = F.affine_grid(theta, [count, 1, height, width], align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def change_colours(images: Tensor, most: tuple[float, ...], generator: torch.Generator) -> Tensor:
    """Change brightness, contrast, saturation and hue of every image, in this order.

    Args:
        images: [B, C, H, W] in [0, 1]; three channels are red, green and blue.
        most: Greatest change of each: factors 1 +- x, and turns +- x for the hue.
        generator: CPU generator.

    Returns:
        Images in [0, 1].
    """
    drawn = (2 * uniform((4, len(images)), generator) - 1) * torch.tensor(most)[:, None]
    bright, contrast, saturation, turn = drawn[:, :, None, None, None].to(images)
    images = ((1 + bright) * images).clamp(0, 1)
    mean = _grey(images).mean((1, 2, 3), keepdim=True)
    images = (mean + (1 + contrast) * (images - mean)).clamp(0, 1)
    if images.shape[1] != 3:
        return images
    grey = _grey(images)
    images = (grey + (1 + saturation) * (images - grey)).clamp(0, 1)
    return _turn_hue(images, turn)


def _grey(images: Tensor) -> Tensor:
    """Return the luma, [B, 1, H, W]; the image itself where it has one channel."""
    if images.shape[1] != 3:
        return images.mean(1, keepdim=True)
    red, green, blue = (images[:, k : k + 1] for k in range(3))
    return _LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue


def _turn_hue(images: Tensor, turn: Tensor) -> Tensor:
    """Turn the hue of RGB images by [B, 1, 1, 1] turns, through hue, saturation and value."""
    red, green, blue = (images[:, k : k + 1] for k in range(3))
    value, least = images.amax(1, keepdim=True), images.amin(1, keepdim=True)
    chroma = value - least
    safe = chroma.clamp(min=1e-12)
    hue = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    # Channel n is value - chroma clip(min(k, 4 - k), 0, 1) with k = (n + hue) mod 6.
    offsets = torch.tensor([5.0, 3.0, 1.0], device=images.device).to(images)[:, None, None]
    k = (offsets + hue + 6 * turn) % 6
    return value - chroma * torch.minimum(k, 4 - k).clamp(0, 1)


def blur_images(images: Tensor, generator: torch.Generator) -> Tensor:
    """Blur every image by a Gaussian whose deviation is uniform between 0.1 and 2 pixels.

    The kernel ends four pixels away, and the image is mirrored at its border.

    Args:
        images: [B, C, H, W], sides of 2 pixels or more.
        generator: CPU generator.
    """
    count, channels, height, width = images.shape
    low, high = _BLUR
    deviation = (low + (high - low) * uniform((count,), generator)).to(images)
    reach = min(_REACH, height - 1, width - 1)
    at = torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype)
    kernel = torch.exp(-0.5 * (at[None] / deviation[:, None]) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(channels, 0)
    padded = F.pad(images, (reach,) * 4, mode="reflect")
    flat = padded.reshape(1, count * channels, height + 2 * reach, width + 2 * reach)
    down = F.conv2d(flat, kernel[:, None, :, None], groups=count * channels)
    blurred = F.conv2d(down, kernel[:, None, None, :], groups=count * channels)
    return blurred.reshape(count, channels, height, width)
