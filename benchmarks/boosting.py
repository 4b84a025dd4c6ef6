"""(e) What a boost costs beside its bare forward and backward passes, and what its gradient costs.

Processor time of one thread; the passes are recorded and made again with nothing around them.
"""

import statistics

import torch
from torch import Tensor

from advpure.data import dataset_info, load_images
from advpure.loading import load_booster
from benchmarks.loop import Calls, _time


def measure(
    dataset: str, classifier: str, steps: int, n: int, repeats: int = 7
) -> dict[str, object]:
    """Time a boost, its bare passes and an exact gradient through it, in turn."""
    options = {"loss": "difference", "steps": steps, "step_size": 0.1}
    booster = load_booster(classifier, dataset, options)
    images, tile = load_images(dataset, n=n).images, dataset_info(dataset).tile

    def boost() -> Tensor:
        return booster.boost(images, tile=tile).images

    def gradient() -> None:
        point = images.clone().requires_grad_()
        torch.autograd.grad(booster.boost(point, tile=tile).images.sum(), point)

    calls = Calls([booster.network])
    boost()
    calls.stop()
    calls.replay()
    gradient()
    ratios, exact = [], []
    for _ in range(repeats):
        own = _time(boost)
        ratios.append(own / _time(calls.replay))
        exact.append(_time(gradient) / own)
    return {
        "dataset": dataset, "booster": classifier, "steps": steps, "n": n,
        "ratio": statistics.median(ratios), "low": min(ratios), "high": max(ratios),
        "gradient": statistics.median(exact), "network_calls": len(calls.made),
    }  # fmt: skip


def rows(results: list[dict[str, object]]) -> list[str]:
    """Write the rows of the table."""
    return [
        f"| boost / bare forward and backward passes, `{row['booster']}` on {row['dataset']}, "
        f"{row['steps']} steps, {row['n']} images (an exact gradient through it costs "
        f"{row['gradient']:.1f} boosts) | {row['ratio']:.3f} ({row['low']:.3f} to "
        f"{row['high']:.3f}) | 1.10 |"
        for row in results
    ]
