"""The U-Nets that diffusers has: DDPM, improved diffusion, ADM, and consistency models.

One class of diffusers serves five published code bases, which differ in the order of the joint
attention projection, in the scalar that the time embedding is made from, and in their names
(`advpure.checkpoints.unet2d_names`).

Source: DDPM [Ho2020], improved DDPM [Nichol2021], ADM [Dhariwal2021], EDM [Karras2022], consistency
models [Song2023].
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from advpure.base.extras import optional
from advpure.checkpoints.layout import Order
from advpure.networks.layers import ClassTable

Names = Literal["openai", "ddpm", "diffusers", "edm"]


@dataclass(frozen=True, kw_only=True)
class UNet2DConfig:
    """The shape of a U-Net and the names of its official file.

    Attributes:
        image_size: Height and width that it was trained at, in pixels.
        channels: Width of every level, finest first.
        layers: Residual blocks per level on the way down; one more on the way up.
        attention: Levels (0 is the finest) with self-attention.
        head_channels: Channels per attention head; None for `heads` of them.
        heads: Number of heads, the same in every block.
        out_channels: 3, or 6 for networks that learn their variance.
        classes: Number of classes of a class-conditional network, 0 for none.
        adm: Scale-and-shift blocks (improved diffusion and later) instead of DDPM's.
        resample_blocks: Residual blocks resize (ADM) instead of plain convolutions.
        time_scale: What the network time is multiplied by in front of the embedding.
        names: The code base of the official file.
        order: Channel order of its joint attention projection.
        trailing: Trailing dimensions of that projection's weight.
    """

    image_size: int
    channels: tuple[int, ...]
    layers: int
    attention: tuple[int, ...]
    head_channels: int | None = None
    heads: int = 1
    out_channels: int = 3
    classes: int = 0
    adm: bool = True
    resample_blocks: bool = False
    time_scale: float = 1.0
    names: Names = "openai"
    order: Order = "heads"
    trailing: tuple[int, ...] = (1,)

    def heads_of(self, level: int) -> int:
        """Return the number of heads in the attention of a level."""
        if self.head_channels is None:
            return self.heads
        return self.channels[level] // self.head_channels


class UNet2D(nn.Module):
    """A `UNet2DModel` of diffusers with a scaled time and, if it has classes, a label.

    Args:
        config: The shape.

    Raises:
        MissingExtra: when diffusers is not installed.
    """

    def __init__(self, config: UNet2DConfig) -> None:
        """Create the layers."""
        super().__init__()
        with optional("diffusers", "hub"):
            from diffusers import UNet2DModel
            from diffusers.models.attention_processor import Attention, AttnProcessor
        self.config = config
        self.label = -1
        levels = range(len(config.channels))
        plain = "Resnet{}sampleBlock2D" if config.resample_blocks else "{}Block2D"
        kinds = ["Attn{}Block2D" if level in config.attention else plain for level in levels]
        resample = "resnet" if config.resample_blocks else "conv"
        make: Callable[..., Any] = UNet2DModel
        self.unet: Any = make(
            sample_size=config.image_size,
            out_channels=config.out_channels,
            freq_shift=0 if config.adm else 1,
            flip_sin_to_cos=config.adm,
            down_block_types=tuple(kind.format("Down") for kind in kinds),
            up_block_types=tuple(kind.format("Up") for kind in reversed(kinds)),
            block_out_channels=config.channels,
            layers_per_block=config.layers,
            downsample_padding=1 if config.adm else 0,
            downsample_type=resample,
            upsample_type=resample,
            attention_head_dim=config.head_channels,
            attn_norm_num_groups=32,
            norm_eps=1e-5 if config.adm else 1e-6,
            resnet_time_scale_shift="scale_shift" if config.adm else "default",
            num_class_embeds=config.classes or None,
        )
        for module in self.unet.modules():
            if isinstance(module, Attention):
                # Explicit softmax: the fused kernel rounds differently from batch to batch.
                module.set_processor(AttnProcessor())
                # It would round float64 to float32; in float32 it changes no bit.
                module.upcast_softmax = False
                if config.head_channels is None:
                    module.heads = config.heads
                    module.scale = (module.to_q.out_features // config.heads) ** -0.5
        if config.classes:
            self.unet.class_embedding = ClassTable(config.classes, 4 * config.channels[0])

    def forward(self, x: Tensor, time: Tensor, labels: Tensor | None = None) -> Tensor:
        """Evaluate the network once.

        Args:
            x: Scaled images, [B, 3, H, W], H and W multiples of 2^(levels - 1).
            time: Network time, [B].
            labels: Class per image, [B], negative for the mean class; `self.label` by default.

        Returns:
            Its output [B, out_channels, H, W].
        """
        if self.config.classes and labels is None:
            labels = torch.full((x.shape[0],), self.label, device=x.device, dtype=torch.int64)
        out: Tensor = self.unet(x, time * self.config.time_scale, labels, return_dict=False)[0]
        return out


def build(config: UNet2DConfig) -> UNet2D:
    """Build the network."""
    return UNet2D(config)
