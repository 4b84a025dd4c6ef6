"""``densepure``: noise, scale, a few ancestral reverse steps; the defense votes over passes."""

from dataclasses import dataclass
from typing import ClassVar

from advpure.base.errors import BadInput
from advpure.base.idle import changed
from advpure.base.validation import whole
from advpure.core.chain import Chain
from advpure.core.denoisers import Denoiser
from advpure.core.recipe import TimeStrength, denoise, need, rescale, smooth, vp_scale
from advpure.core.schedules import IndexRule, ScheduleName
from advpure.purifiers.vp import Variance, ancestral_steps


@dataclass(frozen=True, kw_only=True)
class DensePure(TimeStrength):
    """DensePure's purifier [Xiao2023]: a respaced reverse chain on the noisy image.

    The image gets noise sigma and the scale 1 / sqrt(1 + 4 sigma^2), then walks down the indices
    round(t - k t / b), k = 0 .. b - 1, of the closed form t. One step takes x0 itself.
    A defense built on it votes over `votes` = 10 reverse passes, as published.

    Attributes:
        steps: Reverse steps b; None walks down every index.
        smoothing: Add the smoothing noise here; False for an input that has it already.
        variance: ``small``, ``large``, or ``learned`` where the network predicts it, as published.
        clip_x0: Clip x0 to [-1, 1] in every step, as published.
    """

    votes: ClassVar[int] = 10
    schedule: ScheduleName = "cosine"
    index_rule: IndexRule = "densepure"
    steps: int | None = 10
    smoothing: bool = True
    variance: Variance = "small"
    clip_x0: bool = True
    surrogate_steps: int = 3

    def __post_init__(self) -> None:
        """Refuse a surrogate with more steps than the chain; the default is cut to it."""
        super().__post_init__()
        if self.steps is not None:
            whole(self.steps, "steps", 1)
        whole(self.surrogate_steps, "surrogate_steps", 1)
        for name, count in changed(self, ("surrogate_steps",)).items():
            if self.steps is not None and count > self.steps:
                rule = f"are more than the {self.steps} of the chain"
                raise BadInput(f"{name} {count}", rule, f"use 1 .. {self.steps}")

    def chain(self, denoiser: Denoiser | None) -> Chain:
        """Lay out noise, scale and reverse steps."""
        return self._with_steps(need(denoiser, self.sigma), self.steps)

    def surrogate(self, denoiser: Denoiser | None) -> Chain:
        """Lay out the same chain with fewer reverse steps."""
        return self._with_steps(
            need(denoiser, self.sigma), min(self.surrogate_steps, self.steps or 10**9)
        )

    def _with_steps(self, denoiser: Denoiser, count: int | None) -> Chain:
        index, schedule = self.index, self.tables
        level = 2 * self.sigma if self.sigma is not None else float(schedule.sigmas[index])
        root = vp_scale(level)
        steps = [smooth(level, index + 1)] if self.smoothing else []
        steps.append(rescale(root, scale=root, sigma=level))
        if count == 1:
            asked = float(schedule.sigmas[index])
            back = 1 / vp_scale(asked)
            steps.append(rescale(back, scale=root * back, sigma=asked))
            steps.append(denoise(denoiser, asked, clip=self.clip_x0, time=index + 1))
            return Chain(steps)
        if count is not None and not 1 <= count <= max(index, 1):
            raise BadInput(
                f"{count} reverse steps",
                f"do not fit {index} indices, all that the schedule has below this noise",
                f"use -o steps={max(index, 1)} or fewer, or more noise",
            )
        kept = list(range(index, -1, -1))
        if count is not None:
            top = float(index)
            if self.sigma is not None and self.index_rule == "densepure":
                top = min(schedule.closed_form_index(self.sigma), top + 0.5)
            kept = [index, *(round(top - k * top / count) for k in range(1, count))]
        steps += ancestral_steps(
            denoiser, schedule, kept, variance=self.variance, clip_x0=self.clip_x0
        )
        return Chain(steps)
