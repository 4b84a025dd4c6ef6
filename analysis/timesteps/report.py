"""Accuracy and compression against the time step, from the records of a run alone."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, NamedTuple

from advpure.analysis.report import RunReport
from advpure.base.errors import BadInput
from advpure.runs.records import RecordStore
from advpure.runs.schema import Count, Row, Schema
from advpure.statistics.rates import Mean, Rate, mean_interval, wilson
from advpure.statistics.repeated import mean_over_images, means_by_image

TIMES = Schema(
    "timesteps",
    keys={"t": Count, "sample": Count},
    values={"clean": bool, "noise": bool, "attacked": bool | None, "rate": float | None},
)
"""One decision under the fixed configuration on clean, noisy and attacked images (absent where
nothing was attacked), and the image's mean compression rate (absent where clipping left none)."""


class Timestep(NamedTuple):
    """The images at one time step.

    Attributes:
        t: The time step.
        clean: Accuracy on clean images.
        noise: Accuracy on uniform noise in the ball.
        attacked: Accuracy under attack; None where there was none.
        rate: Mean compression rate over images; None where no perturbation had one.
        rates: Each image's mean compression rate by sample id.
    """

    t: int
    clean: Rate
    noise: Rate
    attacked: Rate | None
    rate: Mean | None
    rates: dict[int, float]


@dataclass(frozen=True, kw_only=True)
class TimestepReport(RunReport):
    """The result of a run, computed from its records.

    Attributes:
        steps: The finished time steps, ascending.
    """

    steps: tuple[Timestep, ...]

    def to_json(self) -> dict[str, Any]:
        """Return one JSON object; `rows` holds one row a time step, estimates are mappings."""
        return {
            "n": self.steps[0].clean.n,
            "rows": [
                {
                    "t": step.t, "clean": _rate_json(step.clean), "noise": _rate_json(step.noise),
                    "attacked": step.attacked and _rate_json(step.attacked),
                    "cr": step.rate and {**step.rate._asdict(),
                                         "interval": step.rate.interval and [*step.rate.interval]},
                }
                for step in self.steps
            ],
            **self.origin(),
        }  # fmt: skip


def _rate_json(rate: Rate) -> dict[str, Any]:
    return {"value": rate.value, "n": rate.n, "interval": [rate.low, rate.high]}


def report_timesteps(store: RecordStore, seconds: float = 0.0) -> TimestepReport:
    """Compute the report of a run from its records alone.

    Raises:
        BadInput: when no time step is finished yet.
    """
    times = sorted({t for (t,) in store.done(TIMES.table, "t")})
    if not times:
        raise BadInput(f"run {store.folder}", "has finished no time step yet", "run it again")
    steps = tuple(_step(t, store.rows(TIMES.table, {"t": t})) for t in times)
    report = TimestepReport(run=store.folder, settings=store.settings, steps=steps, seconds=seconds)
    return replace(report, notes=tuple(_notes(report)))


def _step(t: int, rows: list[Row]) -> Timestep:
    def rate(name: str) -> Rate | None:
        decided = [row[name] for row in rows if row[name] is not None]
        return wilson(sum(decided), len(decided)) if decided else None

    clean, noise = rate("clean"), rate("noise")
    assert clean is not None
    assert noise is not None
    rates = means_by_image((row["sample"], row["rate"]) for row in rows)
    mean = mean_over_images(rates, f"the compression rate at t = {t}") if rates else None
    return Timestep(t, clean, noise, rate("attacked"), mean, rates)


def _notes(report: TimestepReport) -> Iterator[str]:
    wanted, done = report.settings["times"], len(report.steps)
    if done < len(wanted):
        yield f"{done} of {len(wanted)} time steps are done; the same command goes on"
    level = 1.0 - 0.05 / max(done - 1, 1)  # at most 1 false note in 20 curves
    rising = [b.t for a, b in pairwise(report.steps) if _rises(a, b, level)]
    if rising:
        yield (
            f"the compression rate rises towards t = {', '.join(map(str, rising))}: more steps "
            "compress less there (paired on the same images, 95 % for all steps together)"
        )


def _rises(before: Timestep, after: Timestep, level: float = 0.95) -> bool:
    common = before.rates.keys() & after.rates.keys()
    if len(common) < 2:
        return False
    change = mean_interval([after.rates[i] - before.rates[i] for i in sorted(common)], level)
    return change.interval is not None and change.interval.low > 0
