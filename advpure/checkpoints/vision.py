"""Classifiers whose networks torchvision and timm have: ResNet-50, ViT-B/16 and BEiT-L.

Source: the files that torchvision, timm and the robustness library of MadryLab publish.
"""

from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from advpure.base.extras import optional
from advpure.checkpoints.layout import Layout, Source, identity, same, stacked


@dataclass(frozen=True, kw_only=True)
class VisionConfig:
    """A network of another library.

    Attributes:
        library: Which library has it.
        model: Its name there.
        classes: Number of classes.
        epsilon: The constant of every layer normalisation, if not the library's.
        names: The code base of the official file.
    """

    library: Literal["torchvision", "timm"]
    model: str
    classes: int = 1000
    epsilon: float | None = None
    names: Literal["own", "transformers"] = "own"


def build(config: VisionConfig) -> nn.Module:
    """Build the network.

    Raises:
        MissingExtra: when its library is not installed.
    """
    network: nn.Module
    if config.library == "torchvision":
        with optional("torchvision", "metrics"):
            from torchvision.models import get_model
        network = get_model(config.model, weights=None, num_classes=config.classes)
    else:
        with optional("timm", "hub"):
            from timm import create_model
        network = create_model(config.model, pretrained=False, num_classes=config.classes)
        attention: Any
        for attention in network.modules():
            if hasattr(attention, "fused_attn"):
                # Explicit softmax: the fused kernel rounds differently from batch to batch.
                attention.fused_attn = False
    if config.epsilon is not None:
        for module in network.modules():
            if isinstance(module, nn.LayerNorm):
                module.eps = config.epsilon
    return network


_TRANSFORMERS = {
    "norm1": "layernorm_before",
    "attn.proj": "attention.output.dense",
    "norm2": "layernorm_after",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}
_OUTER = {
    "cls_token": "vit.embeddings.cls_token",
    "pos_embed": "vit.embeddings.position_embeddings",
    "patch_embed.proj": "vit.embeddings.patch_embeddings.projection",
    "norm": "vit.layernorm",
    "head": "classifier",
}


def layout(network: nn.Module, config: VisionConfig) -> Layout:
    """Lay out the official file."""
    state = network.state_dict()
    if config.names == "own":
        return identity(network)
    sources: dict[str, Source] = {}
    for name, value in state.items():
        module, _, leaf = name.rpartition(".")
        if not module or module in _OUTER:
            outer = _OUTER[module or leaf]
            sources[name] = same(f"{outer}.{leaf}" if module else outer, value)
            continue
        _, number, inner = module.split(".", 2)
        prefix = f"vit.encoder.layer.{number}"
        if inner == "attn.qkv":
            names = [f"{prefix}.attention.attention.{k}.{leaf}" for k in ("query", "key", "value")]
            sources[name] = stacked(names, value)
        else:
            sources[name] = same(f"{prefix}.{_TRANSFORMERS[inner]}.{leaf}", value)
    return Layout(sources)
