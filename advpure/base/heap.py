"""Keep the memory that a network call frees for the next one, instead of fetching it anew.

A network call allocates its intermediate results and frees them. The C library hands large blocks
back to the system at once, so the next call gets them zeroed, page by page: for a small network on
a CPU a good part of the processor time, in the system and not in any kernel of ours. glibc
can be told to keep them. No number that is computed changes, and the peak of memory hardly does;
what was used at the peak stays with the process until it ends.
"""

import ctypes
import os
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_KEPT = 2**30
"""Bytes of freed memory that are kept at most."""

_OWN_CHOICE = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_")


def keep_freed_memory() -> bool:
    """Keep freed memory in this process, up to 1 GiB at the end of the heap.

    It is for a program, such as a command or a worker, not for a library to decide. A user who has
    set glibc's own variables (`MALLOC_TRIM_THRESHOLD_` and the like, `GLIBC_TUNABLES`) keeps that
    choice.

    Returns:
        Whether the C library accepted the setting; False where it is no glibc.
    """
    if any(name in os.environ for name in _OWN_CHOICE):
        return False
    if "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "") or sys.platform != "linux":
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):  # others give these numbers no meaning
        return False
    return bool(library.mallopt(_M_MMAP_MAX, 0) and library.mallopt(_M_TRIM_THRESHOLD, _KEPT))
