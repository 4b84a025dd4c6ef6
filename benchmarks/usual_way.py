"""(b) PGD-40 through a diffusion purifier, against the usual way of doing it.

The usual way: foolbox's LinfPGD, full autograd through the whole chain, batch size 1, all 40 steps.
Ours: the same steps and step size, with exact gradients by recomputation, samples in tiles, and
decided samples leaving. Both under the same fixed randomness and on the same images.
"""

import time

import foolbox
import torch

from advpure.analysis.robustness import RobustnessSettings, prepare
from advpure.attacks import pgd


def measure(n: int = 32, t: int = 100, steps: int = 40) -> dict[str, object]:
    """Attack the same images both ways and compare accuracy and time."""
    prepared = prepare(RobustnessSettings(defense="ddpm", t=t, n=n))
    images, labels, ids = prepared.images
    eps = prepared.attack_settings.eps
    start = time.perf_counter()
    ours = pgd(prepared.defense, images, labels, eps=eps, steps=steps, ids=ids)
    our_seconds = time.perf_counter() - start

    usual = prepared.defense.at(gradient="full")
    usual.tile = None
    attack = foolbox.attacks.LinfPGD(steps=steps, rel_stepsize=0.01 / 0.3, random_start=True)
    fooled = 0
    start = time.perf_counter()
    for k in range(n):
        model = foolbox.PyTorchModel(usual.bind(ids[k : k + 1]), bounds=(0, 1), device="cpu")
        _, _, success = attack(model, images[k : k + 1], labels[k : k + 1], epsilons=eps)
        fooled += int(torch.as_tensor(success).sum())
    usual_seconds = time.perf_counter() - start
    return {
        "t": t, "steps": steps, "n": n, "eps": eps,
        "our_seconds": our_seconds, "usual_seconds": usual_seconds,
        "ratio": usual_seconds / our_seconds,
        "our_accuracy": 1 - ours.success.double().mean().item(), "usual_accuracy": 1 - fooled / n,
    }  # fmt: skip
