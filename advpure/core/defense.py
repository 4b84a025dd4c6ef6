"""A defense: a purifier in front of a classifier, as a plain module from images to logits.

Because it is a plain `torch.nn.Module`, foolbox, torchattacks, ART and AutoAttack attack it
unchanged; what it adds is control over its randomness and its gradient.
"""

import math
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import torch
from annotated_types import Ge, Le
from torch import Tensor, nn

from advpure.base.arguments import checked
from advpure.base.errors import BadInput
from advpure.base.text import digits
from advpure.base.validation import instance, shown, validate, words
from advpure.core.chain import Noise
from advpure.core.gradients import GradientMode
from advpure.core.meter import tick
from advpure.core.own import JUDGE, OwnModel, keys_of
from advpure.core.purifier import Bound, Purifier
from advpure.core.randomness import RandomnessConfig
from advpure.core.steady import check_steady
from advpure.core.tiling import tiled


@dataclass(frozen=True)
class Policy:
    """How many purifications one answer is computed from.

    Attributes:
        kind: ``single``: one. ``eot``: the mean logits of `draws` purifications. ``majority``: the
            most frequent class among `draws`, ties to the lowest class.
        draws: Number of purifications.
        reverse_only: Repeat only the reverse noise and keep the forward noise (DensePure's vote).
    """

    kind: Literal["single", "eot", "majority"] = "single"
    draws: Annotated[int, Ge(1), Le(10**6)] = 1
    reverse_only: bool = False

    def __post_init__(self) -> None:
        """Check the kind and the number."""
        if not isinstance(self.kind, str) or self.kind not in ("single", "eot", "majority"):
            fix = "use single, eot or majority"
            raise BadInput(f"policy {shown(self.kind)}", "is not known", fix)
        validate(self)
        if self.kind == "single" and self.draws != 1:
            raise BadInput(f"{self.draws} draws", "do not fit single", "use eot or majority")
        if self.kind == "single" and self.reverse_only:
            raise BadInput("reverse_only", "means nothing to single", "use eot or majority")
        if self.kind == "majority" and self.draws == 1:
            rule = "is a vote of one, which hides logits and decides as without a vote"
            raise BadInput("policy majority:1", rule, "use single, or majority:3")
        if self.kind == "eot" and self.draws == 1:
            rule = "is the mean of one, which decides as without a mean"
            raise BadInput("policy eot:1", rule, "use single, or eot:10")

    @classmethod
    def parse(cls, text: str) -> "Policy":
        """Read ``single``, ``eot:K`` or ``majority:K``.

        Example:
            >>> Policy.parse("majority:10").draws
            10
        """
        kind, colon, count = words(text, "policy").partition(":")
        draws = digits(count) if colon else 1
        if draws is None:
            raise BadInput(f"policy {text!r}", "has no number of draws", "write eot:10")
        return cls(kind, draws)  # type: ignore[arg-type]


class Answer(NamedTuple):
    """Logits [B, K] that decide, and logits [B, K] whose loss an attack follows.

    They differ under a vote alone, which is flat between its jumps: where all voters agree, no loss
    of the shares says whether a step was good. Followed is the mean probability of the voters.
    """

    decided: Tensor
    climbed: Tensor


