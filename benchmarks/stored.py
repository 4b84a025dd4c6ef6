"""What stored steps save of an exact gradient: ``python -m benchmarks.stored`` writes stored.json.

One tile through `ddpm` and the classifier, forwards and back, with the memory that commands give to
the graphs of steps and with none, in turns: processor time of one thread, the least of `ROUNDS`.
"""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from advpure import RandomnessConfig, load_defense
from advpure.base.heap import keep_freed_memory
from advpure.base.memory import LEAST, STEPS
from advpure.core.stored import set_step_memory
from advpure.data import dataset_info

RESULTS = Path(__file__).with_name("stored.json")
CASES = (("digits", 8), ("digits", 100), ("cifar10", 6))
ROUNDS = 5


def measure(dataset: str, t: int) -> dict[str, Any]:
    """Time a gradient both ways, and compare it bit for bit."""
    defense = load_defense("ddpm", dataset, t=t, xi=RandomnessConfig(0), gradient="checkpoint")
    rows = defense.tile or 1
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(rows, *dataset_info(dataset).shape, generator=generator)
    defense.bind(range(rows))
    held = 0

    def gradient() -> Tensor:
        nonlocal held
        x = images.clone().requires_grad_()
        loss = F.cross_entropy(defense(x), torch.arange(rows) % 10, reduction="sum")
        held = STEPS.held
        return torch.autograd.grad(loss, x)[0]

    memories = {"stored": LEAST / 2**20, "recomputed": 0.0}
    set_step_memory(memories["stored"])
    gradient()  # the first weighs the steps
    times: dict[str, list[float]] = {name: [] for name in memories}
    answers, most = {}, 0
    for _ in range(ROUNDS):
        for name, memory in memories.items():
            set_step_memory(memory)
            begun = time.process_time()
            answers[name] = gradient()
            times[name].append((time.process_time() - begun) / rows)
            most = max(most, held)
    pairs = zip(times["stored"], times["recomputed"], strict=True)
    return {
        "dataset": dataset, "t": t, "rows": rows, "mib": most / 2**20,
        "equal": torch.equal(*answers.values()),
        "seconds": {name: min(each) for name, each in times.items()},
        "ratios": sorted(a / b for a, b in pairs),
    }  # fmt: skip


def render(stored: Mapping[str, Any]) -> str:
    """Write the stored results as a Markdown table."""
    lines = [
        "| gradient through `ddpm` | graphs, MiB | ms an image, stored | recomputed | stored / "
        "recomputed, median of pairs (least to most) | same bits |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in stored["results"]:
        ms = [f"{1e3 * row['seconds'][name]:.2f}" for name in ("stored", "recomputed")]
        low, *_, high = ratios = row["ratios"]
        lines.append(
            f"| {row['dataset']}, t={row['t']}, {row['rows']} rows | {row['mib']:.0f} | "
            f"{' | '.join(ms)} | {ratios[len(ratios) // 2]:.2f} ({low:.2f} to {high:.2f}) | "
            f"{'yes' if row['equal'] else 'no'} |"
        )
    tail = (
        f"Processor time of one thread, least of {stored['rounds']} rounds in turns; "
        f"{stored['instructions']}, torch {stored['torch']}, beside other programs."
    )
    return "\n".join([*lines, "", tail])


def main() -> None:
    """Measure, store, print."""
    keep_freed_memory()
    torch.set_num_threads(1)
    results = {
        "torch": torch.__version__,
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "rounds": ROUNDS,
        "results": [measure(*case) for case in CASES],
    }
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    print(render(results))


if __name__ == "__main__":
    main()
