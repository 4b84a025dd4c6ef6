"""Data sets: real images with labels and stable sample ids."""

from advpure.data.base import Dataset, DatasetInfo, Images, RawSplit, Source
from advpure.data.registry import DATASETS, dataset_info, find_dataset, load_images

__all__ = [
    "DATASETS",
    "Dataset",
    "DatasetInfo",
    "Images",
    "RawSplit",
    "Source",
    "dataset_info",
    "find_dataset",
    "load_images",
]
