"""The words that choose images from a split, for example `first-100` or `train/every-20th`."""

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from advpure.base.budget import read_text
from advpure.base.errors import BadInput
from advpure.base.text import digits
from advpure.base.validation import shown, words
from advpure.data.base import Split

GRAMMAR = "test, train, first-100, every-20th, 10:20 or a file of indices, each after train/ or not"


class Subset(NamedTuple):
    """A split and the positions in it.

    Attributes:
        split: Which split.
        indices: int64 [n], positions in the split.
    """

    split: Split
    indices: Tensor


def parse_subset(text: str, splits: Mapping[Split, int], more: str = "") -> Subset:
    """Resolve the words of a subset.

    Args:
        text: `test`, `train`, `first-N`, `every-Nth` (0, N, 2N, ...), `A:B` (A included, B not),
            or the path of a text file with one position a line (`#` starts a comment). All but
            the first two mean the test split unless `train/` stands in front; write `./test/x`
            for a file in a folder of that name.
        splits: Size of every split that the data set has.
        more: How to get more images than these, for the messages.

    Returns:
        Subset: The split and positions, in the order asked for.

    Raises:
        BadInput: for words that mean nothing, and for positions outside the split.

    Example:
        >>> parse_subset("every-20th", {"test": 50}).indices.tolist()
        [0, 20, 40]
    """
    words(text, "subset")
    head, slash, rest = text.partition("/")
    split: Split = "train" if head == "train" else "test"
    if split not in splits:
        raise BadInput(
            f"subset {text!r}", f"needs a {split} split, absent here", more or "use test"
        )
    asked = rest if slash and head in ("train", "test") else text
    size = splits[split]
    found = range(size) if asked in ("train", "test") else _read_range(asked, size)
    indices: Sequence[int] = _read_indices(asked, text) if found is None else found
    if found is None:
        outside = next((index for index in indices if index >= size), None)
    else:
        outside = None if not len(found) or found[-1] < size else max(found.start, size)
    if not len(indices):
        raise BadInput(f"subset {shown(text)}", "is empty", f"choose from 0:{size}")
    if outside is not None:
        raise BadInput(
            f"subset {shown(text)}",
            f"asks for image {shown(outside)}, but the {split} split has {size}",
            " or ".join(filter(None, (f"stay within 0:{size}", more))),
        )
    if isinstance(indices, range):
        return Subset(
            split,
            torch.arange(
                indices.start, indices.stop, indices.step, dtype=torch.int64, device="cpu"
            ),
        )
    return Subset(split, torch.tensor(indices, dtype=torch.int64, device="cpu"))


def is_whole(text: str) -> bool:
    """Return True if a subset is a split as it is, of which a verb takes some from the front.

    Example:
        >>> is_whole("train"), is_whole("train/first-5")
        (True, False)
    """
    return text in ("test", "train", "test/test", "train/train")


def _read_range(words: str, size: int) -> range | None:
    """Return the positions that words ask for, unlisted; None for words that ask for none."""
    if match := re.fullmatch(r"first-([0-9]+)", words):
        return range(_capped(match[1]))
    if match := re.fullmatch(r"every-([0-9]+)(?:st|nd|rd|th)?", words):
        return range(0, size, _capped(match[1])) if _capped(match[1]) else None
    if match := re.fullmatch(r"([0-9]+):([0-9]+)", words):
        return range(_capped(match[1]), _capped(match[2]))
    return None


def _capped(text: str) -> int:
    """Return a number that ranges can be made of."""
    return min(digits(text) or 0, 2**62)


def _read_indices(words: str, text: str) -> list[int]:
    """Read one position a line of a file, refusing anything else and repetitions."""
    path = Path(words)
    try:
        is_there = path.is_file()
    except (OSError, ValueError):  # no name of any file
        is_there = False
    if not is_there:
        near = get_close_matches(words, ["test", "train", "first-100", "every-20th"], n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"use {GRAMMAR}"
        raise BadInput(f"subset {shown(text)}", "is not understood", hint)
    values = []
    for number, line in enumerate(read_text(path, "index file").splitlines(), 1):
        entry = line.partition("#")[0].strip()
        if entry:
            index = digits(entry)
            if index is None:
                where = f"{path} line {number}, {shown(entry)},"
                raise BadInput(where, "is not an index", "write one number a line")
            values.append(index)
    if len(set(values)) < len(values):
        raise BadInput(f"index file {path}", "repeats an index", "list each image once")
    return values
