"""What one noise sample of a certificate costs: network evaluations, operations and time.

The rows are those of `advpure reproduce 004:claims`. Operations are counted by torch in one call of
the base classifier, matrix products and convolutions, a multiplication and an addition each; the
time is the processor's of one thread, in calls of a tile, the least of several turns in which all
rows take part. A row whose weights are not there is left out.

    python -m benchmarks.inference [SIZE ...]   stores the sizes, all without, and prints the rows
"""

import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from advpure.analysis.certification.loading import LoadedCertification
from advpure.base.errors import BadInput
from advpure.sweeps.experiment import load_experiment
from advpure.sweeps.points import Point, drafts
from advpure.sweeps.table import options_of

RESULTS = Path(__file__).with_name("inference.json")
_SIGMA = 0.25
_ROWS = 256
_RADII = (0.25, 0.5, 1.0)
SIZES = ("small", "densepure", "all")
"""Of the experiment, which have denoisers in them: digits twice, CIFAR-10."""


def measure(size: str, turns: int = 5) -> list[dict[str, Any]]:
    """Measure the rows of a size of the experiment.

    Args:
        size: Of `004:claims`.
        turns: How often each is timed.

    Returns:
        Per row data set, method, evaluations, operations and seconds of one sample at sigma 0.25.
    """
    experiment = load_experiment("004:claims", size)
    named = options_of(experiment.keys["method"])
    assert named is not None
    calls: dict[str, Callable[[int], object]] = {}
    found: dict[str, dict[str, Any]] = {}
    for draft in drafts(experiment.sweep):
        point = Point(draft.block, draft.verb, draft.at, draft.settings, run="")
        try:
            loaded = draft.settings.load()
        except BadInput as error:
            print(error)
            continue
        assert isinstance(loaded, LoadedCertification)
        method = str(named.of(point))
        calls[method] = _caller(loaded)
        with FlopCounterMode(display=False) as counter:
            calls[method](_ROWS)
        found[method] = {
            "size": size,
            "dataset": draft.settings.dataset,
            "method": method,
            "evaluations": loaded.evaluations[_SIGMA],
            "operations": counter.get_total_flops() / _ROWS,
        }
    seconds: Mapping[str, list[float]] = {method: [] for method in calls}
    for _ in range(turns):
        for method, call in calls.items():
            begun = time.process_time()
            call(_ROWS)
            seconds[method].append((time.process_time() - begun) / _ROWS)
    return [{**row, "seconds": min(seconds[method])} for method, row in found.items()]


def _caller(loaded: LoadedCertification) -> Callable[[int], object]:
    """Return a call of the base classifier on so many noisy images."""
    classify = loaded.classify(_SIGMA, "certify")
    images = loaded.images.images

    def call(rows: int) -> object:
        each = torch.arange(rows) % len(images)
        with torch.no_grad():  # a timing
            return classify(images[each], torch.stack([each, torch.arange(rows)], 1))

    return call


def table(results: Mapping[str, Any], measured: Mapping[str, Any]) -> str:
    """Write costs beside what is certified, as a Markdown table.

    Args:
        results: Size to its rows, as stored.
        measured: Size to the stored output of `advpure reproduce 004:claims`.
    """
    lines = [
        f"| images | defense | n | certified % at {' | at '.join(map(str, _RADII))} | "
        "average radius | evaluations | million operations | ms |",
        f"|{' --- |' * (len(_RADII) + 7)}",
    ]
    for size, costs in results.items():
        rows = measured[size]["rows"]
        for cost in costs:
            own = {row["radius"]: row for row in rows if row["method"] == cost["method"]}
            first = own[0.25]
            cells = [_percent(own[radius]) for radius in _RADII]
            cells.append("" if "average radius" not in first else _radius(first))
            lines.append(
                f"| {cost['dataset']} | `{cost['method']}` | {first['n']} | {' | '.join(cells)} | "
                f"{cost['evaluations']} | {cost['operations'] / 1e6:.3g} | "
                f"{1e3 * cost['seconds']:.2g} |"
            )
    return "\n".join(lines)


def _percent(row: Mapping[str, Any]) -> str:
    low, high = row["certified_interval"]
    return f"{100 * row['certified']:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def _radius(row: Mapping[str, Any]) -> str:
    low, high = row["average radius_interval"]
    return f"{row['average radius']:.3f} [{low:.3f}, {high:.3f}]"


if __name__ == "__main__":
    torch.set_num_threads(1)
    stored: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    found = {size: measure(size) for size in sys.argv[1:] or SIZES}
    merged = {size: rows for size in SIZES if (rows := {**stored, **found}.get(size))}
    RESULTS.write_text(json.dumps(merged, indent=1) + "\n")
    for row in (row for rows in found.values() for row in rows):
        print(json.dumps(row))
