"""Plain arrays of npz archives, their sizes checked before any is unpacked."""

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from advpure.base.budget import MEMBER, check_zip
from advpure.base.errors import BadInput


def read_arrays(
    source: bytes | Path, where: str, names: Sequence[str] | None = None, most: int = MEMBER
) -> dict[str, NDArray[np.generic]]:
    """Read arrays of an npz archive.

    Args:
        source: Its bytes, or its file.
        where: Its name, for messages.
        names: The arrays; None for all.
        most: Bytes of one array.

    Raises:
        BadInput: when it is damaged, lacks an array, holds objects, or more than it can mean.
    """
    try:
        stream = io.BytesIO(source) if isinstance(source, bytes) else source
        with zipfile.ZipFile(stream) as archive:
            check_zip(archive, most, where)
        if isinstance(stream, io.BytesIO):
            stream.seek(0)
        with np.load(stream, allow_pickle=False) as stored:
            return {name: np.asarray(stored[name]) for name in names or stored.files}
    except BadInput:
        raise
    except Exception:  # damaged archives fail in many ways, all meaning the same
        raise BadInput(where, "is damaged or no npz of plain arrays", "obtain it again") from None
