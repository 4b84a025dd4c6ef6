"""CIFAR-10 in its binary version, read from a folder that the user fills.

The folder is `$ADVPURE_DATA/cifar10` or else `~/.cache/advpure/cifar10`. Six files of 10,000
records, each a label byte and 3,072 bytes in channel, row, column order. Their SHA1 sums are
checked when they are first read by this user and whenever a file changes.

Source: Krizhevsky 2009, "Learning multiple layers of features from tiny images".
"""

import contextlib
import hashlib
import json
import os
from pathlib import Path

import numpy as np
import torch

from advpure.data.base import Dataset, DatasetInfo, RawSplit, Split
from advpure.data.cifar10_sample import CIFAR10_CLASSES
from advpure.errors import BadInput

SHA1 = {
    "data_batch_1.bin": "aadd24acce27caa71bf4b10992e9e7b2d74c2540",
    "data_batch_2.bin": "c0ba65cce70568cd57b4e03e9ac8d2a5367c1795",
    "data_batch_3.bin": "1dd00a74ab1d17a6e7d73e185b69dbf31242f295",
    "data_batch_4.bin": "aab85764eb3584312d3c7f65fd2fd016e36a258e",
    "data_batch_5.bin": "26e2849e66a845b7f1e4614ae70f4889ae604628",
    "test_batch.bin": "67eb016db431130d61cd03c7ad570b013799c88c",
}

INFO = DatasetInfo(
    name="cifar10",
    classes=CIFAR10_CLASSES,
    shape=(3, 32, 32),
    splits={"train": 50_000, "test": 10_000},
    norm="linf",
    eps=8 / 255,
    tile=32,
    classifier=None,
    description="CIFAR-10, binary version, from $ADVPURE_DATA/cifar10 or ~/.cache/advpure/cifar10",
)


def folder() -> Path:
    """Return where the files are expected."""
    root = os.environ.get("ADVPURE_DATA")
    return (Path(root) if root else Path.home() / ".cache" / "advpure") / "cifar10"


def read(split: Split) -> RawSplit:
    """Read one split.

    Raises:
        BadInput: when a file is absent or is not the official one.
    """
    names = [name for name in SHA1 if name.startswith("test") == (split == "test")]
    records = np.concatenate([_read_file(folder() / name, SHA1[name]) for name in names])
    return RawSplit(
        torch.from_numpy(records[:, 1:].reshape(-1, *INFO.shape).copy()),
        torch.from_numpy(records[:, 0].astype(np.int64)),
        255,
    )


def _read_file(path: Path, expected: str) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    """Read one file of records [10000, 3073] after checking it once."""
    if not path.is_file():
        raise BadInput(
            f"CIFAR-10 file {path}",
            "is missing",
            "unpack cifar-10-binary.tar.gz (six .bin files) there or set ADVPURE_DATA",
        )
    data = path.read_bytes()
    stat = path.stat()
    seal = path.parent / f".{path.name}.checked"
    stamp = json.dumps([expected, stat.st_size, stat.st_mtime_ns])
    if not (seal.is_file() and seal.read_text() == stamp):
        if hashlib.sha1(data, usedforsecurity=False).hexdigest() != expected:
            raise BadInput(f"CIFAR-10 file {path}", "has a wrong SHA1 sum", "unpack it again")
        with contextlib.suppress(OSError):  # a read-only folder: check again next time
            seal.write_text(stamp)
    return np.frombuffer(data, dtype=np.uint8).reshape(-1, 3073)


DATASET = Dataset(INFO, read)
