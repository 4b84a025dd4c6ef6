"""APGD along low frequencies: the part of the gradient that a smoothing purifier lets through.

A purifier removes fine noise first, and gradients through it may hide what passes in fine noise of
their own. Each channel of the gradient keeps the lowest `kept` share of its frequencies along both
axes, g' = D^T M D g D^T M D with D the orthonormal DCT-II and M the mask, before the step of APGD
is taken. Under linf that is its sign, low in frequency but not confined to that share; under l2 the
perturbation stays among those frequencies as long as the box cuts nothing.
Source: [Guo2019], algorithm 1, with the step of [Croce2020].
"""

import math
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from annotated_types import Gt, Le
from torch import Tensor

from advpure.attacks.autopgd import APGDSettings, apgd_from
from advpure.attacks.balls import row_radii
from advpure.attacks.oracle import Model, Oracle, check_batch
from advpure.attacks.outcome import AttackResult
from advpure.attacks.settings import resolve
from advpure.core.given import takes_pairs
from advpure.core.randomness import Ids


@dataclass(frozen=True, kw_only=True)
class LowFrequencySettings(APGDSettings):
    """Settings of the low-frequency attack: those of APGD, which starts at the image.

    Args:
        kept: Share of the frequencies of each axis that the gradient keeps, above 0; 1 is APGD.
    """

    random_start: bool = False
    kept: Annotated[float, Gt(0), Le(1)] = 0.5


@takes_pairs
def low_frequency(
    model: Model,
    images: Tensor,
    labels: Tensor,
    settings: LowFrequencySettings | None = None,
    *,
    ids: Ids | None = None,
    start: Tensor | None = None,
    radii: Tensor | None = None,
    **overrides: Any,
) -> AttackResult:
    """Attack with APGD along low frequencies; otherwise like `apgd`."""
    chosen = resolve(LowFrequencySettings, settings, overrides)
    batch = check_batch(model, images, labels, ids, chosen)
    sizes = row_radii(radii, chosen.eps, len(batch.images))

    def shape(gradient: Tensor) -> Tensor:
        return low_pass(gradient, chosen.kept)

    return apgd_from(Oracle(model, chosen), batch, start, sizes, shape)


def low_pass(images: Tensor, kept: float) -> Tensor:
    """Return the lowest frequencies of images [B, C, H, W], a share `kept` of each axis.

    Example:
        >>> low_pass(torch.tensor([[[[1.0, -1.0, 1.0, -1.0]]]]), 0.25).abs().max().item() < 1e-6
        True
    """
    height, width = images.shape[2:]
    low: Tensor = _projection(height, kept).to(images) @ images
    passed: Tensor = low @ _projection(width, kept).to(images)
    return passed


def _projection(side: int, kept: float) -> Tensor:
    """Return D^T M D of one axis, [side, side] float64."""
    places = torch.arange(side, dtype=torch.float64, device="cpu")
    waves = torch.cos(math.pi / side * (places[None] + 0.5) * places[:, None])
    waves = waves / waves.norm(dim=1, keepdim=True)
    low = waves[: max(math.ceil(kept * side), 1)]
    projection: Tensor = low.T @ low
    return projection
