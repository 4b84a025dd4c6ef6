"""Memory that computations of a process may share, counted; without torch, for a quick start."""

import threading


class Budget:
    """Bytes that may be held at once, and those that are.

    Attributes:
        limit: Bytes, 0 for none.
        held: Bytes that were taken and not given back.
    """

    def __init__(self) -> None:
        """Start without any."""
        self.limit = self.held = 0
        self._lock = threading.RLock()  # a finalizer may run while it is taken

    def take(self, size: int) -> bool:
        """Take so many bytes where there is room; return whether there is."""
        with self._lock:
            fits = self.held + size <= self.limit
            self.held += size if fits else 0
            return fits

    def give_back(self, size: int) -> None:
        """Give bytes back that were taken."""
        with self._lock:
            self.held -= size


STEPS = Budget()
"""What graphs of steps may hold, see `advpure.core.stored`; a library's user decides."""

OF_COMMANDS = 512 * 2**20
"""Bytes of `STEPS` in a command and each worker; docs/speed.md has what they save."""


def give_steps_memory() -> None:
    """Let the graphs of steps hold `OF_COMMANDS` bytes in this process."""
    STEPS.limit = OF_COMMANDS
