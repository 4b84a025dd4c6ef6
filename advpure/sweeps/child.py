"""How a process of a sweep begins, and ends with its parent; light, to be there before torch is."""

import os
import threading
from contextlib import suppress
from multiprocessing.connection import Connection

from advpure.base.heap import keep_freed_memory
from advpure.base.memory import give_steps_memory


def begin(watched: "Connection[None, None]") -> None:
    """Prepare a new process, which ends when the other end of a pipe is closed, or is gone."""
    keep_freed_memory()
    give_steps_memory()
    os.dup2(2, 1)  # standard output belongs to the command
    threading.Thread(target=_end_with_parent, args=(watched,), daemon=True).start()


def _end_with_parent(watched: "Connection[None, None]") -> None:
    with suppress(EOFError, OSError):
        watched.recv()  # returns when the other end is closed, also by a death
    os._exit(143)
