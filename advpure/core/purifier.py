"""A purifier: a chain between images in [0, 1], bound to a randomness configuration."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn

from advpure.base.arguments import checked
from advpure.base.errors import BadInput
from advpure.base.units import check_images, to_model, to_unit
from advpure.core.chain import Chain, Noise, Step
from advpure.core.denoisers import Denoiser
from advpure.core.gradients import GradientMode, check_mode, run_chain
from advpure.core.own import OwnModel
from advpure.core.randomness import Ids, RandomnessConfig, check_ids, check_xi
from advpure.core.recipe import Recipe
from advpure.core.refiner import Refiner, refined
from advpure.core.steady import check_fit, check_steady
from advpure.core.tiling import check_tile, split_tiles, tiled


class Bound(nn.Module):
    """A module of images that knows its randomness and which samples a batch holds.

    Args:
        xi: Randomness configuration, None where nothing random happens.
        tile: Fixed compute tile: every batch is split and padded to it, so that a row's result
            does not depend on its neighbours (`advpure.core.tiling`); None computes batches as
            they come.

    Attributes:
        ids: The sample ids of the rows, [B], or None before `bind`.
    """

    def __init__(self, xi: RandomnessConfig | None, tile: int | None) -> None:
        """Start unbound."""
        super().__init__()
        check_xi(xi)
        self.xi, self.tile = xi, check_tile(tile)
        self.ids: Tensor | None = None
        self._calls = [0]

    if TYPE_CHECKING:

        def __call__(self, images: Tensor) -> Tensor: ...  # noqa: D102

    def bind(self, ids: Ids) -> Self:
        """Fix which samples the next batches hold, row by row; returns the module itself."""
        self.ids = torch.tensor(check_ids(ids), dtype=torch.int64, device="cpu")
        return self

    def at(
        self,
        *,
        ids: Ids | None = None,
        xi: RandomnessConfig | None = None,
        gradient: GradientMode | None = None,
    ) -> Self:
        """Return a view with other ids, randomness or gradient; weights and module stay shared.

        Args:
            ids: Sample ids of the rows, or None to keep.
            xi: Randomness configuration, or None to keep.
            gradient: Gradient mode, or None to keep.
        """
        view = type(self).__new__(type(self))
        view.__dict__.update(self.__dict__)
        view._modules = self._modules.copy()
        if ids is not None:
            view.bind(ids)
        if xi is not None:
            check_xi(xi)
            view.xi = xi
        if gradient is not None:
            check_mode(gradient)
            view._set_gradient(gradient)
        return view

    def check_steady(self, images: Tensor, *, repeatable: bool = True) -> None:
        """Refuse networks that are in training mode, random or learning; see `advpure.core.steady`.

        Args:
            images: [B, C, H, W] in [0, 1], such as the networks will meet.
            repeatable: Whether randomness that no key controls is refused too.

        Raises:
            BadInput: for wrong shapes or values; also for images that the networks do not take.

        Cost: two evaluations of each network on one tile, the first time.
        """
        raise TypeError(f"{type(self).__name__} is abstract: write check_steady()")

    def _networks(self) -> list[nn.Module | None]:
        raise TypeError(f"{type(self).__name__} is abstract: write _networks()")

    def _set_gradient(self, gradient: GradientMode) -> None:
        raise TypeError(f"{type(self).__name__} is abstract: write _set_gradient()")

    def _resolve(self, images: Tensor) -> tuple[RandomnessConfig | None, Tensor | None]:
        """Return this call's configuration and ids, one per row."""
        check_images(images)
        for network in self._networks():
            check_fit(network, images)
        if self.ids is not None:
            check_ids(self.ids, images.shape[0])
        xi = self.xi
        if xi is not None and xi.scope == "fresh":
            call = RandomnessConfig(xi.seed, xi.scheme, "sample", xi.path)
            xi = call.fold("call", self._calls[0])
            self._calls[0] += 1
            if self.ids is None:
                return xi, torch.arange(images.shape[0], dtype=torch.int64, device="cpu")
        return xi, self.ids


