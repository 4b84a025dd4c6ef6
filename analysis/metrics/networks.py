"""The networks whose features sets of images are compared in, by name.

A feature network maps images in [0, 1] to one or several vectors an image. It computes in a tile of
its own, so that a vector has the same bits whatever its neighbours are. What is missing for it (a
package, a file of weights) is said in one line when it is loaded, and other networks still work. A
new one is one file and one line here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from advpure.base.errors import BadInput
from advpure.base.registry import Registry
from advpure.core.tiling import tiled

Vectors = Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class FeatureNetwork:
    """A loaded network.

    Attributes:
        run: Images [B, C, H, W] in [0, 1] to vectors [B, d] by name.
        outputs: The names.
        tile: Rows that it computes at once.
        identity: What its vectors depend on beside the images: sha256 of weights, sizes.
    """

    run: Callable[[Tensor], Vectors]
    outputs: tuple[str, ...]
    tile: int
    identity: Mapping[str, Any]

    def __call__(self, images: Tensor) -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
        """Return the vectors of images [B, C, H, W], clipped to [0, 1]: name -> float32 [B, d].

        No gradient flows: these are measurements.

        Raises:
            BadInput: when a vector is not finite.
        """

        def ask(x: Tensor) -> tuple[Tensor, ...]:
            vectors = self.run(x)
            return tuple(vectors[name].flatten(1) for name in self.outputs)

        with torch.no_grad():  # see above
            parts = tiled(ask, self.tile)(images.clamp(0.0, 1.0))
        vectors = {}
        for name, part in zip(self.outputs, parts, strict=True):
            if not bool(part.isfinite().all()):
                raise BadInput(f"features {name!r}", "are not finite", "check the weights")
            vectors[name] = part.float().cpu().numpy()
        return vectors


@dataclass(frozen=True, kw_only=True)
class MetricContext:
    """What a feature network may be made from.

    Attributes:
        classifier: The classifier that is studied, and what identifies it; None where there is
            none.
        identity: What identifies the classifier.
        tile: The compute tile of the data set.
        shape: Shape of the images, (C, H, W).
        device: Where networks compute.
    """

    classifier: nn.Module | None = None
    identity: Mapping[str, Any] | None = None
    tile: int | None = None
    shape: tuple[int, int, int] = (3, 32, 32)
    device: str = "cpu"


Loader = Callable[[MetricContext], FeatureNetwork]

NETWORKS: Registry[Loader] = Registry("feature network")
_HERE = "advpure.analysis.metrics"

NETWORKS.register(
    "classifier", f"{_HERE}.classifier_features:load", about="our classifier's last features"
)
NETWORKS.register("vgg", f"{_HERE}.vgg_features:load", about="VGG16, from the weights of LPIPS")
NETWORKS.register(
    "inception", f"{_HERE}.inception_features:load", about="the Inception network of the FID"
)
NETWORKS.register("clip", f"{_HERE}.clip_features:load", about="CLIP's image embedding")


def three_channels(images: Tensor) -> Tensor:
    """Return images [B, 3, H, W]: grey ones [B, 1, H, W] repeated.

    Raises:
        BadInput: for another number of channels.
    """
    if images.shape[1] not in (1, 3):
        rule = "are neither grey nor RGB"
        raise BadInput(f"images of {images.shape[1]} channels", rule, "use 1 or 3 channels")
    return images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images
