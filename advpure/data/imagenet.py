"""ImageNet (ILSVRC 2012) at 224x224 from the folder that a user has.

The folder is `$ADVPURE_DATA/imagenet` or else `~/.cache/advpure/imagenet`, in one of two layouts:
`train/WNID/*.JPEG` and `val/WNID/*.JPEG`, or the validation images flat in `val/` beside the
unpacked development kit (`ILSVRC2012_validation_ground_truth.txt` and `meta.mat`).

Labels are places in the sorted list of the 1,000 WordNet ids; folders with numbers for names need
`map_clsloc.txt` of the development kit beside `val`, see `advpure.data.wordnet`. Images are ordered
by label, then by file name, in both layouts, so that `every-50th` is the same choice in either and
takes one image of each class, as in [Carlini2023]. Resize to 256 on the shorter side
(bilinear, antialiased), crop 224.

Source: [Russakovsky2015].
"""

import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from advpure.base.budget import read_text
from advpure.base.errors import BadInput
from advpure.base.place import data_root
from advpure.base.text import digits
from advpure.data.base import Dataset, DatasetInfo, RawSplit, Split
from advpure.data.pictures import open_picture
from advpure.data.wordnet import MAP, ranks_of

INFO = DatasetInfo(
    name="imagenet",
    classes=tuple(str(label) for label in range(1000)),
    shape=(3, 224, 224),
    splits={"train": 1_281_167, "test": 50_000},
    norm="linf",
    eps=4 / 255,
    first=20,
    tile=4,
    networks="imagenet",
    classifier=None,
    description="ImageNet validation and training images, from $ADVPURE_DATA/imagenet",
)

SHORTER, CROP = 256, 224
_FOLDERS: Mapping[Split, str] = {"train": "train", "test": "val"}
_ENDINGS = {".jpeg", ".jpg", ".png"}
_TRUTH = "ILSVRC2012_validation_ground_truth.txt"


class Item(NamedTuple):
    """A labelled file."""

    label: int
    path: Path


def folder() -> Path:
    """Return where the images are expected."""
    return data_root() / "imagenet"


def sizes() -> Mapping[Split, int]:
    """Count the images of the splits that are there.

    Raises:
        BadInput: when there are none.
    """
    found = {split: len(_items(split)) for split in _FOLDERS}
    present: dict[Split, int] = {split: count for split, count in found.items() if count}
    if not present:
        raise BadInput(
            f"ImageNet folder {folder()}",
            "holds no images",
            "link your copy there (val/WNID/*.JPEG, or val/*.JPEG and the development kit)",
        )
    return present


def pick(split: Split, indices: Tensor) -> RawSplit:
    """Read, resize and crop images by their positions.

    Raises:
        BadInput: when a file is damaged.
    """
    chosen = [_items(split)[index] for index in indices.tolist()]
    pixels = [torch.from_numpy(load_picture(item.path)) for item in chosen]
    return RawSplit(
        torch.stack(pixels),
        torch.tensor([item.label for item in chosen], dtype=torch.int64, device="cpu"),
        255,
    )


def read(split: Split) -> RawSplit:
    """Read a whole split: 7.5 GB for the official validation images."""
    return pick(split, torch.arange(len(_items(split)), dtype=torch.int64, device="cpu"))


def load_picture(path: Path) -> np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]:
    """Decode a picture, resize its shorter side to 256, and cut 224x224 from its middle.

    Args:
        path: A JPEG or PNG file.

    Returns:
        uint8 [3, 224, 224]; equal to torchvision's Resize(256) and CenterCrop(224).

    Raises:
        BadInput: when the file cannot be decoded.
    """
    colours = open_picture(path, f"picture {path}")
    from PIL import Image

    width, height = colours.size
    short = min(width, height)
    width, height = int(SHORTER * width / short), int(SHORTER * height / short)
    colours = colours.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - CROP) / 2.0), round((height - CROP) / 2.0)
    cut = colours.crop((left, top, left + CROP, top + CROP))
    return np.asarray(cut, dtype=np.uint8).transpose(2, 0, 1).copy()


def _items(split: Split) -> tuple[Item, ...]:
    """List the files of a split, by label and name."""
    place = folder() / _FOLDERS[split]
    if not place.is_dir():
        return ()
    listed = folder() / MAP
    changed = [each.stat().st_mtime_ns for each in (place, listed) if each.exists()]
    return _list(place, tuple(changed), split)


@lru_cache(maxsize=4)
def _list(place: Path, _changed: tuple[int, ...], split: Split) -> tuple[Item, ...]:
    """List a folder once."""
    names = sorted(entry.name for entry in os.scandir(place) if entry.is_dir())
    if names:
        ranks = ranks_of(names, folder() / MAP)
        return tuple(
            Item(ranks[name], path)
            for name in sorted(names, key=ranks.__getitem__)
            for path in sorted((place / name).iterdir())
            if path.suffix.lower() in _ENDINGS
        )
    files = sorted(path for path in place.iterdir() if path.suffix.lower() in _ENDINGS)
    if not files or split == "train":
        return ()
    labels = _truth(place.parent)
    items = []
    for path in files:
        number = digits(path.stem.rsplit("_", 1)[-1])
        if number is None or not 1 <= number <= len(labels):
            raise BadInput(
                f"picture {path}", "has no number that the ground truth knows", "keep its name"
            )
        items.append(Item(labels[number - 1], path))
    return tuple(sorted(items, key=lambda item: (item.label, item.path.name)))


def _truth(root: Path) -> list[int]:
    """Read the development kit: the label of every validation image, in order of its number."""
    paths = {name: next(iter(sorted(root.rglob(name))), None) for name in (_TRUTH, "meta.mat")}
    for name, path in paths.items():
        if path is None:
            raise BadInput(
                f"ImageNet folder {root}", f"has flat images but no {name}", "unpack the devkit"
            )
    from scipy.io import loadmat

    try:
        synsets = loadmat(str(paths["meta.mat"]), squeeze_me=True)["synsets"]
        leaves = {int(row[0]): str(row[1]) for row in synsets if int(row[4]) == 0}
        truth = read_text(Path(str(paths[_TRUTH])), "ground truth")
        ids = [int(line) for line in truth.split()]
        ranks = {wnid: rank for rank, wnid in enumerate(sorted(leaves.values()))}
        return [ranks[leaves[each]] for each in ids]
    except Exception:  # a damaged kit fails in many ways, all meaning the same
        raise BadInput(
            f"development kit in {root}", "is damaged or another one", "unpack it again"
        ) from None


DATASET = Dataset(INFO, read, sizes, pick)
