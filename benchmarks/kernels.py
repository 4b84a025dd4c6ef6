"""Networks of two checkouts, side by side: ``python -m benchmarks.kernels --against FOLDER``.

Each checkout answers from a process of its own, in turn, so that what else the machine does falls
on both: the processor time of a forward pass and of a forward and backward pass of a shipped
defense on one tile, and of official U-Nets with weights drawn at random, in one thread, the least
of the rounds. This one also answers in bfloat16, where the processor has it. The arithmetic is
counted from the shapes of convolutions and matrix products, of which a gradient costs as much as
the answer; what the processor can do at most is measured in the same rounds, by a large convolution
in the same precision. Writes ``kernels.json``.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from advpure import RandomnessConfig, load_defense
from advpure.base.heap import keep_freed_memory
from advpure.checkpoints.catalogue import CHECKPOINTS
from advpure.data import dataset_info

RESULTS = Path(__file__).with_name("kernels.json")
HERE = Path(__file__).parents[1]
SHIPPED = {("cm", "cifar10"): 32, ("cm", "digits"): 64}
"""Defenses, and the rows of their tiles."""

OFFICIAL = {"pesser-ddpm-cifar10": 4, "edm-cifar10-uncond-vp": 4, "cm-imagenet64-cd-lpips": 1}
"""Networks, and rows."""

CASES = {**{f"{name} on {data}": 15 for name, data in SHIPPED}, **dict.fromkeys(OFFICIAL, 5)}
"""What is timed, and in how many rounds."""

PASSES = ("forward", "forward and backward")
LABELS = {"before": "float32 before", "now": "float32", "bfloat16": "bfloat16"}
RATIOS = {"before / now": ("before", "now"), "now / bfloat16": ("now", "bfloat16")}


def _shipped(name: str, dataset: str, dtype: str) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """Return a defense, and images of one tile."""
    options: Any = {} if dtype == "float32" else {"precision": dtype}  # older checkouts have none
    defense = load_defense(name, dataset, xi=RandomnessConfig(0), **options)
    rows, shape = SHIPPED[name, dataset], dataset_info(dataset).shape
    assert defense.tile == rows
    defense.bind(range(rows))
    return defense, torch.rand(rows, *shape, generator=torch.Generator().manual_seed(0))


def _official(name: str, dtype: str) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """Return an official U-Net with random weights at sigma 0.5, and noisy images."""
    entry = CHECKPOINTS.get(name)
    skeleton, _ = entry.skeleton()
    drawn = torch.Generator().manual_seed(0)
    tensors = {
        key: torch.randn(each.shape, generator=drawn) / max(each[0].numel(), 1) ** 0.5
        for key, each in skeleton.state_dict().items()
    }
    network = entry.adapt(entry.network(tensors)).eval()
    side = entry.config.image_size
    x = torch.randn(OFFICIAL[name], 3, side, side, generator=drawn)

    def denoised(x: Tensor) -> Tensor:
        with torch.autocast("cpu", getattr(torch, dtype), enabled=dtype != "float32"):
            return network(x, torch.full((1,), 0.5).expand(len(x))).float()

    return denoised, x


def _calls(case: str, dtype: str) -> tuple[dict[str, Callable[[], Any]], int]:
    """Return the passes of a case, and its rows."""
    name, _, dataset = case.partition(" on ")
    network, images = _shipped(name, dataset, dtype) if dataset else _official(name, dtype)

    def forward() -> None:
        with torch.no_grad():  # the forward pass alone is timed
            network(images)

    def both() -> None:
        x = images.clone().requires_grad_()
        torch.autograd.grad(network(x).square().sum(), x)

    return dict(zip(PASSES, (forward, both), strict=True)), len(images)


def _timed(call: Callable[[], Any], repeats: int = 1) -> float:
    start = time.process_time()
    for _ in range(repeats):
        call()
    return (time.process_time() - start) / repeats


def answer(dtype: str) -> None:
    """Answer lines of the standard input, each a case, with times and arithmetic."""
    keep_freed_memory()
    torch.set_num_threads(1)
    kind = {"dtype": getattr(torch, dtype), "memory_format": torch.channels_last}
    x = torch.full((8, 256, 32, 32), 0.5).to(**kind)
    weight = torch.full((256, 256, 3, 3), 0.01).to(**kind)
    known, flops = "", 0.0
    for line in sys.stdin:
        case = line.strip()
        if case != known:
            known, (calls, rows) = case, _calls(case, dtype)
            with FlopCounterMode(display=False) as counter:
                calls["forward"]()
            calls[PASSES[1]]()  # the first call chooses kernels
            flops = counter.get_total_flops() / rows
        repeats = 10 if case.endswith(" on digits") else 1
        found: dict[str, Any] = {
            name: {"seconds": _timed(call, repeats) / rows, "flops": passes * flops}
            for passes, (name, call) in enumerate(calls.items(), 1)
        }
        seconds = _timed(lambda: F.conv2d(x, weight, padding=1))
        found["attainable"] = 2 * x.numel() * weight[0].numel() / seconds
        print(json.dumps(found), flush=True)


def _start(folder: Path, dtype: str = "float32") -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, Path(__file__).resolve(), "--answer", dtype],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=folder,
    )  # fmt: skip


def measure(against: Path) -> dict[str, Any]:
    """Measure this checkout and another in turn."""
    sides = {"before": _start(against), "now": _start(HERE)}
    if torch.ops.mkldnn._is_mkldnn_bf16_supported():
        sides["bfloat16"] = _start(HERE, "bfloat16")
    results: dict[str, Any] = {}
    for case, rounds in CASES.items():
        runs: dict[str, list[Any]] = {side: [] for side in sides}
        for _ in range(rounds):
            for side, process in sides.items():
                assert process.stdin is not None
                assert process.stdout is not None
                print(case, file=process.stdin, flush=True)
                runs[side].append(json.loads(process.stdout.readline()))
        peaks = {side: max(run["attainable"] for run in each) for side, each in runs.items()}
        results[case] = {
            "rounds": rounds,
            "attainable": peaks,
            **{each: _summary(each, runs) for each in PASSES},
        }
    for process in sides.values():
        process.terminate()
    return results


def _summary(name: str, runs: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for side, each in runs.items():
        seconds = min(run[name]["seconds"] for run in each)
        found[side] = {"seconds": seconds, "flops": each[0][name]["flops"]}
    for side, (slow, fast) in RATIOS.items():
        if fast not in runs:
            continue
        pairs = zip(runs[slow], runs[fast], strict=True)
        ratios = sorted(a[name]["seconds"] / b[name]["seconds"] for a, b in pairs)
        least = found[slow]["seconds"] / found[fast]["seconds"]
        found[side] = {"of the least": least, "of pairs": [round(each, 3) for each in ratios]}
    return found


def main(arguments: Sequence[str]) -> None:
    """Answer, or measure and store."""
    if arguments[0] == "--answer":
        answer(arguments[1])
        return
    results = {
        "torch": torch.__version__,
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": 1,
        "results": measure(Path(arguments[1]).resolve()),
    }
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    print(render(results))


def _ratio(found: Mapping[str, Any], side: str) -> tuple[str, str]:
    """Write how many times faster a side is than the one that it is compared with."""
    for name, (slow, fast) in RATIOS.items():
        if fast == side:
            pairs = found[name]["of pairs"]
            spread = f"{pairs[len(pairs) // 2]:.2f} ({pairs[0]:.2f} to {pairs[-1]:.2f})"
            return f"{found[name]['of the least']:.2f} than {LABELS[slow]}", spread
    return "", ""


def render(stored: Mapping[str, Any]) -> str:
    """Write the stored results as a Markdown table."""
    lines = [
        "| tile | ms an image | GFLOP/s, of attainable | times faster by the least | "
        "median of pairs (least to most) |",
        "| --- | --- | --- | --- | --- |",
    ]
    for case, found in stored["results"].items():
        for name in PASSES:
            for side, label in LABELS.items():
                if side not in found[name]:
                    continue
                one, peak = found[name][side], found["attainable"][side] / 1e9
                rate = one["flops"] / one["seconds"] / 1e9
                cells = [
                    f"`{case.split()[0]}`{case.removeprefix(case.split()[0])}, {name}, {label}",
                    f"{1e3 * one['seconds']:.3f}",
                    f"{rate:.0f} of {peak:.0f}",
                    *_ratio(found[name], side),
                ]
                lines.append(f"| {' | '.join(cells)} |")
    rounds = {str(found["rounds"]): None for found in stored["results"].values()}
    tail = (
        f"Processor time of one thread, least of {' or '.join(rounds)} rounds in turns; official "
        f"U-Nets with random weights; {stored['instructions']}, torch {stored['torch']}, beside "
        "other programs."
    )
    return "\n".join([*lines, "", tail])


if __name__ == "__main__":
    main(sys.argv[1:])
