"""``ddpm`` (DiffPure: noise, then ancestral reverse), ``reverse`` (reverse-only) and ``ddim``."""

from dataclasses import dataclass

from advpure.base.idle import changed
from advpure.core.chain import Chain
from advpure.core.denoisers import Denoiser
from advpure.core.recipe import TimeStrength, need, rescale
from advpure.purifiers.vp import (
    Forward,
    Variance,
    ancestral_steps,
    check_stride,
    implicit_steps,
    kept_indices,
    noising_steps,
)


@dataclass(frozen=True, kw_only=True)
class Strided(TimeStrength):
    """What walks down a schedule share: how many indices they keep, and clipping.

    Attributes:
        clip_x0: Clip x0 to [-1, 1] in every step, as the published PyTorch sampler does.
        stride: Keep every stride-th reverse step.
        surrogate_stride: The stride of the shorter chain behind surrogate gradients.
    """

    clip_x0: bool = False
    stride: int = 1
    surrogate_stride: int = 10

    def __post_init__(self) -> None:
        """Refuse strides that are longer than the chain; those of the defaults are cut to it."""
        super().__post_init__()
        for name in changed(self, ("stride", "surrogate_stride")):
            check_stride(getattr(self, name), self.index, name)

    def chain(self, denoiser: Denoiser | None) -> Chain:
        """Lay out the steps of the kept indices."""
        return self._with_stride(need(denoiser, self.sigma), self.stride)

    def surrogate(self, denoiser: Denoiser | None) -> Chain:
        """Lay out the same chain with fewer reverse steps."""
        return self._with_stride(need(denoiser, self.sigma), self.surrogate_stride)

    def _with_stride(self, denoiser: Denoiser, stride: int) -> Chain:
        raise TypeError(f"{type(self).__name__} is abstract: write _with_stride()")


@dataclass(frozen=True, kw_only=True)
class DDPM(Strided):
    """Noise for t steps, then ancestral reverse steps ([Wei2025], equations 3-4; [Nie2022]).

    Attributes:
        forward: ``stepwise`` (t draws, [Wei2025]) or ``oneshot`` (one draw, [Nie2022]).
        variance: ``large`` (beta), ``small`` (posterior) or ``learned``.
    """

    forward: Forward = "stepwise"
    variance: Variance = "large"

    def _with_stride(self, denoiser: Denoiser, stride: int) -> Chain:
        indices = kept_indices(self.index, stride)
        reverse = ancestral_steps(
            denoiser, self.tables, indices, variance=self.variance, clip_x0=self.clip_x0
        )
        return Chain(noising_steps(self.tables, self.index, self.forward) + reverse)


@dataclass(frozen=True, kw_only=True)
class ReverseOnly(Strided):
    """Take the image itself as the noisy state, then ancestral reverse steps [Wei2025].

    Attributes:
        prescale: Multiply the image by sqrt(abar) first, as [Xiao2023] does and [Wei2025] does not
            say.
        variance: See DDPM.
    """

    prescale: bool = False
    variance: Variance = "large"

    def _with_stride(self, denoiser: Denoiser, stride: int) -> Chain:
        root = float(self.tables.abar[self.index]) ** 0.5
        sigma = float(self.tables.sigmas[self.index])
        steps = [rescale(root, scale=root, sigma=sigma)] if self.prescale else []
        indices = kept_indices(self.index, stride)
        steps += ancestral_steps(
            denoiser, self.tables, indices, variance=self.variance, clip_x0=self.clip_x0
        )
        return Chain(steps)


@dataclass(frozen=True, kw_only=True)
class DDIM(Strided):
    """Noise for t steps, then implicit reverse steps [Song2021a].

    Attributes:
        forward: See DDPM.
        eta: 0 for a deterministic reverse pass, 1 for the posterior variance.
    """

    forward: Forward = "stepwise"
    eta: float = 0.0

    def _with_stride(self, denoiser: Denoiser, stride: int) -> Chain:
        indices = kept_indices(self.index, stride)
        reverse = implicit_steps(denoiser, self.tables, indices, eta=self.eta, clip_x0=self.clip_x0)
        return Chain(noising_steps(self.tables, self.index, self.forward) + reverse)
