"""The U-Nets that diffusers has: DDPM, improved diffusion, ADM, and consistency models.

One class of diffusers serves five published code bases, which differ in their names, in the order
of the joint attention projection, and in the scalar that the time embedding is made from (spec
2.7, 11.1 to 11.4). The layouts below say how.

Source: DDPM (2006.11239), improved DDPM (2102.09672), ADM (2105.05233), EDM (2206.00364),
consistency models (2303.01469).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from advpure.checkpoints.layout import Layout, Order, Source, part, permuted, reshaped, same
from advpure.errors import MissingExtra

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


class ClassTable(nn.Module):
    """Class embeddings, of which a negative label asks for the mean.

    The mean over all classes is how a class-conditional network starts out as an unconditional
    one (Consistency purification, appendix C).

    Args:
        classes: Number of classes.
        width: Width of the embedding.
    """

    def __init__(self, classes: int, width: int) -> None:
        """Create the table."""
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(classes, width))

    def forward(self, labels: Tensor) -> Tensor:
        """Return the embeddings [B, width] of labels [B]."""
        average = self.weight.mean(0, keepdim=True)
        return torch.where(labels[:, None] < 0, average, self.weight[labels.clamp_min(0)])


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
        try:
            from diffusers import UNet2DModel
            from diffusers.models.attention_processor import Attention, AttnProcessor
        except ImportError:
            raise MissingExtra("diffusers", "hub") from None
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
            labels = torch.full((x.shape[0],), self.label, device=x.device)
        out: Tensor = self.unet(x, time * self.config.time_scale, labels, return_dict=False)[0]
        return out


class _Module(NamedTuple):
    """A part of the network: where it is, what it is, at which level, its official prefix."""

    name: str
    kind: str
    level: int
    official: str


def build(config: UNet2DConfig) -> UNet2D:
    """Build the network."""
    return UNet2D(config)


def layout(network: nn.Module, config: UNet2DConfig) -> Layout:
    """Lay out the official file.

    Raises:
        KeyError: when a tensor of the network has no official name; a defect of ours.
    """
    state = network.state_dict()
    if config.names == "diffusers":
        return Layout({name: same(name.removeprefix("unet."), v) for name, v in state.items()})
    walk, table = _WALKS[config.names], _SUFFIXES[config.names]
    sources: dict[str, Source] = {}
    for module in walk(config):
        for inner, official in table[module.kind].items():
            for leaf in ("weight", "bias"):
                target = ".".join(filter(None, ("unet", module.name, inner, leaf)))
                if target in state:
                    name = ".".join(filter(None, (module.official, official, leaf)))
                    sources[target] = _source(name, state[target], inner, module, config)
    unused = _edm_unused(config) if config.names == "edm" else {}
    return Layout({name: sources[name] for name in state}, unused, r"resample_filter")


def _source(name: str, tensor: Tensor, inner: str, module: _Module, config: UNet2DConfig) -> Source:
    """Choose the rearrangement of one tensor."""
    if module.kind == "attention" and inner in _QKV and config.names != "ddpm":
        k, heads = _QKV.index(inner), config.heads_of(module.level)
        return part(name, tensor, k, config.order, heads, *config.trailing)
    if module.kind == "attention" and tensor.ndim == 2:
        return reshaped(name, tensor, *config.trailing)
    if module.kind == "classes" and config.names == "edm":
        return permuted(name, tensor, (1, 0))
    return same(name, tensor)


_QKV = ["to_q", "to_k", "to_v"]
_CONVOLUTION = {"": ""}
_OPENAI = {
    "plain": _CONVOLUTION, "classes": _CONVOLUTION,
    "block": {
        "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1",
        "norm2": "out_layers.0", "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
    },
    "attention": {
        "group_norm": "norm", "to_q": "qkv", "to_k": "qkv", "to_v": "qkv", "to_out.0": "proj_out",
    },
}  # fmt: skip
_DDPM = {
    "plain": _CONVOLUTION,
    "block": {
        "norm1": "norm1", "conv1": "conv1", "time_emb_proj": "temb_proj", "norm2": "norm2",
        "conv2": "conv2", "conv_shortcut": "nin_shortcut",
    },
    "attention": {
        "group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out",
    },
}  # fmt: skip
_EDM = {
    "plain": _CONVOLUTION, "classes": _CONVOLUTION,
    "block": {
        "norm1": "norm0", "conv1": "conv0", "time_emb_proj": "affine", "norm2": "norm1",
        "conv2": "conv1", "conv_shortcut": "skip",
    },
    "attention": {
        "group_norm": "norm2", "to_q": "qkv", "to_k": "qkv", "to_v": "qkv", "to_out.0": "proj",
    },
}  # fmt: skip
_SUFFIXES: dict[str, dict[str, dict[str, str]]] = {"openai": _OPENAI, "ddpm": _DDPM, "edm": _EDM}


def _walk_openai(config: UNet2DConfig) -> Iterator[_Module]:
    """Number the blocks as OpenAI's three repositories do."""
    top, block, resized = (
        len(config.channels) - 1,
        0,
        "block" if config.resample_blocks else "plain",
    )
    yield _Module("time_embedding.linear_1", "plain", 0, "time_embed.0")
    yield _Module("time_embedding.linear_2", "plain", 0, "time_embed.2")
    yield _Module("class_embedding", "classes", 0, "label_emb")
    yield _Module("conv_in", "plain", 0, "input_blocks.0.0")
    for level in range(top + 1):
        for k in range(config.layers):
            block += 1
            yield _Module(
                f"down_blocks.{level}.resnets.{k}", "block", level, f"input_blocks.{block}.0"
            )
            if level in config.attention:
                yield _Module(
                    f"down_blocks.{level}.attentions.{k}",
                    "attention",
                    level,
                    f"input_blocks.{block}.1",
                )
        if level < top:
            block += 1
            inner, leaf = ("", "") if config.resample_blocks else (".conv", ".op")
            yield _Module(
                f"down_blocks.{level}.downsamplers.0{inner}",
                resized,
                level,
                f"input_blocks.{block}.0{leaf}",
            )
    yield _Module("mid_block.resnets.0", "block", top, "middle_block.0")
    yield _Module("mid_block.attentions.0", "attention", top, "middle_block.1")
    yield _Module("mid_block.resnets.1", "block", top, "middle_block.2")
    block = 0
    for k in range(top + 1):
        level = top - k
        attends = level in config.attention
        for j in range(config.layers + 1):
            yield _Module(f"up_blocks.{k}.resnets.{j}", "block", level, f"output_blocks.{block}.0")
            if attends:
                yield _Module(
                    f"up_blocks.{k}.attentions.{j}", "attention", level, f"output_blocks.{block}.1"
                )
            if j == config.layers and level:
                inner = "" if config.resample_blocks else ".conv"
                yield _Module(
                    f"up_blocks.{k}.upsamplers.0{inner}", resized, level,
                    f"output_blocks.{block}.{1 + attends}{inner}",
                )  # fmt: skip
            block += 1
    yield _Module("conv_norm_out", "plain", 0, "out.0")
    yield _Module("conv_out", "plain", 0, "out.2")


