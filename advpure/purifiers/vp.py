"""The steps of variance-preserving samplers: noising, ancestral (DDPM) and implicit (DDIM)."""

import math
from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from advpure.base.errors import BadInput
from advpure.core.chain import Step
from advpure.core.denoisers import Denoiser
from advpure.core.recipe import noise_form
from advpure.core.schedules import Schedule

Forward = Literal["stepwise", "oneshot"]
Variance = Literal["large", "small", "learned"]


def noising_steps(schedule: Schedule, index: int, forward: Forward) -> list[Step]:
    """Noise a clean image up to an index, [-1, 1] to a variance-preserving state.

    Args:
        schedule: The tables.
        index: The last index, t - 1.
        forward: ``stepwise``: t draws, x_t = sqrt(alpha_t) x_{t-1} + sqrt(1 - alpha_t) z (seed
            003, equation 3). ``oneshot``: one draw of the same marginal (DiffPure).
    """
    if forward == "oneshot":
        abar = float(schedule.abar[index])
        return [_noising(abar, 1.0 - abar, index + 1, abar)]
    return [
        _noising(
            1.0 - float(schedule.betas[i]), float(schedule.betas[i]), i + 1, float(schedule.abar[i])
        )
        for i in range(index + 1)
    ]


def _noising(signal: float, variance: float, time: int, abar: float) -> Step:
    gain, noise = math.sqrt(signal), math.sqrt(variance)

    def move(x: Tensor, z: Tensor | None) -> Tensor:
        assert z is not None
        return gain * x + noise * z

    sigma = math.sqrt((1 - abar) / abar)
    return Step(
        name="noise",
        phase="forward",
        time=time,
        move=move,
        noisy=True,
        scale=math.sqrt(abar),
        sigma=sigma,
        gain=gain,
    )


def kept_indices(index: int, stride: int) -> list[int]:
    """Return the descending indices index, index - stride, ... that reverse steps start from."""
    check_stride(stride, None, "stride")
    return list(range(index, -1, -stride))


def check_stride(stride: int, index: int | None, name: str) -> None:
    """Refuse strides that lead nowhere, or past the end of a chain from the index downwards.

    Raises:
        BadInput: naming the longest that there is.
    """
    if stride < 1:
        raise BadInput(f"{name} {stride}", "goes nowhere", "use 1 or more")
    if index is not None and stride > index + 1:
        most = index + 1
        rule = (
            f"is longer than the chain, which goes down {most} ind{'ex' if most == 1 else 'ices'}"
        )
        raise BadInput(f"{name} {stride}", rule, f"use 1 .. {most}")


def ancestral_steps(
    denoiser: Denoiser,
    schedule: Schedule,
    indices: Sequence[int],
    *,
    variance: Variance = "large",
    clip_x0: bool = False,
) -> list[Step]:
    """Walk down the kept indices by x_prev = c0 x0 + c1 x + sqrt(v) z, without noise at the last.

    With a = abar_i / abar_prev and b = 1 - a: c0 = b sqrt(abar_prev) / (1 - abar_i),
    c1 = (1 - abar_prev) sqrt(a) / (1 - abar_i); v = b (``large``), the posterior variance
    b (1 - abar_prev) / (1 - abar_i) (``small``), or the network's geometric blend (``learned``).
    Without clipping this equals (x - b / sqrt(1 - abar_i) epsilon) / sqrt(a) + noise.

    Args:
        denoiser: D(x; sigma).
        schedule: The tables.
        indices: Descending indices; the last step goes to the clean image.
        variance: Variance of the reverse noise.
        clip_x0: Clip the estimate of x0 to [-1, 1]; where it clips, no gradient passes x0.

    Source: [Wei2025], equation 4; [Nichol2021] for the learned variance.
    """
    return [
        _ancestral(denoiser, schedule, i, prev, variance, clip_x0)
        for i, prev in zip(indices, [*indices[1:], -1], strict=True)
    ]


