"""The first images of CIFAR-10 in one small file, for machines to which little can be sent.

The file is `$ADVPURE_DATA/cifar10-part.npz`, or else in `~/.cache/advpure`: `train_images`,
`train_labels`, `test_images` and `test_labels`, pixels uint8 [N, 3, 32, 32]. Image i is image i of
CIFAR-10, so ids mean the same.
"""

import dataclasses
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from advpure.base.errors import BadInput
from advpure.base.place import data_root
from advpure.base.storage import atomic_path
from advpure.data import cifar10
from advpure.data.base import Dataset, RawSplit, Split

_MAKE = "pack it where CIFAR-10 is: python -m benchmarks.on_gpu pack"


def file() -> Path:
    """Return where the images are expected."""
    return data_root() / "cifar10-part.npz"


def pack(to: Path, train: int, test: int) -> Path:
    """Write the first images of both splits of CIFAR-10.

    Args:
        to: The file, .npz; about 2.6 kB an image.
        train: Training images.
        test: Test images.

    Raises:
        BadInput: when CIFAR-10 is absent, or has fewer images.
        StorageFull: when there is no room.
    """
    arrays: dict[str, Any] = {}
    for split, count in (("train", train), ("test", test)):
        data = cifar10.read(split)  # type: ignore[arg-type]
        if not 1 <= count <= len(data.labels):
            rule = f"are not 1 to {len(data.labels)}, all {split} images that are there"
            raise BadInput(f"{count} images", rule, "give another number")
        arrays[f"{split}_images"] = data.pixels[:count].numpy()
        arrays[f"{split}_labels"] = data.labels[:count].numpy()
    with atomic_path(to) as scratch, scratch.open("wb") as stream:
        np.savez_compressed(stream, **arrays)
    return to


def read(split: Split) -> RawSplit:
    """Read the images of a split.

    Raises:
        BadInput: when the file is absent or of another form.
    """
    return _read(str(file()))[split]


def sizes() -> Mapping[Split, int]:
    """Count the images of the file."""
    if not file().is_file():
        return {"train": 0, "test": 0}
    return {split: len(part.labels) for split, part in _read(str(file())).items()}


@lru_cache(maxsize=1)
def _read(path: str) -> dict[Split, RawSplit]:
    if not Path(path).is_file():
        raise BadInput(f"CIFAR-10 file {path}", "is missing", _MAKE)
    try:
        with np.load(path, allow_pickle=False) as found:
            return {
                split: RawSplit(
                    torch.from_numpy(found[f"{split}_images"].reshape(-1, *cifar10.INFO.shape)),
                    torch.from_numpy(found[f"{split}_labels"].astype(np.int64)),
                    255,
                )
                for split in ("train", "test")
            }
    except (ValueError, KeyError, OSError, EOFError):
        raise BadInput(f"CIFAR-10 file {path}", "is damaged or of another form", _MAKE) from None


INFO = dataclasses.replace(
    cifar10.INFO,
    name="cifar10-part",
    description="the first images of CIFAR-10 in one small file, for other machines",
)
DATASET = Dataset(INFO, read, sizes, more=lambda: _MAKE)
