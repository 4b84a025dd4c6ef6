"""(e) What a boost costs beside its bare forward and backward passes, and what its gradient costs.

Timed as `benchmarks.timing.beside` says. Images are drawn, so no data set is needed, and every
image takes all steps.

    python -m benchmarks.boosting      stores and prints the ratios of digits and of CIFAR-10
"""

from typing import Any

import torch
from torch import Tensor

from advpure.data import dataset_info
from advpure.loading import load_booster
from benchmarks.loop import Calls
from benchmarks.timing import beside, measured, time_of

CASES = (
    {"dataset": "digits", "classifier": "joint", "loss": "reference", "steps": 15, "n": 64},
    {"dataset": "digits", "classifier": "robust-l2", "loss": "ce", "steps": 15, "n": 64},
    {"dataset": "cifar10", "classifier": "robust-l2", "loss": "ce", "steps": 5, "n": 32},
)


def measure(
    dataset: str, classifier: str, loss: str, steps: int, n: int, turns: int = 100
) -> dict[str, object]:
    """Time a boost and its bare passes in turns, then an exact gradient through the boost.

    Args:
        dataset: Whose images and tile.
        classifier: The booster, see `load_booster`.
        loss: What is descended.
        steps: Steps of an image.
        n: Images.
        turns: Turns.

    Returns:
        The ratio by the least stretches, the smallest, middle and largest ratio of a turn, and how
        many boosts an exact gradient costs.
    """
    options = {"loss": loss, "steps": steps, "step_size": 0.1, "stop": False}
    booster, info = load_booster(classifier, dataset, options), dataset_info(dataset)
    images = torch.rand(n, *info.shape, generator=torch.Generator().manual_seed(0))

    def boost() -> Tensor:
        return booster.boost(images, tile=info.tile).images

    def gradient() -> None:
        point = images.clone().requires_grad_()
        torch.autograd.grad(booster.boost(point, tile=info.tile).images.sum(), point)

    calls = Calls([booster.network])
    boost()
    calls.stop()
    calls.replay()
    gradient()
    found = beside(boost, calls.replay, [booster.network], turns)
    gradients = [time_of(gradient) for _ in range(5)]
    return {
        "dataset": dataset,
        "booster": classifier,
        "loss": loss,
        "steps": steps,
        "n": n,
        **found,
        "milliseconds": 1000 * found["seconds"] / n,
        "gradient": min(gradients) / found["seconds"],
        "network_calls": len(calls.made),
    }


def measure_all() -> list[dict[str, object]]:
    """Measure the cases above."""
    turns = {"digits": 100, "cifar10": 20}
    return [measure(**case, turns=turns[str(case["dataset"])]) for case in CASES]  # type: ignore[arg-type]


def rows(results: list[dict[str, Any]]) -> list[str]:
    """Write the rows of the table."""
    return [
        f"| boost / bare forward and backward passes, `{row['booster']}` on {row['dataset']}, "
        f"`{row['loss']}`, {row['steps']} steps, {row['milliseconds']:.1f} ms an image: least "
        f"stretches of {row['turns']} turns, torch {row['torch']} "
        f"(a gradient through it: {row['gradient']:.1f} boosts) | "
        f"{row['ratio']:.3f} (median {row['middle']:.3f}) | 1.10 |"
        for row in results
    ]


def main() -> None:
    """Measure, and store the result among those of the other benchmarks."""
    measured("boosting", measure_all)


if __name__ == "__main__":
    main()