def _ancestral(
    denoiser: Denoiser, schedule: Schedule, i: int, prev: int, variance: Variance, clip: bool
) -> Step:
    abar = float(schedule.abar[i])
    before = float(schedule.abar[prev]) if prev >= 0 else 1.0
    a = abar / before
    b = 1.0 - a
    c0, c1 = b * math.sqrt(before) / (1 - abar), (1 - before) * math.sqrt(a) / (1 - abar)
    small = b * (1 - before) / (1 - abar)
    root, sigma = math.sqrt(abar), math.sqrt((1 - abar) / abar)

    def move(x: Tensor, z: Tensor | None) -> Tensor:
        x0, blend = denoiser.predict(x / root, sigma)
        if clip:
            x0 = x0.clamp(-1.0, 1.0)
        mean = c0 * x0 + c1 * x
        if z is None:
            return mean
        if variance != "learned":
            return mean + math.sqrt(b if variance == "large" else small) * z
        if blend is None:
            raise BadInput(
                "variance 'learned'", "needs a network that predicts it", "use large or small"
            )
        weight = (blend + 1) / 2
        log_variance = weight * math.log(b) + (1 - weight) * math.log(small)
        return mean + (0.5 * log_variance).exp() * z

    # A learned variance is that of the state: then the noise term has a derivative too.
    plain = not clip and (variance != "learned" or prev < 0)
    return Step(
        name="ancestral",
        phase="reverse",
        time=i + 1,
        move=move,
        noisy=prev >= 0,
        evaluations=1,
        scale=math.sqrt(before),
        sigma=math.sqrt((1 - before) / before),
        form=noise_form(denoiser, state=c1, estimate=c0, level=sigma, root=root) if plain else None,
    )


def implicit_steps(
    denoiser: Denoiser,
    schedule: Schedule,
    indices: Sequence[int],
    *,
    eta: float = 0.0,
    clip_x0: bool = False,
) -> list[Step]:
    """Walk down the kept indices by DDIM.

    x_prev = sqrt(abar_prev) x0 + sqrt(1 - abar_prev - s^2) epsilon + s z, with
    s = eta sqrt((1 - abar_prev) / (1 - abar)) sqrt(1 - abar / abar_prev); eta = 0 is deterministic
    and eta = 1 has the posterior variance of DDPM.

    Source: [Song2021a].
    """
    if not 0 <= eta <= 1:
        raise BadInput(f"eta {eta}", "is outside [0, 1]", "0 is deterministic, 1 is ancestral")
    return [
        _implicit(denoiser, schedule, i, prev, eta, clip_x0)
        for i, prev in zip(indices, [*indices[1:], -1], strict=True)
    ]


def _implicit(
    denoiser: Denoiser, schedule: Schedule, i: int, prev: int, eta: float, clip: bool
) -> Step:
    abar = float(schedule.abar[i])
    before = float(schedule.abar[prev]) if prev >= 0 else 1.0
    spread = eta * math.sqrt((1 - before) / (1 - abar)) * math.sqrt(1 - abar / before)
    along = math.sqrt(max(1 - before - spread**2, 0.0))
    root, sigma = math.sqrt(abar), math.sqrt((1 - abar) / abar)

    def move(x: Tensor, z: Tensor | None) -> Tensor:
        x0 = denoiser(x / root, sigma)
        if clip:
            x0 = x0.clamp(-1.0, 1.0)
        epsilon = (x - root * x0) / math.sqrt(1 - abar)
        y = math.sqrt(before) * x0 + along * epsilon
        return y if z is None else y + spread * z

    form = None
    if not clip:
        state, share = along / math.sqrt(1 - abar), math.sqrt(before) - along * sigma**-1
        form = noise_form(denoiser, state=state, estimate=share, level=sigma, root=root)
    return Step(
        name="implicit",
        phase="reverse",
        time=i + 1,
        move=move,
        evaluations=1,
        form=form,
        noisy=spread > 0,
        scale=math.sqrt(before),
        sigma=math.sqrt((1 - before) / before),
    )
