"""CIFAR-10 as whole splits: an npz archive, or the Parquet files of the Hugging Face hub.

The hub's training images stand in the order in which its archive held the five files (4, 3, 2, 5,
1); each is found by its SHA1 sum.
"""

import importlib
import io
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from advpure.base.budget import MEMBER, check_packed, check_size
from advpure.base.errors import BadInput
from advpure.base.extras import optional
from advpure.data.arrays import read_arrays
from advpure.data.base import Split
from advpure.data.cifar10_records import Records, Source, checked_labels, in_blocks, to_records
from advpure.data.files import Files
from advpure.data.pictures import read_png

_PARQUET = re.compile(r"(?:^|/)(train|test)(?:[-/][\w-]*)?\.parquet$")
_MOST_ROWS = 60_000


def find_arrays(files: Files) -> Source | None:
    """Recognise one npz archive, or Parquet files; None where there are none.

    Raises:
        BadInput: for an archive that is damaged.
        MissingExtra: for Parquet files without pyarrow.
    """
    archives = [path for path in files.paths if path.endswith(".npz")]
    if len(archives) == 1:
        return Source("npz archive", _npz(archives[0], files.read(archives[0])))
    paths: dict[Split, list[str]] = {}
    for path in files.paths:
        if match := _PARQUET.search(path):
            split: Split = "test" if match[1] == "test" else "train"
            paths.setdefault(split, []).append(path)
    if not paths:
        return None
    arrow = _arrow()

    def load(split: Split) -> Records:
        tables = [
            _table(arrow, files.read(path), f"{path} in {files.where}") for path in paths[split]
        ]
        return np.concatenate(tables)

    return Source("Parquet files", in_blocks(load), frozenset(paths))


def _npz(path: str, content: bytes) -> Callable[[str], Records]:
    """Take arrays of images [n, 32, 32, 3] (or [n, 3, 32, 32]) and labels [n] or [n, 1]."""
    arrays = read_arrays(content, path)

    def load(split: Split) -> Records:
        pairs = ((f"x_{split}", f"y_{split}"), (f"{split}_images", f"{split}_labels"))
        pair = next((pair for pair in pairs if set(pair) <= set(arrays)), None)
        if pair is None:
            raise BadInput(
                f"{path} with {', '.join(sorted(arrays)) or 'nothing'}",
                f"has no {split} images",
                "name the arrays x_train, y_train, x_test, y_test",
            )
        images, labels = arrays[pair[0]], arrays[pair[1]].reshape(-1)
        if images.shape[1:] == (3, 32, 32):
            images = images.transpose(0, 2, 3, 1)
        if images.dtype != np.uint8 or images.shape[1:] != (32, 32, 3):
            raise BadInput(
                f"{pair[0]} of {path}", f"is {images.dtype} {images.shape}", "store bytes 32x32x3"
            )
        if len(images) != len(labels):
            raise BadInput(f"{pair[0]} of {path}", "has too few images", "obtain it again")
        own = checked_labels(labels, f"{pair[1]} of {path}", len(labels))
        return to_records(images.astype(np.uint8), own)

    return in_blocks(load)


def _arrow() -> Any:
    with optional("pyarrow", "parquet"):
        return importlib.import_module("pyarrow.parquet")


def _table(arrow: Any, content: bytes, where: str) -> Records:
    """Read a Parquet file with the columns img (bytes, path) and label."""
    try:
        table = arrow.ParquetFile(io.BytesIO(content))
        rows = table.metadata.num_rows
        groups = range(table.metadata.num_row_groups)
        size = sum(table.metadata.row_group(k).total_byte_size for k in groups)
        columns = set(table.schema_arrow.names)
    except Exception:  # damaged files fail in many ways, all meaning the same
        raise BadInput(where, "is damaged or no Parquet file", "obtain it again") from None
    check_size(size, MEMBER, where)
    check_packed(len(content), size, where)
    image = next((name for name in ("img", "image") if name in columns), None)
    if image is None or "label" not in columns or rows > _MOST_ROWS:
        rule = f"has {rows:,} rows of {', '.join(sorted(columns)) or 'nothing'}"
        raise BadInput(where, rule, "give one with the columns img and label")
    try:
        found = table.read(columns=[image, "label"])
        pictures = [each["bytes"] for each in found.column(image).to_pylist()]
        labels = np.asarray(found.column("label").to_pylist())
        if not all(isinstance(each, bytes) for each in pictures):
            raise TypeError(image)
    except Exception:  # see above
        raise BadInput(where, f"holds no PNG in column {image}", "obtain it again") from None
    own = checked_labels(labels, f"label of {where}", rows)
    if not rows:
        return np.empty((0, 3073), np.uint8)
    pixels = [read_png(each, f"row {k} of {where}") for k, each in enumerate(pictures)]
    if any(each.shape != (32, 32, 3) for each in pixels):
        raise BadInput(where, "holds images that are not 32x32", "obtain it again")
    return to_records(np.stack(pixels), own)
