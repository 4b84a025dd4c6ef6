"""What the shared trainer costs beside a bare loop of the same network, loss and optimiser.

The bare loop has one fixed batch on which it computes loss, gradient and step: no drawing of
images, augmentation, clipping, averaging, log or checkpoint. Both run on one thread, in turns, and
are timed by the processor's time of this process, so that other programs do not count.

    python -m benchmarks.training            prints the ratio for every recipe below
"""

import dataclasses
import json
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from advpure.data import RawSplit, dataset_info
from advpure.networks import build_network
from advpure.networks.layers import seed_dropout
from advpure.training import load_recipe
from advpure.training.optimization import make_optimizer
from advpure.training.precision import InBfloat16
from advpure.training.randomness import step_generator
from advpure.training.recipe import Recipe
from advpure.training.tasks import Batch, make_task
from advpure.training.trainer import Trainer
from benchmarks.timing import time_of

LIMIT = 1.15
"""The most that the trainer may cost, as a factor."""

ALWAYS_THERE = "digits"
"""The data set that tasks read their validation images from; nothing is validated here."""


def measure(name: str, steps: int = 3, repeats: int = 5) -> dict[str, object]:
    """Time trainer and bare loop in turns.

    Args:
        name: A recipe that needs no teacher.
        steps: Steps a turn.
        repeats: Turns.

    Returns:
        The images per second of both, and the median, smallest and largest ratio of their times.
    """
    recipe = dataclasses.replace(load_recipe(name), validate_every=10**9, steps=10**9)
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(recipe, Path(folder))
        bare = make_bare(recipe)

        def train() -> None:
            for _ in range(steps):
                trainer._one_step()

        def repeat() -> None:
            for _ in range(steps):
                bare()

        train()
        repeat()
        ratios, seconds, least = [], [], []
        for _ in range(repeats):
            seconds.append(time_of(train))
            least.append(time_of(repeat))
            ratios.append(seconds[-1] / least[-1])
    images = steps * recipe.batch
    return {
        "recipe": name, "batch": recipe.batch,
        "images_per_second": images / statistics.median(seconds),
        "bare_images_per_second": images / statistics.median(least),
        "ratio": statistics.median(ratios), "low": min(ratios), "high": max(ratios),
    }  # fmt: skip


def make_trainer(recipe: Recipe, folder: Path) -> Trainer:
    """Build the trainer on images of noise: what they show takes no time."""
    network = build_network(recipe.architecture, recipe.network, step_generator(0, "weights"))
    task = make_task(dataclasses.replace(recipe, dataset=ALWAYS_THERE), None)
    return Trainer(recipe, task, network, noise_images(recipe, 5000), folder)


def make_bare(recipe: Recipe) -> Callable[[], None]:
    """Build a step of the bare loop."""
    layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
    network = build_network(recipe.architecture, recipe.network, step_generator(0, "weights"))
    network = network.to(memory_format=layout).train()
    wrapped = InBfloat16(network, recipe.autocast)
    task = make_task(dataclasses.replace(recipe, dataset=ALWAYS_THERE), None)
    _, optimizer = make_optimizer(recipe, network)
    data = noise_images(recipe, recipe.batch)
    images = (data.pixels.float() / 255).contiguous(memory_format=layout)
    batch, generator = Batch(images, data.labels), step_generator(0)
    seed_dropout(network, generator)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        task.losses(wrapped, batch, generator).mean().backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def noise_images(recipe: Recipe, count: int) -> RawSplit:
    """Return images of noise of the size that the recipe trains on."""
    shape = (count, *dataset_info(recipe.dataset).shape)
    pixels = torch.randint(0, 256, shape, generator=step_generator(1)).to(torch.uint8)
    return RawSplit(pixels, torch.arange(count) % 10, 255)


def main() -> None:
    """Measure the recipes that ship for CIFAR-10 and digits, and print one line each."""
    torch.set_num_threads(1)
    for name in ("cifar10-edm", "cifar10-classifier", "digits-edm"):
        found = measure(name)
        print(json.dumps(found), flush=True)
        assert float(str(found["ratio"])) < LIMIT, f"{name} costs more than {LIMIT} times"


if __name__ == "__main__":
    main()
