"""From an official network to the contract it is used by: D(x; sigma) or logits of images.

Source: the released code of each network (what it takes for time) and of each classifier (what it
takes for an image).
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from advpure.core.denoisers import (
    ConsistencyDenoiser,
    Denoiser,
    EDMDenoiser,
    EpsilonDenoiser,
    Prediction,
)
from advpure.core.schedules import make_schedule, vp_time

Resample = Literal["bilinear", "bicubic"]


@dataclass(frozen=True, kw_only=True)
class AsDenoiser:
    """How a network becomes a denoiser.

    Attributes:
        kind: ``epsilon`` (a discrete schedule), ``vp`` (the continuous variance-preserving SDE),
            ``edm`` or ``consistency``.
        schedule: Schedule of ``epsilon``.
        steps: Its number of steps T.
        rescaled: Whether network time runs to 1000 instead of T.
        learned_variance: Whether the network returns variances too.
    """

    kind: Literal["epsilon", "vp", "edm", "consistency"]
    schedule: Literal["linear", "cosine"] = "linear"
    steps: int = 1000
    rescaled: bool = False
    learned_variance: bool = False

    def __call__(self, network: nn.Module) -> Denoiser:
        """Wrap the network."""
        if self.kind == "edm":
            return EDMDenoiser(network)
        if self.kind == "consistency":
            return ConsistencyDenoiser(network)
        if self.kind == "vp":
            return ContinuousDenoiser(network)
        return EpsilonDenoiser(
            network,
            make_schedule(self.schedule, self.steps),
            time_scale=1000 / self.steps if self.rescaled else 1.0,
            learned_variance=self.learned_variance,
        )


@dataclass(frozen=True, kw_only=True)
class AsClassifier:
    """How a network becomes a classifier of images in [0, 1].

    Attributes:
        mean: Per-channel mean that is subtracted, or none.
        std: Per-channel standard deviation that is divided by.
        size: Height and width that images are resized to, in pixels; none to leave them.
        resample: The filter of the resizing, with antialiasing: ``bicubic``, or ``bilinear`` as
            the processors of transformers have it.
    """

    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    size: int | None = None
    resample: Resample = "bicubic"

    def __call__(self, network: nn.Module) -> nn.Module:
        """Wrap the network."""
        return NormalisedClassifier(network, self)


class ContinuousDenoiser(Denoiser):
    """Turn a noise-predicting network of the continuous VP-SDE into D(x; sigma).

    The network takes 999 t with t in (0, 1], where abar(t) = 1 / (1 + sigma^2).

    Args:
        network: Maps a scaled state [B, C, H, W] and a time [B] to epsilon [B, C, H, W].

    Source: [Song2021b], appendix C.
    """

    def __init__(self, network: nn.Module) -> None:
        """Wrap the network; the range of noise is that of t in [1e-5, 1]."""
        super().__init__()
        self.network = network
        self.sigma_min, self.sigma_max = 1.0005e-3, 152.1

    def predict(self, x: Tensor, sigma: float | Tensor) -> Prediction:
        """Denoise by removing the predicted noise."""
        given = torch.as_tensor(
            sigma, dtype=torch.float64, device=sigma.device if isinstance(sigma, Tensor) else "cpu"
        )
        times = [999.0 * vp_time(float((level**2).log1p())) for level in given.flatten()]
        time = torch.tensor(times, dtype=x.dtype, device=x.device).expand(x.shape[0])
        s = given.to(x).reshape(-1, *[1] * (x.ndim - 1))
        return Prediction(x - s * self.network(x / (1 + s**2) ** 0.5, time))


class NormalisedClassifier(nn.Module):
    """Resize (bicubic or bilinear, with antialiasing), normalise, classify.

    Args:
        network: Maps normalised images to logits.
        settings: What to do to images in [0, 1] first.

    Source: [Carlini2023] (bicubic, in floating point).
    """

    def __init__(self, network: nn.Module, settings: AsClassifier) -> None:
        """Wrap the network."""
        super().__init__()
        self.network, self.settings = network, settings

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [B, K] of images [B, 3, H, W] in [0, 1]."""
        size = self.settings.size
        if size is not None and images.shape[-2:] != (size, size):
            images = F.interpolate(
                images, (size, size), mode=self.settings.resample, antialias=True
            )
        if self.settings.mean:
            mean = torch.tensor(self.settings.mean, dtype=images.dtype, device=images.device)
            std = torch.tensor(self.settings.std, dtype=images.dtype, device=images.device)
            images = (images - mean[:, None, None]) / std[:, None, None]
        logits: Tensor = self.network(images)
        return logits