@checked
class Purifier(Bound):
    """Clean images by running a chain.

    Args:
        name: The name of the purifier.
        chain: Its steps, on states in [-1, 1].
        denoiser: The network behind the steps, registered so that `.to()` reaches it.
        settings: All its options, for records.
        surrogate: A shorter chain for surrogate gradients.
        recipe: What the chains were laid out from; with it a purifier can be copied and pickled,
            since the copy lays them out again around its own denoiser.
        model: The module of somebody's own that is the chain, registered like a denoiser.
        refiner: What stands behind the chain and the surrogate, such as a booster; `chain` then
            ends in its step.
        xi: Randomness configuration.
        gradient: Gradient mode; by default exact: ``full`` up to four network evaluations,
            ``checkpoint`` above.
        tile: Fixed compute tile.

    Example:
        >>> from advpure.core.analytic import GaussianDenoiser
        >>> from advpure.purifiers.oneshot import OneStepEDM
        >>> network = GaussianDenoiser(torch.zeros(1, 2, 2), 0.25)
        >>> purifier = Purifier("onestep-edm", OneStepEDM(sigma=0.1).chain(network), network)
        >>> purifier.at(ids=[0], xi=RandomnessConfig(0))(torch.full((1, 1, 2, 2), 0.5)).shape
        torch.Size([1, 1, 2, 2])
    """

    def __init__(
        self,
        name: str,
        chain: Chain,
        denoiser: Denoiser | None = None,
        *,
        settings: Mapping[str, Any] | None = None,
        surrogate: Chain | None = None,
        recipe: Recipe | None = None,
        model: OwnModel | None = None,
        refiner: Refiner | None = None,
        xi: RandomnessConfig | None = None,
        gradient: GradientMode | None = None,
        tile: int | None = None,
    ) -> None:
        """Keep the parts; see the class."""
        super().__init__(xi, tile)
        self.name, self.refiner = name, refiner
        self.chain = refined(chain, refiner)
        self.surrogate = None if surrogate is None else refined(surrogate, refiner)
        self.denoiser, self.recipe, self.model = denoiser, recipe, model
        self.settings = dict(settings or {})
        exact: GradientMode = "full" if self.chain.evaluations <= 4 else "checkpoint"
        self.gradient: GradientMode = exact if gradient is None else gradient
        check_mode(self.gradient)

    @property
    def is_random(self) -> bool:
        """Whether any step consumes noise."""
        return self.chain.is_random

    def forward(self, images: Tensor) -> Tensor:
        """Purify.

        Args:
            images: [B, C, H, W] in [0, 1].

        Returns:
            Purified images, [B, C, H, W], near [0, 1] but not clipped to it.

        Raises:
            BadInput: for images outside the contract, missing randomness or missing ids.
        """
        xi, ids = self._resolve(images)
        return tiled(lambda x, i: self.purify(x, Noise(xi, i)), self.tile)(images, ids)

    def purify(self, images: Tensor, noise: Noise) -> Tensor:
        """Purify one batch as it is, with given noise: no checks, no tiling."""
        if not len(self.chain):
            return images  # exactly: the way to [-1, 1] and back would round
        own = self.chain.on_images
        if own is not None:
            stand_in = None if self.surrogate is None else self.surrogate.on_images
            return run_chain(own, images, noise, self.gradient, stand_in)
        states = run_chain(self.chain, to_model(images), noise, self.gradient, self.surrogate)
        return to_unit(states)

    def check_steady(
        self, images: Tensor, tile: int | None = None, *, repeatable: bool = True
    ) -> None:
        """Refuse a network that is in training mode, random or learning; see `Bound`.

        The denoiser is asked alone; a chain without one is run as a whole.
        """
        network, tile = self.denoiser, tile or self.tile
        if self.refiner is not None:
            ask = tiled(self.refiner.network, tile)
            fix = "pass a booster without randomness"
            check_steady(self.refiner.network, ask, images, repeatable=repeatable, fix=fix)
        if self.model is not None:
            self.model.check_steady(images, tile, repeatable=repeatable)
        elif network is not None:
            level = min(max(1.0, network.sigma_min), network.sigma_max)
            ask = tiled(lambda x: network(to_model(x), level), tile)
            check_steady(network, ask, images, fix="pass a denoiser without randomness")
        elif len(self.chain) > (self.refiner is not None):
            ids = torch.arange(len(images), dtype=torch.int64, device="cpu")
            noise = RandomnessConfig(0)
            run = tiled(lambda x, i: self.purify(x, Noise(noise, i)), tile)
            check_steady(self.chain, lambda x: run(x, ids[: len(x)]), images)

    def trajectory(self, images: Tensor) -> Iterator[tuple[Step, Tensor]]:
        """Yield each step with the state after it in [0, 1] units, unclipped, [B, C, H, W].

        States have the same bits as within `forward`: each tile walks on its own, in step.
        """
        xi, ids = self._resolve(images)
        tiles = list(split_tiles(images, ids, tile=self.tile))
        walks = [self._walk(xi, *tile.tensors) for tile in tiles]
        for moves in zip(*walks, strict=True):
            kept = [to_unit(x)[: tile.rows] for (_, x), tile in zip(moves, tiles, strict=True)]
            yield moves[0][0], torch.cat(kept)

    def _walk(
        self, xi: RandomnessConfig | None, images: Tensor | None, ids: Tensor | None
    ) -> Iterator[tuple[Step, Tensor]]:
        assert images is not None
        return self.chain.states(to_model(images), Noise(xi, ids))

    def _networks(self) -> list[nn.Module | None]:
        return [self.denoiser, None if self.refiner is None else self.refiner.network]

    def _set_gradient(self, gradient: GradientMode) -> None:
        self.gradient = gradient

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the chains, whose steps hold the denoiser, where the recipe can renew them."""
        if self.recipe is None and (self.denoiser is not None or self.refiner is not None):
            raise BadInput(
                f"purifier {self.name!r} without a recipe",
                "cannot be copied, since its steps hold its denoiser",
                "pass recipe=..., or build another one",
            )
        chains = () if self.recipe is None else ("chain", "surrogate")
        return {name: value for name, value in self.__dict__.items() if name not in chains}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Lay out the chains around the copied denoiser."""
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        if self.recipe is not None:
            self.chain = self.laid_out(self.recipe)
            shorter = self.recipe.surrogate(self.denoiser)
            self.surrogate = None if shorter is None else refined(shorter, self.refiner)

    def laid_out(self, recipe: Recipe) -> Chain:
        """Return the chain of another recipe around this purifier's networks."""
        return refined(recipe.chain(self.denoiser), self.refiner)
