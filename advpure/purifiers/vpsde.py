"""``vpsde``: DiffPure's reverse variance-preserving SDE, by Euler-Maruyama."""

import math
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from advpure.base.errors import BadInput
from advpure.base.idle import changed
from advpure.core.chain import Chain, Step
from advpure.core.denoisers import Denoiser
from advpure.core.recipe import TimeStrength, need, noise_form
from advpure.core.schedules import vp_abar, vp_beta
from advpure.purifiers.vp import noising_steps

_END = 1e-5
_MOST = 100_000  # steps, whose tables are laid out before anything runs


@dataclass(frozen=True, kw_only=True)
class VPSDE(TimeStrength):
    """Noise in one draw, then integrate dx = [-beta x / 2 - beta s] dt + sqrt(beta) dw backwards.

    The integration runs from t / 1000 to 1e-5 with step `dt`; the score s is
    -epsilon(x, t) / sqrt(1 - abar(t)).

    Attributes:
        kind: ``sde``, or ``ode``: half the score, no noise.
        dt: Step size in units of the whole diffusion time.
        label: Time given to the network: ``continuous``, or ``floor`` to the index below, which
            discrete networks need (guided-diffusion in DiffPure).

    Cost: t network evaluations at the default step. Source: [Song2021b], [Nie2022].
    """

    kind: Literal["sde", "ode"] = "sde"
    dt: float = 1e-3
    label: Literal["continuous", "floor"] = "continuous"
    surrogate_dt: float = 1e-2

    def __post_init__(self) -> None:
        """Check the schedule and the step."""
        super().__post_init__()
        if self.schedule != "linear" or self.schedule_steps not in (None, 1000):
            raise BadInput(
                f"schedule {self.schedule!r}",
                "is not the one that the SDE continues",
                "use linear with 1000 steps",
            )
        if not 0 < self.dt <= 0.1 or not 0 < self.surrogate_dt <= 0.1:
            raise BadInput(f"dt {self.dt}", "is outside (0, 0.1]", "use for example 1e-3")
        if (count := math.ceil((self.index + 1) / 1000 / min(self.dt, self.surrogate_dt))) > _MOST:
            rule = f"takes {count:,} steps, more than {_MOST:,}"
            raise BadInput(f"dt {min(self.dt, self.surrogate_dt):g}", rule, "use a larger one")
        for name, step in changed(self, ("surrogate_dt",)).items():
            whole = (self.index + 1) / 1000
            if step > whole:
                rule = f"is longer than the whole integration, {whole:g}"
                raise BadInput(f"{name} {step:g}", rule, "use a shorter one, or a larger t")

    def chain(self, denoiser: Denoiser | None) -> Chain:
        """Lay out one noising step and the Euler-Maruyama steps."""
        return self._with_step(need(denoiser, self.sigma), self.dt)

    def surrogate(self, denoiser: Denoiser | None) -> Chain:
        """Lay out the same integration with larger steps."""
        return self._with_step(need(denoiser, self.sigma), self.surrogate_dt)

    def _with_step(self, denoiser: Denoiser, dt: float) -> Chain:
        start = (self.index + 1) / 1000
        count = math.ceil((start - _END) / dt - 1e-9)
        times = [start - k * dt for k in range(count)] + [_END]
        steps = noising_steps(self.tables, self.index, "oneshot")
        for k in range(count):
            # Rounded up, two times at least 1/1000 apart never share a number.
            number = math.ceil(1000 * times[k] - 1e-6) if dt >= 1e-3 else count - k
            steps.append(self._euler(denoiser, times[k], times[k + 1], number))
        return Chain(steps)

    def _euler(self, denoiser: Denoiser, time: float, after: float, number: int) -> Step:
        dt, beta, abar = time - after, vp_beta(time), vp_abar(time)
        seen = abar
        if self.label == "floor":
            seen = float(self.tables.abar[min(math.floor(1000 * time + 1e-9), 999)])
        root, sigma = math.sqrt(seen), math.sqrt((1 - seen) / seen)
        factor = 1.0 if self.kind == "sde" else 0.5

        def move(x: Tensor, z: Tensor | None) -> Tensor:
            epsilon = (x - root * denoiser(x / root, sigma)) / math.sqrt(1 - seen)
            score = -epsilon / math.sqrt(1 - abar)
            y = x + (0.5 * beta * x + factor * beta * score) * dt
            return y if z is None else y + math.sqrt(beta * dt) * z

        # The drift takes away `pull` epsilon; epsilon is (x - root D) / sqrt(1 - seen).
        pull = factor * beta * dt / math.sqrt(1 - abar)
        share = pull / math.sqrt(1 - seen)
        form = noise_form(
            denoiser,
            state=1.0 + 0.5 * beta * dt - share,
            estimate=share * root,
            level=sigma,
            root=root,
        )
        scale = math.sqrt(vp_abar(after))
        return Step(
            name="euler",
            phase="reverse",
            time=number,
            move=move,
            noisy=self.kind == "sde",
            evaluations=1,
            scale=scale,
            sigma=math.sqrt(1 - scale**2) / scale,
            form=form,
        )
