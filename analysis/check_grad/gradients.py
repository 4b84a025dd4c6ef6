"""Prove a purifier's gradients: recomputed against full autograd, both against differences.

The loss of image i is L_i(x) = <w_i, f(x)_i>, with f the purifier at fixed randomness and w_i
standard normal, so the gradient is a vector-Jacobian product that no saturated classifier hides.
Four questions, each with a stated bound:

1. Does ``checkpoint`` equal ``full`` in float64? Both multiply the same Jacobians; they may differ
   in the order of sums only, a few units of 2^-53 per step: bound 1e-12 relative.
2. And in float32, as it is used? A few units of 2^-24 per step: bound 1e-5 relative.
3. Do both equal the slope of L along random directions, by central differences in float64? One
   Richardson extrapolation, (4 D(h/2) - D(h)) / 3, leaves a truncation of order h^4 and a rounding
   of about 1e-15 sqrt(steps) / h: between 1e-10 and 1e-7 relative for h from 1e-4 to 1e-7. Bound:
   1e-6 relative, over all (image, direction) pairs.
4. How far are the approximations? ``bpda`` and ``surrogate`` are not gradients of f. Their cosine
   to the exact gradient is reported and bounded by nothing.

Where a purifier clips, f has kinks, and a difference across one is no derivative. A pair is
accepted at the largest h of 1e-4, 1e-5, 1e-6, 1e-7 at which D(h) and D(h/2) agree within the bound
of 3; pairs that agree at none are counted as kinks and left out. The rule looks at values only,
never at a gradient, so it cannot excuse a wrong one. A check that leaves out more than half of its
pairs has not passed. A kink exactly at the image would look smooth from both sides alike, so the
images are drawn a hundredth towards grey and jittered by up to 0.005, which moves black and white
pixels off the bounds that purifiers clip to.

A gradient may be exact and yet useless: rounding has slope zero wherever it has one. The pairs of
images whose whole gradient is exactly zero are counted as blind; gradients show attacks nothing
there.
"""

import copy
import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import Ge, Le
from torch import Tensor

from advpure.base.defaults import DEFAULT_DATASET
from advpure.base.devices import plain_defaults
from advpure.base.flags import Flag
from advpure.base.kinds import Natural
from advpure.base.validation import resolved, validate
from advpure.core.chain import Noise
from advpure.core.gradients import GradientMode, differentiating, plain
from advpure.core.purifier import Purifier
from advpure.core.randomness import RandomnessConfig
from advpure.data import Source, dataset_info, load_images
from advpure.loading import load_denoiser, load_purifier, own_denoiser
from advpure.options import purifier_options
from advpure.purifiers import PURIFIERS

PurifierFactory = Callable[[torch.dtype], Purifier]

BOUNDED = ("checkpoint", "checkpoint_float32", "full_difference", "checkpoint_difference")
"""The agreements of `GradientCheck` that have a bound."""
CHECKS = (*BOUNDED, "bpda", "surrogate")
"""All its agreements."""

_STEPS = (1e-4, 1e-5, 1e-6, 1e-7)
_ROWS = 64


