"""What every point of a sweep is doing, seen from outside: from the index and the claims."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from advpure.sweeps.index import Index
from advpure.sweeps.locks import claimed
from advpure.sweeps.points import Point

State = Literal["done", "running", "failed", "left"]


@dataclass(frozen=True)
class Status:
    """One point.

    Attributes:
        point: The point.
        state: What it is doing.
        seconds: How long it took, where it is done.
        done: Finished units, where it is running.
        total: Units of work; None where not known.
        error: Why it failed.
    """

    point: Point
    state: State
    seconds: float | None = None
    done: int = 0
    total: int | None = None
    error: str | None = None


def statuses(index: Index, points: Sequence[Point]) -> list[Status]:
    """Return what each point is doing now.

    Args:
        index: The sweep.
        points: Its points, or some of them.
    """
    last, finished = index.attempts(), index.finished()
    states = []
    for point in points:
        attempt = last.get(point.run)
        if point.run in finished:
            states.append(Status(point, "done", attempt.seconds if attempt else None))
        elif (units := claimed(index.root / point.run)) is not None:
            states.append(Status(point, "running", done=units[0], total=units[1]))
        elif attempt is not None and attempt.error is not None:
            states.append(Status(point, "failed", attempt.seconds, error=attempt.error))
        else:
            states.append(Status(point, "left"))
    return states
