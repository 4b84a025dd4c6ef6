"""CIFAR-10 as single PNG files: the forms that say where in the split each image stands.

* ``test/frog/123.png``, ``test/123_frog.png``: 123 is the position in the split;
* ``cifar_test/plane_00123.png``: as diffusion repositories write them (class name first, plane and
  car for airplane and automobile), likewise;
* ``00000/img00000123.png`` beside ``dataset.json``: the zip of EDM's dataset tool, which holds the
  images in the order of the official training files, and no test images.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from advpure.base.errors import BadInput
from advpure.base.text import digits
from advpure.data import cifar10
from advpure.data.base import Split
from advpure.data.cifar10_records import (
    Records,
    Source,
    checked_labels,
    in_blocks,
    label_of,
    split_of,
    start_of,
    to_records,
)
from advpure.data.files import Files
from advpure.data.pictures import read_png

_NUMBERED = re.compile(r"(?:^|/)(train|test)/(?:(\w+)/)?([0-9]+)(?:_(\w+))?\.png$")
_CLASS_FIRST = re.compile(r"(?:^|/)(?:cifar_)?(train|test)/([a-z]+)_([0-9]+)\.png$")
_EDM = re.compile(r"(?:^|/)[0-9]{5}/img([0-9]{8})\.png$")
_LISTED = "dataset.json"


def find_pictures(files: Files) -> Source | None:
    """Recognise single PNG files; None where there are none of these forms.

    Raises:
        BadInput: for files that share a position, or an EDM archive without labels.
    """
    if _LISTED in files and any(_EDM.search(path) for path in files.paths):
        return _edm(files)
    found: list[tuple[str, str, str, str]] = []
    for path in files.paths:
        full = f"{files.where.name}/{path}"  # the folder itself may be the split
        if match := _NUMBERED.search(full):
            split, folder, number, word = match.groups()
            found.append((path, split, number, folder or word or ""))
        elif match := _CLASS_FIRST.search(full):
            split, word, number = match.groups()
            found.append((path, split, number, word))
    return _positions(files, found) if found else None


def read_small(files: Files, path: str) -> Records:
    """Decode an image of 32x32.

    Raises:
        BadInput: for one that is damaged or of another size.
    """
    pixels = read_png(files.read(path), f"{path} in {files.where}")
    if pixels.shape != (32, 32, 3):
        raise BadInput(f"{path} in {files.where}", "is not 32x32", "obtain it again")
    return pixels


def read_json(content: bytes, where: str) -> object:
    """Read JSON.

    Raises:
        BadInput: for anything else, or JSON that is nested deeper than any list of labels.
    """
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        raise BadInput(where, "is damaged or no JSON", "obtain it again") from None


def _positions(files: Files, found: list[tuple[str, str, str, str]]) -> Source:
    paths: dict[tuple[str, int], tuple[str, str]] = {}
    for path, split, number, word in found:
        key = (split, digits(number) or 0)
        if key in paths:
            raise BadInput(
                f"{path} in {files.where}",
                f"has the number of {paths[key][0]}",
                "number images by their position in the official split",
            )
        paths[key] = (path, word)

    def read(name: str) -> Records:
        split, start = split_of(name), start_of(name)
        records = np.empty((cifar10.RECORDS, 3073), dtype=np.uint8)
        for row in range(cifar10.RECORDS):
            if (split, start + row) not in paths:
                raise BadInput(
                    f"{files.where}", f"has no {split} image number {start + row}", "complete it"
                )
            path, word = paths[split, start + row]
            records[row, 0] = label_of(word, path)
            records[row, 1:] = read_small(files, path).transpose(2, 0, 1).reshape(-1)
        return records

    splits: tuple[Split, ...] = ("train", "test")
    held = frozenset(s for s in splits if any(split == s for split, _ in paths))
    return Source("PNG files", read, held)


def _edm(files: Files) -> Source:
    where = f"{_LISTED} in {files.where}"
    listed = read_json(files.read(_LISTED), where)
    pairs: Any = listed.get("labels") if isinstance(listed, Mapping) else None
    try:
        labels = dict(pairs)
    except (TypeError, ValueError):
        raise BadInput(where, "lists no labels", "make it again from the official files") from None
    paths = {int(match[1]): path for path in files.paths if (match := _EDM.search(path))}
    count = len(paths)
    sizes: dict[int, Split] = {cifar10.RECORDS: "test", 5 * cifar10.RECORDS: "train"}
    if sorted(paths) != list(range(count)) or count not in sizes:
        rule = f"holds {count:,} images, or numbers that leave some out"
        raise BadInput(f"{files.where}", rule, "make it again from the official files")

    def load(split: Split) -> Records:
        named = [labels.get("/".join(paths[k].split("/")[-2:])) for k in range(count)]
        try:
            numbers = np.asarray(named)
        except ValueError:
            numbers = np.empty(0)
        own = checked_labels(numbers, where, count)
        return to_records(np.stack([read_small(files, paths[k]) for k in range(count)]), own)

    return Source("zip of EDM", in_blocks(load), frozenset({sizes[count]}))
