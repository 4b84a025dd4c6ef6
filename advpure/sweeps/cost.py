"""What the unfinished points of a sweep will cost, before anything runs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from advpure.analysis.study import cost_of
from advpure.runs.cost import Cost
from advpure.sweeps.index import Index
from advpure.sweeps.points import Point, is_complete


@dataclass(frozen=True)
class SweepCost:
    """The most that a sweep can cost.

    Attributes:
        points: All points.
        done: How many are finished.
        estimates: Point and cost of each unfinished one.
        jobs: Processes.
    """

    points: int
    done: int
    estimates: tuple[tuple[Point, Cost], ...]
    jobs: int

    @property
    def evaluations(self) -> int:
        """Network evaluations forward."""
        return sum(cost.evaluations for _, cost in self.estimates)

    @property
    def backwards(self) -> int:
        """Backward passes through a defense."""
        return sum(cost.backwards for _, cost in self.estimates)

    @property
    def seconds(self) -> float:
        """Wall time, if the processes do not slow each other down; no point is split."""
        each = [cost.seconds for _, cost in self.estimates]
        return max(sum(each) / self.jobs, max(each, default=0.0))

    def to_json(self) -> dict[str, Any]:
        """Return the sums and every point's cost as JSON values."""
        return {
            "points": self.points,
            "done": self.done,
            "jobs": self.jobs,
            "evaluations": self.evaluations,
            "backwards": self.backwards,
            "seconds": self.seconds,
            "costs": [
                {"block": point.block, "at": dict(point.at), "run": point.run, **cost.to_json()}
                for point, cost in self.estimates
            ],
        }


def estimate_sweep(
    index: Index,
    points: Sequence[Point],
    jobs: int,
    watch: Callable[[int], None] = lambda done: None,
) -> SweepCost:
    """Estimate the unfinished points, each by one calibrated tile.

    Args:
        index: The sweep.
        points: Its points, or those of a shard.
        jobs: Processes that will share them.
        watch: Called with the number of estimated points.
    """
    unique = {point.run: point for point in points}
    finished = index.finished() | {run for run in unique if is_complete(index.root, run)}
    estimates = []
    for run, point in unique.items():
        if run not in finished:
            estimates.append((point, cost_of(point.settings)))
            watch(len(estimates))
    return SweepCost(len(unique), len(unique.keys() & finished), tuple(estimates), jobs)
