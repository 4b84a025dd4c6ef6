"""Read the tensors of an EDM pickle without running a line of it.

EDM's files carry the source of their classes and execute it on loading. Here every name that the
pickle asks for is either on the short list below, which only puts tensors, arrays and plain
containers together, or the file is refused. The recorded source is skipped unread.

Source: the persistence format of NVlabs/edm [Karras2022].
"""

import collections
import io
import pickle
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from advpure.base.budget import MAX_NAMES, MAX_NESTING
from advpure.base.errors import BadInput
from advpure.networks.weight_files import locate
from advpure.networks.weights import load_restricted


def load_edm_pickle(path: str | Path) -> dict[str, Tensor]:
    """Read the averaged network of an EDM pickle.

    Args:
        path: The file.

    Returns:
        Its parameters and buffers by name.

    Raises:
        BadInput: when the file is missing, damaged, asks for anything but tensors and containers,
            holds more modules than the budget, or holds no network under ``ema``.
    """
    path = locate(path)
    try:
        with path.open("rb") as stream:
            content = _TensorsOnly(stream).load()
        network = content.get("ema") if isinstance(content, dict) else None
        tensors = _collect(network)
    except _Refused as refusal:
        raise BadInput(
            f"weights file {path}",
            f"asks for {refusal}, which is no tensor or container",
            "do not trust it; obtain it from its official source",
        ) from None
    except _TooMuch:
        raise BadInput(
            f"weights file {path}",
            f"names more than {MAX_NAMES:,} modules and tensors, or holds {MAX_NESTING} in one "
            "another",
            "obtain it from its official source",
        ) from None
    except Exception:  # a damaged pickle fails in many ways, all meaning the same
        raise BadInput(
            f"weights file {path}", "is damaged or no EDM pickle", "obtain it again"
        ) from None
    if not isinstance(network, _Recorded):
        raise BadInput(f"weights file {path}", "has no network under 'ema'", "use an EDM pickle")
    return tensors


class _Refused(Exception):
    """A name that is not on the list."""


class _TooMuch(Exception):
    """More modules than the budget."""


class _Recorded:
    """The recorded state of a module; its class is never looked up."""

    state: dict[str, Any]

    def __new__(cls, meta: dict[str, Any] | None = None) -> "_Recorded":
        made = super().__new__(cls)
        made.state = dict(meta["state"]) if meta is not None else {}
        return made

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.state = dict(state)


class _Dictionary(dict[str, Any]):
    """A dictionary with attributes, as EDM stores its settings."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.update(state)


class Numbers(NamedTuple):
    """The memory behind tensors."""

    dtype: torch.dtype
    memory: torch.UntypedStorage


def _storage(content: bytes) -> Numbers:
    """Read a serialised storage through torch's restricted unpickler."""
    stored = load_restricted(io.BytesIO(content))
    if not isinstance(stored, torch.storage.TypedStorage):
        raise _Refused("a storage that is none")
    return Numbers(stored.dtype, stored._untyped_storage)


def rebuild_parameter(data: Tensor, requires_grad: bool, hooks: Any) -> Tensor:
    """Return the data of a parameter."""
    return data


def rebuild_tensor(storage: Numbers, offset: int, size: Any, stride: Any, *rest: Any) -> Tensor:
    """Put a tensor together from its storage, within the storage's bounds."""
    empty = torch.empty(0, dtype=storage.dtype, device="cpu")
    count = len(storage.memory) // empty.element_size()
    last = offset + sum((side - 1) * step for side, step in zip(size, stride, strict=True))
    if min(offset, *size, *stride, 0) < 0 or last >= max(count, 1):
        raise _Refused("numbers outside a tensor's storage")
    return empty.set_(storage.memory, offset, tuple(size), tuple(stride))


class _Array:
    """A numpy array that is being rebuilt from a pickle."""

    def __init__(self, *arguments: Any) -> None:
        self.array: np.ndarray[Any, Any] | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, content = state
        if dtype.hasobject or not isinstance(content, bytes):
            raise _Refused("an array of objects")
        order: Literal["F", "C"] = "F" if fortran else "C"
        self.array = np.ndarray(shape, dtype, content, order=order)


def _dtype(kind: str, align: bool = False, copy: bool = True) -> np.dtype[Any]:
    """Make a number type, never one of objects."""
    dtype = np.dtype(kind, copy=True)
    if dtype.hasobject:
        raise _Refused("an array of objects")
    return dtype


def _scalar(dtype: np.dtype[Any], content: bytes) -> float:
    """Read a number."""
    return float(np.frombuffer(content, dtype=dtype)[0])


_RECORDED_MODULES = ("torch.nn.modules.",)
_ALLOWED: dict[tuple[str, str], Any] = {
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): _Recorded,
    ("dnnlib.util", "EasyDict"): _Dictionary,
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch.storage", "_load_from_bytes"): _storage,
    ("torch._utils", "_rebuild_tensor_v2"): rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): rebuild_parameter,
    ("numpy", "dtype"): _dtype,
    ("numpy", "ndarray"): _Array,
    ("builtins", "set"): set,
}
for _module in ("numpy.core.multiarray", "numpy._core.multiarray"):
    _ALLOWED[_module, "scalar"] = _scalar
    _ALLOWED[_module, "_reconstruct"] = _Array


class _TensorsOnly(pickle._Unpickler):
    """An unpickler that knows the names above and no others.

    The one in Python, because the one in C reserves memory for any index that a file names.
    """

    def find_class(self, module: str, name: str) -> Any:
        """Return the stand-in for a name, or refuse it."""
        if (module, name) in _ALLOWED:
            return _ALLOWED[module, name]
        if module.startswith(_RECORDED_MODULES) and name.isidentifier():
            return _Recorded
        raise _Refused(f"{module}.{name}")

    def persistent_load(self, identifier: Any) -> Any:
        """Refuse references to things outside the file."""
        raise _Refused("something outside the file")


def _collect(network: Any) -> dict[str, Tensor]:
    """Gather parameters, buffers and those of inner modules, within the budget.

    A module that others hold twice is walked twice, as it has two names; modules that hold each
    other twice, level by level, would take a time without end.
    """
    tensors: dict[str, Tensor] = {}
    waiting: list[tuple[Any, str, int]] = [(network, "", 0)]
    names = 0
    while waiting:
        module, prefix, depth = waiting.pop()
        if not isinstance(module, _Recorded):
            continue
        groups = [dict(module.state.get(group) or {}) for group in ("_parameters", "_buffers")]
        inner = dict(module.state.get("_modules") or {})
        names += sum(map(len, groups)) + len(inner)
        if names > MAX_NAMES or depth > MAX_NESTING:
            raise _TooMuch
        for group in groups:
            for name, value in group.items():
                if isinstance(value, Tensor):
                    tensors[f"{prefix}{name}"] = value
        waiting += [(inner[name], f"{prefix}{name}.", depth + 1) for name in reversed(inner)]
    return tensors
