"""What a data set is: a description that costs nothing, and raw whole-number pixels on demand."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from torch import Tensor

from advpure.base.errors import BadInput

Split = Literal["train", "test"]


class Images(NamedTuple):
    """Images with their labels and their places in the split.

    Attributes:
        images: float32 [n, C, H, W] in [0, 1].
        labels: int64 [n], class indices.
        ids: int64 [n], the sample ids of all randomness: the position of each image in its split.
    """

    images: Tensor
    labels: Tensor
    ids: Tensor


class RawSplit(NamedTuple):
    """One split as stored.

    Attributes:
        pixels: uint8 [N, C, H, W], whole numbers from 0 to `full_scale`.
        labels: int64 [N].
        full_scale: The pixel value that means 1.0.
    """

    pixels: Tensor
    labels: Tensor
    full_scale: int


@dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """What can be said about a data set without reading it.

    Attributes:
        name: Its name in `load_images`.
        classes: Class names, in label order.
        shape: Image shape (C, H, W).
        splits: Number of images per split; of a data set that users bring, in the official one.
        norm: Norm of the default threat model, "linf" or "l2".
        eps: Radius of the default threat model, in [0, 1] units; None where there is none.
        first: How many images a verb takes from the front that is not told a number.
        tile: Default compute tile: how many rows networks see at once. Rows times pixels are a
            multiple of 32, because the vectorised sigmoid and SiLU of the CPU round the last
            numel % 32 elements in another way, and a row must not notice whether it is among
            them; a network's small inner maps ask for a tile that is a multiple of 32 itself.
        networks: Prefix of the names of the shipped networks that were made for it, such as
            `cifar10` of `cifar10-edm`.
        classifier: Name of the shipped classifier, or None.
        description: One line for lists.
        digest: SHA-256 of images and labels, of those that a user brings.
    """

    name: str
    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    splits: Mapping[Split, int]
    norm: Literal["linf", "l2"]
    eps: float | None
    first: int
    tile: int
    networks: str
    classifier: str | None
    description: str
    digest: str | None = None

    def radius(self, fix: str = "give one with --eps, such as 8/255") -> float:
        """Return the radius of the default threat model.

        Raises:
            BadInput: where there is none, with this fix.
        """
        if self.eps is None:
            raise BadInput(f"data set {self.name}", "has no default radius", fix)
        return self.eps


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """A data set: its description, and how to read one of its splits.

    Attributes:
        info: The description.
        read: Reads a whole split.
        sizes: Counts the images that are there, where that can differ from the description.
        more: Says what to do for more images than are there; empty when all are.
        pick: Reads images by their positions (int64 [n]) in a split, where a whole one may not
            fit in memory.
        ids: int64 [N], sample ids by position, where those are not the positions.
    """

    info: DatasetInfo
    read: Callable[[Split], RawSplit]
    sizes: Callable[[], Mapping[Split, int]] | None = None
    pick: Callable[[Split, Tensor], RawSplit] | None = None
    more: Callable[[], str] = lambda: ""
    ids: Tensor | None = None

    def __repr__(self) -> str:
        """Return its name, which messages show."""
        return self.info.name


Source = str | Any
"""A data set by name, path or code; or an object: images and labels, see `advpure.data.own`."""
