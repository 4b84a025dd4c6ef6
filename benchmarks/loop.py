"""(a) What the evaluation loop costs beside the bare network calls that it makes."""

import statistics
import tempfile
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

import advpure
from advpure.analysis.robustness import RobustnessSettings, open_run, prepare
from advpure.evaluate import evaluate


class Calls:
    """Record the calls of a module, so that they can be made again without anything around."""

    def __init__(self, module: nn.Module) -> None:
        """Start recording."""
        self.module = module
        self.inputs: dict[bool, tuple[Tensor, ...]] = {}
        self.counts = {False: 0, True: 0}
        self.handle = module.register_forward_pre_hook(self._note)

    def _note(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        graded = torch.is_grad_enabled() and inputs[0].requires_grad
        self.counts[graded] += 1
        self.inputs[graded] = tuple(x.detach().clone() for x in inputs)

    def replay(self) -> None:
        """Make the same number of calls, with backward passes where there were gradients."""
        for graded, count in self.counts.items():
            if not count:
                continue
            inputs = self.inputs[graded]
            for _ in range(count):
                with torch.set_grad_enabled(graded):
                    first = inputs[0].detach().requires_grad_(graded)
                    out = self.module(first, *inputs[1:])
                    if graded:
                        torch.autograd.grad(out, first, torch.ones_like(out))


def measure(
    defense: str, options: dict[str, object], steps: int, repeats: int = 5
) -> dict[str, object]:
    """Time the loop and the bare calls in turn; the ratio is the median over the pairs."""
    settings = RobustnessSettings(
        defense=defense, n=128, attack_options={"steps": steps, "stop": "never"}, **options
    )
    prepared = prepare(settings)
    modules = [prepared.defense.classifier]
    if prepared.defense.purifier.denoiser is not None:
        modules.append(prepared.defense.purifier.denoiser.network)

    def loop() -> None:
        with tempfile.TemporaryDirectory() as folder, open_run(prepared, folder) as store:
            evaluate(
                prepared.defense, prepared.images, prepared.attacks, prepared.decisions, store,
                batch_size=128,
            )  # fmt: skip

    calls = [Calls(module) for module in modules]
    loop()
    for call in calls:
        call.handle.remove()

    def bare() -> None:
        for call in calls:
            call.replay()

    bare()
    ratios, seconds = [], []
    for _ in range(repeats):
        seconds.append(_time(loop))
        ratios.append(seconds[-1] / _time(bare))
    return {
        "defense": defense, "steps": steps, "loop_seconds": statistics.median(seconds),
        "ratio": statistics.median(ratios), "low": min(ratios), "high": max(ratios),
        "network_calls": sum(sum(call.counts.values()) for call in calls),
        "tile": prepared.defense.tile, "advpure": advpure.__version__,
    }  # fmt: skip


def _time(function: Callable[[], None]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start
