"""How the file of an official checkpoint is to be read, where the file leaves it open.

``NAME:FILE@raw`` reads the raw weights of a file that also has averaged ones, ``@ema`` the averaged
ones; ``@bilinear`` and ``@bicubic`` choose how a classifier resizes its images. Several may follow
one another.
"""

from pathlib import Path
from typing import Any, NamedTuple, get_args

from advpure.base.documents import kind_of, parse_json, read_text
from advpure.base.errors import BadInput
from advpure.base.validation import Range, number, shown
from advpure.checkpoints.adapters import AsClassifier, Resample
from advpure.networks.named_tensors import Weights

PREPROCESSOR = "preprocessor_config.json"
_PILLOW: dict[int, Resample] = {2: "bilinear", 3: "bicubic"}
"""How a preprocessor file numbers the filters."""

_WORDS = {"weights": get_args(Weights), "resample": get_args(Resample)}


class Choices(NamedTuple):
    """A file and how to read it.

    Attributes:
        path: The file, or folder.
        weights: Averaged or raw weights; None for the rule.
        resample: How images are resized; None for what lies beside the file.
    """

    path: Path
    weights: Weights | None = None
    resample: Resample | None = None


def split_choices(path: str | Path) -> Choices:
    """Split the choices from the end of a path; a file that is really called so is that file.

    Raises:
        BadInput: when one thing is chosen twice.

    Example:
        >>> split_choices("model.pth@raw@bilinear")
        Choices(path=PosixPath('model.pth'), weights='raw', resample='bilinear')
        >>> split_choices("me@work.pth").path.name
        'me@work.pth'
    """
    chosen: dict[str, Any] = {}
    text = str(path)
    while kind_of(text) is None:
        head, at, word = text.rpartition("@")
        kind = next((kind for kind, words in _WORDS.items() if at and word in words), None)
        if kind is None or not head:
            break
        if kind in chosen:
            raise BadInput(f"choices of {path}", f"name {kind} twice", "leave one")
        chosen[kind], text = word, head
    return Choices(Path(text), **chosen)


def read_preprocessor(weights: Path, settings: AsClassifier, entry: str) -> Resample | None:
    """Read how images are resized from the preprocessor file beside a file of weights.

    Args:
        weights: The file of weights.
        settings: What the entry does to images; the file must not contradict it.
        entry: The entry's name, for messages.

    Returns:
        The filter; None when there is no such file or it does not say.

    Raises:
        BadInput: for a damaged file, another filter, or another normalisation than the entry's.
    """
    path = weights.parent / PREPROCESSOR
    if not path.is_file() or settings.size is None:
        return None
    content = parse_json(read_text(path, str(path)), str(path))
    if not isinstance(content, dict):
        raise BadInput(str(path), "is no table", "obtain it again")
    if content.get("do_normalize", True):
        for key, own in (("image_mean", settings.mean), ("image_std", settings.std)):
            given = content.get(key, own)
            if not _equal(given, own, f"{key} of {path}"):
                raise BadInput(
                    f"{key} {shown(given)} of {path}",
                    f"is not that of {entry}, {list(own)}",
                    "use the file of this entry",
                )
    given = content.get("resample")
    if given is None:
        return None
    if not isinstance(given, int) or given not in _PILLOW:
        raise BadInput(
            f"resample {shown(given)} of {path}",
            "is neither 2 (bilinear) nor 3 (bicubic)",
            "choose with @bilinear or @bicubic behind the file",
        )
    return _PILLOW[given]


def _equal(given: object, own: tuple[float, ...], what: str) -> bool:
    """Return whether one number a channel is given and is the entry's."""
    if not isinstance(given, list | tuple) or len(given) != len(own):
        return False
    return all(
        abs(number(one, what, Range()) - other) < 1e-4
        for one, other in zip(given, own, strict=True)
    )
