"""(e) What a boost costs beside its bare forward and backward passes, and what its gradient costs.

The passes are recorded and made again with nothing around them. Boost and passes run on one thread,
in turns, and are timed by the processor's time of this process, from one call of the network to the
next: the least of each such stretch over the turns counts, since other programs can only lengthen
one, and a whole turn is seldom left alone by them. Images are drawn, so no data set is needed, and
every image takes all steps.

    python -m benchmarks.boosting      stores and prints the ratios of digits and of CIFAR-10
"""

import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from advpure.data import dataset_info
from advpure.loading import load_booster
from benchmarks.loop import Calls, _time
from benchmarks.representation import RESULTS

CASES = (
    {"dataset": "digits", "classifier": "joint", "loss": "reference", "steps": 15, "n": 64},
    {"dataset": "digits", "classifier": "robust-l2", "loss": "ce", "steps": 15, "n": 64},
    {"dataset": "cifar10", "classifier": "robust-l2", "loss": "ce", "steps": 5, "n": 32},
)


def measure(
    dataset: str, classifier: str, loss: str, steps: int, n: int, repeats: int = 100
) -> dict[str, object]:
    """Time a boost, its bare passes and, some times, an exact gradient through it, in turns.

    Args:
        dataset: Whose images and tile.
        classifier: The booster, see `load_booster`.
        loss: What is descended.
        steps: Steps of an image.
        n: Images.
        repeats: Turns.

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
    boosts, passes, gradients = [], [], []
    for turn in range(repeats):
        boosts.append(_stretches(booster.network, boost))
        passes.append(_stretches(booster.network, calls.replay))
        if turn % 20 == 0:
            gradients.append(_time(gradient))
    ratios = [sum(one) / sum(other) for one, other in zip(boosts, passes, strict=True)]
    least, bare = (sum(map(min, zip(*turns, strict=True))) for turns in (boosts, passes))
    return {
        "dataset": dataset, "booster": classifier, "loss": loss, "steps": steps, "n": n,
        "ratio": least / bare, "middle": statistics.median(ratios),
        "low": min(ratios), "high": max(ratios), "turns": repeats,
        "milliseconds": 1000 * least / n, "gradient": min(gradients) / min(map(sum, boosts)),
        "network_calls": len(calls.made), "torch": torch.__version__,
    }  # fmt: skip


def _stretches(network: nn.Module, function: Callable[[], object]) -> list[float]:
    """Return the seconds of a call up to its first call of the network, to the next, to the end."""
    marks: list[float] = []
    handle = network.register_forward_pre_hook(lambda *given: marks.append(time.process_time()))
    start = time.process_time()
    function()
    marks.append(time.process_time())
    handle.remove()
    return [after - before for before, after in zip([start, *marks], marks, strict=False)]


def measure_all() -> list[dict[str, object]]:
    """Measure the cases above."""
    turns = {"digits": 100, "cifar10": 20}
    return [measure(**case, repeats=turns[str(case["dataset"])]) for case in CASES]  # type: ignore[arg-type]


def rows(results: list[dict[str, Any]]) -> list[str]:
    """Write the rows of the table."""
    return [
        f"| boost / bare forward and backward passes, `{row['booster']}` on {row['dataset']}, "
        f"`{row['loss']}`, {row['steps']} steps, {row['milliseconds']:.1f} ms an image: least "
        f"stretches of {row['turns']} turns beside other programs, torch {row['torch']} "
        f"(a gradient through it: {row['gradient']:.1f} boosts) | "
        f"{row['ratio']:.3f} (median {row['middle']:.3f}) | 1.10 |"
        for row in results
    ]


def main() -> None:
    """Measure, and store the result among those of the other benchmarks."""
    torch.set_num_threads(1)
    found = measure_all()
    results = json.loads(RESULTS.read_text())
    results["boosting"] = found
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    for row in found:
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
