"""What a study computes with: settings that identify a run, and models and images in memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from advpure.base.errors import BadInput
from advpure.core.defense import Defense
from advpure.core.purifier import Purifier
from advpure.core.randomness import RandomnessConfig
from advpure.data import Images

Shard = tuple[int, int]
"""(i, k): the i-th of k parts of a run, i from 1."""


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """What a study computes with, checked and in memory.

    Attributes:
        settings: Everything that identifies the run, JSON values.
        context: Where this session computes, for the records.
        samples: Ids of the images; None for a run of no images.
        shard: (i, k) where this is the i-th of k parts of a run, i from 1; see `Study.share`.
    """

    settings: dict[str, Any]
    context: Mapping[str, Any]
    samples: Sequence[int] | None = None
    shard: Shard | None = None


@dataclass(frozen=True, kw_only=True)
class LoadedModel(Loaded):
    """A purifier or a defense, and its images.

    Attributes:
        model: What is measured.
        images: Images, labels and ids.
        xi: The randomness that the model is bound to.
    """

    model: Purifier | Defense
    images: Images
    xi: RandomnessConfig

    @property
    def purifier(self) -> Purifier:
        """The purifier, of a defense its own."""
        return self.model.purifier if isinstance(self.model, Defense) else self.model

    @property
    def defense(self) -> Defense:
        """The defense, where that is what was loaded."""
        assert isinstance(self.model, Defense)
        return self.model

    def share(self, shard: Shard) -> Self:
        """Return the i-th of k parts: every k-th image, from the i-th, under the same settings.

        Args:
            shard: (i, k), i from 1.

        Raises:
            BadInput: when there are fewer images than parts.
        """
        i, k = shard
        if k > (n := len(self.images.ids)):
            raise BadInput(f"shard {i}/{k}", f"has none of {n} images", f"use at most {n} shards")
        images = Images(*(part[i - 1 :: k] for part in self.images))
        return replace(self, images=images, samples=images.ids.tolist(), shard=shard)
