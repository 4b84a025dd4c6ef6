"""The most memory that this process has held."""

import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")


def peak_resident() -> int:
    """Return the high-water mark of this process's resident memory, in bytes.

    On Linux it is the kernel's `VmHWM`, which begins anew with every program. The `ru_maxrss` of
    getrusage does not: a child starts with the peak of the process that started it.

    Example:
        >>> peak_resident() > 2**20
        True
    """
    if _STATUS.exists():
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024  # always in kB
    import resource  # not there on Windows

    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