@dataclass(frozen=True, kw_only=True)
class CheckSettings:
    """How much to check.

    Attributes:
        n: Images.
        directions: Random directions an image.
    """

    n: Annotated[Natural, Flag("--n", "-n")] = 3
    directions: Annotated[int, Ge(1), Le(2**16)] = 8

    def __post_init__(self) -> None:
        """Check every field."""
        validate(self)


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """The largest relative errors that pass; see the module for their derivation.

    Attributes:
        checkpoint: ``checkpoint`` against ``full``, float64.
        checkpoint_float32: The same in float32.
        difference: Either against central differences, float64.
    """

    checkpoint: float = 1e-12
    checkpoint_float32: float = 1e-5
    difference: float = 1e-6


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How well two vectors agree.

    Attributes:
        error: |a - b| / |b|, with b the reference; infinite when only b is zero.
        cosine: Cosine of the angle between them; None when one is zero.
    """

    error: float
    cosine: float | None


@dataclass(frozen=True, kw_only=True)
class GradientCheck:
    """The answers for one purifier.

    Attributes:
        defense: Its name.
        evaluations: Network evaluations of one purification.
        pairs: (image, direction) pairs asked for.
        kinks: Pairs left out because the purifier has no derivative there.
        blind: Pairs of images whose gradient is exactly zero; a bound may hold all the same.
        checkpoint: ``checkpoint`` against ``full``, float64.
        checkpoint_float32: The same in float32.
        full_difference: ``full`` against central differences, float64.
        checkpoint_difference: ``checkpoint`` against central differences, float64.
        bpda: The identity's gradient against the exact one, an approximation.
        surrogate: The shorter chain's gradient against the exact one, an approximation; None for
            a purifier that has no shorter chain.
        bounds: What `passed` was decided by.
    """

    defense: str
    evaluations: int
    pairs: int
    kinks: int
    blind: int
    checkpoint: Agreement
    checkpoint_float32: Agreement
    full_difference: Agreement
    checkpoint_difference: Agreement
    bpda: Agreement
    surrogate: Agreement | None
    bounds: Bounds

    @property
    def passed(self) -> bool:
        """Whether every bound holds and at most half of the pairs were left out."""
        differences = (self.full_difference.error, self.checkpoint_difference.error)
        return (
            self.checkpoint.error <= self.bounds.checkpoint
            and self.checkpoint_float32.error <= self.bounds.checkpoint_float32
            and all(error <= self.bounds.difference for error in differences)
            and 2 * self.kinks <= self.pairs
        )


def check_gradients(
    defenses: str | PurifierFactory | Sequence[str | PurifierFactory],
    dataset: Source = DEFAULT_DATASET,
    *,
    t: int | None = None,
    sigma: float | None = None,
    options: Mapping[str, Any] | None = None,
    weights: str | Path | None = None,
    xi: RandomnessConfig | None = None,
    bounds: Bounds | None = None,
    **changes: Any,
) -> list[GradientCheck]:
    """Check the gradients of purifiers on real images, at fixed randomness.

    Args:
        defenses: Names of registered purifiers, or functions that make a purifier in a given
            precision (of a network of its own: it may not share one between precisions).
        dataset: Where the images and the shipped networks come from.
        t: Strength in time steps for the named purifiers that have one; their own default
            otherwise.
        sigma: Strength as noise level in [0, 1] units instead, likewise.
        options: Options of every named purifier.
        weights: Weights of the denoiser, for the named purifiers that have one.
        xi: The fixed randomness; seed 0 by default.
        bounds: What passes.
        changes: Fields of `CheckSettings` to replace: ``n=1, directions=2``.

    Returns:
        One result per purifier, in the order given.

    Cost: per purifier, 5 forward and 5 backward passes over n images, and 4 forward passes over
    n x directions images (4 more for every smaller h that kinks ask for), in float64.

    Raises:
        BadInput: for an unknown name, option or data set, or fewer than one image or direction.

    Example:
        >>> check_gradients("none", "digits", n=1, directions=2)[0].passed
        True
    """
    settings = resolved(CheckSettings, None, changes)
    listed = [defenses] if isinstance(defenses, str) or callable(defenses) else list(defenses)
    images, _, ids = load_images(dataset, n=settings.n)
    chosen = RandomnessConfig(0) if xi is None else xi
    return [
        _check(
            purifier_factory(defense, dataset, {"t": t, "sigma": sigma}, options or {}, weights)
            if isinstance(defense, str)
            else defense,
            images,
            Noise(chosen, ids),
            chosen.fold("check-grad"),
            settings.directions,
            bounds or Bounds(),
        )
        for defense in listed
    ]


def most_passes(directions: int) -> tuple[int, int]:
    """Return the most passes through a purifier that a check takes an image, and backward ones."""
    gradients = len(CHECKS)
    return gradients + 4 * len(_STEPS) * directions, gradients


def purifier_factory(
    name: str,
    dataset: Source,
    strengths: Mapping[str, float | None],
    options: Mapping[str, Any],
    weights: str | Path | None,
    denoiser: Any = None,
    boost: Any = None,
    boost_options: Mapping[str, Any] | None = None,
) -> PurifierFactory:
    """Return what makes a registered purifier around a copy of its network.

    Args:
        name: The purifier's name.
        dataset: Where its shipped network comes from.
        strengths: ``t`` and ``sigma``, None where not given; used where the purifier has them.
        options: Its options.
        weights: Weights of its network, used where it has one.
        denoiser: A denoiser of a user's instead.
        boost: A booster behind it.
        boost_options: Its settings.
    """
    kind = PURIFIERS.get(name)
    known = {field.name for field in dataclasses.fields(kind)}
    chosen = purifier_options(
        name, options, **{key: value for key, value in strengths.items() if key in known}
    )

    def behind() -> dict[str, Any]:
        own = copy.deepcopy(boost) if isinstance(boost, torch.nn.Module) else boost
        return {"boost": own, "boost_options": boost_options}

    @plain_defaults()
    def make(dtype: torch.dtype) -> Purifier:
        if kind.network is None:
            purifier = load_purifier(name, dataset, tile=0, **chosen, **behind())
            return _converted(purifier, dtype)
        shipped = f"{dataset_info(dataset).networks}-{kind.network}"
        said: dict[str, Any] | None = None
        if denoiser is None:
            network = load_denoiser(weights or shipped)
        else:
            network, said = own_denoiser(denoiser)
        own = copy.deepcopy(network).to(dtype)
        purifier = load_purifier(name, dataset, denoiser=own, tile=0, **chosen, **behind())
        if said is not None:
            purifier.settings["denoiser"] = said
        return _converted(purifier, dtype)

    return make


def _converted(purifier: Purifier, dtype: torch.dtype) -> Purifier:
    """Return a purifier whose own module and booster are of a precision."""
    if purifier.refiner is not None:
        purifier.refiner.to(dtype)
    return purifier if purifier.model is None else copy.deepcopy(purifier).to(dtype)


def _check(
    factory: PurifierFactory,
    images: Tensor,
    noise: Noise,
    keys: RandomnessConfig,
    directions: int,
    bounds: Bounds,
) -> GradientCheck:
    narrow, purifier = factory(torch.float32), factory(torch.float64)
    count, shape, ids = images.shape[0], images.shape[1:], noise.ids
    assert ids is not None
    jitter = keys.fold("jitter").uniform(ids, 0, shape).double() - 0.5
    wide = 0.01 + 0.98 * images.double() + 0.01 * jitter
    weights = keys.fold("weights").normal(ids, "forward", 0, shape)

    def gradient(of: Purifier, mode: GradientMode, x: Tensor) -> Tensor:
        return _pull_back(of, mode, x, weights.to(x.dtype), noise)

    full, recomputed = (gradient(purifier, mode, wide) for mode in ("full", "checkpoint"))
    narrow_full, narrow_recomputed = (
        gradient(narrow, mode, wide.float()) for mode in ("full", "checkpoint")
    )
    draw = keys.fold("directions").normal
    arrows = torch.stack([draw(ids, "forward", 0, shape, k).double() for k in range(directions)])
    arrows = arrows / arrows.flatten(2).norm(dim=2)[..., None, None, None]
    slopes, smooth = _slopes(purifier, wide, noise, weights.double(), arrows, bounds.difference)

    def projected(g: Tensor) -> Tensor:
        along: Tensor = (g * arrows).flatten(2).sum(2)
        return along[smooth]

    return GradientCheck(
        defense=purifier.name,
        evaluations=purifier.chain.evaluations,
        pairs=count * directions,
        kinks=int((~smooth).sum()),
        blind=directions * int((full == 0).flatten(1).all(dim=1).sum()),
        checkpoint=_agree(recomputed, full),
        checkpoint_float32=_agree(narrow_recomputed, narrow_full),
        full_difference=_agree(projected(full), slopes[smooth]),
        checkpoint_difference=_agree(projected(recomputed), slopes[smooth]),
        bpda=_agree(gradient(purifier, "bpda", wide), full),
        surrogate=None
        if purifier.surrogate is None
        else _agree(gradient(purifier, "surrogate", wide), full),
        bounds=bounds,
    )


def _pull_back(
    purifier: Purifier, mode: GradientMode, images: Tensor, weights: Tensor, noise: Noise
) -> Tensor:
    """Return the gradient of <weights, f(images)>, [B, C, H, W], by one of the modes."""
    with differentiating():
        x = plain(images).requires_grad_()
        y = purifier.at(gradient=mode).purify(x, noise)
        if not y.requires_grad:  # a chain that lets nothing through has gradient zero
            return torch.zeros_like(x)
        (gradient,) = torch.autograd.grad(y, x, plain(weights))
    return gradient


def _slopes(
    purifier: Purifier,
    images: Tensor,
    noise: Noise,
    weights: Tensor,
    arrows: Tensor,
    tolerance: float,
) -> tuple[Tensor, Tensor]:
    """Return slopes of the loss along arrows [K, B, C, H, W] and where f is smooth, both [K, B]."""

    def central(h: float) -> Tensor:
        ends = [_values(purifier, images + sign * h * arrows, noise) for sign in (1, -1)]
        change: Tensor = ((ends[0] - ends[1]) * weights).flatten(2).sum(2)
        return change / (2 * h)

    slopes = torch.zeros(arrows.shape[:2], dtype=torch.float64, device="cpu")
    smooth = torch.zeros(arrows.shape[:2], dtype=torch.bool, device="cpu")
    for h in _STEPS:
        coarse, fine = central(h), central(h / 2)
        scale = fine.square().mean().sqrt()
        agree = (coarse - fine).abs() <= tolerance * torch.maximum(fine.abs(), scale)
        slopes = torch.where(smooth, slopes, (4 * fine - coarse) / 3)
        smooth |= agree
        if bool(smooth.all()):
            break
    return slopes, smooth


def _values(purifier: Purifier, images: Tensor, noise: Noise) -> Tensor:
    """Purify [K, B, C, H, W] images, every copy with the same noise; no gradient is asked for."""
    assert noise.ids is not None
    rows = images.flatten(0, 1)
    ids = noise.ids.repeat(images.shape[0])
    parts = []
    with torch.no_grad():
        for start in range(0, rows.shape[0], _ROWS):
            chosen = slice(start, start + _ROWS)
            same = dataclasses.replace(noise, ids=ids[chosen])
            parts.append(purifier.chain.purify(rows[chosen], same))
    return torch.cat(parts).reshape(images.shape)


def _agree(gradient: Tensor, reference: Tensor) -> Agreement:
    a, b = gradient.flatten().double(), reference.flatten().double()
    size, gap = float(b.norm()), float((a - b).norm())
    both = float(a.norm()) * size
    return Agreement(
        error=gap / size if size else (math.inf if gap else 0.0),
        cosine=max(-1.0, min(1.0, float(a @ b) / both)) if both else None,
    )
