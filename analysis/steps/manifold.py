"""Directions along the data and across it, at an image, from its nearest reference images.

Along: the span of the leading principal directions of the `neighbours` reference images nearest in
L2 (about their own mean), or of the differences to the nearest ones. Across: its orthogonal
complement. Directions are uniform on the unit sphere of either space. What counts as along the data
is thus a construction from finitely many images, not the manifold of a model: with few or far
neighbours the span also holds what distinguishes one image from another.

[Wei2025] (equations 14 and 18) defines on-manifold by the eigenvalues of the score's Jacobian
instead; measured rates along these spans test whether the two agree.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from advpure.base.errors import BadInput
from advpure.base.kinds import Natural
from advpure.base.units import check_plain
from advpure.base.validation import instance, validate
from advpure.core.randomness import RandomnessConfig

Span = Literal["principal", "differences"]
_CHUNK = 2048


@dataclass(frozen=True, kw_only=True)
class ManifoldSettings:
    """How directions along the data are made.

    Attributes:
        span: ``principal``: principal directions of the neighbours about their mean;
            ``differences``: from the image to its nearest neighbours.
        neighbours: Nearest reference images that span the principal directions.
        components: Dimension of the span along the data, for ``principal`` below the neighbours.

    Raises:
        BadInput: for values that make no sense, naming the rule.
    """

    span: Span = "principal"
    neighbours: Natural = 50
    components: Natural = 10

    def __post_init__(self) -> None:
        """Check every field."""
        validate(self)
        most = self.neighbours - 1 if self.span == "principal" else self.neighbours
        if self.components > most:
            raise BadInput(
                f"{self.components} components",
                f"cannot come from {self.neighbours} neighbours",
                f"use at most {most}" if most else "use 2 neighbours or more",
            )


def local_spans(images: Tensor, reference: Tensor, settings: ManifoldSettings) -> Tensor:
    """Span the directions along the data at every image.

    Args:
        images: [B, C, H, W].
        reference: Images of the same shape, [N, C, H, W]; those equal to an image do not count
            as its neighbours.
        settings: How.

    Returns:
        Orthonormal rows, [B, components, d], float64 on the CPU, leading direction first.

    Raises:
        BadInput: when there are too few reference images, or they span too little.

    Example:
        >>> line = torch.arange(5.0).reshape(5, 1, 1, 1) * torch.tensor([1.0, 0.0])
        >>> local_spans(line[:1], line, ManifoldSettings(neighbours=4, components=1)).abs().tolist()
        [[[1.0, 0.0]]]
    """
    for given in (images, reference):
        check_plain(given, "images", "pass tensors [B, ...]")
    instance(settings, ManifoldSettings, "settings", "pass ManifoldSettings(...)")
    if not len(images):
        raise BadInput(f"images of shape {tuple(images.shape)}", "are empty", "pass at least one")
    if reference.shape[1:] != images.shape[1:]:
        raise BadInput(
            f"reference images of shape {tuple(reference.shape[1:])}",
            f"do not match images of shape {tuple(images.shape[1:])}",
            "take them from the same data set",
        )
    wanted = settings.components if settings.span == "differences" else settings.neighbours
    if images[0].numel() < settings.components:
        raise BadInput(
            f"{settings.components} components",
            f"do not fit into {images[0].numel()} dimensions",
            "ask for fewer",
        )
    return torch.stack([_span(image, reference, wanted, settings) for image in images])


def check_spans(spans: Tensor, images: Tensor) -> None:
    """Refuse what are no directions at every image, [B, k, d].

    Raises:
        BadInput: naming the shape, or the kind of tensor.
    """
    check_plain(spans, "spans", "pass what local_spans returns")
    count, dimensions = len(images), images[0].numel()
    fits = spans.ndim == 3 and spans.shape[::2] == (count, dimensions) and spans.shape[1] > 0
    if not fits or not spans.is_floating_point() or not bool(spans.isfinite().all()):
        raise BadInput(
            f"spans of shape {tuple(spans.shape)} and dtype {spans.dtype}",
            f"are not finite floats [{count}, k, {dimensions}]",
            "pass what local_spans returns",
        )


def along(spans: Tensor, seed: int, ids: Sequence[int], draws: Sequence[int]) -> Tensor:
    """Draw unit vectors in the span of every row.

    Args:
        spans: Orthonormal rows, [B, k, d].
        seed: Base seed.
        ids: Sample id of every row; with the draw, what the direction is a function of.
        draws: Number of the draw of every row.

    Returns:
        [B, d], in the dtype of `spans`.
    """
    xi = RandomnessConfig(seed, "counter").fold("direction", "along")
    return _unit((_normals(xi, ids, draws, spans.shape[1]).to(spans)[:, None] @ spans)[:, 0])


def across(spans: Tensor, seed: int, ids: Sequence[int], draws: Sequence[int]) -> Tensor:
    """Draw unit vectors orthogonal to the span of every row; see `along`.

    Raises:
        BadInput: when the span is the whole space.
    """
    if spans.shape[1] >= spans.shape[2]:
        raise BadInput(
            f"{spans.shape[1]} components of {spans.shape[2]} dimensions",
            "leave no direction across the data",
            "ask for fewer components",
        )
    xi = RandomnessConfig(seed, "counter").fold("direction", "across")
    free = _normals(xi, ids, draws, spans.shape[2]).to(spans)
    for _ in range(2):  # the second time removes what rounding left
        free = free - (spans.mT @ (spans @ free[:, :, None]))[:, :, 0]
    return _unit(free)


def share_along(spans: Tensor, v: Tensor) -> Tensor:
    """Return how much of the squared norm of vectors lies in a span, in [0, 1].

    Args:
        spans: Orthonormal rows, [k, d].
        v: [n, d], not 0. A direction at random has k / d on average.

    Example:
        >>> share_along(torch.eye(2, 4), torch.ones(1, 4)).tolist()
        [0.5]
    """
    return (v @ spans.mT).square().sum(1) / v.square().sum(1)


def _span(image: Tensor, reference: Tensor, wanted: int, settings: ManifoldSettings) -> Tensor:
    x = image.detach().cpu().double().flatten()
    distances = torch.cat(
        [
            (part.cpu().double().flatten(1) - x).square().sum(1)
            for part in torch.split(reference, _CHUNK)
        ]
    )
    order = torch.argsort(distances, stable=True)
    nearest = order[distances[order] > 0][:wanted]
    if len(nearest) < wanted:
        raise BadInput(
            f"{len(nearest)} other reference images",
            f"are fewer than the {wanted} that directions along the data are made from",
            "take more reference images, or fewer neighbours and components",
        )
    points = reference[nearest.to(reference.device)].cpu().double().flatten(1)
    origin = points.mean(0) if settings.span == "principal" else x
    _, sizes, rows = torch.linalg.svd(points - origin, full_matrices=False)
    rank = int((sizes > 1e-9 * sizes[0]).sum())
    if rank < settings.components:
        raise BadInput(
            f"{len(nearest)} neighbours that span {rank} dimensions",
            f"give no {settings.components} components",
            "take more reference images, or fewer components",
        )
    span: Tensor = rows[: settings.components]
    return span


def _normals(xi: RandomnessConfig, ids: Sequence[int], draws: Sequence[int], count: int) -> Tensor:
    pairs = zip(ids, draws, strict=True)
    return torch.stack([xi.normal([i], "forward", 0, (count,), k)[0] for i, k in pairs])


def _unit(rows: Tensor) -> Tensor:
    unit: Tensor = rows / rows.norm(dim=1, keepdim=True)
    return unit
