"""Train `cifar10-rrcm` on a GPU within minutes, on as many training images as can be sent there.

    python -m benchmarks.rrcm_on_gpu pack --images 10000 --to there/cifar10-part.npz
    ADVPURE_DATA=there python -m benchmarks.rrcm_on_gpu train --minutes 9.5 --to weights

The first line runs where CIFAR-10 is, the second on the machine with the GPU; all that it needs is
this repository, its packages and the file. The three stages share the minutes: each takes a few
steps, and as many more as its share allows. Networks run in bfloat16, channels last, captured by
torch.compile. The weights, their cards and `summary.json` (images seen, images a second and
accuracies with intervals, stage by stage) are left in the folder.
"""

import argparse
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from advpure.training import Recipe, load_recipe, train

STAGES: Mapping[str, tuple[float, int]] = {
    "cifar10-rrcm-pretrain": (0.6, 1024),
    "cifar10-rrcm-probe": (0.05, 1024),
    "cifar10-rrcm": (0.25, 512),
}
"""Recipe to its share of the time, with a tenth left for loading, compiling and measuring, and to
the images of a step."""


def train_all(
    minutes: float, to: Path, *, device: str = "cuda", changes: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    """Train all stages one after the other; the same call goes on with a stage that was stopped.

    Args:
        minutes: Time of all of them.
        to: Folder, with one of each stage in it.
        device: Where to compute.
        changes: Settings to replace in the recipe of every stage; those of the network one by one.

    Returns:
        What each stage did.
    """
    found: list[dict[str, Any]] = []
    teacher: str | None = None
    for name, (share, batch) in STAGES.items():
        recipe = of_stage(name, teacher, batch, changes or {})
        result = train(
            recipe, out=to / name, minutes=share * minutes, device=device, progress=False
        )
        teacher = str(result.weights)
        found.append(
            {
                "stage": name,
                "device": device,
                "steps": result.steps,
                "images_seen": result.images_seen,
                "images_per_second": result.images_seen / result.seconds,
                "quality": [str(rate) for rate in result.quality],
            }
        )
        (to / "summary.json").write_text(json.dumps(found, indent=1) + "\n")
        print(json.dumps(found[-1]), flush=True)
    return found


def of_stage(name: str, teacher: str | None, batch: int, changes: Mapping[str, Any]) -> Recipe:
    """Return the recipe of a stage for a GPU, on the images that were sent."""
    recipe = load_recipe(name)
    settings: dict[str, Any] = {
        "dataset": "cifar10-part",
        "batch": batch,
        "teacher": teacher,
        "autocast": True,
        "channels_last": True,
        "compiled": True,
        "validate_every": 500,
        "ema_half_life": 100 * batch,
        **changes,
        "network": {**recipe.network, **changes.get("network", {})},
    }
    return dataclasses.replace(recipe, **settings)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one of the two lines."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    packing = verbs.add_parser("pack", help="write the file of images")
    packing.add_argument("--images", type=int, default=10_000, help="training images")
    packing.add_argument("--test", type=int, default=1_000, help="test images")
    packing.add_argument("--to", type=Path, required=True, help="file, .npz")
    training = verbs.add_parser("train", help="train all stages")
    training.add_argument("--minutes", type=float, default=9.5)
    training.add_argument("--to", type=Path, required=True, help="folder")
    training.add_argument("--device", default="cuda")
    given = parser.parse_args(arguments)
    if given.verb == "pack":
        from advpure.data.cifar10_part import pack

        given.to.parent.mkdir(parents=True, exist_ok=True)
        path = pack(given.to, given.images, given.test)
        print(f"{path}: {path.stat().st_size / 2**20:.1f} MiB")
    else:
        train_all(given.minutes, given.to, device=given.device)


if __name__ == "__main__":
    main()
