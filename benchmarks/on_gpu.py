"""Families of networks, and one large measurement, on a machine with a GPU within minutes.

    python -m benchmarks.on_gpu pack --images 10000 --to there/cifar10-part.npz
    ADVPURE_DATA=there python -m benchmarks.on_gpu train cifar10 --minutes 9.5 --to weights
    ADVPURE_DATA=there python -m benchmarks.on_gpu attack --to runs

The first line runs where CIFAR-10 is, the others on the machine with the GPU; all that they need is
this repository, its packages and the file. The stages of a family share the minutes: each takes a
few steps, and as many more as its share allows, and where a recipe names a network that an earlier
stage made, that one is taken. Networks run in bfloat16, channels last, captured by torch.compile.
The weights, their cards and `summary.json` (images seen, images a second and accuracies with
intervals, stage by stage) are left in the folder.

The attack is a cell of 003:table-2 that two cores do not reach: PGD of 40 steps under fixed
randomness through `ddpm` t = 100, of the first 1,000 test images at 8/255, in bfloat16;
`summary.json` says how long it took.
"""

import argparse
import dataclasses
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from advpure.analysis.robustness.study import Robustness
from advpure.base.memory import give_steps_memory
from advpure.core.randomness import set_noise_cache
from advpure.networks.lpips import lpips_path
from advpure.training import Recipe, load_recipe, train

DATASET = "cifar10-part"
NOISE_MEGABYTES = 2048
"""All noise of 1,000 images and 100 steps is 1.2 GB, and every gradient step needs it again."""


class Stage(NamedTuple):
    """One training of a family.

    Attributes:
        recipe: Its name.
        share: Of the time; a tenth is left for loading, compiling and measuring.
        batch: Images of a step.
    """

    recipe: str
    share: float
    batch: int


FAMILIES: Mapping[str, tuple[Stage, ...]] = {
    "rrcm": (
        Stage("cifar10-rrcm-pretrain", 0.6, 1024),
        Stage("cifar10-rrcm-probe", 0.05, 1024),
        Stage("cifar10-rrcm", 0.25, 512),
    ),
    "cifar10": (
        Stage("cifar10-classifier", 0.1, 512),
        Stage("cifar10-robust-linf", 0.13, 512),
        Stage("cifar10-gaussian-025", 0.08, 512),
        Stage("cifar10-consistency-025", 0.08, 512),
        Stage("cifar10-edm", 0.25, 512),
        Stage("cifar10-edm-conditional", 0.05, 512),
        Stage("cifar10-calibrated", 0.04, 256),
        Stage("cifar10-classifier-denoised", 0.04, 512),
        Stage("cifar10-cm", 0.08, 256),
        Stage("cifar10-cm-ft", 0.05, 256),
    ),
}
"""What is trained, in this order. `cifar10-cm-ft` follows LPIPS where its weights are there, and l2
otherwise, under the name of the recipe that says so."""


