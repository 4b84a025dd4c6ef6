"""One recorded simulation of two points under noise: example 3.1 beside its closed forms."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from advpure.analysis.closed_forms.two_point import TwoPointLaw, simulate_two_points, two_point_law
from advpure.analysis.report import RunReport
from advpure.analysis.runs import Verb
from advpure.base.budget import PATH_NODES, check_repeats
from advpure.base.errors import BadInput
from advpure.base.kinds import Seed, Several
from advpure.base.text import several
from advpure.base.validation import Range, number, validate
from advpure.core.randomness import RandomnessConfig
from advpure.runs.cost import Cost
from advpure.runs.records import (
    RecordStore,
    collect_context,
    default_run_folder,
    source_digests,
)
from advpure.runs.schema import Count, Row, Schema
from advpure.statistics.rates import Mean, Rate, mean_interval, wilson

_LEVELS = Range(least=1e-6, most=1e6)  # of points at distance 2: beyond, nothing or all is noise
TWO_POINT = Schema(
    "two_point", {"t": float, "draw": Count}, {"x": float, "one_shot": float, "ode": float}
)
"""A point and what the two purifiers make of it."""


@dataclass(frozen=True, kw_only=True)
class TwoPointRun:
    """What is simulated.

    Attributes:
        noise: Standard deviations t of the noise, in units of the points; numbers or text.
        draws: Points, half of them at -1 and half at 1.
        nodes: Nodes of the ODE's grid, 2 or more.
        seed: Seed of the noise.
    """

    noise: str | float | Sequence[str | float] = "0.25,0.5,1,2"
    draws: Several = 10_000
    nodes: Several = 18
    seed: Seed = 0

    def __post_init__(self) -> None:
        """Check the numbers, and that the noise is a list of levels."""
        validate(self)
        self.levels()
        check_repeats(self.draws * self.nodes, "nodes of all paths", PATH_NODES)

    def levels(self) -> tuple[float, ...]:
        """Return the noise levels, increasing.

        Raises:
            BadInput: for none, or one that is not positive or given twice.
        """
        levels = several(
            self.noise, lambda one: number(one, "noise", _LEVELS), "noise levels",
            "write 0.5,1,2",
        )  # fmt: skip
        return tuple(sorted(levels))


class TwoPointLevel(NamedTuple):
    """One noise level: simulated values and closed forms.

    Attributes:
        t: The noise.
        one_shot: Transport of the one-shot purifier, simulated.
        ode: Transport of the ODE, simulated.
        off_one_shot: Distance of the one-shot answer from the nearer point, simulated.
        off_ode: The ODE's, simulated.
        wrong: Share of one-shot answers with the wrong sign.
        law: The closed forms.
    """

    t: float
    one_shot: Mean
    ode: Mean
    off_one_shot: Mean
    off_ode: Mean
    wrong: Rate
    law: TwoPointLaw


@dataclass(frozen=True, kw_only=True)
class TwoPointReport(RunReport):
    """The result of a simulation, computed from its records.

    Attributes:
        levels: Noise levels, increasing.
    """

    levels: tuple[TwoPointLevel, ...]

    def to_json(self) -> dict[str, Any]:
        """Return one JSON object; `rows` has one object a noise level, `exact` its closed forms."""
        return {
            "rows": [_level_json(level) for level in self.levels],
            **self.origin(),
        }


def _level_json(level: TwoPointLevel) -> dict[str, Any]:
    means = {
        name: {**mean._asdict(), "interval": mean.interval and list(mean.interval)}
        for name, mean in level._asdict().items()
        if isinstance(mean, Mean)
    }
    wrong = level.wrong
    return {
        "t": level.t, "n": level.ode.n, **means,
        "wrong": {"value": wrong.value, "n": wrong.n, "interval": [wrong.low, wrong.high]},
        "exact": level.law._asdict(),
    }  # fmt: skip


@dataclass(frozen=True)
class PreparedTwoPoint:
    """A simulation that is checked."""

    run: TwoPointRun
    settings: dict[str, Any]


def prepare_two_point(run: TwoPointRun) -> PreparedTwoPoint:
    """Check the settings.

    Raises:
        BadInput: for the first setting that cannot be used.
    """
    return PreparedTwoPoint(
        run, {"verb": "two-point", **asdict(run), "noise": list(run.levels())}
    )  # fmt: skip


def measure_two_point(
    run: TwoPointRun,
    *,
    out: str | Path | None = None,
    batch_size: int | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> TwoPointReport:
    """Simulate the two points and record every answer.

    Args:
        run: Everything that the result depends on.
        out: Run folder; by default one named after the settings, under ``runs``.
        batch_size: Without effect; all points of a level are purified together.
        progress: Called with the number of finished points.

    Returns:
        The report. Its records are in the run folder.

    Raises:
        BadInput: for settings that cannot be used, or a run folder of other settings.
        StorageFull: when the disk is full.
    """
    settings, start = prepare_two_point(run).settings, time.perf_counter()
    folder = Path(out) if out else default_run_folder("runs", "two-point", settings)
    context = collect_context(dtype="float64", sources=source_digests(simulate_two_points))
    with RecordStore.open(
        folder, schemas=(TWO_POINT,), settings=settings, context=context
    ) as store:
        done = {t for (t,) in store.done(TWO_POINT.table, "t")}
        left = [t for t in run.levels() if t not in done]
        for t in left:
            found = simulate_two_points(t, run.draws, RandomnessConfig(run.seed), nodes=run.nodes)
            columns = zip(*(each.tolist() for each in found), strict=True)
            store.append(
                TWO_POINT.table,
                [
                    {"t": t, "draw": k, "x": x, "one_shot": one, "ode": ode}
                    for k, (x, one, ode) in enumerate(columns)
                ],
            )
            done.add(t)
            progress(len(done) * run.draws)
        store.finish()
        report = report_two_point(store, time.perf_counter() - start)
    return report if left else report.already_complete()


def report_two_point(store: RecordStore, seconds: float = 0.0) -> TwoPointReport:
    """Compute the report of a run from its records alone."""
    grouped: dict[float, list[Row]] = {}
    for row in store.rows(TWO_POINT.table):
        grouped.setdefault(row["t"], []).append(row)
    if not grouped:
        raise BadInput(str(store.folder), "has no rows yet", "run it first")
    levels = tuple(_level(t, grouped[t]) for t in sorted(grouped))
    return TwoPointReport(run=store.folder, settings=store.settings, levels=levels, seconds=seconds)


def _level(t: float, rows: Sequence[Row]) -> TwoPointLevel:
    x, one_shot, ode = (np.array([row[k] for row in rows]) for k in ("x", "one_shot", "ode"))
    return TwoPointLevel(
        t, mean_interval(np.abs(x - one_shot)), mean_interval(np.abs(x - ode)),
        mean_interval(np.abs(1.0 - np.abs(one_shot))), mean_interval(np.abs(1.0 - np.abs(ode))),
        wilson(int((np.sign(one_shot) != x).sum()), len(x)), two_point_law(t),
    )  # fmt: skip


def estimate_two_point(prepared: PreparedTwoPoint) -> Cost:
    """Return the cost: no network is evaluated."""
    run = prepared.run
    points = run.draws * len(run.levels())
    return Cost(points, 0, 0, 1e-6 * points * run.nodes, 0)


VERB = Verb(
    TwoPointRun,
    measure_two_point,
    total=lambda run: run.draws * len(run.levels()),
    prepare=prepare_two_point,
    estimate=estimate_two_point,
    report=report_two_point,
)
