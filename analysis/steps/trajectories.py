"""Trajectories of perturbed images along a chain, with measurements of every step at their states.

What is measured, and why, stands in `steps`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np
import torch
from torch import Tensor

from advpure.analysis.compression.infinitesimal import push_forward
from advpure.analysis.perturbations import directions
from advpure.analysis.steps.divergence import RowMap, rademacher, trace_probes
from advpure.analysis.steps.manifold import across, along
from advpure.analysis.steps.settings import StepInfo, StepProbe, StepRate, StepSettings
from advpure.base.units import to_model
from advpure.core.chain import Noise, Step
from advpure.core.randomness import RandomnessConfig
from advpure.core.tiling import tiled


@dataclass
class Trajectories:
    """The trajectories of a few images, advanced together: the clean ones and the perturbed ones.

    Attributes:
        samples: Sample ids, [n].
        settings: What to measure.
        xi: The purifier's noise.
        spans: Directions along the data, [n, k, d], or None.
        tile: Compute tile.
        rows: Rows at once.
        states: [n, 1 + perturbations, C, H, W], model units; the clean image's first.
        tangent: What the derivatives so far made of the first perturbation, [n, C, H, W].
        rates: What was measured.
        probes: The probes of epsilon.
    """

    samples: list[int]
    settings: StepSettings
    xi: RandomnessConfig
    spans: Tensor | None
    tile: int | None
    rows: int
    states: Tensor
    tangent: Tensor
    rates: list[StepRate] = field(default_factory=list)
    probes: list[StepProbe] = field(default_factory=list)

    @classmethod
    def begin(
        cls,
        images: Tensor,
        samples: list[int],
        settings: StepSettings,
        xi: RandomnessConfig,
        spans: Tensor | None,
        tile: int | None,
        rows: int,
    ) -> Self:
        """Perturb clean images, [n, C, H, W] in [0, 1], and stand before the first step."""
        each = settings.perturbations
        repeated = images.repeat_interleave(each, 0)
        eta = directions(
            settings.distribution,
            settings.seed,
            [i for i in samples for _ in range(each)],
            [*range(each)] * len(samples),
            images.shape[1:],
        ).to(images)
        moved = (repeated + settings.strength * eta).reshape(-1, each, *images.shape[1:])
        states = to_model(torch.cat([images[:, None], moved], dim=1))
        tangent = states[:, 1] - states[:, 0]
        return cls(list(samples), settings, xi, spans, tile, rows, states, tangent)

    def take(self, step: Step, info: StepInfo) -> None:
        """Take one step and measure it."""
        before, each = self.states, self.states.shape[1]
        move = self._mover(step)
        with torch.no_grad():  # states and distances
            self.states = self._map(move, before.flatten(0, 1), each).reshape(before.shape)
        gaps = [(side[:, 1:] - side[:, :1]).flatten(0, 1) for side in (before, self.states)]
        self._note("transported", info.step, each - 1, *gaps)
        if step.gain is not None:
            gain = step.gain
            self.rates += [StepRate(i, info.step, "linear", 0, abs(gain)) for i in self.samples]
            self.tangent = gain * self.tangent
        elif info.selected:
            self._perturb(move, info.step, before[:, 1], self.states[:, 1])
            self._differentiate(move, info.step, before[:, 1])
            if step.form is not None:
                self._probe(step.form.epsilon, info.step, before[:, 1])

    def _mover(self, step: Step) -> RowMap:
        def go(state: Tensor, ids: Tensor) -> Tensor:
            return step.move(state, Noise(self.xi, ids).of(step, state))

        run = tiled(go, self.tile)
        return lambda x, ids: run(x, torch.tensor(list(ids), dtype=torch.int64, device="cpu"))

    def _perturb(self, move: RowMap, step: int, here: Tensor, there: Tensor) -> None:
        """Measure fresh perturbations of full strength."""
        each = self.settings.probes
        start, end = (side.repeat_interleave(each, 0) for side in (here, there))
        moved = start + 2.0 * self.settings.strength * self._fresh(step).to(here)
        with torch.no_grad():  # distances
            after = self._map(move, moved, each)
        self._note("isotropic", step, each, moved - start, after - end)

    def _differentiate(self, move: RowMap, step: int, here: Tensor) -> None:
        """Measure directional derivatives, all kinds in common batches."""
        s = self.settings
        kinds: list[tuple[str, int, Tensor]] = [("limit", s.probes, self._fresh(step))]
        if s.every == 1:
            kinds.append(("linear", 1, self.tangent))
        if self.spans is not None:
            spans = self.spans.repeat_interleave(s.directions, 0)
            draws = self._numbered(step * s.directions, s.directions)
            for kind, draw in (("along", along), ("across", across)):
                unit = draw(spans, s.seed, self._ids(s.directions), draws)
                kinds.append((kind, s.directions, unit.reshape(-1, *here.shape[1:])))
        v = torch.cat([self._sized(each.to(here)) for _, _, each in kinds])
        at = torch.cat([here.repeat_interleave(each, 0) for _, each, _ in kinds])
        pushed = self._push(move, at, v, [i for _, each, _ in kinds for i in self._ids(each)])
        sizes = [len(self.samples) * each for _, each, _ in kinds]
        parts = [torch.split(side, sizes) for side in (v, pushed)]
        for (kind, each, _), a, b in zip(kinds, *parts, strict=True):
            self._note(kind, step, each, a, b)
            if kind == "linear":
                self.tangent = b

    def _probe(self, epsilon: Callable[[Tensor], Tensor], step: int, here: Tensor) -> None:
        s, run = self.settings, tiled(epsilon, self.tile)
        who, draws = self._ids(s.probes), self._numbered(0, s.probes)
        v = rademacher(s.seed, who, draws, here.shape[1:], "step", step).to(here)
        at = here.repeat_interleave(s.probes, 0)
        for part in self._parts(len(who)):
            probes = trace_probes(
                lambda x, ids: run(x), at[part], who[part], draws[part], v[part], s.method
            )
            self.probes += [StepProbe(p.id, step, p.probe, p.trace, p.energy) for p in probes]

    def _fresh(self, step: int) -> Tensor:
        """Draw this step's perturbations, numbered after the transported ones."""
        s = self.settings
        draws = self._numbered(s.perturbations + step * s.probes, s.probes)
        return directions(s.distribution, s.seed, self._ids(s.probes), draws, self.states.shape[2:])

    def _ids(self, each: int) -> list[int]:
        return [i for i in self.samples for _ in range(each)]

    def _numbered(self, first: int, each: int) -> list[int]:
        return [*range(first, first + each)] * len(self.samples)

    def _parts(self, count: int) -> list[slice]:
        return [slice(a, a + self.rows) for a in range(0, count, self.rows)]

    def _map(self, move: RowMap, x: Tensor, each: int) -> Tensor:
        who = self._ids(each)
        return torch.cat([move(x[part], who[part]) for part in self._parts(len(who))])

    def _push(self, move: RowMap, x: Tensor, v: Tensor, who: list[int]) -> Tensor:
        def at_rows(ids: Sequence[int]) -> Callable[[Tensor], Tensor]:
            return lambda y: move(y, ids)

        parts = self._parts(len(who))
        return torch.cat([push_forward(at_rows(who[p]), x[p], v[p]) for p in parts])

    @staticmethod
    def _sized(rows: Tensor) -> Tensor:
        """Scale rows to root mean square 1, so that float32 neither under- nor overflows."""
        size = rows.flatten(1).double().square().mean(1).sqrt()
        factor = torch.where(size > 0, 1.0 / size, 1.0).reshape(-1, *[1] * (rows.ndim - 1))
        return (rows * factor).to(rows.dtype)

    def _note(self, kind: str, step: int, each: int, before: Tensor, after: Tensor) -> None:
        """Record ||after|| / ||before|| of rows that run over images, then draws."""
        names = zip(self._ids(each), self._numbered(0, each), strict=True)
        for (i, draw), a, b in zip(names, _norms(before), _norms(after), strict=True):
            self.rates.append(StepRate(i, step, kind, draw, b / a if a > 0.0 else None))


def _norms(rows: Tensor) -> list[float]:
    wide = rows.detach().cpu().double().flatten(1).numpy()
    return [float(np.sqrt(np.square(row).sum())) for row in wide]
