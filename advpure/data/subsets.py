"""The words that choose images from a split, for example `first-100` or `train/every-20th`."""

import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from advpure.data.base import Split
from advpure.errors import BadInput

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
    head, slash, rest = text.partition("/")
    split: Split = "train" if head == "train" else "test"
    if split not in splits:
        raise BadInput(
            f"subset {text!r}", f"needs a {split} split, absent here", more or "use test"
        )
    words = rest if slash and head in ("train", "test") else text
    size = splits[split]
    if words in ("train", "test"):
        indices = torch.arange(size, dtype=torch.int64, device="cpu")
    elif match := re.fullmatch(r"first-(\d+)", words):
        indices = torch.arange(int(match[1]), dtype=torch.int64, device="cpu")
    elif (match := re.fullmatch(r"every-(\d+)(?:st|nd|rd|th)?", words)) and int(match[1]):
        indices = torch.arange(0, size, int(match[1]), dtype=torch.int64, device="cpu")
    elif match := re.fullmatch(r"(\d+):(\d+)", words):
        indices = torch.arange(
            int(match[1]), max(int(match[1]), int(match[2])), dtype=torch.int64, device="cpu"
        )
    elif Path(words).is_file():
        indices = _read_indices(Path(words))
    else:
        near = get_close_matches(words, ["test", "train", "first-100", "every-20th"], n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"use {GRAMMAR}"
        raise BadInput(f"subset {text!r}", "is not understood", hint)
    if not len(indices):
        raise BadInput(f"subset {text!r}", "is empty", f"choose from 0:{size}")
    outside = indices[(indices < 0) | (indices >= size)]
    if len(outside):
        raise BadInput(
            f"subset {text!r}",
            f"asks for image {int(outside[0])}, but the {split} split has {size}",
            " or ".join(filter(None, (f"stay within 0:{size}", more))),
        )
    return Subset(split, indices)


def _read_indices(path: Path) -> Tensor:
    """Read one position a line, refusing anything else and repetitions."""
    values = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        entry = line.partition("#")[0].strip()
        if entry and not entry.isdigit():
            raise BadInput(f"{path} line {number}", "is not an index", "write one number a line")
        if entry:
            values.append(int(entry))
    if len(set(values)) < len(values):
        raise BadInput(f"index file {path}", "repeats an index", "list each image once")
    return torch.tensor(values, dtype=torch.int64, device="cpu")
