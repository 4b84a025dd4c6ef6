"""(e) What the command line costs: help, and the two commands of the README's beginning.

Processor time of a new process, its children included, which other programs on the machine disturb
less than wall time.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.timing import store

LINES = {
    "--help": 0.5,
    "attack --defense cm --fix-random": 60.0,
    "cr --eps 8/255": 60.0,
}
"""Line to its bound in seconds."""


def measure(repeats: int = 5) -> list[dict[str, Any]]:
    """Run each line in an empty folder and return the median of its seconds; long ones run once."""
    rows = []
    for line, bound in LINES.items():
        seconds = [_run(line) for _ in range(repeats if bound < 1.0 else 1)]
        rows.append({"line": line, "seconds": statistics.median(seconds), "bound": bound})
    return rows


def _run(line: str) -> float:
    command = [sys.executable, "-c", "from advpure.cli import main; main()", *line.split()]
    root = os.pathsep.join(path for path in (str(Path.cwd()), os.environ.get("PYTHONPATH")) if path)
    before = _spent()
    with tempfile.TemporaryDirectory() as folder:
        variables = {**os.environ, "PYTHONPATH": root}
        subprocess.run(command, cwd=folder, env=variables, check=True, capture_output=True)
    return _spent() - before


def _spent() -> float:
    """Return the seconds of ended children."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Measure and store: ``python -m benchmarks.commands``."""
    found = measure()
    store("commands", found)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
