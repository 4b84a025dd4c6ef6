"""The forms in which CIFAR-10 travels, each turned into the records of the binary version.

A source maps the name of an official binary file to its records, uint8 [10000, 3073]: the label,
then 3,072 values in channel, row, column order. Whether they are right is decided elsewhere, by the
SHA1 sum.
"""

import io
import json
import re
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from advpure.base.extras import optional
from advpure.data import cifar10
from advpure.data.cifar10_sample import CIFAR10_CLASSES
from advpure.data.files import Files
from advpure.data.pickled import read_batch
from advpure.errors import BadInput

Records = NDArray[np.uint8]
Source = Callable[[str], Records]

_TRAIN = [f"data_batch_{k}" for k in range(1, 6)]
_NUMBERED = re.compile(r"(?:^|/)(train|test)/(?:(\w+)/)?(\d+)(?:_(\w+))?\.png$")
_LABEL_FILES = {"train": "train_lables.json", "test": "test_lables.json"}  # spelt so in the package


def find_source(files: Files) -> tuple[str, Source]:
    """Recognise what a folder or an archive holds.

    Returns:
        A word for it, and the source.

    Raises:
        BadInput: when it is none of the known forms.
    """
    if "test_batch.bin" in files or "data_batch_1.bin" in files:
        return "binary version", lambda name: _binary(files, name)
    if "test_batch" in files or "data_batch_1" in files:
        return "python version", lambda name: read_batch(
            files.read(_stem(name)), f"{_stem(name)} in {files.where}"
        )
    if "test_batch.png" in files or "data_batch_1.png" in files:
        return "strips of PNG", lambda name: _strip(files, name)
    archives = [path for path in files.paths if path.endswith(".npz")]
    if len(archives) == 1:
        return "npz archive", _arrays(archives[0], files.read(archives[0]))
    pictures = [match for path in files.paths if (match := _NUMBERED.search(path))]
    if pictures:
        return "PNG files", _pictures(files, pictures)
    raise BadInput(
        f"{files.where}",
        "holds no CIFAR-10 that is known",
        "give the binary or python version, PNG files, an npz, or the archive of one of these",
    )


def _stem(name: str) -> str:
    return name.removesuffix(".bin")


def _start(name: str) -> tuple[str, int]:
    """Return the split of a file and the position in it of its first image."""
    stem = _stem(name)
    return ("test", 0) if stem == "test_batch" else ("train", cifar10.RECORDS * _TRAIN.index(stem))


def _binary(files: Files, name: str) -> Records:
    """Read a file that is in the binary version already."""
    content = files.read(name)
    if len(content) != cifar10.RECORDS * 3073:
        raise BadInput(
            f"{name} in {files.where}",
            f"has {len(content):,} bytes, not {cifar10.RECORDS * 3073:,}",
            "obtain it again",
        )
    return np.frombuffer(content, dtype=np.uint8).reshape(-1, 3073)


def _decode(content: bytes, where: str) -> NDArray[np.uint8]:
    """Decode a PNG to [H, W, 3]."""
    with optional("PIL", "metrics", distribution="pillow"):
        from PIL import Image
    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as picture:
            return np.asarray(picture.convert("RGB"), dtype=np.uint8)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        raise BadInput(where, "is damaged or no PNG", "obtain it again") from None


def _strip(files: Files, name: str) -> Records:
    """Read one PNG whose rows are images of 1,024 pixels, and the list of labels."""
    split, start = _start(name)
    pixels = _decode(files.read(f"{_stem(name)}.png"), f"{_stem(name)}.png in {files.where}")
    if pixels.shape != (cifar10.RECORDS, 1024, 3):
        raise BadInput(
            f"{_stem(name)}.png in {files.where}",
            f"is {pixels.shape[1]}x{pixels.shape[0]} pixels, not 1024x{cifar10.RECORDS}",
            "obtain it again",
        )
    listed = f"{_LABEL_FILES[split]} in {files.where}"
    try:
        labels = np.asarray(json.loads(files.read(_LABEL_FILES[split])))
    except ValueError:
        raise BadInput(listed, "is damaged or no list", "obtain it again") from None
    chosen = _checked_labels(
        labels[start : start + cifar10.RECORDS] if labels.ndim == 1 else labels, listed
    )
    return np.concatenate(
        [chosen[:, None], pixels.transpose(0, 2, 1).reshape(cifar10.RECORDS, -1)], axis=1
    )


