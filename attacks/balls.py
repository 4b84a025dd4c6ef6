"""Geometry of the threat model: l-inf and l2 balls around an image, cut with the [0, 1] box.

Rounding differs with the shape of a batch in sums over pixels only, so callers run the l2 parts on
fixed tiles (`advpure.core.tiling`). The conventions are those of foolbox.
"""

import torch
from torch import Tensor

from advpure.base.errors import BadInput
from advpure.base.units import Norm, check_plain
from advpure.core.randomness import RandomnessConfig


def row_norms(rows: Tensor) -> Tensor:
    """Return the l2 norm of each row, [B, 1, 1, 1], without underflow of small values.

    Example:
        >>> row_norms(torch.full((1, 1, 2, 2), 1e-30)).item() > 0
        True
    """
    peak = rows.abs().amax(dim=(1, 2, 3), keepdim=True)
    safe = torch.where(peak > 0, peak, torch.ones_like(peak))
    return (rows / safe).square().sum(dim=(1, 2, 3), keepdim=True).sqrt() * safe


def ascent(gradient: Tensor, norm: Norm) -> Tensor:
    """Return the unit step of steepest ascent [B, C, H, W]: the sign, or the l2 direction.

    A zero gradient gives a zero step.
    """
    if norm == "linf":
        return gradient.sign()
    peak = gradient.abs().amax(dim=(1, 2, 3), keepdim=True)
    return direction(gradient, torch.where(peak > 0, peak, torch.ones_like(peak)))


def direction(gradient: Tensor, peak: Tensor) -> Tensor:
    """Return the l2 direction [B, C, H, W] of each row; a zero row gives zero.

    Args:
        gradient: [B, C, H, W].
        peak: The largest magnitude of each row, [B, 1, 1, 1], and 1 of a zero row. It only keeps
            squares from underflow: the direction does not depend on it, and neither does its
            derivative.

    Example:
        >>> direction(torch.tensor([[[[3e-30, 4e-30]]]]), torch.tensor([[[[4e-30]]]])).tolist()
        [[[[0.6000000238418579, 0.800000011920929]]]]
    """
    scaled = gradient / peak
    length = scaled.square().sum(dim=(1, 2, 3), keepdim=True).sqrt()
    return scaled / length.clamp_min(1.0)  # at least 1, the peak, but for a zero row


def row_radii(radii: Tensor | None, eps: float, count: int) -> Tensor:
    """Return the radius of every row, [count] float64 on the CPU: those given, else eps.

    Raises:
        BadInput: when there is not one for each row, or one is not in (0, eps].

    Example:
        >>> row_radii(None, 0.25, 2).tolist()
        [0.25, 0.25]
    """
    if radii is None:
        return torch.full((count,), eps, dtype=torch.float64, device="cpu")
    check_plain(radii, "radii", "pass a tensor of one number an image")
    if radii.is_complex() or radii.dtype == torch.bool:
        raise BadInput(f"radii of dtype {radii.dtype}", "are no numbers", "use float64")
    found = radii.detach().to("cpu", torch.float64)
    if found.shape != (count,):
        raise BadInput(
            f"radii of shape {tuple(found.shape)}", f"do not match {count} images", "give one each"
        )
    if not bool(((found > 0) & (found <= eps)).all()):
        wrong = found[~((found > 0) & (found <= eps))][0].item()
        raise BadInput(
            f"radius {wrong:g}", f"is not in (0, eps] = (0, {eps:g}]", "choose one in it"
        )
    return found


def project(points: Tensor, centres: Tensor, eps: float | Tensor, norm: Norm) -> Tensor:
    """Return the points [B, C, H, W] pulled into the ball around their centres, then the box.

    The radius is one number, or one for each row, [B]. The l2 ball is renormalised before the box
    is cut, which is not the exact projection onto their intersection but stays inside both. Bounds
    hold to the rounding of the dtype (1e-7 in float32).
    """
    if isinstance(eps, Tensor):
        eps = eps.to(points)[:, None, None, None]
    if norm == "linf":
        inside = torch.minimum(torch.maximum(points, centres - eps), centres + eps)
    else:
        delta = points - centres
        length = row_norms(delta)
        too_long = length > eps
        factor = length.clamp_min(eps).reciprocal() * eps
        factor = torch.where(too_long, factor, torch.ones_like(length))
        inside = torch.where(too_long, centres + delta * factor, points)
    return inside.clamp(0.0, 1.0)


def draw_in_ball(
    xi: RandomnessConfig, ids: Tensor, like: Tensor, eps: float | Tensor, norm: Norm, step: int = 0
) -> tuple[Tensor, Tensor | None]:
    """Draw the ingredients of a uniform point in the ball, a pure function of (xi, id, step).

    Args:
        xi: Randomness of the attack itself.
        ids: Data-set indices [B].
        like: Images [B, C, H, W], for shape, dtype and device.
        eps: Radius, or one for each row, [B].
        norm: Norm of the ball.
        step: Number of an independent repetition.

    Returns:
        For l-inf the offset [B, C, H, W] and None. For l2 a Gaussian direction [B, C, H, W], not
        normalised yet, and the radius [B, 1, 1, 1], eps u^(1/d): `place` combines them.
    """
    shape = tuple(like.shape[1:])
    radii = row_radii(None, eps, len(ids)) if isinstance(eps, float) else eps
    if norm == "linf":
        unit = xi.uniform(ids, step, shape).to(like)
        return (unit * 2.0 - 1.0) * radii.to(like)[:, None, None, None], None
    direction = xi.normal(ids, "forward", step, shape).to(like)
    # Roots are taken one by one: a vectorised power rounds by the slot of the row.
    levels = xi.uniform(ids, step, (1,), draw=1)[:, 0].tolist()
    root = 1.0 / like[0].numel()
    pairs = zip(radii.tolist(), levels, strict=True)
    radius = torch.tensor(
        [size * level**root for size, level in pairs], dtype=torch.float32, device="cpu"
    )
    return direction, radius.to(like)[:, None, None, None]


def place(centres: Tensor, offset: Tensor, radius: Tensor | None) -> Tensor:
    """Return centres [B, C, H, W] moved by the offset, rescaled to the radius when one is given."""
    return centres + (offset if radius is None else ascent(offset, "l2") * radius)


def distances(points: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """Return the l-inf and l2 distances [B], float64."""
    delta = points.double() - centres.double()
    return delta.abs().amax(dim=(1, 2, 3)), delta.square().sum(dim=(1, 2, 3)).sqrt()
