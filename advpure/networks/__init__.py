"""The networks that advpure trains and ships: a U-Net, two classifiers, two encoders."""

from advpure.networks.conv_encoder import ConvEncoder, ConvEncoderConfig
from advpure.networks.convnet import ConvNet, ConvNetConfig
from advpure.networks.registry import ARCHITECTURES, build_network, shapes_of, without_memory
from advpure.networks.representation import RepresentationNetwork
from advpure.networks.resnet import ResNet, ResNetConfig
from advpure.networks.unet import UNet, UNetConfig
from advpure.networks.vit import ViT, ViTConfig

__all__ = [
    "ARCHITECTURES",
    "ConvEncoder",
    "ConvEncoderConfig",
    "ConvNet",
    "ConvNetConfig",
    "RepresentationNetwork",
    "ResNet",
    "ResNetConfig",
    "UNet",
    "UNetConfig",
    "ViT",
    "ViTConfig",
    "build_network",
    "shapes_of",
    "without_memory",
]
