"""Reference images of a data set, from which directions along the data are made."""

from torch import Tensor

from advpure.base.errors import BadInput
from advpure.data import Source, dataset_info, find_dataset, load_images

_MOST_NUMBERS = 2**28
"""Numbers in memory: 1 GiB, all training images of CIFAR-10 and some hundreds of ImageNet."""
AUTO, NONE = "auto", "none"


def choose_reference(dataset: Source, asked: str = AUTO) -> str | None:
    """Resolve which images directions along the data are made from.

    Args:
        dataset: A data set's name.
        asked: A subset, such as ``train`` or ``train/first-5000``; ``auto``: the training images,
            evenly thinned to 1 GiB, or none where the data set has none here; ``none``.

    Returns:
        The subset, or None.

    Example:
        >>> choose_reference("digits"), choose_reference("cifar10-sample")
        ('train', None)
    """
    if asked == NONE:
        return None
    if asked != AUTO:
        return asked
    source = find_dataset(dataset)
    sizes = source.sizes() if source.sizes is not None else source.info.splits
    if "train" not in sizes:
        return None
    channels, height, width = dataset_info(dataset).shape
    step = -(-sizes["train"] * channels * height * width // _MOST_NUMBERS)
    return "train" if step <= 1 else f"train/every-{step}th"


def load_reference(dataset: Source, subset: str) -> Tensor:
    """Load reference images, [N, C, H, W] in [0, 1].

    Raises:
        BadInput: for a subset that is not there, saying how to go on without.
    """
    try:
        return load_images(dataset, subset=subset).images
    except BadInput as error:
        raise BadInput(
            f"reference images {subset!r} of {dataset}",
            f"cannot be used ({error})",
            "choose another subset, or none to leave out directions along the data",
        ) from error
