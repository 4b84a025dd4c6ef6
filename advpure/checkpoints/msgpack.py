"""Read flax checkpoints: msgpack with three extension types for arrays, and nothing else.

The format holds data only. This decoder adds limits, so that a damaged or hostile length cannot
exhaust memory or the stack, and refuses extension types it does not know.

Source: the msgpack specification; flax.serialization (extension types 1 array, 2 complex number,
3 scalar; arrays above 2^30 bytes as dictionaries of chunks); spec 11.5.
"""

import math
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from advpure.base.budget import MAX_NESTING
from advpure.base.errors import BadInput
from advpure.base.validation import shown
from advpure.networks.weight_files import locate

MAX_DEPTH = MAX_NESTING
MAX_EXTENSION = 2**31
_MAX_SIDES = 32
_CHUNKED = "__msgpack_chunked_array__"
_DTYPES = {
    "float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16",
    "uint32", "uint64", "bool",
}  # fmt: skip
_FIXED: dict[int, str] = {
    0xCA: ">f", 0xCB: ">d", 0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q", 0xD0: ">b",
    0xD1: ">h", 0xD2: ">i", 0xD3: ">q",
}  # fmt: skip
_SIZED: dict[int, tuple[str, str]] = {
    0xC4: ("bytes", ">B"), 0xC5: ("bytes", ">H"), 0xC6: ("bytes", ">I"),
    0xD9: ("text", ">B"), 0xDA: ("text", ">H"), 0xDB: ("text", ">I"),
    0xDC: ("list", ">H"), 0xDD: ("list", ">I"), 0xDE: ("map", ">H"), 0xDF: ("map", ">I"),
    0xC7: ("extension", ">B"), 0xC8: ("extension", ">H"), 0xC9: ("extension", ">I"),
}  # fmt: skip


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
        raise BadInput(
            f"weights file {path}",
            f"is damaged or no flax checkpoint ({reason})",
            "obtain it again",
        ) from None
    if not isinstance(content, dict) or not isinstance(content.get(key), dict):
        raise BadInput(f"weights file {path}", f"has no {key!r}", "use a flax training checkpoint")
    tensors: dict[str, Tensor] = {}
    _flatten(content[key], "", tensors, path)
    return tensors


def decode(content: bytes) -> Any:
    """Decode one msgpack value that fills the bytes.

    Raises:
        Malformed: when the bytes are cut short, too deep, too large, followed by others, or use an
            extension type other than 1, 2 and 3.

    Example:
        >>> decode(bytes([0x81, 0xA1, ord("a"), 0x92, 1, 0xC3]))
        {'a': [1, True]}
    """
    reader = _Reader(content)
    value = reader.value(0)
    if reader.position != len(content):
        raise Malformed("bytes are left over")
    return value


class _Reader:
    """A position in the bytes, and how to read what stands there."""

    def __init__(self, content: bytes | memoryview) -> None:
        self.content, self.position = memoryview(content), 0
        self.sized: dict[str, Callable[[int, int], Any]] = {
            "bytes": lambda size, depth: bytes(self.take(size)),
            "text": lambda size, depth: self.text(size),
            "list": self.list, "map": self.map,
            "extension": lambda size, depth: self.extension(size, depth),
        }  # fmt: skip

    def take(self, size: int) -> memoryview:
        if size > len(self.content) - self.position:
            raise Malformed("it is cut short")
        self.position += size
        return self.content[self.position - size : self.position]

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def text(self, size: int) -> str:
        try:
            return str(self.take(size), "utf-8")
        except UnicodeDecodeError:
            raise Malformed("a name is no text") from None

    def value(self, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise Malformed(f"it is nested deeper than {MAX_DEPTH}")
        kind = self.take(1)[0]
        if kind < 0x80:
            return kind
        if kind >= 0xE0:
            return kind - 256
        if kind < 0x90:
            return self.map(kind & 15, depth)
        if kind < 0xA0:
            return self.list(kind & 15, depth)
        if kind < 0xC0:
            return self.text(kind & 31)
        if kind in (0xC0, 0xC2, 0xC3):
            return {0xC0: None, 0xC2: False, 0xC3: True}[kind]
        if kind in _FIXED:
            return self.number(_FIXED[kind])
        if 0xD4 <= kind <= 0xD8:
            return self.extension(1 << (kind - 0xD4), depth)
        if kind in _SIZED:
            name, form = _SIZED[kind]
            return self.sized[name](self.number(form), depth)
        raise Malformed(f"byte {kind:#x} means nothing")

    def list(self, size: int, depth: int) -> list[Any]:
        if size > len(self.content) - self.position:
            raise Malformed("it is cut short")
        return [self.value(depth + 1) for _ in range(size)]

    def map(self, size: int, depth: int) -> dict[Any, Any] | Tensor:
        if 2 * size > len(self.content) - self.position:
            raise Malformed("it is cut short")
        found = {}
        for _ in range(size):
            key = self.value(depth + 1)
            if not isinstance(key, str | int | bytes):
                raise Malformed("a key is no name")
            found[key] = self.value(depth + 1)
        return _join(found) if found.get(_CHUNKED) is True else found

    def extension(self, size: int, depth: int) -> Any:
        kind = self.number(">b")
        if size > MAX_EXTENSION:
            raise Malformed("an array is larger than 2 GiB")
        payload = self.take(size)
        if kind not in (1, 2, 3):
            raise Malformed(f"extension type {kind} is not known")
        inner = _Reader(payload).value(depth + 1)
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


def _join(parts: dict[Any, Any]) -> Tensor:
    """Put the chunks of a large array together."""
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
    for name, value in tree.items():
        if isinstance(value, dict):
            _flatten(value, f"{prefix}{name}.", tensors, path)
        elif isinstance(value, Tensor):
            tensors[f"{prefix}{name}"] = value
        else:
            raise BadInput(
                f"entry {shown(f'{prefix}{name}')} of {path}", "is no array", "obtain it again"
            )
