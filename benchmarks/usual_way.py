"""(b) PGD-40 through a diffusion purifier, against the usual way of doing it.

The usual way: foolbox's LinfPGD, full autograd through the whole chain, one image at a time, all 40
steps. Ours: the same steps, step size and starting points, with exact gradients by recomputation,
images in tiles, decided images leaving, and the memory for stored steps that a command has. Both
under the same fixed randomness. The usual way's time per image does not depend on their number, so
it attacks some of our images only, and accuracies are compared on those. Wall time, with as many
threads as torch is set to.
"""

import time

import foolbox
import torch
from torch import Tensor

from advpure.analysis.robustness.study import Robustness
from advpure.attacks import pgd
from advpure.base.memory import give_steps_memory
from advpure.core.randomness import RandomnessConfig

_ROUNDS = 2  # ours and the usual way in turn, so that a drift of the machine hits both


class _FromStart(foolbox.attacks.LinfPGD):
    """foolbox's attack from given starting points."""

    def __init__(self, start: Tensor, **settings: object) -> None:
        super().__init__(random_start=True, **settings)
        self.start = start

    def get_random_start(self, x0: object, epsilon: float) -> object:
        """Return the given points in the array type of x0."""
        return type(x0)(self.start)


def measure(n: int = 128, usual_n: int = 8, t: int = 100, steps: int = 40) -> dict[str, object]:
    """Attack both ways; compare seconds per image, and accuracy on the images of both."""
    give_steps_memory()
    prepared = Robustness.load(
        Robustness(dataset="digits", randomness="fixed", defense="ddpm", t=t, n=n)
    )
    images, labels, ids = prepared.images
    eps = prepared.attack_settings.eps
    draw = RandomnessConfig(0, "counter").fold("benchmark start")
    offset = draw.uniform(ids, 0, images.shape[1:]) * 2 - 1
    start = (images + eps * offset).clamp(0, 1)
    usual = prepared.defense.at(gradient="full")
    usual.tile = None
    held, survived, our_time, usual_time = [], 0, 0.0, 0.0
    for part in range(_ROUNDS):
        mine = slice(part * n // _ROUNDS, (part + 1) * n // _ROUNDS)
        begun = time.perf_counter()
        ours = pgd(
            prepared.defense, images[mine], labels[mine], eps=eps, steps=steps, ids=ids[mine],
            start=start[mine],
        )  # fmt: skip
        our_time += time.perf_counter() - begun
        held.append(~ours.success)
        begun = time.perf_counter()
        for k in range(mine.start, mine.start + usual_n // _ROUNDS):
            one = slice(k, k + 1)
            model = foolbox.PyTorchModel(usual.bind(ids[one]), bounds=(0, 1), device="cpu")
            attack = _FromStart(start[one], steps=steps, rel_stepsize=0.01 / 0.3)
            _, _, success = attack(model, images[one], labels[one], epsilons=eps)
            survived += int((~torch.as_tensor(success)).sum())
        usual_time += time.perf_counter() - begun
    our_seconds, usual_seconds = our_time / n, usual_time / usual_n
    common = torch.cat([part[: usual_n // _ROUNDS] for part in held])
    return {
        "t": t, "steps": steps, "n": n, "usual_n": usual_n, "eps": eps,
        "tile": prepared.defense.tile, "threads": torch.get_num_threads(),
        "our_seconds": our_seconds, "usual_seconds": usual_seconds,
        "ratio": usual_seconds / our_seconds,
        "our_accuracy": common.double().mean().item(),
        "usual_accuracy": survived / usual_n,
    }  # fmt: skip
