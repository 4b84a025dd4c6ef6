"""Pictures as arrays of colours, refused before they are decoded where they are no honest ones."""

import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from advpure.base.budget import PIXELS
from advpure.base.errors import BadInput

if TYPE_CHECKING:
    from PIL import Image


def open_picture(
    source: bytes | Path, where: str, formats: list[str] | None = None
) -> "Image.Image":
    """Decode a picture to RGB.

    Args:
        source: Its bytes, or its file.
        where: Its name, for messages.
        formats: Pillow's names of the formats that are expected; None for any.

    Raises:
        BadInput: when it is damaged, in another format, or has more pixels than any honest one.
    """
    from PIL import Image

    stream = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # ours is stricter
            picture = Image.open(stream, formats=formats)
        with picture:
            width, height = picture.size
            if width * height > PIXELS:
                raise BadInput(
                    where, f"has {width}x{height} pixels, more than {PIXELS:,}", "obtain it again"
                )
            return picture.convert("RGB")
    except BadInput:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, MemoryError):
        kind = " or no PNG" if formats == ["PNG"] else " or no picture"
        raise BadInput(where, f"is damaged{kind}", "obtain it again") from None


def read_png(content: bytes, where: str) -> NDArray[np.uint8]:
    """Decode a PNG to uint8 [H, W, 3].

    Raises:
        BadInput: see `open_picture`.
    """
    return np.asarray(open_picture(content, where, ["PNG"]), dtype=np.uint8)
