"""(d) What `snr` costs beside the bare network calls of its purifications, and its peak memory.

Time is processor time of one thread, as for the loop: a whole run from loading to its report,
against the network calls of as many full tiles with nothing around them. Memory is the kernel's
high-water mark of a process that does nothing but the run. The full size is the one of seed 003,
table S12: 125,000 purifications. The small one has as many perturbations, which decide how many
rows of a tile share their noise, and fewer images and configurations.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile

import torch

import advpure
from advpure.analysis.variability.mixed import purify_rows
from advpure.analysis.variability.study import Snr
from advpure.base.heap import keep_freed_memory
from advpure.base.peak import peak_resident
from benchmarks.loop import Calls
from benchmarks.timing import RESULTS, store, time_of

FULL = (50, 50, 50)
SMALL = (4, 50, 10)

_PROBE = """
import sys, tempfile
import torch
from advpure.analysis.variability.study import Snr
from advpure.base.peak import peak_resident
torch.set_num_threads(1)
n, k, s, t = map(int, sys.argv[1:])
run = Snr(defense="ddpm", t=t, dataset="digits", n=n, perturbations=k, configurations=s)
with tempfile.TemporaryDirectory() as folder:
    Snr.run(run, out=folder)
print(peak_resident() / 2**20)
"""


def measure(
    size: tuple[int, int, int] = SMALL, t: int = 100, repeats: int = 3, share: float = 1.0
) -> dict[str, object]:
    """Time a run and its bare network calls in turn; the ratio is the median over the pairs.

    Args:
        size: Images, perturbations, configurations.
        t: Strength of `ddpm` on digits.
        repeats: Pairs.
        share: Part of the bare calls that is timed, half before and half after the run; their
            seconds are scaled up. All network calls of a run are of one shape.
    """
    n, k, s = size
    run = Snr(defense="ddpm", t=t, dataset="digits", n=n, perturbations=k, configurations=s)
    prepared = Snr.load(run)
    tile = prepared.purifier.tile or 64
    calls = _tile_of_calls(prepared.purifier, prepared.images.images[:1], tile)
    tiles = -(-prepared.total // tile)

    def whole() -> None:
        with tempfile.TemporaryDirectory() as folder:
            Snr.run(run, out=folder)

    half = max(1, round(tiles * share / 2))

    def bare() -> None:
        for _ in range(half):
            calls.replay()

    seconds, ratios = [], []
    for _ in range(repeats):
        before = time_of(bare)
        seconds.append(time_of(whole))
        ratios.append(seconds[-1] / ((before + time_of(bare)) * tiles / (2 * half)))
    return {
        "defense": "ddpm", "t": t, "images": n, "perturbations": k, "configurations": s,
        "purifications": prepared.total, "seconds": statistics.median(seconds),
        "ratio": statistics.median(ratios), "low": min(ratios), "high": max(ratios),
        "tile": tile, "share": share, "advpure": advpure.__version__,
    }  # fmt: skip


def memory(size: tuple[int, int, int] = SMALL, t: int = 100) -> float:
    """Return the peak resident memory of a run in MiB, the program itself included."""
    done = subprocess.run(
        [sys.executable, "-c", _PROBE, *map(str, (*size, t))],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return float(done.stdout)


def _tile_of_calls(purifier: advpure.Purifier, image: torch.Tensor, tile: int) -> Calls:
    """Record the network calls of one full tile."""
    assert purifier.denoiser is not None
    calls = Calls([purifier.denoiser.network])
    with torch.no_grad():  # as the run
        rows = image.expand(tile, -1, -1, -1).contiguous()
        purify_rows(purifier)(rows, [0] * tile, [advpure.RandomnessConfig(0)] * tile)
    calls.stop()
    return calls


def small(t: int = 100) -> dict[str, object]:
    """Measure the small size, and its memory in a process of its own."""
    return measure(SMALL, t) | {"peak_mib": memory(SMALL, t)}


def whole_table(t: int) -> dict[str, object]:
    """Measure all purifications of the published table once, with a tenth of the bare calls.

    A shorter chain is a harder case: what is done around the network is done once a purification.
    The peak of memory is this process's, the recorded calls included.
    """
    found = measure(FULL, t, repeats=1, share=0.1)
    return found | {"peak_mib": peak_resident() / 2**20}


def main() -> None:
    """Measure one size and store it: ``python -m benchmarks.randomness``, or with ``--full``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="125,000 purifications")
    parser.add_argument("--t", type=int, default=100, help="half an hour at 100, full")
    given = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()  # as the command does
    found = whole_table(given.t) if given.full else small(given.t)
    others = [
        each
        for each in json.loads(RESULTS.read_text()).get("randomness", [])
        if (each["purifications"], each["t"]) != (found["purifications"], found["t"])
    ]
    store("randomness", [*others, found])
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
