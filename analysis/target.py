"""What an analysis measures: any map from images to images, driven with explicit randomness.

A `Purifier`, a `Defense` (its purifier is measured), an object with `at(ids=, xi=)`, or any
callable. Perturbed images may leave [0, 1]; a `Purifier` is therefore run below its own input
check, in its own compute tile, with its true value and derivative whatever its gradient mode.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from advpure.base.errors import BadInput, ModelFault
from advpure.base.factories import keyed_arguments
from advpure.core.chain import Chain, Noise
from advpure.core.defense import Defense
from advpure.core.given import as_purifier
from advpure.core.gradients import GradientMode
from advpure.core.purifier import Purifier
from advpure.core.randomness import Ids, RandomnessConfig, check_ids, check_xi
from advpure.core.steady import ROWS, calls_of_check, check_steady
from advpure.core.tiling import check_batch_size, tiled

ImageMap = Callable[[Tensor], Tensor]
Given = Purifier | Defense | Chain | ImageMap
"""What is measured, as an object."""
Run = Callable[[Tensor, Sequence[int], RandomnessConfig | None], Tensor]
_ROWS = 64


@dataclass(frozen=True, kw_only=True)
class Target:
    """A map under study.

    Attributes:
        run: Images [B, C, H, W], the sample id of every row and a configuration to images.
        tile: Its compute tile, None where a row's last bits may depend on the batch shape.
        evaluations: Network evaluations per row; 1 for a map whose inside is unknown.
        xi: The configuration that it is bound to, if any.
        ids: The sample ids that it is bound to, if any.
        settings: What describes it in a record.
        ask: Refuses a map that is no function of its input, see `advpure.core.steady`; the first
            call asks it.
        calls: How often that calls a network; those that were loaded by name are known.
    """

    run: Run
    tile: int | None = None
    evaluations: int = 1
    xi: RandomnessConfig | None = None
    ids: Tensor | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    ask: Callable[[Tensor, Sequence[int], RandomnessConfig | None], None] | None = None
    calls: int = 2

    def __call__(self, images: Tensor, ids: Sequence[int], xi: RandomnessConfig | None) -> Tensor:
        """Map images and check the result.

        Raises:
            BadInput: when the map is no function of its input, or the result is no finite float
                tensor of the shape of the images.
        """
        self.check(images, ids, xi)
        return check_result(self.run(images, ids, xi), images, ids)

    def check(self, images: Tensor, ids: Sequence[int], xi: RandomnessConfig | None) -> None:
        """Refuse a map whose equal calls differ; asked once, at two images."""
        if self.ask is not None:
            self.ask(images, ids, xi)

    def asked(self, count: int) -> int:
        """Return the network evaluations of `check`, the first time, at a batch of images."""
        tile = self.tile or 1
        return self.calls * -(-min(ROWS, count) // tile) * tile


def check_result(result: Tensor, images: Tensor, ids: Sequence[int]) -> Tensor:
    """Return what a map made of images, if it is images of the same shape.

    Raises:
        BadInput: when it is no finite float tensor of the shape of the images.
    """
    if not isinstance(result, Tensor) or not result.is_floating_point():
        kind = result.dtype if isinstance(result, Tensor) else type(result).__name__
        raise BadInput(f"a purifier's result of type {kind}", "is no float tensor", _CONTRACT)
    if result.shape != images.shape:
        raise BadInput(
            f"a purifier's result of shape {tuple(result.shape)}",
            f"does not have the images' shape {tuple(images.shape)}",
            _CONTRACT,
        )
    finite = result.detach().flatten(1).isfinite().all(dim=1)
    if not bool(finite.all()):
        wrong = sorted({i for i, good in zip(ids, finite.tolist(), strict=True) if not good})
        raise BadInput(
            f"the purified image of sample {wrong[0]} ({len(wrong)} of this batch)",
            "is not finite",
            "check the purifier's settings and dtype",
        )
    return result


_CONTRACT = "pass a map from images [B, C, H, W] to images of the same shape"


def as_target(purifier: Given, *, gradient: GradientMode = "full") -> Target:
    """Make a target of a purifier, a defense, an object with `at`, or a callable.

    Args:
        purifier: What is measured.
        gradient: How the derivative of a purifier is taken: ``full`` (forward mode needs it) or
            ``checkpoint`` (backwards in little memory); both are the true one.

    Raises:
        BadInput: for anything that cannot be called.
    """
    if isinstance(purifier, Chain):
        purifier = as_purifier(purifier, torch.zeros(0))
    if isinstance(purifier, Purifier):
        return _of_purifier(purifier, purifier, gradient)
    if isinstance(purifier, Defense):
        return _of_purifier(purifier.purifier, purifier, gradient)
    if not callable(purifier):
        raise BadInput(f"a {type(purifier).__name__}", "cannot be called", _CONTRACT)
    settings = {"purifier": getattr(purifier, "__name__", type(purifier).__name__)}
    tile, ids = getattr(purifier, "tile", None), getattr(purifier, "ids", None)
    at = getattr(purifier, "at", None)
    keyed: list[Target] = []  # of a map that draws by itself, once that is known

    def run(images: Tensor, ids: Sequence[int], xi: RandomnessConfig | None) -> Tensor:
        if keyed:
            return keyed[0].run(images, ids, xi or keyed[0].xi)
        if at is None:
            return tiled(purifier, tile)(images)
        result: Tensor = at(ids=list(ids), xi=xi)(images)
        return result

    def ask(images: Tensor, ids: Sequence[int], xi: RandomnessConfig | None) -> None:
        fix = "fix its randomness, or give it at(ids=, xi=)"
        if keyed:
            return
        try:
            if at is None and keyed_arguments(purifier):
                rule = "is no function of images"
                raise ModelFault("a function of keys", rule, fix, "unrepeatable")
            check_steady(purifier, lambda x: run(x, ids[: len(x)], xi), images, fix=fix)
        except ModelFault as fault:  # what learns or mixes samples is no purifier under any draws
            if at is not None or fault.fault != "unrepeatable":
                raise
            if not (own := _controlled(purifier, images)):
                raise
            keyed.append(as_target(own, gradient=gradient))

    xi = getattr(purifier, "xi", None)
    calls = calls_of_check(purifier)
    return Target(run=run, tile=tile, xi=xi, ids=ids, settings=settings, ask=ask, calls=calls)


def _controlled(purifier: ImageMap, images: Tensor) -> Purifier | None:
    """Return a map that draws random numbers with keyed draws; None where no key controls it."""
    try:
        own = as_purifier(purifier, images[:1].detach().clamp(0, 1))
    except BadInput:
        return None
    assert own.model is not None
    return own if own.model.draws in ("keyed", "generator") else None


def _of_purifier(purifier: Purifier, owner: Purifier | Defense, gradient: GradientMode) -> Target:
    exact = purifier.at(gradient=gradient)
    asked = purifier.denoiser if purifier.model is None else purifier.model.function
    refiner = purifier.refiner
    behind = 0 if refiner is None else refiner.step().evaluations

    def run(images: Tensor, ids: Sequence[int], xi: RandomnessConfig | None) -> Tensor:
        def purify(x: Tensor, i: Tensor) -> Tensor:
            return exact.purify(x, Noise(xi, i))

        rows = torch.tensor(list(ids), dtype=torch.int64, device="cpu")
        return tiled(purify, owner.tile)(images, rows)

    return Target(
        run=run,
        tile=owner.tile,
        evaluations=purifier.chain.evaluations,
        xi=owner.xi,
        ids=owner.ids,
        settings={"purifier": purifier.name, **purifier.settings, "tile": owner.tile},
        ask=lambda images, ids, xi: purifier.check_steady(images, owner.tile),
        calls=(calls_of_check(asked) if purifier.chain.evaluations > behind else 0)
        + (0 if refiner is None else calls_of_check(refiner.network)),
    )


def choose_ids(target: Target, images: Tensor, ids: Ids | None, *, unique: bool) -> list[int]:
    """Return one sample id per row: those given, else the bound ones, else 0 .. B-1.

    Raises:
        BadInput: for ids that are no ids, do not match the rows, or repeat where `unique`.
    """
    count = images.shape[0]
    if unique and not images.numel():
        raise BadInput(f"images of shape {tuple(images.shape)}", "are empty", "pass at least one")
    if ids is None:
        ids = target.ids if target.ids is not None else range(count)
    return check_ids(ids, count, distinct=unique)


def batch_rows(target: Target, batch_size: int | None) -> int:
    """Return how many rows to compute at once: whole tiles, at least the batch size.

    Raises:
        BadInput: for a batch size that holds no image.
    """
    wanted, tile = check_batch_size(batch_size), target.tile or 1
    return -(-(wanted or max(_ROWS, tile)) // tile) * tile


def refuse_fresh(xi: RandomnessConfig | None) -> None:
    """Refuse a configuration that draws other noise on every call: both sides need the same."""
    check_xi(xi)
    if xi is not None and xi.scope == "fresh":
        raise BadInput(
            "a fresh randomness configuration",
            "purifies the two images of a difference with different noise",
            "use RandomnessConfig(seed)",
        )
