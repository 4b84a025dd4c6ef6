"""What every form of CIFAR-10 is turned into: the records of the binary version.

A file of records is uint8 [10000, 3073]: the label, then 3,072 values in channel, row, column
order. Whether they are the official ones is proved by the SHA1 sum of each file. Where a form keeps
whole splits, the five training files are found by that sum, in whatever order the form holds them;
images in any other order cannot be put back, since the sums say nothing of single images.
"""

import hashlib
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from advpure.base.errors import BadInput
from advpure.base.text import digits
from advpure.data import cifar10
from advpure.data.base import Split
from advpure.data.cifar10_sample import CIFAR10_CLASSES

Records = NDArray[np.uint8]
_ALIASES = {"plane": "airplane", "car": "automobile"}  # the names of diffusion repositories
_NAMES: Mapping[str, int] = {name: k for k, name in enumerate(CIFAR10_CLASSES)}
BOTH: frozenset[Split] = frozenset({"train", "test"})


class Source(NamedTuple):
    """Something that holds CIFAR-10.

    Attributes:
        kind: What it is, in words.
        read: Name of an official binary file to its records.
        splits: What it holds of the two.
    """

    kind: str
    read: Callable[[str], Records]
    splits: frozenset[Split] = BOTH


def names_of(split: Split) -> list[str]:
    """Return the names of the binary files of a split, in order."""
    return [name for name in cifar10.SHA1 if split_of(name) == split]


def split_of(name: str) -> Split:
    """Return the split of a binary file."""
    return "test" if name.startswith("test") else "train"


def start_of(name: str) -> int:
    """Return the position in its split of a file's first image."""
    return cifar10.RECORDS * names_of(split_of(name)).index(name)


def sum_of(records: Records) -> str:
    """Return the SHA1 sum of records, as of their file."""
    return hashlib.sha1(np.ascontiguousarray(records).tobytes(), usedforsecurity=False).hexdigest()


def in_blocks(load: Callable[[Split], Records]) -> Callable[[str], Records]:
    """Find the files of whole splits by their sums.

    Args:
        load: Returns all records of a split, once.

    Returns:
        Name of a binary file to the block that is it; the block in its place where none is.
    """
    loaded: dict[Split, list[Records]] = {}

    def read(name: str) -> Records:
        split, place = split_of(name), names_of(split_of(name)).index(name)
        if split not in loaded:
            size, records = cifar10.RECORDS, load(split)
            loaded[split] = [records[k : k + size] for k in range(0, len(records), size)]
        blocks = loaded[split]
        own = blocks[place : place + 1]
        found = next((b for b in (*own, *blocks) if sum_of(b) == cifar10.SHA1[name]), None)
        return found if found is not None else own[0] if own else np.empty((0, 3073), np.uint8)

    return read


def is_shuffled(source: Source, split: Split) -> bool:
    """Return True if a source holds the official images and labels of a split in another order.

    It is proved by the sum of 64 bits of the SHA1 sum of every record, which knows no order.
    """
    total = 0
    for name in names_of(split):
        for record in source.read(name):
            total += int.from_bytes(hashlib.sha1(record.tobytes()).digest()[:8], "big")
    return total % 2**64 == cifar10.UNORDERED[split]


def to_records(pixels: Records, labels: Records) -> Records:
    """Join images [n, 32, 32, 3] and labels [n] to records [n, 3073]."""
    flat = pixels.transpose(0, 3, 1, 2).reshape(len(pixels), -1)
    return np.concatenate([labels.astype(np.uint8)[:, None], flat], axis=1)


def label_of(word: str, path: str) -> int:
    """Read a class name or number."""
    name = _ALIASES.get(word, word)
    if name in _NAMES:
        return _NAMES[name]
    number = digits(word)
    if number is not None and number < len(_NAMES):
        return number
    raise BadInput(f"{path}", f"names no class ({word!r})", f"use {', '.join(CIFAR10_CLASSES)}")


def checked_labels(labels: NDArray[np.generic], where: str, count: int | None = None) -> Records:
    """Return labels [count] as bytes; of one file unless told."""
    wanted = cifar10.RECORDS if count is None else count
    if labels.shape != (wanted,) or labels.dtype.kind not in "iu":
        raise BadInput(where, "does not hold one whole number an image", "obtain it again")
    if wanted and (labels.min() < 0 or labels.max() > 9):
        raise BadInput(where, f"holds the label {labels.max()}", "use 0 to 9")
    return labels.astype(np.uint8)
