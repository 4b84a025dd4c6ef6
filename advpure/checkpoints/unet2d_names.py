"""The names of diffusers' U-Net in four code bases: OpenAI's, the port of DDPM, EDM, diffusers.

A function lists the parts of the network with their official prefixes; a table per code base says
what the tensors inside a part are called.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from torch import Tensor, nn

from advpure.checkpoints.layout import Layout, Shape, Source, part, permuted, reshaped, same
from advpure.checkpoints.unet2d import UNet2DConfig


class _Module(NamedTuple):
    """A part of the network: where it is, what it is, at which level, its official prefix."""

    name: str
    kind: str
    level: int
    official: str


def layout(network: nn.Module, config: UNet2DConfig) -> Layout:
    """Lay out the official file.

    Raises:
        KeyError: when a tensor of the network has no official name; a defect of ours.
    """
    state = network.state_dict()
    if config.names == "diffusers":
        return Layout({name: same(name.removeprefix("unet."), v) for name, v in state.items()})
    listed, table = _LISTS[config.names], _SUFFIXES[config.names]
    sources: dict[str, Source] = {}
    for module in listed(config):
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
    "plain": _CONVOLUTION,
    "classes": _CONVOLUTION,
    "block": {
        "norm1": "in_layers.0",
        "conv1": "in_layers.2",
        "time_emb_proj": "emb_layers.1",
        "norm2": "out_layers.0",
        "conv2": "out_layers.3",
        "conv_shortcut": "skip_connection",
    },
    "attention": {
        "group_norm": "norm",
        "to_q": "qkv",
        "to_k": "qkv",
        "to_v": "qkv",
        "to_out.0": "proj_out",
    },
}
_DDPM = {
    "plain": _CONVOLUTION,
    "block": {
        "norm1": "norm1",
        "conv1": "conv1",
        "time_emb_proj": "temb_proj",
        "norm2": "norm2",
        "conv2": "conv2",
        "conv_shortcut": "nin_shortcut",
    },
    "attention": {
        "group_norm": "norm",
        "to_q": "q",
        "to_k": "k",
        "to_v": "v",
        "to_out.0": "proj_out",
    },
}
_EDM = {
    "plain": _CONVOLUTION,
    "classes": _CONVOLUTION,
    "block": {
        "norm1": "norm0",
        "conv1": "conv0",
        "time_emb_proj": "affine",
        "norm2": "norm1",
        "conv2": "conv1",
        "conv_shortcut": "skip",
    },
    "attention": {
        "group_norm": "norm2",
        "to_q": "qkv",
        "to_k": "qkv",
        "to_v": "qkv",
        "to_out.0": "proj",
    },
}
_SUFFIXES: dict[str, dict[str, dict[str, str]]] = {"openai": _OPENAI, "ddpm": _DDPM, "edm": _EDM}


def _list_openai(config: UNet2DConfig) -> Iterator[_Module]:
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
                    f"up_blocks.{k}.upsamplers.0{inner}",
                    resized,
                    level,
                    f"output_blocks.{block}.{1 + attends}{inner}",
                )
            block += 1
    yield _Module("conv_norm_out", "plain", 0, "out.0")
    yield _Module("conv_out", "plain", 0, "out.2")


def _list_ddpm(config: UNet2DConfig) -> Iterator[_Module]:
    """Name the blocks by resolution level, as the port of DDPM's weights does."""
    top = len(config.channels) - 1
    yield _Module("time_embedding.linear_1", "plain", 0, "temb.dense.0")
    yield _Module("time_embedding.linear_2", "plain", 0, "temb.dense.1")
    yield _Module("conv_in", "plain", 0, "conv_in")
    for side, extra, resize in (("down", 0, "downsample"), ("up", 1, "upsample")):
        for level in range(top + 1):
            prefix = f"{side}_blocks.{level if side == 'down' else top - level}"
            for k in range(config.layers + extra):
                yield _Module(f"{prefix}.resnets.{k}", "block", level, f"{side}.{level}.block.{k}")
                yield _Module(
                    f"{prefix}.attentions.{k}", "attention", level, f"{side}.{level}.attn.{k}"
                )
            yield _Module(
                f"{prefix}.{resize}rs.0.conv", "plain", level, f"{side}.{level}.{resize}.conv"
            )
    yield _Module("mid_block.resnets.0", "block", top, "mid.block_1")
    yield _Module("mid_block.attentions.0", "attention", top, "mid.attn_1")
    yield _Module("mid_block.resnets.1", "block", top, "mid.block_2")
    yield _Module("conv_norm_out", "plain", 0, "norm_out")
    yield _Module("conv_out", "plain", 0, "conv_out")


def _list_edm(config: UNet2DConfig) -> Iterator[_Module]:
    """Name the blocks by resolution, as EDM's reimplementation of ADM does."""
    top = len(config.channels) - 1
    sizes = [config.image_size >> level for level in range(top + 1)]
    sides = [f"{size}x{size}" for size in sizes]

    def both(name: str, k: int, level: int, official: str) -> Iterator[_Module]:
        yield _Module(f"{name}.resnets.{k}", "block", level, official)
        yield _Module(f"{name}.attentions.{k}", "attention", level, official)

    yield _Module("time_embedding.linear_1", "plain", 0, "model.map_layer0")
    yield _Module("time_embedding.linear_2", "plain", 0, "model.map_layer1")
    yield _Module("class_embedding", "classes", 0, "model.map_label")
    yield _Module("conv_in", "plain", 0, f"model.enc.{sides[0]}_conv")
    for level, side in enumerate(sides):
        if level:
            yield _Module(
                f"down_blocks.{level - 1}.downsamplers.0", "block", level, f"model.enc.{side}_down"
            )
        for k in range(config.layers):
            yield from both(f"down_blocks.{level}", k, level, f"model.enc.{side}_block{k}")
    yield _Module("mid_block.resnets.0", "block", top, f"model.dec.{sides[top]}_in0")
    yield _Module("mid_block.attentions.0", "attention", top, f"model.dec.{sides[top]}_in0")
    yield _Module("mid_block.resnets.1", "block", top, f"model.dec.{sides[top]}_in1")
    for level, side in enumerate(sides):
        if level < top:
            yield _Module(
                f"up_blocks.{top - level - 1}.upsamplers.0", "block", level, f"model.dec.{side}_up"
            )
        for k in range(config.layers + 1):
            yield from both(f"up_blocks.{top - level}", k, level, f"model.dec.{side}_block{k}")
    yield _Module("conv_norm_out", "plain", 0, "model.out_norm")
    yield _Module("conv_out", "plain", 0, "model.out_conv")


_LISTS: dict[str, Callable[[UNet2DConfig], Iterator[_Module]]] = {
    "openai": _list_openai,
    "ddpm": _list_ddpm,
    "edm": _list_edm,
}


def _edm_unused(config: UNet2DConfig) -> dict[str, Shape]:
    """Name what EDM stores and inference leaves out: the box filters."""
    top = len(config.channels) - 1
    unused: dict[str, Shape] = {}
    for level in range(top + 1):
        size = config.image_size >> level
        ends = [f"model.enc.{size}x{size}_down"] if level else []
        ends += [f"model.dec.{size}x{size}_up"] if level < top else []
        for end in ends:
            for inner in ("conv0", "skip"):
                unused[f"{end}.{inner}.resample_filter"] = (1, 1, 2, 2)
    return unused
