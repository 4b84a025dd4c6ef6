"""Read pickles of plain values and arrays without running anything that they ask for.

Dictionaries, lists, numbers, text and bytes are built by the unpickler itself. The few numpy names
that rebuild an array are answered by inert stand-ins of our own; any other name is refused.

Source: the layout of the official python version of CIFAR-10: keys `data` [n, 3072] uint8 and
`labels`.
"""

import io
import pickle
import pickletools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from advpure.base.budget import MEMO, OPERATIONS
from advpure.base.errors import BadInput

_CORES = ("numpy.core", "numpy._core")
_PLACES = ("PUT", "BINPUT", "LONG_BINPUT")
_KINDS: dict[object, str] = {"u1": "u1", b"u1": "u1", "f4": "<f4", b"f4": "<f4"}


class _Refused(Exception):
    """A name that plain values have no business with."""


class _Type:
    """What a pickled dtype says: its code and its byte order."""

    __slots__ = ("code", "order")

    def __init__(self, code: object) -> None:
        self.code, self.order = code, "|"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1]


class PickledArray:
    """What a pickled array says: version, shape, dtype, column order, data."""

    __slots__ = ("state",)

    def __init__(self) -> None:
        """Start empty; the unpickler sets the state."""
        self.state: tuple[Any, ...] = ()

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Keep what the pickle says."""
        self.state = state

    def array(self) -> NDArray[Any]:
        """Return the array if it holds bytes or little-endian float32 in row order.

        Raises:
            ValueError: for any other array.
        """
        _, shape, kind, by_columns, data = self.state
        if kind.code not in _KINDS or kind.order in (">", b">") or by_columns:
            raise ValueError("another kind of array")
        raw = data.encode("latin1") if isinstance(data, str) else data
        return np.frombuffer(raw, dtype=_KINDS[kind.code]).reshape(shape)


def _make_array(*_ignored: object) -> PickledArray:
    return PickledArray()


def _wrap(data: bytes, kind: object, shape: object, order: str) -> PickledArray:
    array = PickledArray()
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


def read_plain(content: bytes, where: str) -> Any:
    """Return what a pickle of plain values holds; arrays are `PickledArray`.

    Args:
        content: The pickle.
        where: Its file, for messages.

    Raises:
        BadInput: when it is damaged or asks for anything but arrays.
    """
    _check_size(content, where)
    try:
        return _Reader(io.BytesIO(content), encoding="bytes").load()
    except _Refused as refusal:
        raise BadInput(
            where, f"asks for {refusal}, which plain data never needs", "do not trust it"
        ) from None
    except Exception:  # damaged pickles fail in many ways, all meaning the same
        raise BadInput(where, "is damaged or no pickle", "obtain it again") from None


def _check_size(content: bytes, where: str) -> None:
    """Walk over the steps of a pickle, without taking one, to see what they would allocate."""
    try:
        for steps, (step, argument, _) in enumerate(pickletools.genops(content)):
            if steps > OPERATIONS:
                rule = f"has more than {OPERATIONS:,} steps"
                raise BadInput(where, rule, "do not trust it")
            if step.name in _PLACES and argument is not None and argument > MEMO:
                rule = f"asks for {argument:,} places of memory, more than {MEMO:,}"
                raise BadInput(where, rule, "do not trust it")
    except BadInput:
        raise
    except Exception:  # damaged pickles fail in many ways, all meaning the same
        raise BadInput(where, "is damaged or no pickle", "obtain it again") from None


def read_batch(content: bytes, where: str) -> NDArray[np.uint8]:
    """Return the records of a batch of CIFAR-10.

    Args:
        content: The pickle.
        where: Its file, for messages.

    Returns:
        uint8 [n, 3073]: the label, then 3,072 values in channel, row, column order.

    Raises:
        BadInput: when it is damaged, no such batch, or asks for anything but an array.
    """
    batch = read_plain(content, where)
    try:
        plain = {key if isinstance(key, str) else key.decode(): batch[key] for key in batch}
        pixels = plain["data"].array()
        labels = np.asarray(plain["labels"], dtype=np.uint8)
        if pixels.dtype != np.uint8 or pixels.shape != (len(labels), 3072):
            raise ValueError(pixels.shape)
    except Exception:  # anything else than the known layout, in many ways
        raise BadInput(where, "is damaged or no CIFAR-10 batch", "obtain it again") from None
    return np.concatenate([labels[:, None], pixels], axis=1)
