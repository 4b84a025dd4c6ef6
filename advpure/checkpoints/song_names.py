"""The names of DDPM++ and NCSN++ in three code bases: EDM, Score-SDE and its JAX original.

EDM names blocks by resolution, Score-SDE numbers modules in the order in which they run, flax
numbers them kind by kind and keeps the output channels last.
"""

from collections.abc import Iterator
from itertools import count

from torch import Tensor, nn

from advpure.checkpoints.layout import Layout, Shape, Source, part, permuted, same
from advpure.checkpoints.song import Attention, Block, SongConfig, SongUNet


def layout(network: nn.Module, config: SongConfig) -> Layout:
    """Lay out the official file."""
    assert isinstance(network, SongUNet)
    make = {"edm": _edm, "flax": _flax, "score-sde": _score_sde}[config.names]
    return make(network, config)


_BLOCK = ("norm0", "conv0", "affine", "norm1", "conv1", "skip")
_ATTENTION = ("query", "key", "value")


def _edm(network: SongUNet, config: SongConfig) -> Layout:
    """Name the blocks by resolution, as EDM does; queries, keys and values are interleaved."""
    state, sources = network.state_dict(), dict[str, Source]()
    unused: dict[str, Shape] = {"model.map_augment.weight": (network.embed0.in_features, 9)}
    box = (1, 1, 4, 4) if config.fir else (1, 1, 2, 2)

    def take(ours: str, official: str) -> None:
        for leaf in ("weight", "bias"):
            sources[f"{ours}.{leaf}"] = same(f"model.{official}.{leaf}", state[f"{ours}.{leaf}"])

    def block(ours: str, official: str, module: nn.Module) -> None:
        assert isinstance(module, Block)
        for inner in _BLOCK:
            if f"{ours}.{inner}.weight" in state:
                take(f"{ours}.{inner}", f"{official}.{inner}")
        if module.resample != "none":
            for inner in ("conv0", "skip"):
                unused[f"model.{official}.{inner}.resample_filter"] = box
        if module.attention is not None:
            take(f"{ours}.attention.norm", f"{official}.norm2")
            take(f"{ours}.attention.out", f"{official}.proj")
            for k, inner in enumerate(_ATTENTION):
                for leaf in ("weight", "bias"):
                    name, target = (
                        f"model.{official}.qkv.{leaf}",
                        f"{ours}.attention.{inner}.{leaf}",
                    )
                    sources[target] = part(name, state[target], k, "interleaved", 1)

    if config.fourier:
        sources["frequencies"] = same("model.map_noise.freqs", state["frequencies"])
    if config.classes:
        take("labels", "map_label")
    take("embed0", "map_layer0")
    take("embed1", "map_layer1")
    top = len(config.multiples) - 1
    sides = [
        f"{config.image_size >> level}x{config.image_size >> level}" for level in range(top + 1)
    ]
    take("enter", f"enc.{sides[0]}_conv")
    names = [
        *[f"enc.{sides[0]}_block{k}" for k in range(config.blocks)],
        *[
            f"enc.{sides[level]}_{end}"
            for level in range(1, top + 1)
            for end in ("down", *[f"block{k}" for k in range(config.blocks)])
        ],
    ]
    for k, (module, name) in enumerate(zip(network.down, names, strict=True)):
        block(f"down.{k}", name, module)
    for k in range(len(network.residual)):
        take(f"residual.{k}", f"enc.{sides[k + 1]}_aux_residual")
        unused[f"model.enc.{sides[k + 1]}_aux_residual.resample_filter"] = box
    for k, module in enumerate(network.middle):
        block(f"middle.{k}", f"dec.{sides[top]}_in{k}", module)
    names = [
        f"dec.{sides[level]}_{end}"
        for level in range(top, -1, -1)
        for end in (
            *(["up"] if level < top else []),
            *[f"block{k}" for k in range(config.blocks + 1)],
        )
    ]
    for k, (module, name) in enumerate(zip(network.up, names, strict=True)):
        block(f"up.{k}", name, module)
    take("norm", f"dec.{sides[0]}_aux_norm")
    take("leave", f"dec.{sides[0]}_aux_conv")
    return Layout({name: sources[name] for name in state}, unused, r"resample_filter|freqs")


def _in_order(network: SongUNet) -> Iterator[tuple[str, nn.Module]]:
    """Iterate over blocks, attentions and residual convolutions in the order in which they run."""
    residual = iter(range(len(network.residual)))
    for side in ("down", "middle", "up"):
        for k, block in enumerate(getattr(network, side)):
            yield f"{side}.{k}", block
            if block.attention is not None:
                yield f"{side}.{k}.attention", block.attention
            if block.resample == "down" and network.config.residual_input:
                number = next(residual)
                yield f"residual.{number}", network.residual[number]


