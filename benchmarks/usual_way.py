"""(b) PGD-40 through a diffusion purifier, against the usual way of doing it.

The usual way: foolbox's LinfPGD, full autograd through the whole chain, one image at a time, all 40
steps. Ours: the same steps, step size and starting points, with exact gradients by recomputation,
images in tiles, and the memory for stored steps that a command has; once with all steps of every
image, and once as a command does it, where images that are decided leave. Both under the same fixed
randomness. The usual way's time per image does not depend on their number, so it attacks some of
our images only, and accuracies are compared on those. Wall time, with as many threads as torch is
set to.

``python -m benchmarks.usual_way`` measures these rows alone and stores them beside the others.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import foolbox
import torch
from torch import Tensor

from advpure.analysis.robustness.study import Robustness
from advpure.attacks import pgd
from advpure.base.memory import give_steps_memory
from advpure.core.randomness import RandomnessConfig
from benchmarks.timing import store

BOUNDS = {"digits": "15x", "cifar10": "1.5x with all steps"}


class _FromStart(foolbox.attacks.LinfPGD):
    """foolbox's attack from given starting points."""

    def __init__(self, start: Tensor, **settings: object) -> None:
        super().__init__(random_start=True, **settings)
        self.start = start

    def get_random_start(self, x0: object, epsilon: float) -> object:
        """Return the given points in the array type of x0."""
        return type(x0)(self.start)


def measure(
    dataset: str = "digits",
    t: int = 100,
    n: int = 128,
    usual_n: int = 8,
    steps: int = 40,
    turns: int = 2,
    tile: int = 64,
) -> dict[str, object]:
    """Attack both ways in turns; compare seconds per image, and accuracy on the images of both.

    Images that stop save time where others take their place in a tile, so there are several tiles.
    """
    give_steps_memory()
    prepared = Robustness.load(
        Robustness(dataset=dataset, randomness="fixed", defense="ddpm", t=t, n=n, tile=tile)
    )
    images, labels, ids = prepared.images
    eps = prepared.attack_settings.eps
    draw = RandomnessConfig(0, "counter").fold("benchmark start")
    offset = draw.uniform(ids, 0, images.shape[1:]) * 2 - 1
    start = (images + eps * offset).clamp(0, 1)
    usual = prepared.defense.at(gradient="full")
    usual.tile = None
    held, survived = [], 0
    times = {"never": 0.0, "success": 0.0, "usual": 0.0}
    for part in range(turns):
        mine = slice(part * n // turns, (part + 1) * n // turns)
        for stop in ("never", "success"):
            begun = time.perf_counter()
            ours = pgd(
                prepared.defense, images[mine], labels[mine], eps=eps, steps=steps, ids=ids[mine],
                start=start[mine], stop=stop,
            )  # fmt: skip
            times[stop] += (time.perf_counter() - begun) / n
        held.append(~ours.success)
        begun = time.perf_counter()
        for k in range(mine.start, mine.start + usual_n // turns):
            one = slice(k, k + 1)
            model = foolbox.PyTorchModel(usual.bind(ids[one]), bounds=(0, 1), device="cpu")
            attack = _FromStart(start[one], steps=steps, rel_stepsize=0.01 / 0.3)
            _, _, success = attack(model, images[one], labels[one], epsilons=eps)
            survived += int((~torch.as_tensor(success)).sum())
        times["usual"] += (time.perf_counter() - begun) / usual_n
    common = torch.cat([part[: usual_n // turns] for part in held])
    return {
        "dataset": dataset, "t": t, "steps": steps, "n": n, "usual_n": usual_n, "eps": eps,
        "tile": prepared.defense.tile, "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "our_seconds": times["success"], "unstopped_seconds": times["never"],
        "usual_seconds": times["usual"],
        "our_accuracy": common.double().mean().item(),
        "usual_accuracy": survived / usual_n,
    }  # fmt: skip


def measure_all() -> list[dict[str, object]]:
    """Measure digits with torch's own number of threads, then digits and CIFAR-10 with one."""
    found = [measure()]
    torch.set_num_threads(1)
    return [*found, measure(), measure("cifar10", t=20, n=16, usual_n=4, turns=1, tile=4)]


def rows(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the lines of the table of benchmarks."""
    lines = []
    for u in found:
        usual, ours, unstopped = (u[f"{name}_seconds"] for name in ("usual", "our", "unstopped"))
        lines.append(
            f"| PGD-{u['steps']} through `ddpm` t={u['t']} on {u['dataset']}, seconds an image: "
            f"usual way (n={u['usual_n']}) / advpure (n={u['n']}, tile {u['tile']}), "
            f"{u['threads']} thread(s), torch {u['torch']} | "
            f"{usual:.2f} / {ours:.2f} = {usual / ours:.1f}x faster, {usual / unstopped:.1f}x with "
            f"all steps of every image; robust accuracy on the same {u['usual_n']}: "
            f"{100 * u['usual_accuracy']:.1f} / {100 * u['our_accuracy']:.1f} % | "
            f"{BOUNDS[u['dataset']]} |"
        )
    return lines


def main() -> None:
    """Measure, and store beside the other benchmarks."""
    found = measure_all()
    store("usual_way", found)
    print("\n".join(rows(found)))


if __name__ == "__main__":
    main()
