"""Noise of a stated sigma is Gaussian.

A diffusion model is trained on normal noise of a level; uniform numbers of the same name have a
standard deviation of 0.29 and no tails. One published purifier drew them by mistake. The random
numbers that a model asks for while it answers are watched, where it says a `sigma`.

What to do: `torch.randn`, times sigma.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch.overrides import TorchFunctionMode

from advpure.analysis.audit.check import (
    ONE,
    Check,
    Finding,
    Measured,
    Settings,
    Value,
    failed,
    is_random,
    passed,
)
from advpure.analysis.audit.evaluation import Evaluation

_UNIFORM = ("rand", "rand_like", "uniform_")
_NORMAL = ("randn", "randn_like", "normal", "normal_")


class _Watch(TorchFunctionMode):
    """Count the random numbers that are asked for, by their law."""

    def __init__(self) -> None:
        super().__init__()
        self.uniform = self.normal = 0

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        if name in _UNIFORM:
            self.uniform += result.numel()
        elif name in _NORMAL:
            self.normal += result.numel()
        return result


def _measure(evaluation: Evaluation) -> Iterator[Value]:
    batch = evaluation.first(1)
    with _Watch() as watch:
        evaluation.answers(batch.images, batch.ids, 1)
    pixels = batch.images[0].numel()
    yield Value("uniform", ONE, watch.uniform / pixels)
    yield Value("normal", ONE, watch.normal / pixels)
    yield Value("sigma", ONE, float(_sigma(evaluation) or 0.0))


def _sigma(evaluation: Evaluation) -> Any:
    stated = (evaluation.settings.get("defense") or {}).get("sigma")
    if stated is not None:
        return stated
    model = evaluation.defense.purifier.model
    sigma = getattr(getattr(model, "function", None), "sigma", None)
    return sigma if isinstance(sigma, int | float) else None


def _judge(numbers: Measured, settings: Settings) -> Finding:
    uniform, normal = numbers.one("uniform"), numbers.one("normal")
    told = f"an answer draws {uniform:.2g} uniform and {normal:.2g} normal numbers a pixel"
    if numbers.one("sigma") and uniform >= 1 > normal:
        sigma = numbers.one("sigma")
        return failed(f"{told}, and the purifier states a sigma of {sigma:.3g}", uniform)
    return passed(told, uniform)


CHECK = Check(
    name="noise-law",
    about="a purifier that states a sigma draws normal numbers",
    source="[Lee2023]",
    threshold="one uniform number a pixel, none normal",
    needs="model",
    applies=is_random,
    cost=lambda settings: 1,
    images=1,
    measure=_measure,
    judge=_judge,
    settle="draw with torch.randn, times sigma",
)
