"""Ctrl-C and SIGTERM: both end a program in one line, with everything kept that is finished.

Both raise `KeyboardInterrupt` in the main thread, so whatever is open is closed, and the exit code
says which one came: 130 after Ctrl-C (SIGINT), 143 after SIGTERM. Some code swallows the exception
or turns it into another one (imports in C, destructors); hence the number is kept as well.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

STOPPED = "interrupted; everything finished so far is kept, the same command goes on"
_SOON = 0.01  # seconds
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopping:
    """Whether this process was asked to stop, and by which signal.

    Attributes:
        number: The signal; None before one came.
    """

    def __init__(self) -> None:
        """Begin with none."""
        self.number: int | None = None

    @property
    def code(self) -> int:
        """The exit code: 128 plus the number of the signal; that of Ctrl-C if none has come."""
        return 128 + (self.number or signal.SIGINT)

    def interrupt(self) -> None:
        """Interrupt the main thread if a signal came, as it would have done at once.

        Raises:
            KeyboardInterrupt: as the handler of the signal says.
        """
        if self.number is not None:
            signal.raise_signal(self.number)
            raise KeyboardInterrupt

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Note the signal and interrupt the main thread."""
        self.number = number
        raise KeyboardInterrupt


@contextmanager
def stoppable() -> Iterator[Stopping]:
    """Turn both signals into `KeyboardInterrupt` while the body runs, in the main thread only.

    Yields:
        What says whether a signal came, also after an exception that came of it.
    """
    asked = Stopping()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def ignored(info: Any) -> None:
        # Raised in a destructor or callback, the interruption would be printed and lost.
        if issubclass(info.exc_type, KeyboardInterrupt):
            threading.Thread(target=_again, args=(asked.number or signal.SIGINT,)).start()
        else:
            hook(info)

    before = {each: signal.signal(each, asked) for each in _SIGNALS}
    hook, sys.unraisablehook = sys.unraisablehook, ignored
    try:
        yield asked
    finally:
        sys.unraisablehook = hook
        for each, handler in before.items():
            signal.signal(each, handler)


@contextmanager
def deferred() -> Iterator[Stopping]:
    """Put off the first signal while the body runs, so that no step is cut in half.

    A second one interrupts at once. Outside the main thread signals are left alone.

    Yields:
        What notes the signal; `Stopping.interrupt` makes up for it after the body.
    """
    asked = Stopping()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = {each: signal.getsignal(each) for each in _SIGNALS}

    def restore() -> None:
        for each, handler in before.items():
            signal.signal(each, handler)

    def note(number: int, frame: FrameType | None) -> None:
        asked.number = number
        restore()

    for each in _SIGNALS:
        signal.signal(each, note)
    try:
        yield asked
    finally:
        restore()


def _again(number: int) -> None:
    """Send this process a signal once more, when the main thread has left its destructor."""
    time.sleep(_SOON)
    os.kill(os.getpid(), number)


def leave_at_once() -> None:
    """End this process in one line when either signal comes, while it has begun nothing yet."""

    def leave(number: int, frame: FrameType | None) -> None:
        os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, f"advpure: {STOPPED}\n".encode())
        os._exit(128 + number)

    for each in _SIGNALS:
        signal.signal(each, leave)


def leave_in_peace() -> None:
    """Ignore both signals from now on, when nothing is left to do but to end."""
    for each in _SIGNALS:
        signal.signal(each, signal.SIG_IGN)