def train_all(
    family: str,
    minutes: float,
    to: Path,
    *,
    device: str = "cuda",
    changes: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Train all stages one after the other; the same call goes on with a stage that was stopped.

    Args:
        family: One of `FAMILIES`.
        minutes: Time of all of them.
        to: Folder, with one of each stage in it.
        device: Where to compute.
        changes: Settings to replace in the recipe of every stage; those of the network one by one.

    Returns:
        What each stage did.
    """
    done: list[dict[str, Any]] = []
    made: dict[str, str] = {}
    for stage in FAMILIES[family]:
        recipe = of_stage(stage, made, changes or {})
        result = train(
            recipe,
            out=to / recipe.name,
            minutes=stage.share * minutes,
            device=device,
            progress=False,
        )
        made[recipe.name] = str(result.weights)
        done.append(
            {
                "stage": recipe.name,
                "device": device,
                "steps": result.steps,
                "images_seen": result.images_seen,
                "images_per_second": result.images_seen / result.seconds,
                "quality": [str(rate) for rate in result.quality],
            }
        )
        _write(to, done)
        print(json.dumps(done[-1]), flush=True)
    return done


def of_stage(stage: Stage, made: Mapping[str, str], changes: Mapping[str, Any]) -> Recipe:
    """Return the recipe of a stage for a GPU, on the images that were sent.

    Args:
        stage: The stage.
        made: Weights of earlier stages by name, which stand for what the recipe names.
        changes: See `train_all`.
    """
    name = stage.recipe
    if name == "cifar10-cm-ft" and not lpips_path().is_file():
        name = "cifar10-cm-ft-l2"
    recipe = load_recipe(name)
    settings: dict[str, Any] = {
        "dataset": DATASET,
        "batch": stage.batch,
        "teacher": made.get(str(recipe.teacher), recipe.teacher),
        "loss": {key: made.get(str(value), value) for key, value in recipe.loss.items()},
        "autocast": True,
        "channels_last": True,
        "compiled": True,
        "validate_every": 500,
        "ema_half_life": 100 * stage.batch,
        **changes,
        "network": {**recipe.network, **changes.get("network", {})},
    }
    return dataclasses.replace(recipe, **settings)


def attack(
    to: Path, *, n: int = 1000, device: str = "cuda", changes: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Attack the first test images through a long chain; the same call goes on where it stopped.

    Args:
        to: Folder of the run and of `summary.json`.
        n: Images; one tile holds them all.
        device: Where to compute.
        changes: Settings to replace.

    Returns:
        Accuracies with their intervals, and the seconds of this call with loading.
    """
    settings: dict[str, Any] = {
        "dataset": DATASET,
        "subset": "test",
        "n": n,
        "defense": "ddpm",
        "t": 100,
        "randomness": "fixed",
        "attack": "pgd",
        "eps": 8 / 255,
        "precision": "bfloat16",
        "tile": n,
        "device": device,
        **(changes or {}),
    }
    start = time.perf_counter()
    report = Robustness(**settings).run(out=to / "attack", batch_size=n)
    tree = report.to_json()
    summary = {
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else device,
        "settings": settings,
        "seconds": time.perf_counter() - start,
        "n": tree["n"],
        "clean_accuracy": tree["clean_accuracy"],
        "robust_accuracy": tree["robust_accuracy"],
        "interval": tree["interval"],
        "run": str(to / "attack"),
    }
    _write(to, summary)
    print(json.dumps(summary), flush=True)
    return summary


def _write(to: Path, summary: object) -> None:
    to.mkdir(parents=True, exist_ok=True)
    (to / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one of the three lines."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    packing = verbs.add_parser("pack", help="write the file of images")
    packing.add_argument("--images", type=int, default=10_000, help="training images")
    packing.add_argument("--test", type=int, default=1_000, help="test images")
    packing.add_argument("--to", type=Path, required=True, help="file, .npz")
    training = verbs.add_parser("train", help="train all stages of a family")
    training.add_argument("family", choices=list(FAMILIES))
    training.add_argument("--minutes", type=float, default=9.5)
    attacking = verbs.add_parser("attack", help="PGD-Fix of 1,000 images through ddpm t = 100")
    attacking.add_argument("-n", type=int, default=1000, help="test images")
    for each in (training, attacking):
        each.add_argument("--to", type=Path, required=True, help="folder")
        each.add_argument("--device", default="cuda")
    given = parser.parse_args(arguments)
    if given.verb == "pack":
        from advpure.data.cifar10_part import pack

        given.to.parent.mkdir(parents=True, exist_ok=True)
        path = pack(given.to, given.images, given.test)
        print(f"{path}: {path.stat().st_size / 2**20:.1f} MiB")
    elif given.verb == "train":
        train_all(given.family, given.minutes, given.to, device=given.device)
    else:
        set_noise_cache(NOISE_MEGABYTES)
        give_steps_memory()
        attack(given.to, n=given.n, device=given.device)


if __name__ == "__main__":
    main()
