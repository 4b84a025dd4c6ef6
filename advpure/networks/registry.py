"""Which architectures a weights file may name, and how to build one without global randomness."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from advpure.base.budget import MAX_PARAMETERS
from advpure.base.errors import BadInput
from advpure.base.registry import Registry
from advpure.networks.conv_encoder import ConvEncoder, ConvEncoderConfig
from advpure.networks.convnet import ConvNet, ConvNetConfig, initialise_convnet
from advpure.networks.layers import Attention, ResidualBlock
from advpure.networks.representation import RepresentationNetwork, initialise_representation
from advpure.networks.resnet import ResNet, ResNetConfig
from advpure.networks.unet import UNet, UNetConfig
from advpure.networks.vit import ViT, ViTConfig, initialise_vit


class Architecture(NamedTuple):
    """How to build a kind of network.

    Attributes:
        make: Maps a configuration to the network.
        settings: The class of its configuration, a dataclass.
    """

    make: Callable[[Any], nn.Module]
    settings: type[Any]


ARCHITECTURES: Registry[Architecture] = Registry("architecture")
ARCHITECTURES.register("unet", Architecture(UNet, UNetConfig), about="compact U-Net")
ARCHITECTURES.register("resnet", Architecture(ResNet, ResNetConfig), about="small classifier")
ARCHITECTURES.register(
    "convnet", Architecture(ConvNet, ConvNetConfig), about="classifier that trains in minutes"
)
ARCHITECTURES.register("vit", Architecture(ViT, ViTConfig), about="transformer of noisy images")
ARCHITECTURES.register(
    "conv-encoder",
    Architecture(ConvEncoder, ConvEncoderConfig),
    about="convolutional encoder of noisy images",
)


def build_network(
    architecture: str, config: Mapping[str, Any], generator: torch.Generator | None = None
) -> nn.Module:
    """Build a network from its name and settings.

    The global generator is left as it was. Without a generator the parameters are meant to be
    overwritten by loaded ones.

    Args:
        architecture: A name in `ARCHITECTURES`.
        config: Fields of its configuration class.
        generator: Source of the initial parameters.

    Returns:
        The network, float32, in training mode.

    Raises:
        BadInput: for an unknown architecture or setting, or more parameters than the budget.
    """
    make, values = _settings(architecture, config)
    count = sum(value.numel() for value in without_memory(architecture, config).parameters())
    if count > MAX_PARAMETERS:
        raise BadInput(
            f"{architecture} of {count:,} parameters",
            f"is above the budget of {MAX_PARAMETERS:,}",
            "lower channels or blocks",
        )
    with torch.random.fork_rng(devices=[]):
        network = make(values)
    if generator is not None:
        initialise(network, generator)
    return network


def without_memory(architecture: str, config: Mapping[str, Any]) -> nn.Module:
    """Build a network whose tensors have shapes and no memory.

    Args:
        architecture: A name in `ARCHITECTURES`.
        config: Fields of its configuration class.

    Raises:
        BadInput: for an unknown architecture or setting.

    """
    make, values = _settings(architecture, config)
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        return make(values)


def shapes_of(architecture: str, config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the state of a network by name, as tensors that have shapes and no memory.

    Args:
        architecture: A name in `ARCHITECTURES`.
        config: Fields of its configuration class.

    Raises:
        BadInput: for an unknown architecture or setting.

    Example:
        >>> shapes = shapes_of("resnet", {"image_channels": 1, "classes": 2, "channels": [6000]})
        >>> shapes["leave.weight"].shape
        torch.Size([2, 6000])
    """
    state: dict[str, Tensor] = without_memory(architecture, config).state_dict()
    return state


def _settings(
    architecture: str, config: Mapping[str, Any]
) -> tuple[Callable[[Any], nn.Module], Any]:
    """Return how to make an architecture, and its checked settings."""
    make, settings = ARCHITECTURES.get(architecture)
    known = [field.name for field in dataclasses.fields(settings)]
    unknown = sorted(set(config) - set(known))
    if unknown:
        raise BadInput(
            f"setting {unknown[0]!r} of {architecture}", "is unknown", f"use {', '.join(known)}"
        )
    try:
        return make, settings(**config)
    except TypeError as error:
        raise BadInput(
            f"settings of {architecture}", f"do not fit ({error})", "mend them"
        ) from None


def initialise(network: nn.Module, generator: torch.Generator) -> None:
    """Draw initial parameters: He-uniform weights, zero biases, zero last layer of every branch.

    Args:
        network: Changed in place, one draw per weight in the order of its modules.
        generator: Where the draws come from.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            fan_in = module.weight[0].numel()
            bound = math.sqrt(3.0 / fan_in)
            nn.init.uniform_(module.weight, -bound, bound, generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for module in network.modules():
        if isinstance(module, ResidualBlock):
            nn.init.zeros_(module.conv2.weight)
        elif isinstance(module, Attention):
            nn.init.zeros_(module.project.weight)
        elif isinstance(module, UNet):
            nn.init.zeros_(module.leave.weight)
        elif isinstance(module, ConvNet):
            initialise_convnet(module)
        elif isinstance(module, RepresentationNetwork):
            if isinstance(module, ViT):
                initialise_vit(module, generator)
            initialise_representation(module, generator)