_SCORE_BLOCK = {
    "norm0": "GroupNorm_0",
    "conv0": "Conv_0",
    "affine": "Dense_0",
    "norm1": "GroupNorm_1",
    "conv1": "Conv_1",
    "skip": "Conv_2",
}
_SCORE_ATTENTION = {"query": "NIN_0", "key": "NIN_1", "value": "NIN_2", "out": "NIN_3"}


def _score_sde(network: SongUNet, config: SongConfig) -> Layout:
    """Number the modules in the order in which they run, as Score-SDE does."""
    state, sources = network.state_dict(), dict[str, Source]()
    numbers = count()

    def take(ours: str, official: str) -> None:
        for leaf in ("weight", "bias"):
            name = f"{ours}.{leaf}"
            if name in state:
                sources[name] = same(f"all_modules.{official}.{leaf}", state[name])

    if config.fourier:
        sources["frequencies"] = same(f"all_modules.{next(numbers)}.W", state["frequencies"])
    for ours in ("embed0", "embed1", "enter"):
        take(ours, str(next(numbers)))
    for ours, module in _in_order(network):
        number = next(numbers)
        if isinstance(module, Block):
            for inner, official in _SCORE_BLOCK.items():
                take(f"{ours}.{inner}", f"{number}.{official}")
        elif isinstance(module, Attention):
            take(f"{ours}.norm", f"{number}.GroupNorm_0")
            for inner, official in _SCORE_ATTENTION.items():
                weight, bias = f"{ours}.{inner}.weight", f"{ours}.{inner}.bias"
                sources[weight] = _mixing(f"all_modules.{number}.{official}.W", state[weight])
                sources[bias] = same(f"all_modules.{number}.{official}.b", state[bias])
        else:
            take(ours, f"{number}.Conv2d_0")
    for ours in ("norm", "leave"):
        take(ours, str(next(numbers)))
    return Layout({name: sources[name] for name in state}, {"sigmas": (1000,)}, r"^sigmas$")


def _flax(network: SongUNet, config: SongConfig) -> Layout:
    """Number the modules kind by kind, with flax's axes: kernels are [H, W, in, out]."""
    state, sources = network.state_dict(), dict[str, Source]()
    blocks, attentions, shrinks = count(), count(), count()

    def take(ours: str, official: str, *, plain: bool = False) -> None:
        weight, bias = f"{ours}.weight", f"{ours}.bias"
        if weight not in state:
            return
        value = state[weight]
        if value.ndim == 1:
            sources[weight] = same(f"{official}.scale", value)
        elif value.ndim == 2:
            sources[weight] = permuted(f"{official}.kernel", value, (1, 0))
        else:
            leaf = "weight" if plain else "kernel"
            sources[weight] = permuted(f"{official}.{leaf}", value, (3, 2, 0, 1))
        sources[bias] = same(f"{official}.bias", state[bias])

    sources["frequencies"] = same("GaussianFourierProjection_0.W", state["frequencies"])
    for ours, official in (("embed0", "Dense_0"), ("embed1", "Dense_1"), ("enter", "Conv_0")):
        take(ours, official)
    for ours, module in _in_order(network):
        if isinstance(module, Block):
            number = next(blocks)
            for inner, official in _SCORE_BLOCK.items():
                take(f"{ours}.{inner}", f"ResnetBlockBigGANpp_{number}.{official}")
        elif isinstance(module, Attention):
            number = next(attentions)
            take(f"{ours}.norm", f"AttnBlockpp_{number}.GroupNorm_0")
            for inner, official in _SCORE_ATTENTION.items():
                weight, bias = f"{ours}.{inner}.weight", f"{ours}.{inner}.bias"
                name = f"AttnBlockpp_{number}.{official}"
                sources[weight] = _mixing(f"{name}.W", state[weight])
                sources[bias] = same(f"{name}.b", state[bias])
        else:
            take(ours, f"Downsample_{next(shrinks)}.Conv2d_0", plain=True)
    take("norm", "GroupNorm_0")
    take("leave", "Conv_1")
    return Layout({name: sources[name] for name in state})


def _mixing(name: str, tensor: Tensor) -> Source:
    """Take a matrix [in, out] as a 1 x 1 convolution [out, in, 1, 1]."""
    turned = permuted(name, tensor[:, :, 0, 0], (1, 0))
    return Source(turned.names, turned.shapes, lambda value: turned.make(value)[:, :, None, None])
