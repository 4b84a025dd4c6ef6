"""Read the files of the robustness library, whose classifiers come wrapped in an attack.

Such a file is a dictionary. Its ``model`` holds tensors, whose names may begin with ``module.``:

    normalizer.new_mean, normalizer.new_std     what images are normalised with, [3, 1, 1]
    model.*                                     the network, by torchvision's names
    attacker.normalize.*, attacker.model.*      the same tensors once more

Beside it lies the state of the training. dill pickled it, so there can be functions and classes
among that, with their code. Here only tensors, numbers and plain containers are put together;
whatever else the pickle asks for becomes a thing that does nothing, and no code of the file runs.

Files without the wrapping, as `torch.save(network.state_dict(), FILE)` writes them, are read too.

Source: the file formats of PyTorch, and the names that MadryLab's robustness library gives.
"""

import collections
import io
import pickle
import re
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from advpure.base.errors import BadInput
from advpure.checkpoints.adapters import AsClassifier
from advpure.checkpoints.pickles import Numbers, rebuild_parameter, rebuild_tensor
from advpure.networks.named_tensors import NamedTensors, Weights, choose_set
from advpure.networks.weight_files import locate

_WRAPPED = ("normalizer.", "attacker.")


def read_robustness(path: str | Path, weights: Weights | None = None) -> NamedTensors:
    """Read the tensors of a file, as it names them.

    Args:
        path: A PyTorch file, in either of its formats, pickled by dill or not.
        weights: Averaged or raw weights, where the file holds both.

    Raises:
        BadInput: when the file is missing, damaged or holds no named tensors.
    """
    path = locate(path)
    try:
        content = _read_zip(path) if zipfile.is_zipfile(path) else _read_stream(path)
    except Exception:  # a damaged pickle fails in many ways, all meaning the same
        raise BadInput(
            f"weights file {path}", "is damaged or no PyTorch file", "obtain it again"
        ) from None
    return choose_set(content, path, weights)


def unwrap(state: Mapping[str, Tensor], path: Path, settings: AsClassifier) -> dict[str, Tensor]:
    """Take the network out of the attack around it.

    Args:
        state: Tensors by the names of a file.
        path: The file, for messages.
        settings: How the network's images are normalised.

    Returns:
        The network's tensors by torchvision's names; `state` itself where nothing is wrapped.

    Raises:
        BadInput: when there is no network inside, it is normalised otherwise, or the copy inside
            the attack differs from it.

    Example:
        >>> wrapped = {"module.model.w": torch.zeros(1), "module.attacker.model.w": torch.zeros(1)}
        >>> list(unwrap(wrapped, Path("a.pt"), AsClassifier()))
        ['w']
    """
    plain = {name.removeprefix("module."): value for name, value in state.items()}
    if len(plain) < len(state) or not any(name.startswith(_WRAPPED) for name in plain):
        return dict(state)
    network = _below(plain, "model.")
    if not network:
        rule = "holds an attack without the network that it attacks"
        raise BadInput(f"weights file {path}", rule, "use a file of the robustness library")
    for prefix in ("normalizer.", "attacker.normalize."):
        for leaf, own in (("new_mean", settings.mean), ("new_std", settings.std)):
            given = plain.pop(f"{prefix}{leaf}", None)
            if given is not None and not _equal(given, own):
                shown = [round(float(x), 4) for x in given.flatten()[:3]]
                rule = f"is {shown}, not {list(own)}"
                raise BadInput(f"{prefix}{leaf} of {path}", rule, "use the file of this entry")
    for name, value in _below(plain, "attacker.model.").items():
        if name not in network or not torch.equal(network[name], value):
            rule = "is not that of the network beside it"
            raise BadInput(f"tensor 'attacker.model.{name}' of {path}", rule, "obtain it again")
    rest = [name for name in plain if not name.startswith(("model.", "attacker.model."))]
    return {**network, **{name: plain[name] for name in rest}}


def _below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): v for name, v in state.items() if name.startswith(prefix)}


def _equal(given: Tensor, own: tuple[float, ...]) -> bool:
    return given.numel() == len(own) and bool(
        torch.allclose(
            given.double().flatten(),
            torch.tensor(own, dtype=torch.float64, device="cpu"),
            atol=1e-4,
        )
    )