def _arrays(path: str, content: bytes) -> Source:
    """Take arrays of images [n, 32, 32, 3] (or [n, 3, 32, 32]) and labels [n] or [n, 1]."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            arrays = {key: stored[key] for key in stored.files}
    except Exception:  # damaged archives fail in many ways, all meaning the same
        raise BadInput(path, "is damaged or no npz of plain arrays", "obtain it again") from None

    def read(name: str) -> Records:
        split, start = _start(name)
        pairs = ((f"x_{split}", f"y_{split}"), (f"{split}_images", f"{split}_labels"))
        pair = next((pair for pair in pairs if set(pair) <= set(arrays)), None)
        if pair is None:
            raise BadInput(
                f"{path} with {', '.join(sorted(arrays)) or 'nothing'}",
                f"has no {split} images",
                "name the arrays x_train, y_train, x_test, y_test",
            )
        images, labels = arrays[pair[0]], arrays[pair[1]].reshape(-1)
        if images.shape[1:] == (32, 32, 3):
            images = images.transpose(0, 3, 1, 2)
        if images.dtype != np.uint8 or images.shape[1:] != (3, 32, 32):
            raise BadInput(
                f"{pair[0]} of {path}", f"is {images.dtype} {images.shape}", "store bytes 32x32x3"
            )
        chosen = _checked_labels(labels[start : start + cifar10.RECORDS], f"{pair[1]} of {path}")
        pixels = images[start : start + cifar10.RECORDS]
        if len(pixels) != len(chosen):
            raise BadInput(f"{pair[0]} of {path}", "has too few images", "obtain it again")
        return np.concatenate([chosen[:, None], pixels.reshape(len(pixels), -1)], axis=1)

    return read


def _pictures(files: Files, found: list[re.Match[str]]) -> Source:
    """Take `test/frog/123.png` or `test/123_frog.png`; 123 is the position in the split."""
    paths: dict[tuple[str, int], tuple[str, str]] = {}
    for match in found:
        split, folder, number, word = match.groups()
        key, label = (split, int(number)), folder or word or ""
        if key in paths:
            raise BadInput(
                f"{match.string} in {files.where}",
                f"has the number of {paths[key][0]}",
                "number images by their position in the official split",
            )
        paths[key] = (match.string, label)

    def read(name: str) -> Records:
        split, start = _start(name)
        records = np.empty((cifar10.RECORDS, 3073), dtype=np.uint8)
        for row in range(cifar10.RECORDS):
            if (split, start + row) not in paths:
                raise BadInput(
                    f"{files.where}", f"has no {split} image number {start + row}", "complete it"
                )
            path, label = paths[split, start + row]
            pixels = _decode(files.read(path), f"{path} in {files.where}")
            if pixels.shape != (32, 32, 3):
                raise BadInput(f"{path} in {files.where}", "is not 32x32", "obtain it again")
            records[row, 0] = _label(label, path)
            records[row, 1:] = pixels.transpose(2, 0, 1).reshape(-1)
        return records

    return read


def _label(word: str, path: str) -> int:
    """Read a class name or number."""
    names: Mapping[str, int] = {name: k for k, name in enumerate(CIFAR10_CLASSES)}
    if word in names:
        return names[word]
    if word.isdigit() and int(word) < len(names):
        return int(word)
    raise BadInput(f"{path}", f"names no class ({word!r})", f"use {', '.join(CIFAR10_CLASSES)}")


def _checked_labels(labels: NDArray[np.generic], where: str) -> NDArray[np.uint8]:
    """Return 10,000 labels as bytes."""
    if labels.shape != (cifar10.RECORDS,) or labels.dtype.kind not in "iu":
        raise BadInput(where, "does not hold one whole number an image", "obtain it again")
    if labels.min() < 0 or labels.max() > 9:
        raise BadInput(where, f"holds the label {labels.max()}", "use 0 to 9")
    return labels.astype(np.uint8)
