"""scikit-learn's digits: 1,797 real handwritten digits of 8x8 pixels with values 0 to 16.

Every fourth image (position % 4 == 0) is a test image, the others are for training.

Source: [Alpaydin1998], "Optical recognition of handwritten digits" (UCI), test part.
"""

import functools

import torch
from torch import Tensor

from advpure.data.base import Dataset, DatasetInfo, RawSplit, Split

INFO = DatasetInfo(
    name="digits",
    classes=tuple(str(digit) for digit in range(10)),
    shape=(1, 8, 8),
    splits={"train": 1347, "test": 450},
    norm="linf",
    eps=0.15,
    first=100,
    tile=64,
    networks="digits",
    classifier="digits-classifier",
    description="scikit-learn's handwritten digits, 8x8 grey, real, ships with scikit-learn",
)


@functools.cache
def _whole() -> tuple[Tensor, Tensor]:
    """Parse the text file inside scikit-learn, which takes longer than a small attack's step."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    pixels = torch.from_numpy(bunch.images).to(torch.uint8)[:, None]
    return pixels, torch.from_numpy(bunch.target).to(torch.int64)


def read(split: Split) -> RawSplit:
    """Return one split, in memory of its own."""
    pixels, labels = _whole()
    is_test = torch.arange(len(labels), dtype=torch.int64, device="cpu") % 4 == 0
    chosen = is_test if split == "test" else ~is_test
    return RawSplit(pixels[chosen].contiguous(), labels[chosen], 16)


DATASET = Dataset(INFO, read)
