"""(a) What the evaluation loop costs beside the bare network calls that it makes.

The passes are recorded and made again with nothing around them, see `benchmarks.timing.beside`.

    python -m benchmarks.loop      stores and prints the ratios of two defenses
"""

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from advpure.analysis.robustness.protocol import evaluate
from advpure.analysis.robustness.study import Robustness
from benchmarks.timing import beside, measured

MOST = 1.05
"""The largest ratio that is asked for."""


class Calls:
    """Record the calls of modules, so that they can be made again with nothing around them.

    Forward and backward passes are replayed in the order in which they happened, so that as much
    memory is alive at a time as then.
    """

    def __init__(self, modules: list[nn.Module]) -> None:
        """Start recording."""
        self.events: list[tuple[str, int]] = []
        self.made: list[tuple[nn.Module, bool]] = []
        self.inputs: dict[tuple[nn.Module, bool], tuple[Tensor, ...]] = {}
        self.handles = [module.register_forward_hook(self._note) for module in modules]

    def _note(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        number, graded = len(self.made), output.requires_grad
        self.made.append((module, graded))
        self.events.append(("forward", number))
        self.inputs[module, graded] = tuple(x.detach().clone() for x in inputs)
        if graded:
            output.register_hook(lambda gradient: self.events.append(("backward", number)))

    def stop(self) -> None:
        """Stop recording."""
        for handle in self.handles:
            handle.remove()

    def replay(self) -> None:
        """Make the same passes in the same order."""
        alive: dict[int, tuple[Tensor, Tensor]] = {}
        for kind, number in self.events:
            if kind == "backward":
                point, out = alive.pop(number)
                torch.autograd.grad(out, point, torch.ones_like(out))
                del point, out
                continue
            module, graded = self.made[number]
            first, *rest = self.inputs[module, graded]
            with torch.set_grad_enabled(graded):
                point = first.detach().requires_grad_(graded)
                out = module(point, *rest)
            if graded:
                alive[number] = (point, out)
            del point, out


def measure(
    defense: str, options: dict[str, object], steps: int, n: int, turns: int = 15
) -> dict[str, object]:
    """Time the loop on digits and its bare calls, see `benchmarks.timing.beside`."""
    settings = Robustness(
        dataset="digits",
        randomness="fixed",
        defense=defense,
        n=n,
        attack_options={"steps": steps, "stop": "never"},
        **options,
    )
    prepared = Robustness.load(settings)
    modules = [prepared.defense.classifier]
    if prepared.defense.purifier.denoiser is not None:
        modules.append(prepared.defense.purifier.denoiser.network)

    def loop() -> None:
        with (
            tempfile.TemporaryDirectory() as folder,
            settings.open(prepared, Path(folder)) as store,
        ):
            evaluate(
                prepared.defense, prepared.images, prepared.attacks, prepared.decisions, store,
                batch_size=n,
            )  # fmt: skip

    calls = Calls(modules)
    loop()
    calls.stop()
    calls.replay()
    return {
        "defense": defense,
        "steps": steps,
        "n": n,
        **beside(loop, calls.replay, modules, turns),
        "network_calls": len(calls.made),
        "tile": prepared.defense.tile,
    }


def measure_all() -> list[dict[str, object]]:
    """Measure a purifier of one evaluation and one of many."""
    return [
        measure("cm", {}, steps=40, n=256),
        measure("ddpm", {"t": 20}, steps=3, n=128),
    ]


def rows(results: list[dict[str, Any]]) -> list[str]:
    """Write the rows of the table."""
    return [
        f"| evaluation loop / bare network calls, `{row['defense']}`, {row['n']} images: least "
        f"stretches of {row['turns']} turns | {row['ratio']:.3f} (median {row['middle']:.3f}) | "
        f"{MOST} |"
        for row in results
    ]


def main() -> None:
    """Measure, and store the result among those of the other benchmarks."""
    measured("loop", measure_all)


if __name__ == "__main__":
    main()
