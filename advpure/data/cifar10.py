"""CIFAR-10 in its binary version, from the folder that `advpure data cifar10` fills.

Where there is none of it, the test split is its first 20 images, which the package foolbox carries,
and a warning says so: same images, same positions.

The folder is `$ADVPURE_DATA/cifar10` or else `~/.cache/advpure/cifar10`. Six files of 10,000
records, each a label byte and 3,072 bytes in channel, row, column order. Their SHA1 sums are
checked when they are first read by this user and whenever a file changes.

Source: [Krizhevsky2009], "Learning multiple layers of features from tiny images".
"""

import contextlib
import hashlib
import json
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from advpure.base.errors import BadInput
from advpure.base.place import data_root
from advpure.data import cifar10_sample
from advpure.data.base import Dataset, DatasetInfo, RawSplit, Split

SHA1 = {
    "data_batch_1.bin": "aadd24acce27caa71bf4b10992e9e7b2d74c2540",
    "data_batch_2.bin": "c0ba65cce70568cd57b4e03e9ac8d2a5367c1795",
    "data_batch_3.bin": "1dd00a74ab1d17a6e7d73e185b69dbf31242f295",
    "data_batch_4.bin": "aab85764eb3584312d3c7f65fd2fd016e36a258e",
    "data_batch_5.bin": "26e2849e66a845b7f1e4614ae70f4889ae604628",
    "test_batch.bin": "67eb016db431130d61cd03c7ad570b013799c88c",
}

UNORDERED: Mapping[Split, int] = {"train": 0x43E731D05B09EEDD, "test": 0x1B38A5B1C53F9730}
"""Sum modulo 2**64 of the first 64 bits of the SHA1 sums of all records of a split."""

SAMPLE = cifar10_sample.INFO
OBTAIN = "`advpure data cifar10` obtains all 60,000"
RECORDS = 10_000
"""Images in each file."""

INFO = DatasetInfo(
    name="cifar10",
    classes=SAMPLE.classes,
    shape=(3, 32, 32),
    splits={"train": 50_000, "test": 10_000},
    norm="linf",
    eps=8 / 255,
    first=20,
    tile=32,
    networks="cifar10",
    classifier="cifar10-classifier",
    description="CIFAR-10; `advpure data cifar10` obtains it, 20 test images (foolbox's) till then",
)


def folder() -> Path:
    """Return where the files are expected."""
    return data_root() / "cifar10"


def read(split: Split) -> RawSplit:
    """Read one split.

    Raises:
        BadInput: when a file is absent or is not the official one.
    """
    if split == "test" and is_absent():
        warnings.warn(
            f"CIFAR-10 is not in {folder()}: its first {SAMPLE.splits['test']} test images, which "
            f"foolbox carries, stand in for it; {OBTAIN}",
            stacklevel=2,
        )
        return cifar10_sample.read(split)
    names = [name for name in SHA1 if name.startswith("test") == (split == "test")]
    records = np.concatenate([_read_file(folder() / name, split) for name in names])
    return RawSplit(
        torch.from_numpy(records[:, 1:].reshape(-1, *INFO.shape).copy()),
        torch.from_numpy(records[:, 0].astype(np.int64)),
        255,
    )


def is_absent() -> bool:
    """Return True if no file is there."""
    return not any((folder() / name).exists() for name in SHA1)


def sizes() -> Mapping[Split, int]:
    """Count the images that are there."""
    return SAMPLE.splits if is_absent() else INFO.splits


def more() -> str:
    """Say how to get all images, where the sample stands in for them."""
    return OBTAIN if is_absent() else ""


def is_right(place: Path, name: str) -> bool:
    """Return True if a file of a folder is there and is the official one."""
    path = place / name
    if not path.is_file() or path.stat().st_size != RECORDS * 3073:
        return False
    if not _is_sealed(path):
        if hashlib.sha1(path.read_bytes(), usedforsecurity=False).hexdigest() != SHA1[name]:
            return False
        seal(path)
    return True


def seal(path: Path) -> None:
    """Note beside a file that its sum was right, so that it is not computed at every start."""
    with contextlib.suppress(OSError):  # a read-only folder: check again next time
        _seal(path).write_text(_stamp(path))


def _seal(path: Path) -> Path:
    return path.parent / f".{path.name}.checked"


def _stamp(path: Path) -> str:
    """Describe a file so that a change shows: expected sum, size, time of change."""
    stat = path.stat()
    return json.dumps([SHA1[path.name], stat.st_size, stat.st_mtime_ns])


def _is_sealed(path: Path) -> bool:
    seal_file = _seal(path)
    return seal_file.is_file() and seal_file.read_text() == _stamp(path)


def _read_file(path: Path, split: Split) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    """Read one file of records [10000, 3073] after checking it once."""
    if not path.is_file():
        raise BadInput(f"CIFAR-10 file {path}", "is missing", "run advpure data cifar10")
    if not is_right(path.parent, path.name):
        size = path.stat().st_size
        rule = "has a wrong SHA1 sum" if size == RECORDS * 3073 else f"has {size:,} bytes"
        raise BadInput(f"CIFAR-10 file {path}", rule, "run advpure data cifar10 to replace it")
    return np.frombuffer(path.read_bytes(), dtype=np.uint8).reshape(-1, 3073)


DATASET = Dataset(INFO, read, sizes, more=more)
