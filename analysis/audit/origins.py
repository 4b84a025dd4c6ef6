"""Which images of somebody's own are copies of images of a known data set."""

from typing import NamedTuple

import torch
from torch import Tensor

from advpure.base.errors import BadInput, MissingExtra
from advpure.data import DATASETS, Images, find_dataset
from advpure.data.base import Split

_LARGEST = 100_000
"""Images of a split that is looked through."""


class Origin(NamedTuple):
    """An image of a known data set: the split that it is of, and its label there."""

    split: Split
    label: int


def origins(dataset: str, images: Images) -> dict[int, Origin | None]:
    """Return by sample id of which image each is a copy, to 8 bits; None for none.

    Args:
        dataset: Where they are from; a known data set is taken at its word.
        images: The images.
    """
    known: dict[bytes, Origin] = {}
    if dataset not in DATASETS:
        for name in DATASETS.names():
            known |= _pixels(name, tuple(images.images.shape[1:]))
    rows = zip(images.ids.tolist(), _keys(images.images), strict=True)
    return {i: known.get(key) for i, key in rows}


def _pixels(name: str, shape: tuple[int, ...]) -> dict[bytes, Origin]:
    """Return the images of a data set of this shape; none where it is large or not there."""
    found: dict[bytes, Origin] = {}
    try:
        source = find_dataset(name)
        sizes = source.info.splits
        if source.info.shape != shape or source.pick or max(sizes.values()) > _LARGEST:
            return {}
        for split in sizes:
            raw = source.read(split)
            labels = raw.labels.tolist()
            for key, label in zip(_keys(raw.pixels.float() / raw.full_scale), labels, strict=True):
                found[key] = Origin(split, label)
    except (BadInput, MissingExtra, OSError):
        return found
    return found


def _keys(images: Tensor) -> list[bytes]:
    return [each.tobytes() for each in (images * 255).round().to(torch.uint8).cpu().numpy()]
