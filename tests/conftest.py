"""Small things that many tests need: a network that is no closed form, and keyed noise."""

import os
import signal
from collections.abc import Callable

# Before advpure is imported: what the tests do not say is digits, which are quick. The default
# itself is tested in processes of their own.
os.environ["ADVPURE_DATASET"] = "digits"

import pytest
import torch
from torch import Tensor, nn

from advpure.core.denoisers import EDMDenoiser
from advpure.networks import build_network

# A shell starts background jobs with Ctrl-C ignored, and children inherit that; tests press it.
signal.signal(signal.SIGINT, signal.default_int_handler)

MakeDenoiser = Callable[..., EDMDenoiser]


def fill(network: nn.Module, seed: int, scale: float = 1.0) -> nn.Module:
    """Give every parameter a value of its own, so that no branch stays at zero."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        spread = scale / max(parameter[0].numel(), 1) ** 0.5 if parameter.ndim > 1 else 0.1 * scale
        values = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.data.copy_(spread * values)
        parameter.requires_grad_(False)
    return network.eval()


@pytest.fixture
def toy_denoiser() -> MakeDenoiser:
    """Return a maker of small U-Net denoisers for 1-channel images, untrained but not trivial."""

    def make(
        size: int = 8,
        seed: int = 0,
        kind: type[EDMDenoiser] = EDMDenoiser,
        dtype: torch.dtype = torch.float32,
    ) -> EDMDenoiser:
        config = {
            "image_size": size, "image_channels": 1, "channels": (8,), "blocks": 1, "embedding": 8,
        }  # fmt: skip
        return kind(fill(build_network("unet", config), seed)).to(dtype)

    return make


@pytest.fixture
def normals() -> Callable[..., Tensor]:
    """Return a source of standard normal tensors keyed by a seed, never by the global state."""

    def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(*shape, generator=generator, dtype=dtype)

    return draw


@pytest.fixture
def pictures() -> Callable[..., Tensor]:
    """Return a source of images, uniform in [0.1, 0.9], keyed by a seed."""

    def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return 0.1 + 0.8 * torch.rand(*shape, generator=generator, dtype=dtype)

    return draw
