"""What every point of a sweep is doing, seen from outside: from the index and the claims."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from advpure.sweeps.claims import Claims
from advpure.sweeps.index import Index
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
    """Say what each point is doing now.

    Args:
        index: The sweep.
        points: Its points, or some of them.
    """
    last, finished = index.attempts(), index.finished()
    with Claims(index.root) as claims:
        living = claims.living()
    found = []
    for point in points:
        attempt, claim = last.get(point.run), living.get(point.run)
        if point.run in finished:
            found.append(Status(point, "done", attempt.seconds if attempt else None))
        elif claim is not None:
            found.append(Status(point, "running", done=claim.done, total=claim.total))
        elif attempt is not None and attempt.error is not None:
            found.append(Status(point, "failed", attempt.seconds, error=attempt.error))
        else:
            found.append(Status(point, "left"))
    return found
