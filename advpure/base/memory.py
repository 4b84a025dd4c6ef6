"""Memory that computations of a process may share, counted; without torch, for a quick start."""

import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


class Budget:
    """Bytes that may be held at once, and those that are.

    Attributes:
        limit: Bytes, 0 for none.
        on_devices: Bytes of a device with memory of its own, which is scarcer.
        held: Bytes that were taken and not given back.
    """

    def __init__(self) -> None:
        """Start without any."""
        self.limit = self.on_devices = self.held = 0
        self._lock = threading.RLock()  # a finalizer may run while it is taken

    def take(self, size: int, *, on_device: bool = False) -> bool:
        """Take so many bytes where there is room; return whether there is."""
        with self._lock:
            fits = self.held + size <= (self.on_devices if on_device else self.limit)
            self.held += size if fits else 0
            return fits

    def give_back(self, size: int) -> None:
        """Give bytes back that were taken."""
        with self._lock:
            self.held -= size


STEPS = Budget()
"""What graphs of steps may hold, see `advpure.core.stored`; a library's user decides."""

LEAST, MOST = 512 * 2**20, 4096 * 2**20
"""Bytes of `STEPS` in a command and each worker; docs/speed.md has what they save."""

_SHARE = 16
_LIMITS = ("memory.max", "memory.current")


def give_steps_memory() -> None:
    """Let the graphs of steps hold a sixteenth of what is free, from `LEAST` to `MOST` bytes.

    So eight workers at once take half of it. On a GPU they hold `LEAST` bytes.
    """
    STEPS.limit, STEPS.on_devices = min(max(available() // _SHARE, LEAST), MOST), LEAST


def available(root: Path = Path("/")) -> int:
    """Return the bytes that this machine, or the container in it, has free; 0 where unknown.

    Args:
        root: Where ``proc`` and ``sys`` are.
    """
    return min(_free(root), default=0)


def _free(root: Path) -> Iterator[int]:
    with suppress(OSError, ValueError, IndexError):
        for line in (root / "proc/meminfo").read_text().splitlines():
            name, _, rest = line.partition(":")
            if name == "MemAvailable":
                yield 1024 * int(rest.split()[0])
    with suppress(OSError, ValueError):  # "max" is no number: no limit
        most, held = (int((root / "sys/fs/cgroup" / name).read_text()) for name in _LIMITS)
        yield max(most - held, 0)
