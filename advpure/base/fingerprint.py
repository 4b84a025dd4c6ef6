"""A digest of an object that was passed as it is: its code and what it holds.

Two objects of one class with another strength are two models, and so are two functions that close
over other values, or that read other globals. Code counts by its source, or by its instructions
where there is none; arrays by their numbers, everything else by its attributes. What cannot be
looked into counts by the name of its class. Left out is what changes while a model is used:
training flags, the places of generators, and the globals of libraries, which hold their caches.
"""

import functools
import hashlib
import inspect
import sys
from collections.abc import Iterator, Mapping
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

_PLAIN = (type(None), bool, int, float, complex, str, bytes)
_DEEPEST = 32
_OTHERS = "advpure diffusers matplotlib numpy PIL scipy sklearn timm torch torchvision transformers"
_LIBRARIES = sys.stdlib_module_names | set(_OTHERS.split())


def fingerprint(value: object) -> str:
    """Return the SHA-256 of an object.

    Example:
        >>> def scaled(by): return lambda x: x * by
        >>> fingerprint(scaled(2)) == fingerprint(scaled(2))
        True
        >>> fingerprint(scaled(2)) == fingerprint(scaled(3))
        False
    """
    digest = hashlib.sha256()
    for part in _parts(value, {}, 0):
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


def _parts(value: Any, seen: dict[int, object], depth: int) -> Iterator[bytes]:
    """Yield what an object is made of; an object that was met before by its class alone.

    `seen` keeps what it has met: the place of an object that is gone may be another's.
    """
    kind = type(value)
    yield f"{kind.__module__}.{kind.__qualname__}".encode()
    if isinstance(value, _PLAIN):
        yield repr(value).encode()
        return
    if id(value) in seen or depth > _DEEPEST:
        return
    seen[id(value)] = value
    inner: Any = ()
    if (array := _array(value)) is not None:
        yield f"{array.dtype} {array.shape}".encode()
        yield array.tobytes()
    elif isinstance(value, Mapping):
        inner = [each for pair in value.items() for each in pair]
    elif isinstance(value, list | tuple):
        inner = value
    elif isinstance(value, set | frozenset):
        inner = sorted(value, key=repr)
    elif isinstance(value, functools.partial):
        inner = [value.func, value.args, value.keywords]
    elif isinstance(value, MethodType):
        inner = [value.__func__, value.__self__]
    elif isinstance(value, FunctionType):
        yield _source(value)
        inner = _held(value)
    elif isinstance(value, type | ModuleType | BuiltinFunctionType):
        yield getattr(value, "__qualname__", value.__name__).encode()
        yield _source(value) if isinstance(value, type) else b""
    else:
        yield _source(kind)
        names = sorted(getattr(value, "__dict__", {}))
        inner = [(name, value.__dict__[name]) for name in names if name != "training"]
    for each in inner:
        yield from _parts(each, seen, depth + 1)


def _array(value: Any) -> Any:
    """Return the numbers of a tensor or an array; None for another object."""
    import numpy as np
    import torch

    if isinstance(value, torch.Tensor):
        plain = value.detach().cpu().contiguous()
        return plain.reshape(-1).view(torch.uint8).numpy() if plain.numel() else np.zeros(0)
    is_array = isinstance(value, np.ndarray | np.generic) and value.dtype != object
    return np.asarray(value) if is_array else None


def _held(function: FunctionType) -> list[Any]:
    """Return what a function holds: closure, defaults, and globals of its module by name.

    Globals of a library are left out: what it has cached there is none of the model.
    """
    cells = []
    for cell in function.__closure__ or ():
        try:
            cells.append(cell.cell_contents)
        except ValueError:  # not filled yet
            cells.append(None)
    own = (function.__module__ or "").partition(".")[0] not in _LIBRARIES
    names = _names(function.__code__) & function.__globals__.keys() if own else ()
    read = [(name, function.__globals__[name]) for name in sorted(names)]
    return [*cells, function.__defaults__, function.__kwdefaults__, *read]


def _names(code: CodeType) -> set[str]:
    """Return the names that a function and those inside it read."""
    inner = [_names(each) for each in code.co_consts if isinstance(each, CodeType)]
    return set(code.co_names).union(*inner)


def _source(thing: Any) -> bytes:
    try:
        return inspect.getsource(thing).encode()
    except (OSError, TypeError):  # typed into an interpreter, or compiled
        own = vars(thing).values() if isinstance(thing, type) else [thing]
        found = [each.__code__ for each in own if isinstance(each, FunctionType)]
        return b"".join(part for each in found for part in _instructions(each))


def _instructions(code: CodeType) -> Iterator[bytes]:
    """Yield what code does: its instructions, the names it reads, its constants."""
    yield code.co_code + repr(code.co_names).encode()
    for each in code.co_consts:
        if isinstance(each, CodeType):
            yield from _instructions(each)
        else:
            yield repr(each).encode()
