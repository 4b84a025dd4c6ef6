"""Certification beside what it must beat: ``python -m benchmarks.certification``.

(a) Throughput: the counting loop against the bare network calls that it makes, processor time of
one thread. (b) The published script's loop (Cohen et al.): one image at a time, a fresh batch of
noise per call at that script's own batch size, counts added up in Python; written anew here, the
network calls otherwise the same. Samples are counted by `benchmarks.certification_samples`.
"""

import json
import statistics
from typing import Any

import numpy as np
import torch

from advpure.analysis.certification import Certification
from advpure.analysis.certification.collecting import samples_at_once
from advpure.analysis.certification.counting import ESTIMATION, SELECTION, Unit, count_classes
from advpure.analysis.certification.loading import LoadedCertification
from advpure.analysis.certification.noise import stage_xi
from advpure.base.heap import keep_freed_memory
from advpure.base.units import to_model, to_unit
from benchmarks.loop import Calls
from benchmarks.timing import store, time_of

LEAST = 0.95
"""The least share of the bare networks' throughput."""

BATCHES = (1000, 400)
"""The published script's default batch size, and the one in its instructions."""


def throughput(
    defense: str, dataset: str, *, samples: int, n: int, repeats: int = 7
) -> dict[str, Any]:
    """Time the counting loop and the bare calls in turn; the ratio is the median over pairs."""
    loaded = _load(defense, dataset, samples, n)
    modules = [loaded.defense.classifier]
    if loaded.defense.purifier.denoiser is not None:
        modules.append(loaded.defense.purifier.denoiser.network)

    def loop() -> None:
        _count(loaded, samples)

    with torch.no_grad():  # throughput, not gradients
        calls = Calls(modules)
        loop()
        calls.stop()
        calls.replay()
        ratios, seconds = [], []
        for _ in range(repeats):
            seconds.append(time_of(loop))
            ratios.append(time_of(calls.replay) / seconds[-1])
    rows = n * samples
    return {
        "defense": defense, "dataset": dataset, "samples": samples, "n": n,
        "samples_per_second": rows / statistics.median(seconds),
        "ratio": statistics.median(ratios), "low": min(ratios), "high": max(ratios),
    }  # fmt: skip


def published_loop(
    defense: str, dataset: str, *, samples: int, n: int, batch: int, selected: int = 100,
    repeats: int = 12,
) -> dict[str, Any]:  # fmt: skip
    """Time the published script's loop and ours in turn, both stages, the same samples.

    Who begins changes from pair to pair. Padding of our last tiles counts more than in a run,
    where a stage has thousands of tiles; so the samples of digits here fill theirs.
    """
    loaded = _load(defense, dataset, samples, n)
    (sigma,) = loaded.procedure.sigmas
    chain, generator = loaded.chains[sigma], torch.Generator().manual_seed(0)

    def counts_under_noise(image: torch.Tensor, number: int) -> None:
        counts = np.zeros(10, dtype=int)
        for first in range(0, number, batch):
            same = image.repeat((min(batch, number - first), 1, 1, 1))
            noisy = same + torch.randn(same.shape, generator=generator) * sigma
            if len(chain):
                noisy = to_unit(chain.run(to_model(noisy), _NO_NOISE))
            for answer in loaded.defense.classifier(noisy).argmax(1).numpy():
                counts[answer] += 1

    def one_by_one() -> None:
        for image in loaded.clean.values():
            counts_under_noise(image, selected)
            counts_under_noise(image, samples)

    def ours() -> None:
        if selected:
            _count(loaded, selected, SELECTION)
        _count(loaded, samples)

    with torch.no_grad():  # throughput, not gradients
        one_by_one()
        ours()
        ratios = []
        for pair in range(repeats):
            order = (one_by_one, ours) if pair % 2 == 0 else (ours, one_by_one)
            seconds = {loop: time_of(loop) for loop in order}
            ratios.append(seconds[one_by_one] / seconds[ours])
    return {
        "defense": defense, "dataset": dataset, "samples": samples, "n": n,
        "batch": min(batch, samples),
        "times_faster": statistics.median(ratios), "low": min(ratios), "high": max(ratios),
    }  # fmt: skip


class _NoNoise:
    """Serves chains that draw no noise."""

    def of(self, step: object, like: object) -> None:
        return None


_NO_NOISE: Any = _NoNoise()


def _load(defense: str, dataset: str, samples: int, n: int) -> LoadedCertification:
    return Certification(defense=defense, dataset=dataset, n=n, sigmas=0.25, samples=samples).load()


def _count(loaded: LoadedCertification, samples: int, stage: str = ESTIMATION) -> None:
    """Count `samples` of every image, as a run does, without its records."""
    (sigma,) = loaded.procedure.sigmas
    images = loaded.clean
    units = [Unit(i, sigma, stage, 0, 0, samples) for i in images]
    counted = count_classes(
        units, images, loaded.classify(sigma, stage), stage_xi(loaded.xi, stage),
        batch=samples_at_once(loaded),
    )  # fmt: skip
    assert sum(len(part) for part in counted) == len(images)


def measure_time() -> dict[str, Any]:
    """Measure the published script's loop, then throughput.

    First both loops have the memory of a plain script; then the process keeps freed memory, as
    every command does: the bare network calls gain by that, too.
    """
    loops = [
        *(published_loop("none", "digits", samples=2000, n=16, batch=b) for b in BATCHES),
        *(published_loop("cm-ft", "digits", samples=2000, n=8, batch=b) for b in BATCHES),
        *(
            published_loop("cm", "cifar10", samples=1000, n=2, batch=b, selected=0, repeats=4)
            for b in BATCHES
        ),
    ]
    keep_freed_memory()
    return {
        "throughput": [
            throughput("none", "digits", samples=1000, n=10, repeats=15),
            throughput("cm-ft", "digits", samples=1000, n=4),
            throughput("cm", "cifar10", samples=128, n=1, repeats=5),
        ],
        "published_loop": loops,
    }


def main() -> None:
    """Measure, store the result beside the others, and print it."""
    torch.set_num_threads(1)
    found = measure_time()
    store("certification", found)
    for name, rows in found.items():
        for row in rows:
            print(json.dumps({"benchmark": name, **row}))


if __name__ == "__main__":
    main()
