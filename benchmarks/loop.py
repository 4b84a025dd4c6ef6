"""(a) What the evaluation loop costs beside the bare network calls that it makes.

Processor time of one thread, which other programs on the machine disturb less than wall time.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

import advpure
from advpure.analysis.robustness.protocol import evaluate
from advpure.analysis.robustness.study import Robustness


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
    defense: str, options: dict[str, object], steps: int, n: int, repeats: int = 5
) -> dict[str, object]:
    """Time the loop and the bare calls in turn; the ratio is the median over the pairs."""
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
    ratios, seconds = [], []
    for _ in range(repeats):
        seconds.append(_time(loop))
        ratios.append(seconds[-1] / _time(calls.replay))
    return {
        "defense": defense, "steps": steps, "n": n, "loop_seconds": statistics.median(seconds),
        "ratio": statistics.median(ratios), "low": min(ratios), "high": max(ratios),
        "network_calls": len(calls.made),
        "tile": prepared.defense.tile, "advpure": advpure.__version__,
    }  # fmt: skip


def _time(function: Callable[[], None]) -> float:
    start = time.process_time()
    function()
    return time.process_time() - start
