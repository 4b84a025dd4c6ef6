"""How what we do is timed beside what cannot be done without, and where results are kept."""

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

RESULTS = Path(__file__).with_name("results.json")


def time_of(function: Callable[[], object]) -> float:
    """Return the processor's seconds of a call."""
    start = time.process_time()
    function()
    return time.process_time() - start


def beside(
    ours: Callable[[], object], bare: Callable[[], object], networks: list[nn.Module], turns: int
) -> dict[str, Any]:
    """Time two functions that call the same networks equally often, on one thread, in turns.

    What is timed is the processor's time of this process, from one call of a network to the next.
    The least of each such stretch over the turns counts, since other programs can only lengthen
    one, and a whole turn is seldom left alone by them.

    Args:
        ours: The first.
        bare: The second.
        networks: What both call.
        turns: How often each is called.

    Returns:
        The ratio of the least stretches, the middle, smallest and largest ratio of a turn, and the
        seconds that the least stretches of the first add up to.
    """
    first, second = [], []
    for _ in range(turns):
        first.append(_stretches(networks, ours))
        second.append(_stretches(networks, bare))
    ratios = [sum(one) / sum(other) for one, other in zip(first, second, strict=True)]
    least, passes = (sum(map(min, zip(*each, strict=True))) for each in (first, second))
    return {
        "ratio": least / passes,
        "middle": statistics.median(ratios),
        "low": min(ratios),
        "high": max(ratios),
        "turns": turns,
        "seconds": least,
        "torch": torch.__version__,
    }


def _stretches(networks: list[nn.Module], function: Callable[[], object]) -> list[float]:
    """Return the seconds of a call up to its first call of a network, to the next, to the end."""
    marks: list[float] = []
    handles = [
        network.register_forward_pre_hook(lambda *given: marks.append(time.process_time()))
        for network in networks
    ]
    start = time.process_time()
    function()
    marks.append(time.process_time())
    for handle in handles:
        handle.remove()
    return [after - before for before, after in zip([start, *marks], marks, strict=False)]


def store(name: str, found: object) -> None:
    """Put what was measured among the results of the other benchmarks."""
    results = json.loads(RESULTS.read_text())
    results[name] = found
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")


def measured(name: str, measure: Callable[[], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Measure on one thread, store and print; return what was found."""
    torch.set_num_threads(1)
    found = measure()
    store(name, found)
    for row in found:
        print(json.dumps(row), flush=True)
    return found
