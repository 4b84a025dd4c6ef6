"""The networks that advpure trains and ships: a compact U-Net and two small classifiers."""

from advpure.networks.convnet import ConvNet, ConvNetConfig
from advpure.networks.registry import ARCHITECTURES, build_network, shapes_of
from advpure.networks.resnet import ResNet, ResNetConfig
from advpure.networks.unet import UNet, UNetConfig

__all__ = [
    "ARCHITECTURES",
    "ConvNet",
    "ConvNetConfig",
    "ResNet",
    "ResNetConfig",
    "UNet",
    "UNetConfig",
    "build_network",
    "shapes_of",
]
