"""Read flax checkpoints: msgpack with three extension types for arrays, and nothing else.

msgpack decodes, within the length of the file; what it takes no view on is refused here: other
extension types, lists long enough to exhaust memory when nested, deep trees, and arrays whose bytes
are not those of their shape.

Source: flax.serialization (extension types 1 array, 2 complex number, 3 scalar; arrays above 2^30
bytes as dictionaries of chunks).
"""

import math
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import torch
from torch import Tensor

from advpure.base.budget import MAX_NESTING
from advpure.base.errors import BadInput
from advpure.base.validation import shown
from advpure.networks.weight_files import locate

_OBTAIN = "obtain it again"
_MAX_SIDES = 32
_MAX_LIST = 4096
_CHUNKED = "__msgpack_chunked_array__"
_DTYPES = {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
_DTYPES |= {"bool", "float16", "float32", "float64"}


class Malformed(ValueError):
    """Bytes that are no checkpoint, and why."""


def load_flax(path: str | Path, key: str = "params_ema") -> dict[str, Tensor]:
    """Read the arrays under one key of a flax checkpoint.

    Args:
        path: The file.
        key: The top-level entry: the averaged parameters by default.

    Returns:
        Tensors by their dotted path below the key.

    Raises:
        BadInput: when the file is missing, damaged, lacks the key, or holds what is no array.
    """
    path = locate(path)
    try:
        content = decode(path.read_bytes())
    except Malformed as reason:
        rule = f"is damaged or no flax checkpoint ({reason})"
        raise BadInput(f"weights file {path}", rule, _OBTAIN) from None
    if not isinstance(content, dict) or not isinstance(content.get(key), dict):
        raise BadInput(f"weights file {path}", f"has no {key!r}", "use a flax training checkpoint")
    tensors: dict[str, Tensor] = {}
    _flatten(content[key], "", tensors, path)
    return tensors


def decode(content: bytes) -> Any:
    """Decode one msgpack value that fills the bytes.

    Raises:
        Malformed: when the bytes are cut short, too deep, too long a list, followed by others, or
            use an extension type other than 1, 2 and 3.

    Example:
        >>> decode(bytes([0x81, 0xA1, ord("a"), 0x92, 1, 0xC3]))
        {'a': [1, True]}
    """
    return _unpack(content, ext_hook=_extension, object_hook=_join)


def _unpack(content: bytes, **hooks: Any) -> Any:
    try:
        return msgpack.unpackb(content, max_array_len=_MAX_LIST, **hooks)
    except Malformed:
        raise
    except (ValueError, msgpack.UnpackException) as error:
        raise Malformed(str(error) or type(error).__name__) from None


def _extension(kind: int, payload: bytes) -> Any:
    """Decode an extension; its payload holds no others."""
    if kind not in (1, 2, 3):
        raise Malformed(f"extension type {kind} is not known")
    inner = _unpack(payload)
    if kind == 2:
        if not (isinstance(inner, list) and list(map(type, inner)) == [float, float]):
            raise Malformed("a complex number has not two parts")
        return complex(*inner)
    array = _array(inner)
    if kind == 1:
        return array
    if array.numel() != 1:
        raise Malformed("a number is an array of others")
    return array.item()


def _array(parts: Any) -> Tensor:
    """Make a tensor of (shape, type name, bytes in C order)."""
    if not (isinstance(parts, list) and len(parts) == 3 and isinstance(parts[0], list)):
        raise Malformed("an array is not (shape, type, bytes)")
    shape, name, content = parts
    _check_shape(shape)
    if not isinstance(content, bytes):
        raise Malformed("an array has no bytes")
    name = name.decode(errors="replace") if isinstance(name, bytes) else name
    if name == "bfloat16":
        flat = torch.frombuffer(bytearray(content), dtype=torch.bfloat16) if content else None
    elif isinstance(name, str) and name in _DTYPES:
        dtype = np.dtype(name).newbyteorder("<")
        if len(content) % dtype.itemsize:
            raise Malformed("an array has not the size of its shape")
        flat = torch.from_numpy(np.frombuffer(content, dtype=dtype).astype(np.dtype(name)))
    else:
        raise Malformed(f"array type {name!r} is not known")
    flat = torch.zeros(0, dtype=torch.float32, device="cpu") if flat is None else flat
    if flat.numel() != math.prod(shape):
        raise Malformed("an array has not the size of its shape")
    return flat.reshape(shape)


def _check_shape(shape: list[Any]) -> None:
    """Refuse what is no shape, before its sides are multiplied."""
    if len(shape) > _MAX_SIDES or not all(type(side) is int and side >= 0 for side in shape):
        raise Malformed("an array has no shape")


def _join(parts: dict[Any, Any]) -> dict[Any, Any] | Tensor:
    """Put the chunks of a large array together; return any other dictionary as it is."""
    if parts.get(_CHUNKED) is not True:
        return parts
    shape, chunks = parts.get("shape"), parts.get("chunks")
    shape = _numbered(shape)
    pieces = _numbered(chunks)
    if not pieces or not all(isinstance(piece, Tensor) for piece in pieces):
        raise Malformed("a chunked array has no chunks")
    whole = torch.cat([piece.reshape(-1) for piece in pieces])
    _check_shape(shape)
    if whole.numel() != math.prod(shape):
        raise Malformed("a chunked array has not the size of its shape")
    return whole.reshape(shape)


def _numbered(value: Any) -> list[Any]:
    """Return a list that flax may have stored as a dictionary by position."""
    if isinstance(value, dict):
        try:
            return [value[str(k)] for k in range(len(value))]
        except KeyError:
            raise Malformed("a list has holes") from None
    return list(value) if isinstance(value, list) else []


def _flatten(tree: dict[Any, Any], prefix: str, tensors: dict[str, Tensor], path: Path) -> None:
    if prefix.count(".") > MAX_NESTING:
        raise BadInput(f"weights file {path}", f"is nested deeper than {MAX_NESTING}", _OBTAIN)
    for name, value in tree.items():
        if isinstance(value, dict):
            _flatten(value, f"{prefix}{name}.", tensors, path)
        elif isinstance(value, Tensor):
            tensors[f"{prefix}{name}"] = value
        else:
            raise BadInput(f"entry {shown(f'{prefix}{name}')} of {path}", "is no array", _OBTAIN)
