"""What the fuzz tests share: the same examples in every run, and a budget for each of them."""

import contextlib
import resource
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from torch import nn

CALLS, SECONDS, MEMORY = 400, 3.0, 1 << 30
"""The budget of an example: calls of network layers, processor time, bytes beyond those in use."""

EACH = settings(
    derandomize=True, deadline=None, database=None, phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
"""The same examples in every run, none of them made smaller."""


class Enough(KeyboardInterrupt):
    """The budget of an example is spent."""


@contextlib.contextmanager
def budget() -> Iterator[None]:
    """Press Ctrl-C when the body has called many layers or taken long; bound its memory."""
    left = [CALLS]

    def count(module: nn.Module, inputs: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Enough

    def late(signum: int, frame: object) -> None:
        raise Enough

    handle = nn.modules.module.register_module_forward_pre_hook(count)
    before = signal.signal(signal.SIGPROF, late)
    limits = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, limits[1]))
    signal.setitimer(signal.ITIMER_PROF, SECONDS, 0.5)  # again where a callback lost the first
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
        resource.setrlimit(resource.RLIMIT_AS, limits)
        handle.remove()