class _Nothing:
    """What stands for everything that is no tensor, number or container."""

    def __new__(cls, *arguments: Any, **named: Any) -> "_Nothing":
        return object.__new__(_Nothing)  # and not cls: classes made by a file are nothing, too

    def __call__(self, *arguments: Any, **named: Any) -> "_Nothing":
        return _Nothing()

    def __setstate__(self, state: Any) -> None:
        """Keep nothing."""

    def __setitem__(self, key: Any, value: Any) -> None:
        """Keep nothing."""

    def append(self, value: Any) -> None:
        """Keep nothing."""


_Storages = Callable[[str, torch.dtype, int], Numbers]
_TYPES: Mapping[str, torch.dtype] = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_KNOWN: Mapping[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): rebuild_parameter,
}


class _DataOnly(pickle._Unpickler):
    """An unpickler that knows tensors and containers, in Python for the reason of EDM's."""

    def __init__(self, stream: IO[bytes], storages: _Storages | None = None) -> None:
        super().__init__(stream)
        self.storages = storages

    def find_class(self, module: str, name: str) -> Any:
        """Return the stand-in for a name; nothing is imported."""
        if module in ("torch", "torch.cuda") and name in _TYPES:
            return _TYPES[name]
        return _KNOWN.get((module, name), _Nothing)

    def persistent_load(self, identifier: Any) -> Numbers:
        """Return the numbers that a tensor refers to."""
        kind, dtype, key, _, count, *view = identifier
        if kind != "storage" or any(view) or self.storages is None:
            raise ValueError("a reference to something else")
        return self.storages(str(key), dtype, int(count))


def _read_zip(path: Path) -> Any:
    """Read the format of today: a zip file that keeps each storage as a member of its own."""
    memory: dict[str, Numbers] = {}
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise ValueError("compressed members, which PyTorch does not write")
        if sum(member.file_size for member in members) > path.stat().st_size:
            raise ValueError("more bytes than the file has")
        (start,) = (name for name in archive.namelist() if _OBJECTS.fullmatch(name))
        folder = start.removesuffix("data.pkl")

        def storages(key: str, dtype: torch.dtype, count: int) -> Numbers:
            if key not in memory:
                content = bytearray(archive.read(f"{folder}data/{key}"))
                memory[key] = Numbers(dtype, _bytes(content))
            return memory[key]

        return _DataOnly(io.BytesIO(archive.read(start)), storages).load()


def _read_stream(path: Path) -> Any:
    """Read the format of before: magic number, version, machine, objects, and then the storages."""
    left, memory = path.stat().st_size, dict[str, Numbers]()

    def storages(key: str, dtype: torch.dtype, count: int) -> Numbers:
        nonlocal left
        length = count * dtype.itemsize
        if key not in memory:
            left -= length
            if length < 0 or left < 0:
                raise ValueError("more numbers than the file has")
            memory[key] = Numbers(dtype, _bytes(bytearray(length)))
        return memory[key]

    with path.open("rb") as stream:
        if _DataOnly(stream).load() != _MAGIC:
            raise ValueError("another kind of file")
        for _ in ("version", "machine"):
            _DataOnly(stream).load()
        content = _DataOnly(stream, storages).load()
        for key in _DataOnly(stream).load():
            numbers = memory[key]
            length = len(numbers.memory)
            if int.from_bytes(stream.read(8), "little") * numbers.dtype.itemsize != length:
                raise ValueError("another number of numbers")
            stored = bytearray(stream.read(length))
            if len(stored) < length:
                raise ValueError("the end is missing")
            numbers.memory.copy_(_bytes(stored))
    return content


_MAGIC = 0x1950A86A20F9469CFC6C
_OBJECTS = re.compile(r"[^/]+/data\.pkl")


def _bytes(content: bytearray) -> torch.UntypedStorage:
    if not content:
        return torch.empty(0, dtype=torch.uint8, device="cpu").untyped_storage()
    return torch.frombuffer(content, dtype=torch.uint8).untyped_storage()
