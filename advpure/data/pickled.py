"""Read a python-pickled CIFAR batch without running anything that it asks for.

The format uses dictionaries, lists, numbers, bytes and one array. The few numpy names that rebuild
an array are answered by inert stand-ins of our own; any other name is refused.

Source: the layout of the official python version: keys `data` [n, 3072] uint8 and `labels`.
"""

import io
import pickle
from typing import Any

import numpy as np
from numpy.typing import NDArray

from advpure.errors import BadInput

_CORES = ("numpy.core", "numpy._core")


class _Refused(Exception):
    """A name that a batch has no business with."""


class _Type:
    """What a pickled dtype says: its code."""

    __slots__ = ("code",)

    def __init__(self, code: object) -> None:
        self.code = code

    def __setstate__(self, state: object) -> None:
        """Ignore byte order and fields: only bytes are accepted."""


class _Array:
    """What a pickled array says: shape, dtype and data."""

    __slots__ = ("state",)

    def __init__(self) -> None:
        self.state: tuple[Any, ...] = ()

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.state = state

    def bytes_(self) -> NDArray[np.uint8]:
        """Return the array if it is one of unsigned bytes in row order."""
        _, shape, kind, fortran, data = self.state
        if getattr(kind, "code", None) not in ("u1", b"u1") or fortran:
            raise ValueError("not bytes in row order")
        raw = data.encode("latin1") if isinstance(data, str) else data
        return np.frombuffer(raw, dtype=np.uint8).reshape(shape)


def _make_array(*_ignored: object) -> _Array:
    return _Array()


def _wrap(data: bytes, kind: object, shape: object, order: str) -> _Array:
    array = _Array()
    array.state = (1, shape, kind, order != "C", bytes(data))
    return array


def _make_type(code: object, *_ignored: object) -> _Type:
    return _Type(code)


def _encode(text: str, codec: str) -> bytes:
    if codec != "latin1":
        raise ValueError(codec)
    return text.encode("latin1")


class _Reader(pickle.Unpickler):
    """An unpickler that knows a handful of names."""

    def find_class(self, module: str, name: str) -> Any:
        """Answer a name with a stand-in."""
        core, _, part = module.rpartition(".")
        if core in _CORES and (part, name) == ("multiarray", "_reconstruct"):
            return _make_array
        if core in _CORES and (part, name) == ("numeric", "_frombuffer"):
            return _wrap
        if (module, name) == ("numpy", "ndarray"):
            return "ndarray"
        if (module, name) == ("numpy", "dtype"):
            return _make_type
        if (module, name) == ("_codecs", "encode"):
            return _encode
        raise _Refused(f"{module}.{name}")


def read_batch(content: bytes, where: str) -> NDArray[np.uint8]:
    """Return the records of a batch.

    Args:
        content: The pickle.
        where: Its file, for messages.

    Returns:
        uint8 [n, 3073]: the label, then 3,072 values in channel, row, column order.

    Raises:
        BadInput: when it is damaged, no such batch, or asks for anything but an array.
    """
    try:
        batch = _Reader(io.BytesIO(content), encoding="bytes").load()
        plain = {key if isinstance(key, str) else key.decode(): batch[key] for key in batch}
        pixels = plain["data"].bytes_()
        labels = np.asarray(plain["labels"], dtype=np.uint8)
        if pixels.shape != (len(labels), 3072):
            raise ValueError(pixels.shape)
    except _Refused as refusal:
        raise BadInput(
            where, f"asks for {refusal}, which no batch needs", "do not trust it"
        ) from None
    except Exception:  # damaged pickles fail in many ways, all meaning the same
        raise BadInput(where, "is damaged or no CIFAR-10 batch", "obtain it again") from None
    return np.concatenate([labels[:, None], pixels], axis=1)
