"""The forms in which CIFAR-10 travels, each recognised and turned into records."""

import numpy as np

from advpure.base.errors import BadInput
from advpure.data import cifar10
from advpure.data.cifar10_arrays import find_arrays
from advpure.data.cifar10_pictures import find_pictures, read_json
from advpure.data.cifar10_records import Records, Source, checked_labels, split_of, start_of
from advpure.data.files import Files
from advpure.data.pickled import read_batch
from advpure.data.pictures import read_png

_LABEL_FILES = {"train": "train_lables.json", "test": "test_lables.json"}  # spelt so in the package


def find_source(files: Files) -> Source:
    """Recognise what a folder or an archive holds.

    Raises:
        BadInput: when it is none of the known forms.
        MissingExtra: when a package that reads the form is not installed.
    """
    if "test_batch.bin" in files or "data_batch_1.bin" in files:
        return Source("binary version", lambda name: _binary(files, name))
    if "test_batch" in files or "data_batch_1" in files:
        return Source(
            "python version",
            lambda name: read_batch(files.read(_stem(name)), f"{_stem(name)} in {files.where}"),
        )
    if "test_batch.png" in files or "data_batch_1.png" in files:
        return Source("strips of PNG", lambda name: _strip(files, name))
    found = find_arrays(files) or find_pictures(files)
    if found is None:
        raise BadInput(
            f"{files.where}",
            "holds no CIFAR-10 that is known",
            "give the binary or python version, numbered PNG files, an npz, Parquet files, or the "
            "archive of one of these",
        )
    return found


def _stem(name: str) -> str:
    return name.removesuffix(".bin")


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


def _strip(files: Files, name: str) -> Records:
    """Read one PNG whose rows are images of 1,024 pixels, and the list of labels."""
    split, start = split_of(name), start_of(name)
    pixels = read_png(files.read(f"{_stem(name)}.png"), f"{_stem(name)}.png in {files.where}")
    if pixels.shape != (cifar10.RECORDS, 1024, 3):
        raise BadInput(
            f"{_stem(name)}.png in {files.where}",
            f"is {pixels.shape[1]}x{pixels.shape[0]} pixels, not 1024x{cifar10.RECORDS}",
            "obtain it again",
        )
    listed = f"{_LABEL_FILES[split]} in {files.where}"
    try:
        labels = np.asarray(read_json(files.read(_LABEL_FILES[split]), listed))
    except ValueError as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput(listed, "is damaged or no list", "obtain it again") from None
    chosen = checked_labels(
        labels[start : start + cifar10.RECORDS] if labels.ndim == 1 else labels, listed
    )
    return np.concatenate(
        [chosen[:, None], pixels.transpose(0, 2, 1).reshape(cifar10.RECORDS, -1)], axis=1
    )
