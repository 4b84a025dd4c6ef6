"""The data sets by name; each is one file and one line here, imported when it is first used."""

from pathlib import Path
from typing import Any

from torch import Tensor

from advpure.base.defaults import DEFAULT_DATASET
from advpure.base.errors import BadInput
from advpure.base.imports import Code
from advpure.base.registry import Registry
from advpure.base.validation import LARGEST, shown, whole, words
from advpure.data.base import Dataset, DatasetInfo, Images, RawSplit, Source, Split
from advpure.data.own import GIVEN, adapt, is_place, open_place
from advpure.data.subsets import parse_subset

DATASETS: Registry[Dataset] = Registry(
    "data set", group="advpure.datasets", adapt="advpure.data.own:adapt"
)
DATASETS.register(
    "digits", "advpure.data.digits:DATASET", about="handwritten digits 8x8, from scikit-learn"
)
DATASETS.register(
    "cifar10", "advpure.data.cifar10:DATASET", about="CIFAR-10; `advpure data cifar10` obtains it"
)
DATASETS.register(
    "cifar10-sample",
    "advpure.data.cifar10_sample:DATASET",
    about="20 CIFAR-10 test images inside foolbox",
)
DATASETS.register(
    "cifar10-part",
    "advpure.data.cifar10_part:DATASET",
    about="the first CIFAR-10 images in one small file",
)
DATASETS.register(
    "imagenet", "advpure.data.imagenet:DATASET", about="ImageNet 224x224, from your folder"
)
DATASETS.register(
    "imagenet64", "advpure.data.imagenet64:DATASET", about="ImageNet 64x64, from your npz batches"
)


def dataset_info(name: Source) -> DatasetInfo:
    """Return the description of a data set: classes, shape, threat model, tile.

    Example:
        >>> dataset_info("digits").shape
        (1, 8, 8)
    """
    return find_dataset(name).info


def find_dataset(name: Any) -> Dataset:
    """Return a data set by name, by the path of a file or a folder, by code, or from an object.

    Raises:
        BadInput: for one that is unknown or cannot be read.
    """
    if isinstance(name, Dataset):
        return name
    if isinstance(name, Path):
        name = str(name)
    if name is not None and not isinstance(name, str):
        return adapt(Code(GIVEN, name, "", ""))
    if isinstance(name, str) and name not in DATASETS and is_place(name):
        return open_place(name)
    return DATASETS.get(name)


def load_images(
    dataset: Source = DEFAULT_DATASET, n: int | None = None, subset: str = "test"
) -> Images:
    """Load images, labels and sample ids.

    Args:
        dataset: A name in `DATASETS`, or your images: a file, a folder, code or an object, see
            `advpure.data.own`.
        n: How many to keep, from the front of the subset; None keeps all.
        subset: Which images, see `advpure.data.subsets.parse_subset`.

    Returns:
        Images: float32 [n, C, H, W] in [0, 1], int64 labels [n], int64 ids [n] (positions in the
        split: they do not change when another subset holds the same image; or those that the
            images of an object came with).

    Raises:
        BadInput: for an unknown data set or subset, or when fewer than n images are there.
        MissingExtra: when a package that holds the data is not installed.

    Example:
        >>> images, labels, ids = load_images("digits", n=2, subset="10:20")
        >>> images.shape, ids.tolist()
        (torch.Size([2, 1, 8, 8]), [10, 11])
    """
    source = find_dataset(dataset)
    sizes = source.sizes() if source.sizes is not None else source.info.splits
    split, indices = parse_subset(words(subset, "subset"), sizes, source.more())
    if n is not None:
        n = whole(n, "n", -LARGEST)
        if not 1 <= n <= len(indices):
            raise BadInput(
                f"n {shown(n)}",
                f"does not fit, {dataset} {subset} has {len(indices)} images",
                " or ".join(filter(None, (f"use 1 to {len(indices)}", source.more()))),
            )
        indices = indices[:n]
    return images_at(source, split, indices)


def images_at(source: Dataset, split: Split, indices: Tensor) -> Images:
    """Return the images at some positions, int64 [n], of a split."""
    if source.pick is not None:
        raw = source.pick(split, indices)
    else:
        all_ = source.read(split)
        raw = RawSplit(all_.pixels[indices], all_.labels[indices], all_.full_scale)
    ids = indices if source.ids is None else source.ids[indices]
    return Images(images=raw.pixels.float() / raw.full_scale, labels=raw.labels, ids=ids)
