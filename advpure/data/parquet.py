"""Images in a Parquet file, as data sets are stored on the model hub.

A column of pictures, each a struct of ``bytes`` and ``path`` (or bytes alone), and a column of
class indices. The names of the classes are read from the file's own description of its features.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from advpure.base import budget
from advpure.base.errors import BadInput
from advpure.base.extras import optional
from advpure.data.pictures import open_picture

_PICTURES = ("image", "img", "pixel_values", "picture")
_LABELS = ("label", "labels", "fine_label", "class")
_FIX = "store a column image (struct of bytes) and a column label, or convert it to .npz"


class PictureTable(Sequence[tuple[Any, Any]]):
    """Pictures and labels of a file, decoded one by one.

    Args:
        pictures: Bytes of each picture.
        labels: Class index of each.
        classes: Names of the classes; empty where the file does not say.
        what: What it is called in messages.
    """

    def __init__(
        self, pictures: list[bytes], labels: list[Any], classes: list[str], what: str
    ) -> None:
        """Keep the columns."""
        self._pictures, self._labels, self._what = pictures, labels, what
        self.classes = classes
        self._is_grey = all(_mode(each, what) in ("L", "1", "I;16") for each in pictures[:64])

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self._pictures)

    def __getitem__(self, place: Any) -> Any:
        """Decode a picture; one without colours has one channel."""
        picture = open_picture(self._pictures[place], f"picture {place} of {self._what}")
        return (picture.convert("L") if self._is_grey else picture), self._labels[place]


def read_table(path: Path, what: str) -> PictureTable:
    """Read a Parquet file of pictures.

    Args:
        path: The file.
        what: What it is called in messages.

    Raises:
        BadInput: for a file that is damaged or has no such columns.
        MissingExtra: when pyarrow is not installed.
    """
    with optional("pyarrow", "parquet"):
        import pyarrow
        from pyarrow import parquet
    budget.check_size(path.stat().st_size, budget.ARRAY, str(path))
    try:
        schema = parquet.read_schema(path)
        pictures, labels = (
            next((name for name in known if name in schema.names), None)
            for known in (_PICTURES, _LABELS)
        )
        if pictures is None or labels is None:
            rule = f"has the columns {', '.join(schema.names) or 'none'}"
            raise BadInput(what, f"{rule}, none of pictures or none of labels", _FIX)
        table = parquet.read_table(path, columns=[pictures, labels])
        cells, classes = table[pictures].to_pylist(), table[labels].to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())[:100]
        raise BadInput(
            what, f"is damaged or no Parquet file ({reason})", "obtain it again"
        ) from None
    found = [each.get("bytes") if isinstance(each, dict) else each for each in cells]
    wrong = next((k for k, each in enumerate(found) if not isinstance(each, bytes)), None)
    if wrong is not None:
        raise BadInput(f"picture {wrong} of {what}", "holds no bytes", _FIX)
    pictured = [each for each in found if isinstance(each, bytes)]
    return PictureTable(pictured, classes, _class_names(schema.metadata, labels), what)


def _class_names(metadata: Any, column: str) -> list[str]:
    """Return the names of the classes that a file of the hub describes."""
    try:
        about = json.loads((metadata or {})[b"huggingface"])
        names = about["info"]["features"][column]["names"]
    except (KeyError, TypeError, ValueError):
        return []
    is_named = isinstance(names, list) and all(isinstance(each, str) for each in names)
    return list(names) if is_named else []


def _mode(content: bytes, what: str) -> str:
    import io

    from PIL import Image

    try:
        with Image.open(io.BytesIO(content)) as picture:
            return str(picture.mode)
    except (OSError, SyntaxError, ValueError):
        raise BadInput(what, "holds a damaged picture", "obtain it again") from None
