"""ImageNet at 64x64 from the npz batches that a user has.

The folder is `$ADVPURE_DATA/imagenet64` or else `~/.cache/advpure/imagenet64`, with
`train_data_batch_1.npz` to `_10.npz` and `val_data.npz`: `data` uint8 [n, 12288] in channel, row,
column order, and `labels` from 1 in the order of the development kit. `map_clsloc.txt` of the kit
(WordNet id, number, name on each line) must lie beside them: it turns the numbers into the labels
that classifiers use, places in the sorted list of the WordNet ids.

Source: [Chrabaszcz2017].
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from advpure.base.budget import ARRAY
from advpure.base.errors import BadInput
from advpure.base.place import data_root
from advpure.data.arrays import read_arrays
from advpure.data.base import Dataset, DatasetInfo, RawSplit, Split
from advpure.data.wordnet import MAP, read_map

INFO = DatasetInfo(
    name="imagenet64",
    classes=tuple(str(label) for label in range(1000)),
    shape=(3, 64, 64),
    splits={"train": 1_281_167, "test": 50_000},
    norm="linf",
    eps=4 / 255,
    first=20,
    tile=32,
    networks="imagenet64",
    classifier=None,
    description="ImageNet downsampled to 64x64, npz batches in $ADVPURE_DATA/imagenet64",
)


def folder() -> Path:
    """Return where the batches are expected."""
    return data_root() / "imagenet64"


def sizes() -> Mapping[Split, int]:
    """Count the images of the splits that are there.

    Raises:
        BadInput: when there are none.
    """
    found: dict[Split, int] = {
        split: sum(len(_load(path, "labels")) for path in _batches(split))
        for split in INFO.splits
        if _batches(split)
    }
    if not found:
        raise BadInput(
            f"ImageNet-64 folder {folder()}", "holds no batches", "put val_data.npz there"
        )
    return found


def pick(split: Split, indices: Tensor) -> RawSplit:
    """Read images by their positions: batch after batch, each in its stored order."""
    order = indices.numpy()
    pixels = np.empty((len(order), 3 * 64 * 64), dtype=np.uint8)
    labels = np.empty(len(order), dtype=np.int64)
    ranks = _ranks()
    for start, path in _starts(split):
        stored = _load(path, "labels")
        inside = (order >= start) & (order < start + len(stored))
        if not inside.any():
            continue
        rows = order[inside] - start
        data = _load(path, "data")
        if data.dtype != np.uint8 or data.shape != (len(stored), 3 * 64 * 64):
            raise BadInput(
                f"batch {path}", f"holds {data.dtype} {data.shape}", "use the 64x64 version"
            )
        pixels[inside] = data[rows]
        known = {int(number) for number in np.unique(stored[rows])}
        if not known <= set(ranks):
            missing = min(known - set(ranks))
            raise BadInput(f"batch {path}", f"has a label {missing} that {MAP} lacks", "mend it")
        labels[inside] = [ranks[int(number)] for number in stored[rows]]
    shaped = torch.from_numpy(pixels.reshape(-1, *INFO.shape))
    return RawSplit(shaped, torch.from_numpy(labels), 255)


def read(split: Split) -> RawSplit:
    """Read a whole split: 0.6 GB for validation, 16 GB for training."""
    return pick(
        split,
        torch.arange(
            sum(len(_load(path, "labels")) for path in _batches(split)),
            dtype=torch.int64,
            device="cpu",
        ),
    )


def _batches(split: Split) -> list[Path]:
    """Return the files of a split in order."""
    if split == "test":
        return [path for path in [folder() / "val_data.npz"] if path.is_file()]
    names = (f"train_data_batch_{k}.npz" for k in range(1, 11))
    return [folder() / name for name in names if (folder() / name).is_file()]


def _starts(split: Split) -> Iterator[tuple[int, Path]]:
    """Walk over the files with the position of their first image."""
    start = 0
    for path in _batches(split):
        yield start, path
        start += len(_load(path, "labels"))


def _load(path: Path, name: str) -> NDArray[np.generic]:
    """Read one array of a batch."""
    return read_arrays(path, f"batch {path}", [name], most=ARRAY)[name]


def _ranks() -> dict[int, int]:
    """Return the label of every number of the development kit."""
    path = folder() / MAP
    if not path.is_file():
        raise BadInput(
            f"ImageNet-64 folder {folder()}",
            f"has no {MAP}, which says what its labels mean",
            "copy it from the development kit",
        )
    wnids = read_map(path)
    ranks = {wnid: rank for rank, wnid in enumerate(sorted(wnids.values()))}
    return {number: ranks[wnid] for number, wnid in wnids.items()}


DATASET = Dataset(INFO, read, sizes, pick)
