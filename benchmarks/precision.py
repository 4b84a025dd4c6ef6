"""The precisions beside float32: ``python -m benchmarks.precision`` writes precision.json.

Under fixed randomness: what an attack whose gradients are of a precision leaves of a defense in it,
the angle of its gradients to those of float32, and the time of a forward and backward pass. Where
the processor has no instructions for a precision, it is right and its time says nothing, so none is
stored; on CIFAR-10 such a precision is left out.
"""

import json
import tempfile
import time
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from advpure import RandomnessConfig, load_defense, load_images
from advpure.analysis.robustness.protocol import ADVERSARIAL
from advpure.analysis.robustness.study import Robustness
from advpure.base.display import percent_interval
from advpure.base.heap import keep_freed_memory
from advpure.core.precision import Precision, is_emulated
from advpure.statistics.estimates import Estimate
from advpure.statistics.rates import mean_interval, wilson
from advpure.sweeps.comparisons import subtract

RESULTS = Path(__file__).with_name("precision.json")
DEFENSES = ("none", "cm")
RADII = {"digits": 0.15, "cifar10": 2 / 255}
"""Radii at which some images stand and some fall."""

N, STEPS, ROUNDS = 128, 20, 5


def _gradients(name: str, dataset: str, precision: Precision) -> tuple[Tensor, float | None]:
    """Return gradients of the cross entropy, [N, values], and seconds an image."""
    images, labels, ids = load_images(dataset, n=N)
    defense = load_defense(name, dataset, xi=RandomnessConfig(0), precision=precision).bind(ids)
    times = []
    for _ in range(1 if is_emulated(precision) else ROUNDS):
        x = images.clone().requires_grad_()
        start = time.process_time()
        loss = F.cross_entropy(defense(x), labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, x)
        times.append((time.process_time() - start) / N)
    return gradient.flatten(1), None if is_emulated(precision) else min(times)


def measure() -> dict[str, Any]:
    """Measure every precision of every defense."""
    results: dict[str, Any] = {}
    for dataset, name, precision in product(RADII, DEFENSES, get_args(Precision)):
        if dataset != "digits" and is_emulated(precision):
            continue
        gradient, seconds = _gradients(name, dataset, precision)
        exact, _ = _gradients(name, dataset, "float32")
        cosines = F.cosine_similarity(gradient.double(), exact.double()).tolist()
        study = Robustness(
            dataset=dataset, defense=name, n=N, randomness="fixed", attack="pgd",
            eps=RADII[dataset], attack_options={"steps": STEPS}, precision=precision,
        )  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:
            report = study.run(out=Path(folder) / "run")
        left = report.estimate(ADVERSARIAL, report.headline_rate).images() or {}
        found = results.setdefault(f"{name} on {dataset}", {"eps": RADII[dataset]})
        found[precision] = {
            "right": {str(i): value for i, value in left.items()},
            "cosines": [round(each, 6) for each in cosines],
            "seconds": seconds,
        }
        print(dataset, name, precision, sum(left.values()) / len(left), min(cosines), flush=True)
    return results


def render(stored: Mapping[str, Any]) -> str:
    """Write the stored results as a Markdown table."""
    lines = [
        "| defense | precision | robust accuracy %, PGD | minus that in float32 | cosine of "
        "gradients, mean | least | ms an image, forward and backward |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, found in stored["results"].items():
        first = _accuracy(found["float32"]["right"])
        title = f"`{name.split()[0]}`{name.removeprefix(name.split()[0])}"
        for precision in (each for each in get_args(Precision) if each in found):
            each = found[precision]
            own = _accuracy(each["right"])
            gap = subtract(own, first, 0.95)
            span = (
                gap.interval and f" [{100 * gap.interval.low:.1f}, {100 * gap.interval.high:.1f}]"
            )
            cosine = mean_interval(each["cosines"], within=(-1, 1))
            angle = f"{cosine.value:.4f}"
            if cosine.interval and precision != "float32":
                angle += f" [{cosine.interval.low:.4f}, {cosine.interval.high:.4f}]"
            seconds = "not measured" if each["seconds"] is None else f"{1e3 * each['seconds']:.2f}"
            lines.append(
                f"| {title}, eps {found['eps']:.2g} (n={own.n}) | {precision} | "
                f"{percent_interval(own)} | "
                f"{'' if precision == 'float32' else f'{100 * gap.value:.1f}{span or str()}'} | "
                f"{angle} | {min(each['cosines']):.4f} | {seconds} |"
            )
    more = (
        f"PGD of {stored['steps']} steps under fixed randomness, its gradients of the precision; "
        "differences are paired on the images. One thread, "
        f"{stored['instructions']}, torch {stored['torch']}"
    )
    lacking = " and ".join(stored["emulated"])
    without = f"; without instructions for {lacking}: right, and slower than float32."
    return "\n".join([*lines, "", more + (without if lacking else ".")])


def _accuracy(right: Mapping[str, float]) -> Estimate:
    values = {int(i): value for i, value in right.items()}
    return Estimate.of(wilson(round(sum(values.values())), len(values)), values)


def main() -> None:
    """Measure, store, print."""
    keep_freed_memory()
    torch.set_num_threads(1)
    results = {
        "torch": torch.__version__,
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "emulated": [each for each in get_args(Precision) if is_emulated(each)],
        "steps": STEPS,
        "results": measure(),
    }
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    print(render(results))


if __name__ == "__main__":
    main()
