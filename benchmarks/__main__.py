"""Run all benchmarks: ``make bench``. Writes benchmarks/results.json and prints the table."""

import json
import os
import platform

import torch

from benchmarks import (
    boosting,
    certification,
    commands,
    loop,
    memory,
    randomness,
    representation,
    usual_way,
)
from benchmarks.table import render
from benchmarks.timing import RESULTS


def main() -> None:
    """Measure, store, print."""
    usual = usual_way.measure_all()  # the first with torch's own number of threads
    torch.set_num_threads(1)
    results = {
        "machine": {
            "processor": platform.machine(), "cores": os.cpu_count(), "threads": 1,
            "torch": torch.__version__,
        },
        "loop": loop.measure_all(),
        "randomness": [randomness.small(), randomness.whole_table(100)],
        "memory": memory.measure(),
        "commands": commands.measure(),
        "usual_way": usual,
        "boosting": boosting.measure_all(),
        "representation": representation.measure_all(),
        "certification": certification.measure_time(),
    }  # fmt: skip
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    print(render(results))


if __name__ == "__main__":
    main()