def _walk_ddpm(config: UNet2DConfig) -> Iterator[_Module]:
    """Name the blocks by resolution level, as the port of DDPM's weights does."""
    top = len(config.channels) - 1
    yield _Module("time_embedding.linear_1", "plain", 0, "temb.dense.0")
    yield _Module("time_embedding.linear_2", "plain", 0, "temb.dense.1")
    yield _Module("conv_in", "plain", 0, "conv_in")
    for side, extra, resize in (("down", 0, "downsample"), ("up", 1, "upsample")):
        for level in range(top + 1):
            place = f"{side}_blocks.{level if side == 'down' else top - level}"
            for k in range(config.layers + extra):
                yield _Module(f"{place}.resnets.{k}", "block", level, f"{side}.{level}.block.{k}")
                yield _Module(
                    f"{place}.attentions.{k}", "attention", level, f"{side}.{level}.attn.{k}"
                )
            yield _Module(
                f"{place}.{resize}rs.0.conv", "plain", level, f"{side}.{level}.{resize}.conv"
            )
    yield _Module("mid_block.resnets.0", "block", top, "mid.block_1")
    yield _Module("mid_block.attentions.0", "attention", top, "mid.attn_1")
    yield _Module("mid_block.resnets.1", "block", top, "mid.block_2")
    yield _Module("conv_norm_out", "plain", 0, "norm_out")
    yield _Module("conv_out", "plain", 0, "conv_out")


def _walk_edm(config: UNet2DConfig) -> Iterator[_Module]:
    """Name the blocks by resolution, as EDM's reimplementation of ADM does."""
    top = len(config.channels) - 1
    sizes = [config.image_size >> level for level in range(top + 1)]
    places = [f"{size}x{size}" for size in sizes]

    def both(name: str, k: int, level: int, official: str) -> Iterator[_Module]:
        yield _Module(f"{name}.resnets.{k}", "block", level, official)
        yield _Module(f"{name}.attentions.{k}", "attention", level, official)

    yield _Module("time_embedding.linear_1", "plain", 0, "model.map_layer0")
    yield _Module("time_embedding.linear_2", "plain", 0, "model.map_layer1")
    yield _Module("class_embedding", "classes", 0, "model.map_label")
    yield _Module("conv_in", "plain", 0, f"model.enc.{places[0]}_conv")
    for level, place in enumerate(places):
        if level:
            yield _Module(
                f"down_blocks.{level - 1}.downsamplers.0", "block", level, f"model.enc.{place}_down"
            )
        for k in range(config.layers):
            yield from both(f"down_blocks.{level}", k, level, f"model.enc.{place}_block{k}")
    yield _Module("mid_block.resnets.0", "block", top, f"model.dec.{places[top]}_in0")
    yield _Module("mid_block.attentions.0", "attention", top, f"model.dec.{places[top]}_in0")
    yield _Module("mid_block.resnets.1", "block", top, f"model.dec.{places[top]}_in1")
    for level, place in enumerate(places):
        if level < top:
            yield _Module(
                f"up_blocks.{top - level - 1}.upsamplers.0", "block", level, f"model.dec.{place}_up"
            )
        for k in range(config.layers + 1):
            yield from both(f"up_blocks.{top - level}", k, level, f"model.dec.{place}_block{k}")
    yield _Module("conv_norm_out", "plain", 0, "model.out_norm")
    yield _Module("conv_out", "plain", 0, "model.out_conv")


_WALKS: dict[str, Callable[[UNet2DConfig], Iterator[_Module]]] = {
    "openai": _walk_openai, "ddpm": _walk_ddpm, "edm": _walk_edm,
}  # fmt: skip


def _edm_unused(config: UNet2DConfig) -> dict[str, Any]:
    """Name what EDM stores and inference leaves out: the box filters."""
    top = len(config.channels) - 1
    unused: dict[str, Any] = {}
    for level in range(top + 1):
        size = config.image_size >> level
        ends = [f"model.enc.{size}x{size}_down"] if level else []
        ends += [f"model.dec.{size}x{size}_up"] if level < top else []
        for end in ends:
            for inner in ("conv0", "skip"):
                unused[f"{end}.{inner}.resample_filter"] = (1, 1, 2, 2)
    return unused