@checked
class Defense(Bound):
    """Purify, then classify.

    Args:
        purifier: The purifier; its own randomness and tile are overridden by the defense's.
        classifier: Maps images in [0, 1] to logits [B, K].
        xi: Randomness configuration.
        gradient: Gradient mode of the purifier, None to keep it.
        policy: How many purifications one answer is computed from.
        tile: Fixed compute tile of purifier and classifier together.
    """

    def __init__(
        self,
        purifier: Purifier,
        classifier: nn.Module,
        *,
        xi: RandomnessConfig | None = None,
        gradient: GradientMode | None = None,
        policy: Policy | None = None,
        tile: int | None = None,
    ) -> None:
        """Keep the parts; see the class."""
        super().__init__(xi, tile)
        self.purifier = purifier if gradient is None else purifier.at(gradient=gradient)
        if policy is not None:
            instance(policy, Policy, "policy", "pass a Policy")
        self.classifier, self.policy = classifier, policy or Policy()

    @property
    def is_random(self) -> bool:
        """Whether any step of the purifier, or the classifier, consumes noise."""
        judge = self.classifier
        return self.purifier.is_random or (isinstance(judge, OwnModel) and judge.is_random)

    @property
    def evaluations(self) -> int:
        """Network evaluations (denoiser and classifier) of one answer for one image."""
        return self.policy.draws * (self.purifier.chain.evaluations + 1)

    def forward(self, images: Tensor) -> Tensor:
        """Classify purified images.

        Args:
            images: [B, C, H, W] in [0, 1].

        Returns:
            Logits [B, K]; under a majority policy the logarithm of the vote shares, with the
            gradient of the mean class probabilities.

        Raises:
            BadInput: for images outside the contract, missing randomness or missing ids.
        """
        xi, ids = self._resolve(images)
        return tiled(lambda x, i: self.logits(x, xi, i), self.tile)(images, ids)

    def answer(self, images: Tensor) -> Answer:
        """Classify purified images, and say what an attack is to climb; otherwise as `forward`."""
        xi, ids = self._resolve(images)
        return tiled(lambda x, i: self._answered(x, xi, i), self.tile)(images, ids)

    def logits(self, images: Tensor, xi: RandomnessConfig | None, ids: Tensor | None) -> Tensor:
        """Answer for one batch as it is: no checks, no tiling."""
        return self._answered(images, xi, ids).decided

    def _answered(self, images: Tensor, xi: RandomnessConfig | None, ids: Tensor | None) -> Answer:
        draws = [
            self._once(images, Noise(xi, ids, 0 if self.policy.reverse_only else k, k))
            for k in range(self.policy.draws)
        ]
        if self.policy.kind == "majority":
            return _votes(torch.stack(draws))
        logits = draws[0] if self.policy.kind == "single" else torch.stack(draws).mean(0)
        return Answer(logits, logits)

    def check_steady(self, images: Tensor, *, repeatable: bool = True) -> None:
        """Refuse networks that are in training mode, random or learning; see `Bound`."""
        self.purifier.check_steady(images, self.tile, repeatable=repeatable)
        if isinstance(self.classifier, OwnModel):
            self.classifier.check_steady(images, self.tile, repeatable=repeatable)
            return
        check_steady(
            self.classifier,
            tiled(self.classifier, self.tile),
            images,
            fix="pass a classifier without randomness",
        )

    def check_controlled(self) -> None:
        """Refuse parts whose randomness no key controls; see `OwnModel.check_controlled`."""
        for part in (self.purifier.model, self.classifier):
            if isinstance(part, OwnModel):
                part.check_controlled()

    def _once(self, images: Tensor, noise: Noise) -> Tensor:
        return classified(self.classifier, self.purifier.purify(images, noise), noise)

    def _networks(self) -> list[nn.Module | None]:
        return [*self.purifier._networks(), self.classifier]

    def _set_gradient(self, gradient: GradientMode) -> None:
        self.purifier = self.purifier.at(gradient=gradient)


def classified(classifier: nn.Module, images: Tensor, noise: Noise) -> Tensor:
    """Return a classifier's logits [B, K], with keys of the noise for one that draws its own."""
    tick(len(images))
    if isinstance(classifier, OwnModel):
        return classifier.keyed(images, keys_of(classifier, noise, JUDGE, len(images)))
    logits: Tensor = classifier(images)
    return logits


def _votes(logits: Tensor) -> Answer:
    """Return log vote shares [B, K] of logits [draws, B, K], differentiated as mean probability.

    That probability's logarithm is what is climbed. A class without a vote counts half a vote,
    which keeps the logarithm finite and changes no decision.
    """
    draws, _, classes = logits.shape
    counts = nn.functional.one_hot(logits.argmax(2), classes).sum(0).to(logits.dtype)
    share = counts.clamp(min=0.5).div(draws).log()
    smooth = logits.log_softmax(2).logsumexp(0) - math.log(draws)  # sure voters have slopes too
    return Answer(share + (smooth - smooth.detach()), smooth)
