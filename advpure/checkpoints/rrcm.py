"""Files of the released rRCM code: pre-trained encoders and fine-tuned classifiers.

The authors released code and no weights, so these are files of somebody's own training with it:
`nnet.pth`, `nnet_ema.pth` and `target_model.pth` hold the encoder and its projection head under the
names that ours have, fine-tuned files hold `module.base_model.*` and `module.linear_head.*`.

Shapes follow from the tensors. Three facts do not, and are never guessed: whether the linear head
reads the normalised class token (ImageNet) or the plain one (CIFAR-10), the number of nodes N that
the encoder was trained with, and the levels that the classifier was tuned at.

Source: [Lei2025], its released code.
"""

from collections.abc import Mapping, Sequence
from math import isqrt
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from advpure.base.errors import BadInput
from advpure.checkpoints.layout import Layout, assemble, same
from advpure.core.levelled import LEVELLED, NoiseLevels
from advpure.networks.registry import shapes_of
from advpure.networks.vit import ViT, ViTConfig
from advpure.networks.weights import load_tensors, save_network

_HEAD_WIDTH = 64
"""Numbers of an attention head in every published shape."""
_TUNED, _TUNED_HEAD = "module.base_model.", "module.linear_head."
_FIX = "give a file that the released code wrote"
_SPAN = {"sigma_data": 0.5, "sigma_min": 0.002, "sigma_max": 80.0}


def read_rrcm(path: str | Path, *, heads: int | None = None, normed: bool = False) -> ViT:
    """Read an encoder or a classifier of the released code; no code of the file runs.

    Args:
        path: `nnet_ema.pth` or another state of pre-training, or a fine-tuned `.pt`.
        heads: Attention heads; None for heads of 64 numbers, as every published shape has them.
        normed: Whether the linear head reads the normalised class token.

    Returns:
        The network, float32, in evaluation mode, without gradients.

    Raises:
        BadInput: for a file of another kind, naming the first tensor that does not fit.
    """
    stored = load_tensors(path).tensors
    config = shape_of(stored, heads=heads, normed=normed, name=str(path))
    layout = layout_of(config, tuned=any(name.startswith(_TUNED) for name in stored))
    state = assemble(layout, stored, f"rRCM file {path}")
    with torch.device("meta"):
        network = ViT(config)
    network.load_state_dict(state, assign=True)
    return network.eval().requires_grad_(False)


def layout_of(config: ViTConfig, *, tuned: bool) -> Layout:
    """Name the tensors of a file of the released code.

    Args:
        config: The network's shape.
        tuned: Whether it is a fine-tuned file; otherwise one of pre-training.

    Example:
        >>> shape = {"image_size": 32, "image_channels": 3, "patch": 4, "width": 768, "heads": 12}
        >>> layout = layout_of(ViTConfig(depth=12, hidden=2048, **shape), tuned=False)
        >>> len(layout.official()), layout.parameters()
        (151, 91417088)
    """
    own = shapes_of("vit", {**vars(config)})

    def named(name: str) -> str:
        if not tuned:
            return name
        head, _, rest = name.partition(".")
        return _TUNED_HEAD + rest if head == "linear_head" else _TUNED + name

    return Layout({name: same(named(name), value) for name, value in own.items()})


def shape_of(
    stored: Mapping[str, Tensor], *, heads: int | None = None, normed: bool = False, name: str
) -> ViTConfig:
    """Read the shape of a network off the tensors of its file.

    Args:
        stored: Tensors by their official names.
        heads: As for `read_rrcm`.
        normed: Likewise.
        name: What to call the file in a message.

    Raises:
        BadInput: for tensors of another network.
    """
    start = _TUNED if any(each.startswith(_TUNED) for each in stored) else ""

    def shape(key: str, dimensions: int) -> tuple[int, ...]:
        tensor = stored.get(start + key)
        if tensor is None or tensor.ndim != dimensions:
            raise BadInput(f"rRCM file {name}", f"has no {start}{key} of its network", _FIX)
        return tuple(tensor.shape)

    _, tokens, width = shape("pos_embed", 3)
    _, channels, patch, _ = shape("patch_embed.proj.weight", 4)
    side = isqrt(tokens - 2) if tokens > 2 else 0
    if side**2 != tokens - 2 or not side:
        rule = f"has {tokens} tokens, which are no square of patches and two more"
        raise BadInput(f"rRCM file {name}", rule, _FIX)
    numbers = [
        int(key.removeprefix(f"{start}blocks.").partition(".")[0])
        for key in stored
        if key.startswith(f"{start}blocks.") and key.split(".")[start.count(".") + 1].isdecimal()
    ]
    has_projection = f"{start}projection_head.0.weight" in stored
    answers = stored.get(f"{_TUNED_HEAD}weight")
    return ViTConfig(
        image_size=side * patch,
        image_channels=channels,
        patch=patch,
        width=width,
        depth=max(numbers, default=0) + 1,
        heads=heads or max(width // _HEAD_WIDTH, 1),
        hidden=shape("projection_head.0.weight", 2)[0] if has_projection else 0,
        projection=shape("projection_head.6.weight", 2)[0] if has_projection else 256,
        classes=0 if answers is None else len(answers),
        normed=normed,
    )


def import_rrcm(
    path: str | Path,
    to: str | Path,
    *,
    dataset: str,
    nodes: int,
    sigmas: Sequence[float] = (),
    heads: int | None = None,
    normed: bool = False,
) -> Path:
    """Store a file of the released code as weights of ours, float16, with what it does not say.

    Args:
        path: As for `read_rrcm`.
        to: Target, a .safetensors file.
        dataset: The data set that it was trained on.
        nodes: N of its pre-training: 81 after two thirds of the steps that were planned.
        sigmas: Levels that a classifier was tuned at, [0, 1] units.
        heads: As for `read_rrcm`.
        normed: Likewise.

    Returns:
        The target: an encoder to start from (`--teacher`), or a classifier for `--defense rrcm`.

    Raises:
        BadInput: as `read_rrcm`; for a classifier without levels.
    """
    network = read_rrcm(path, heads=heads, normed=normed)
    config = vars(network.config)
    metadata: dict[str, Any] = {
        "name": Path(to).stem,
        "task": "representation",
        "dataset": dataset,
        "nodes": nodes,
        **_SPAN,
    }
    if network.config.classes:
        if not sigmas:
            rule, fix = "does not say which noise it was tuned at", "give sigmas, such as [0.25]"
            raise BadInput(f"rRCM file {path}", rule, fix)
        levels = {"noise_sigmas": list(sigmas), "covers": [min(sigmas), max(sigmas)]}
        metadata |= {"task": LEVELLED, **levels}
    NoiseLevels.of({"covers": [0.0, 0.0], **metadata}, str(path))
    save_network(to, network, architecture="vit", config=config, metadata=metadata)
    return Path(to)
