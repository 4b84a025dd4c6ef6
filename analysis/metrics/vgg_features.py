"""VGG16 features from the weights of LPIPS: after relu5_3, mean over positions, 512 numbers.

Images keep their size, as in LPIPS, but at least 32 pixels: four poolings leave 2 x 2 positions
there. A network that was fine-tuned with LPIPS has been trained to agree with these very features.
"""

from torch import Tensor
from torch.nn import functional as F

from advpure.analysis.metrics.networks import FeatureNetwork, MetricContext, Vectors, three_channels
from advpure.base.units import to_model
from advpure.networks.lpips import LPIPS, load_lpips, lpips_path
from advpure.networks.weights import sha256

LEAST = 32
_TILE = 32


def load(context: MetricContext) -> FeatureNetwork:
    """Load VGG16.

    Raises:
        BadInput: when the weights are missing.
    """
    network = load_lpips().to(context.device)

    def run(images: Tensor) -> Vectors:
        return {"vgg": network.activations(prepared(images))[-1].mean(dim=(2, 3))}

    return FeatureNetwork(run=run, outputs=("vgg",), tile=_TILE, identity=identity())


def identity() -> dict[str, object]:
    """Return which weights, and from which size images are enlarged."""
    return {"sha256": sha256(lpips_path()), "least_side": LEAST}


def prepared(images: Tensor) -> Tensor:
    """Return images as VGG16 wants them here: three channels, [-1, 1], 32 pixels or more."""
    x, side = three_channels(images), min(images.shape[2:])
    if side < LEAST:
        size = tuple(round(length * LEAST / side) for length in images.shape[2:])
        x = F.interpolate(x, size, mode="bilinear", align_corners=False)
    return to_model(x)


def perceptual_distance(network: LPIPS, a: Tensor, b: Tensor) -> Tensor:
    """Return LPIPS [B] of pairs of images [B, C, H, W], clipped to [0, 1]."""
    distance: Tensor = network(prepared(a.clamp(0.0, 1.0)), prepared(b.clamp(0.0, 1.0)))
    return distance
