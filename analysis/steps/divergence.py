"""The divergence tr J and the Frobenius norm ||J||_F of a map, from random probes.

For v with independent entries -1 or 1 (Rademacher), E[v^T J v] = tr J and E||J v||^2 =
E||J^T v||^2 = ||J||_F^2, both without bias; d probes of a derivative would give them exactly.
The variance of one probe of the trace is 2 (||S||_F^2 - sum_i S_ii^2) with S = (J + J^T) / 2, so
diagonal matrices need one probe.

The two forms cost about the same: ``jvp`` pushes v forward and keeps no activations, ``vjp`` pulls
v back. Both see the same v, and the trace is the same number up to rounding.

Source: [Hutchinson1990].
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from advpure.analysis.compression.infinitesimal import push_forward
from advpure.analysis.steps.adjoint import pull_back
from advpure.analysis.subject import Seeded
from advpure.analysis.target import Given, as_target, batch_rows, choose_ids, refuse_fresh
from advpure.base.budget import check_repeats
from advpure.base.errors import BadInput
from advpure.base.kinds import Natural
from advpure.base.units import check_plain
from advpure.base.validation import resolved, validate
from advpure.core.randomness import Ids, RandomnessConfig
from advpure.statistics.rates import NOT_NEGATIVE, Mean, mean_interval

Method = Literal["jvp", "vjp"]
RowMap = Callable[[Tensor, Sequence[int]], Tensor]
"""States [B, ...] and the sample id of every row to states of the same shape; rows independent."""


class TraceProbe(NamedTuple):
    """One probe at one state.

    Attributes:
        id: Sample id.
        probe: Number of the probe.
        trace: v^T J v, an unbiased estimate of tr J.
        energy: ||J v||^2 (``jvp``) or ||J^T v||^2 (``vjp``), one of ||J||_F^2.
    """

    id: int
    probe: int
    trace: float
    energy: float


class Divergence(NamedTuple):
    """What the probes say of the map at one state.

    Attributes:
        trace: Estimate of tr J, with n probes; std and interval over probes, None for one.
        energy: Estimate of ||J||_F^2, likewise.
        dimensions: d, so that trace.value / d is the mean eigenvalue.
    """

    trace: Mean
    energy: Mean
    dimensions: int

    @property
    def frobenius(self) -> float:
        """||J||_F; its square is the unbiased one."""
        return float(np.sqrt(self.energy.value))


@dataclass(frozen=True, kw_only=True)
class ProbeSettings(Seeded):
    """How to probe.

    Attributes:
        probes: Probes at every state.
        method: ``jvp`` or ``vjp``; ``vjp`` through a purifier keeps one step's activations.
        seed: Base seed of the probes.

    Raises:
        BadInput: for values that make no sense, naming the rule.
    """

    probes: Natural = 8
    method: Method = "jvp"

    def __post_init__(self) -> None:
        """Check every field."""
        validate(self)
        check_repeats(self.probes, "probes")


def rademacher(
    seed: int, ids: Sequence[int], draws: Sequence[int], shape: Sequence[int], *purpose: str | int
) -> Tensor:
    """Draw probes, a function of (purpose, seed, sample id, draw) alone.

    Args:
        seed: Base seed.
        ids: Sample id of every row.
        draws: Number of the draw of every row.
        shape: Shape of one state.
        purpose: Names that keep probes for unlike uses apart.

    Returns:
        [B, *shape], float32, entries -1 or 1.

    Example:
        >>> rademacher(0, [3], [0], (4,)).abs().tolist()
        [[1.0, 1.0, 1.0, 1.0]]
    """
    xi = RandomnessConfig(seed, "counter").fold("probe", *purpose)
    shares = [xi.uniform([i], 0, shape, k)[0] for i, k in zip(ids, draws, strict=True)]
    return (torch.stack(shares) >= 0.5).float() * 2.0 - 1.0


def trace_probes(
    function: RowMap,
    states: Tensor,
    ids: Sequence[int],
    draws: Sequence[int],
    v: Tensor,
    method: Method,
) -> list[TraceProbe]:
    """Probe a map once for every row.

    Args:
        function: The map.
        states: Where, [B, ...].
        ids: Sample id of every row.
        draws: Number of the probe of every row.
        v: Probes, [B, ...], entries independent with mean 0 and variance 1.
        method: ``jvp`` or ``vjp``.

    Returns:
        One probe a row; the sums are taken in float64.

    Raises:
        BadInput: for a map without that derivative.
    """
    derivative = push_forward if method == "jvp" else pull_back
    moved = derivative(lambda x: function(x, ids), states.detach(), v)
    pairs = zip(ids, draws, _rows(moved), _rows(v), strict=True)
    return [TraceProbe(i, k, float(a @ b), float(a @ a)) for i, k, a, b in pairs]


def estimate_divergence(
    purifier: Given,
    states: Tensor,
    settings: ProbeSettings | None = None,
    *,
    ids: Ids | None = None,
    xi: RandomnessConfig | None = None,
    batch_size: int | None = None,
    **changes: Any,
) -> dict[int, Divergence]:
    """Estimate the divergence and the Frobenius norm of a map at every state.

    Args:
        purifier: Any map of [B, ...] to the same shape with independent rows, such as a noise
            prediction; or a purifier or defense, whose whole purification is the map.
        states: Where, [B, ...]; images in [0, 1] for a purifier.
        settings: How to probe; None for the defaults.
        ids: Sample ids [B], all different; None for the bound ones, else 0 .. B-1.
        xi: Randomness of a purifier; None for its own.
        batch_size: Rows at once, a matter of memory only; rounded up to whole tiles.
        changes: Fields of `ProbeSettings` to replace, such as ``probes=2``.

    Returns:
        By sample id. Cost: B * probes derivatives, each about three evaluations.

    Raises:
        BadInput: for settings or states that cannot be used, or a map without the derivative.

    Example:
        >>> tripled = estimate_divergence(lambda y: 3.0 * y, torch.zeros(1, 1, 2, 2), probes=2)[0]
        >>> tripled.trace.value, tripled.energy.value, tripled.trace.interval
        (12.0, 36.0, Interval(low=12.0, high=12.0))
    """
    chosen = resolved(ProbeSettings, settings, changes)
    check_plain(states, "states", "give a tensor [B, ...]")
    if states.ndim < 2 or not states.is_floating_point():
        subject = f"states of shape {tuple(states.shape)} and dtype {states.dtype}"
        raise BadInput(subject, "are no rows of floats", "give [B, ...]")
    target = as_target(purifier, gradient="checkpoint" if chosen.method == "vjp" else "full")
    samples = choose_ids(target, states, ids, unique=True)
    xi = xi or target.xi
    refuse_fresh(xi)
    batch, probes = batch_rows(target, batch_size), []
    jobs = [(i, k) for i in range(len(samples)) for k in range(chosen.probes)]
    for first in range(0, len(jobs), batch):
        where, draws = zip(*jobs[first : first + batch], strict=True)
        own = [samples[i] for i in where]
        v = rademacher(chosen.seed, own, draws, states.shape[1:]).to(states)
        probes += trace_probes(
            lambda x, i: target(x, i, xi), states[list(where)], own, draws, v, chosen.method
        )
    return summarise_probes(probes, states[0].numel())


def summarise_probes(probes: Sequence[TraceProbe], dimensions: int) -> dict[int, Divergence]:
    """Average the probes of every sample, with error bars over probes.

    Args:
        probes: Probes of one state per sample.
        dimensions: d.
    """
    groups: dict[int, list[TraceProbe]] = {}
    for probe in sorted(probes):
        groups.setdefault(probe.id, []).append(probe)
    return {
        i: Divergence(
            mean_interval([p.trace for p in own]),
            mean_interval([p.energy for p in own], within=NOT_NEGATIVE),
            dimensions,
        )
        for i, own in groups.items()
    }


def _rows(rows: Tensor) -> list[np.ndarray]:
    return list(rows.detach().cpu().double().flatten(1).numpy())
