"""What pre-training a representation costs beside its bare forward and backward passes.

The bare passes are those of the loss on images that are there: three forward passes with gradient
and one without of the network, two of the moving average, one backward. The loop also draws and
augments images, computes the contrastive losses, clips, steps and moves both averages. Both run on
one thread, in turns, and are timed by the processor's time of this process; the least of several
turns of each counts, since other programs can only lengthen one.

    python -m benchmarks.representation      stores and prints the ratio for the recipes below
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from advpure.networks.representation import RepresentationNetwork
from advpure.training import load_recipe
from advpure.training.precision import InBfloat16, unwrapped
from advpure.training.randomness import step_generator
from advpure.training.recipe import Recipe
from advpure.training.trainer import Trainer
from benchmarks.timing import measured, time_of
from benchmarks.training import make_trainer

LEAST = 0.9
"""The least share of the speed of the bare passes."""


def measure(name: str, steps: int = 2, repeats: int = 5) -> dict[str, object]:
    """Time the loop and its bare passes in turns.

    Args:
        name: A recipe of the task `representation`.
        steps: Steps a turn.
        repeats: Turns.

    Returns:
        Images per second of both and their ratio, by the least times; and the smallest and largest
        ratio of a turn.
    """
    recipe = load_recipe(name)
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(recipe, Path(folder))
        bare = make_passes(recipe, trainer)
        trainer._one_step()
        bare()
        loop, passes = [], []
        for _ in range(repeats):
            loop.append(time_of(lambda: [trainer._one_step() for _ in range(steps)]))
            passes.append(time_of(lambda: [bare() for _ in range(steps)]))
    images = steps * recipe.batch
    ratios = [one / other for one, other in zip(passes, loop, strict=True)]
    return {
        "recipe": name,
        "batch": recipe.batch,
        "turns": repeats,
        "images_per_second": images / min(loop),
        "bare_images_per_second": images / min(passes),
        "ratio": min(passes) / min(loop),
        "low": min(ratios),
        "high": max(ratios),
    }


def make_passes(recipe: Recipe, trainer: Trainer) -> Callable[[], None]:
    """Build the bare passes of a step, on the trainer's own network and average."""
    task: Any = trainer.task
    target: RepresentationNetwork = task.target
    count, shape = recipe.batch, trainer.data.pixels.shape[1:]
    layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
    images = torch.rand(3 * count, *shape, generator=step_generator(2)).contiguous(
        memory_format=layout
    )
    noise = torch.zeros(3 * count)
    wrapped = InBfloat16(trainer.network, recipe.autocast)

    def passes() -> None:
        trainer.optimizer.zero_grad(set_to_none=True)
        with unwrapped(wrapped) as inner:
            network: Any = inner
            features = network.features(images, noise)
            outputs = [network.project(each) for each in features.split(count)[:2]]
            with torch.no_grad():  # as in the loss
                for each in target.features(images[: 2 * count], noise[: 2 * count]).split(count):
                    target.project(each)
                network.features(images[:count], noise[:count])
            total = sum(each.float().square().mean() for each in [*outputs, features])
        total.backward()  # type: ignore[union-attr, no-untyped-call]

    return passes


def measure_all() -> list[dict[str, object]]:
    """Measure the recipes of CIFAR-10 and digits."""
    return [measure(name) for name in ("cifar10-rrcm-pretrain", "digits-rrcm-pretrain")]


def rows(results: list[dict[str, Any]]) -> list[str]:
    """Write the rows of the table."""
    return [
        f"| speed of pre-training / its bare passes, `{row['recipe']}`, batch {row['batch']}, "
        f"{row['images_per_second']:.0f} images a second | {row['ratio']:.3f} ({row['low']:.3f} to "
        f"{row['high']:.3f}) | at least {LEAST} |"
        for row in results
    ]


def main() -> None:
    """Measure, and store the result among those of the other benchmarks."""
    for row in measured("representation", measure_all):
        assert float(str(row["ratio"])) > LEAST, f"{row['recipe']} has less of the speed"


if __name__ == "__main__":
    main()
