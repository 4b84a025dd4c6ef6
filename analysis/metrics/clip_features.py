"""CLIP's image embedding, from open_clip, with weights from a local file: ViT-B/32, 224 pixels.

Images are enlarged bicubically to 224 x 224 and normalised as CLIP was trained. The distance of two
images is 1 - cos of their embeddings. [Wei2025] does not name its model; OpenAI's ViT-B/32 is
used here.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from advpure.analysis.metrics.networks import FeatureNetwork, MetricContext, Vectors, three_channels
from advpure.base.errors import BadInput
from advpure.base.extras import optional
from advpure.base.place import data_root
from advpure.networks.weights import load_state, sha256

MODEL, PRETRAINED, SIDE = "ViT-B-32", "openai", 224
_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_TILE = 16


def load(context: MetricContext) -> FeatureNetwork:
    """Load the image tower.

    Raises:
        MissingExtra: when open_clip is not installed.
        BadInput: when the weights are missing or do not fit.
    """
    path = find_weights()
    with optional("open_clip", "metrics"):
        import open_clip
    with torch.random.fork_rng(devices=[]), _quiet():
        model = open_clip.create_model(f"{MODEL}-quickgelu")  # OpenAI's activation; no download
    try:
        model.load_state_dict(load_state(path))
    except RuntimeError:
        raise BadInput(f"CLIP weights {path}", f"fit no {MODEL}", "obtain them again") from None
    model = model.eval().to(context.device)

    def run(images: Tensor) -> Vectors:
        embedded: Tensor = model.encode_image(prepared(images))
        return {"clip": F.normalize(embedded, dim=1)}

    identity = {"model": MODEL, "pretrained": PRETRAINED, "sha256": sha256(path)}
    return FeatureNetwork(run=run, outputs=("clip",), tile=_TILE, identity=identity)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep open_clip from warning of the random weights that ours replace at once."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def prepared(images: Tensor) -> Tensor:
    """Return images [B, C, H, W] in [0, 1] as CLIP wants them: RGB, 224 x 224, normalised."""
    x = three_channels(images)
    if x.shape[2:] != (SIDE, SIDE):
        x = F.interpolate(x, (SIDE, SIDE), mode="bicubic", align_corners=False).clamp(0.0, 1.0)
    mean, std = (torch.tensor(each, dtype=x.dtype, device=x.device) for each in (_MEAN, _STD))
    return (x - mean[:, None, None]) / std[:, None, None]


def find_weights() -> Path:
    """Return the file of weights.

    Raises:
        BadInput: when there is none.
    """
    folder = data_root() / "clip"
    for ending in (".safetensors", ".pt", ".bin"):
        if (path := folder / f"{MODEL}{ending}").is_file():
            return path
    raise BadInput(
        f"CLIP weights {folder / MODEL}.safetensors",
        "are missing",
        f"put open_clip's tensors of OpenAI's {MODEL} there (.safetensors, .pt or .bin)",
    )
