"""A booster: a joint model and settings, as a function of images and as a step of a chain."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from advpure.base.errors import BadInput
from advpure.base.units import check_images, check_labels, to_model, to_unit
from advpure.base.validation import instance
from advpure.boosting.objective import need_reference
from advpure.boosting.refine import Draw, Refined, Refinement, Seen
from advpure.boosting.settings import BoostSettings
from advpure.core.chain import RowKeys, Step
from advpure.core.randomness import Ids, RandomnessConfig, check_ids, check_xi
from advpure.core.refiner import Refiner
from advpure.core.steady import check_fit
from advpure.core.tiling import check_tile, tiled
from advpure.networks.joint import JointClassifier


class Booster(Refiner):
    """Refine images by a model that says what they show and how real they look.

    Args:
        model: A `JointClassifier`, or any classifier of images in [0, 1] for losses without l0; in
            evaluation mode.
        settings: What is descended, and how; None for the defaults.
        debias: What is added to the logits, [K], before a class is chosen, see
            `advpure.networks.joint.debias`.
        identity: What identifies the model in records.

    Raises:
        BadInput: for settings that need an l0 which the model does not have, or one that is yet to
            be measured.

    Cost: `settings.count` forward and backward passes through the model an image. An exact gradient
    through the boost costs these, the same again with a graph, and a backward pass of each that
    goes through first derivatives; a chain that recomputes its steps boosts once more.

    Example:
        >>> from advpure.networks.joint import JointClassifier
        >>> joint = JointClassifier(nn.Flatten(), l0=0.9).eval()
        >>> booster = Booster(joint, BoostSettings(loss="bce", steps=1, step_size=0.25, stop=False))
        >>> booster.boost(torch.full((1, 1, 1, 2), 0.5), torch.tensor([1])).images.tolist()
        [[[[0.5, 0.75]]]]
    """

    def __init__(
        self,
        model: nn.Module,
        settings: BoostSettings | None = None,
        *,
        debias: Tensor | None = None,
        identity: Mapping[str, Any] | None = None,
    ) -> None:
        """Keep the parts; see the class."""
        instance(model, nn.Module, "model", "pass a JointClassifier")
        self.how = BoostSettings() if settings is None else settings
        instance(self.how, BoostSettings, "settings", "pass BoostSettings(...)")
        own = model.l0 if isinstance(model, JointClassifier) else None
        l0 = own if self.how.l0 is None else self.how.l0
        if isinstance(l0, str):
            fix = "give the number, or let advpure.load_booster measure it"
            raise BadInput(f"l0 {l0}", "takes images of a data set", fix)
        if self.how.uses_reference:
            need_reference(l0)
        told = {**dataclasses.asdict(self.how), "steps": self.how.count, "stop": self.how.stops}
        told |= {"step_size": self.how.size, "l0": l0}
        if told["eps"] == float("inf"):
            told["eps"] = None
        if told["norm"] == "l2":  # as in records from before there was another
            del told["norm"]
        if debias is not None:
            told["debias"] = debias.tolist()
        super().__init__(model, {**(identity or {"name": type(model).__name__}), **told})
        self.l0 = l0
        self.debias: Tensor | None
        self.register_buffer("debias", debias)
        self.training = False  # and not .eval(), which would switch the model

    def step(self) -> Step:
        """Make the step of a chain."""

        def images(x: Tensor, keys: RowKeys | None) -> Tensor:
            return self._refinement(keys).run(x).images

        def move(x: Tensor, keys: RowKeys | None) -> Tensor:
            return to_model(images(to_unit(x), keys))

        return Step(
            name="boost",
            phase="reverse",
            time=0,
            move=move,
            images=images,
            evaluations=self.how.count,
            noisy=self.how.method == "sgld",
            keyed=True,
        )

    def boost(
        self,
        images: Tensor,
        classes: Tensor | None = None,
        *,
        ids: Ids | None = None,
        xi: RandomnessConfig | None = None,
        tile: int | None = None,
        seen: Seen | None = None,
    ) -> Refined:
        """Boost images.

        Args:
            images: [B, C, H, W] in [0, 1].
            classes: What to aim at, int64 [B]; None for the most likely class of each image.
            ids: Sample ids of the rows, the key of the noise of sgld; None for 0 .. B-1.
            xi: Randomness of sgld; seed 0 by default.
            tile: Rows that the model sees at once, so that no row depends on its batch.
            seen: Called tile by tile, without padding, after each step.

        Returns:
            The images, with gradients where the given ones have them.

        Raises:
            BadInput: for images or classes that do not fit the model.
        """
        check_images(images)
        check_fit(self.network, images)
        check_xi(xi)
        if classes is not None:
            check_labels(classes, len(images))
            classes = classes.to(images.device, torch.int64)
        listed = check_ids(range(len(images)) if ids is None else ids, len(images))
        rows = torch.tensor(listed, dtype=torch.int64, device="cpu")
        key = RandomnessConfig(0) if xi is None else xi
        left = len(images)

        def run(x: Tensor, c: Tensor | None, i: Tensor) -> Refined:
            nonlocal left
            count, is_noisy = min(len(x), left), self.how.method == "sgld"
            keys = tuple((key, n) for n in i.tolist()) if is_noisy else None
            left -= count
            tell = None if seen is None else lambda k, y: seen(k, y[:count])
            return self._refinement(keys).run(x, c, tell)

        return tiled(run, check_tile(tile))(images, classes, rows)

    def _refinement(self, keys: RowKeys | None) -> Refinement:
        draw = None if keys is None or self.how.method != "sgld" else _draws(keys)
        return Refinement(self.network, self.how, self.l0, self.debias, draw)


def _draws(keys: RowKeys) -> Draw:
    """Return the noise of every step, of each row from its own configuration and id."""
    folded = {xi: xi.fold("boost") for xi, _ in keys}

    def draw(k: int, like: Tensor) -> Tensor:
        noise = torch.empty(like.shape, dtype=torch.float32, device="cpu")
        for row, (xi, sample) in zip(noise.unbind(), keys, strict=True):
            folded[xi].normal_into(row, sample, "reverse", k)
        return noise.to(like)

    return draw
