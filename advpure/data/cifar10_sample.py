"""The first 20 CIFAR-10 test images, which the package foolbox carries.

They equal images 0 to 19 of the official test batch; the label is in the file name.
"""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from advpure.base.errors import BadInput
from advpure.data.base import Dataset, DatasetInfo, RawSplit, Split

CIFAR10_CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)

INFO = DatasetInfo(
    name="cifar10-sample",
    classes=CIFAR10_CLASSES,
    shape=(3, 32, 32),
    splits={"test": 20},
    norm="linf",
    eps=8 / 255,
    first=20,
    tile=32,
    networks="cifar10",
    classifier="cifar10-classifier",
    description="20 CIFAR-10 test images (0 to 19) inside foolbox",
)


def read(split: Split) -> RawSplit:
    """Read the 20 images; there is no training split.

    Raises:
        BadInput: for the training split, and when foolbox is not installed or another one.
    """
    if split != "test":
        raise BadInput("cifar10-sample/train", "does not exist", "use subset='test'")
    package = find_spec("foolbox")  # found, not imported: its import takes seconds
    if package is None or not package.submodule_search_locations:
        raise BadInput(
            "foolbox, which carries 20 CIFAR-10 images,", "is missing", "install foolbox"
        )
    from PIL import Image

    folder = Path(package.submodule_search_locations[0]) / "data"
    files = sorted(folder.glob("cifar10_*.png"))
    if len(files) != INFO.splits["test"]:
        raise BadInput(
            f"foolbox with {len(files)} CIFAR-10 images", "is not the known one", "update"
        )
    labels = [int(file.stem.rsplit("_", 1)[1]) for file in files]
    pixels = [torch.from_numpy(np.array(Image.open(file).convert("RGB"))) for file in files]
    return RawSplit(
        torch.stack(pixels).permute(0, 3, 1, 2).contiguous(),
        torch.tensor(labels, dtype=torch.int64, device="cpu"),
        255,
    )


DATASET = Dataset(INFO, read)
