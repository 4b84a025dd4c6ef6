"""Counts network evaluations while they happen, for who watches a long image.

Every step of a chain and every answer of a classifier says how many rows it evaluates. Nothing is
counted, and nothing costs, unless somebody listens.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_LISTENER: ContextVar[Callable[[int], None] | None] = ContextVar("listener", default=None)


@contextmanager
def metered(listener: Callable[[int], None]) -> Iterator[None]:
    """Call a function with the rows of every network evaluation in the body.

    Example:
        >>> counts = []
        >>> with metered(counts.append):
        ...     tick(8)
        >>> tick(8)
        >>> counts
        [8]
    """
    token = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(token)


def tick(rows: int) -> None:
    """Say that a network evaluates so many rows."""
    listener = _LISTENER.get()
    if listener is not None and rows:
        listener(rows)
