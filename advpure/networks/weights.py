"""Weights are data: safetensors files with a self-describing header, and nothing that runs code.

A file of ours stores parameters as float16 and, under the key `advpure` of the safetensors
header, one JSON object {format, architecture, config, metadata}. Of a network that was trained on
in parts from a shipped one, its base, only what differs is stored, and the header has the `base`,
{name, sha256}, too. Foreign files are read as plain tensors only: safetensors, or PyTorch files
through the restricted unpickler (`weights_only=True`).
Which of their tensors are the weights is the rule of `advpure.networks.named_tensors`; which files
a path names, that of `advpure.networks.weight_files`.
"""

import hashlib
import io
import json
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load as parse_safetensors
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

from advpure.base.devices import plain_defaults
from advpure.base.documents import kind_of, parse_json
from advpure.base.errors import BadInput
from advpure.base.storage import atomic_path
from advpure.base.validation import shown
from advpure.models import list_models, model_path
from advpure.networks import build_network, without_memory
from advpure.networks.named_tensors import (
    NamedTensors,
    Weights,
    check_kinds,
    check_tensors,
    choose_set,
)
from advpure.networks.weight_files import digest, is_index, locate, read_index

HEADER = "advpure"
FORMAT = 1
_WITH_BASE = 2
"""The format of files that need their base, which readers of whole files alone cannot use."""
_CODE_SIGNS = ("global", "reduce", "instance", "persistent", "weights only load failed")
_CONVERT = (
    "load it once in a sandbox that you can throw away and store its tensors with "
    "safetensors.torch.save_file, or write a function that builds the network and name it, "
    "as --classifier file.py:make"
)


class LoadedNetwork(NamedTuple):
    """A network read from a file.

    Attributes:
        network: float32, evaluation mode, parameters without gradients.
        metadata: What was stored with it, with `architecture` and `config` added, and `base`, the
            {name, sha256} of the shipped network that the rest was taken from, if any was.
    """

    network: nn.Module
    metadata: dict[str, Any]


def sha256(path: str | Path) -> str:
    """Return the SHA-256 sum of a file of weights, in hexadecimal; see `weight_files.digest`.

    Raises:
        BadInput: when the file is missing.
    """
    return digest(path, "sha256")


def state_sha256(module: nn.Module) -> str:
    """Return the SHA-256 sum of a module's parameters and buffers, whatever file they came from."""
    digest = hashlib.sha256()
    state = {name: each for name, each in module.state_dict().items() if isinstance(each, Tensor)}
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().double().contiguous().numpy().tobytes())
    return digest.hexdigest()


def all_images(metadata: Mapping[str, Any]) -> int:
    """Return how many training images a network's stages drew, its teachers' included.

    Example:
        >>> all_images({"images_seen": 20, "images_seen_before": 5}), all_images({})
        (25, 0)
    """
    return sum(int(metadata.get(name, 0)) for name in ("images_seen", "images_seen_before"))


def save_network(
    path: str | Path,
    network: nn.Module,
    *,
    architecture: str,
    config: Mapping[str, Any],
    metadata: Mapping[str, Any],
    base: str | None = None,
) -> None:
    """Store a network as float16 safetensors with a header that rebuilds it.

    float16 keeps 11 significant bits, a relative rounding of at most 2^-11 per parameter, so a
    quality that is to be stated is measured after loading the file again.

    Args:
        path: Where to write, replaced atomically.
        network: Its state is stored.
        architecture: A name in `advpure.networks.ARCHITECTURES`.
        config: Settings of the architecture, JSON values.
        metadata: Anything JSON worth knowing: task, data, noise range, quality.
        base: A shipped network; tensors that are equal to its own are not stored.

    Raises:
        BadInput: when a value is not finite or does not fit in float16.
        StorageFull: when the disk is full; an existing file stays as it was.
    """
    known = {} if base is None else load_state(model_path(base))
    tensors = {}
    for name, value in network.state_dict().items():
        stored = value.half() if value.is_floating_point() else value
        if not torch.isfinite(stored).all():
            raise BadInput(f"tensor {name!r}", "is not finite in float16", "train it again")
        stored = stored.contiguous().cpu()
        if name not in known or not torch.equal(stored, known[name]):
            tensors[name] = stored
    header = {
        "format": FORMAT if base is None else _WITH_BASE,
        "architecture": architecture,
        "config": dict(config),
        "metadata": dict(metadata),
    }
    if base is not None:
        header["base"] = {"name": base, "sha256": sha256(model_path(base))}
    write_safetensors(path, tensors, {HEADER: json.dumps(header)})


def write_safetensors(
    path: str | Path, tensors: Mapping[str, Tensor], header: Mapping[str, str]
) -> None:
    """Store tensors as safetensors, whole or not at all.

    The file is made in memory first: where the library writes itself, a full disk is an error of
    its own kind that no reader expects.

    Raises:
        StorageFull: when the disk is full; an existing file stays as it was.
    """
    with atomic_path(Path(path)) as scratch:
        scratch.write_bytes(to_safetensors(dict(tensors), dict(header)))


def write_torch(path: str | Path, content: Any) -> None:
    """Store tensors and plain containers as a PyTorch file, whole or not at all.

    In memory first, for the reason that `write_safetensors` gives: `torch.save` raises a
    RuntimeError where a disk is full. The view of that memory is released in any case: over one
    that an error left behind, the garbage collector of Python 3.12.1 crashes.

    Raises:
        StorageFull: when the disk is full; an existing file stays as it was.
    """
    memory = io.BytesIO()
    torch.save(content, memory)
    with (
        atomic_path(Path(path)) as scratch,
        memory.getbuffer() as view,
        scratch.open("wb") as stream,
    ):
        stream.write(view)


@plain_defaults()
def load_network(path: str | Path) -> LoadedNetwork:
    """Rebuild a network that `save_network` stored.

    Args:
        path: The file.

    Returns:
        LoadedNetwork: The network and its metadata.

    Raises:
        BadInput: when the file is missing, damaged, not ours, or does not fit its own header, or
            when its base is another one here.
    """
    path = _existing(path)
    header = read_header(path)
    network = without_memory(header["architecture"], header["config"])
    expected = network.state_dict()
    state = {**_base(header, path), **load_state(path)}
    for name in [*expected, *state]:
        if name not in state or name not in expected:
            where = "is missing from" if name not in state else "is unknown to"
            raise BadInput(
                f"tensor {name!r}", f"{where} the {header['architecture']} of {path}", "rebuild it"
            )
        if state[name].shape != expected[name].shape:
            raise BadInput(
                f"tensor {name!r} of {path}",
                f"has shape {tuple(state[name].shape)}, not {tuple(expected[name].shape)}",
                "rebuild it",
            )
    check_kinds(state, expected, str(path))
    if expected.keys() != dict([*network.named_parameters(), *network.named_buffers()]).keys():
        # Some of its tensors are in no file. The others are, so it is no larger than the file.
        network = build_network(header["architecture"], header["config"])
    own = {
        name: value.to(expected[name].dtype, copy=True, memory_format=torch.contiguous_format)
        for name, value in state.items()
    }
    network.load_state_dict(own, assign=True)
    network.float().eval().requires_grad_(False)
    kept = ("architecture", "config", "base")
    described: dict[str, Any] = {key: header[key] for key in kept if key in header}
    return LoadedNetwork(network, {**header["metadata"], **described})


def _base(header: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    """Return the tensors of the shipped network that a file leaves out its own for."""
    if "base" not in header:
        return {}
    name, digest = header["base"]["name"], header["base"]["sha256"]
    what = f"base {shown(name)} of weights file {path}"
    if name not in list_models():
        raise BadInput(
            what, "is not shipped here", "use the version of advpure that wrote the file"
        )
    if sha256(model_path(name)) != digest:
        rule = f"has another SHA-256 sum here than {shown(digest)}"
        raise BadInput(what, rule, "use the version of advpure that wrote the file")
    return load_state(model_path(name))


def load_state(path: str | Path) -> dict[str, Tensor]:
    """Read named tensors from a file without ever running code from it.

    Args:
        path: As `load_tensors`.

    Returns:
        Named tensors on the CPU, in the stored types.

    Raises:
        BadInput: as `load_tensors`.
    """
    return load_tensors(path).tensors


def load_tensors(
    path: str | Path, choice: Weights | None = None, default: Weights = "ema"
) -> NamedTensors:
    """Read named tensors from files without ever running code from them.

    Args:
        path: A safetensors file, a PyTorch file (zip or legacy), the index of such shards, or a
            folder that ``save_pretrained`` wrote.
        choice: Which of averaged and raw weights to read; None for the default.
        default: Which of them to read where the file holds both; see
            `advpure.networks.named_tensors`.

    Returns:
        Named tensors on the CPU, in the stored types, and which set they are.

    Raises:
        BadInput: when something is missing, damaged, would run code, holds no named tensors, or
            tensors that are no weights.
    """
    path = locate(path)
    read = _read_shards(path) if is_index(path) else _read_file(path, choice, default)
    check_tensors(read.tensors, path)
    return read


def _read_shards(path: Path) -> NamedTensors:
    """Join the tensors of an index."""
    shards = read_index(path)
    state: dict[str, Tensor] = {}
    for file in shards.files:
        held = _read_file(file, None, "ema").tensors
        for name in sorted(shards.names[file]):
            if name not in held:
                raise BadInput(f"tensor {name!r} of {path}", f"is not in {file.name}", "mend it")
            state[name] = held[name]
    return NamedTensors(state, None)


def _read_file(path: Path, choice: Weights | None, default: Weights) -> NamedTensors:
    """Read one file of whichever format."""
    with path.open("rb") as stream:
        start = stream.read(9)
    safe = len(start) == 9 and start[8:] == b"{"
    content: Any = _parse_safetensors(path) if safe else read_torch(path)
    return choose_set(content, path, choice, default)


def read_torch(path: str | Path, what: str = "") -> Any:
    """Read a PyTorch file through the restricted unpickler: tensors and plain containers only.

    Args:
        path: The file.
        what: What it is called in errors where it holds no weights.

    Returns:
        Whatever it holds, tensors on the CPU.

    Raises:
        BadInput: when it is missing, damaged or would run code.
    """
    path = _existing(path)
    try:
        # By its content: for some suffixes torch would choose the format by the name.
        with path.open("rb") as stream, warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Detected pickle protocol")
            warnings.filterwarnings("ignore", message="Validating sparse tensor")
            return load_restricted(stream)
    except pickle.UnpicklingError as error:
        if any(sign in str(error).lower() for sign in _CODE_SIGNS) and not _is_garbage(path):
            fix = "store plain tensors in it, with torch.save" if what else _CONVERT
            subject = what or f"weights file {path}"
            raise BadInput(subject, "would run code when loaded", fix) from None
        raise _damaged(path, what) from None
    except Exception:  # the unpickler fails on damaged input in many ways, all meaning the same
        raise _damaged(path, what) from None


def load_restricted(stream: IO[bytes]) -> Any:
    """Load a PyTorch file by the restricted unpickler, after a look at the sizes that it states.

    Raises:
        ValueError: when it states more bytes than it has, as only compressed or overlapping
            members can; PyTorch stores them plainly.
        Exception: whatever the unpickler raises.
    """
    size = stream.seek(0, io.SEEK_END)
    if zipfile.is_zipfile(stream):
        with zipfile.ZipFile(stream) as archive:
            members = archive.infolist()
        if sum(member.file_size for member in members) > size:
            raise ValueError("more bytes than the file has")
    stream.seek(0)
    return torch.load(stream, map_location="cpu", weights_only=True)


def _existing(path: str | Path) -> Path:
    """Return the path of an existing file."""
    path = Path(path)
    if kind_of(path) == "folder":
        raise BadInput(
            f"weights {path}",
            "is a folder",
            "name the .safetensors in it, or write NAME:FOLDER for an official checkpoint",
        )
    return locate(path)


def read_header(path: Path) -> dict[str, Any]:
    """Read and check our part of a safetensors header: {format, architecture, config, metadata}.

    Raises:
        BadInput: when the file is damaged or not ours.
    """
    try:
        with safe_open(str(path), framework="pt") as stream:
            stored = stream.metadata() or {}
    except (SafetensorError, OSError):
        with path.open("rb") as raw:
            foreign = raw.read(9)[8:] != b"{"
        rule = "is no safetensors file" if foreign else "is damaged or cut short"
        more = ", or name code that builds the network and loads it, file.py:make"
        fix = f"obtain it again{more if foreign else ''}"
        raise BadInput(f"weights file {path}", rule, fix) from None
    fix = "use a file that `advpure train` wrote"
    if HEADER not in stored:
        raise BadInput(f"weights file {path}", "has no advpure header", fix)
    header = parse_json(stored[HEADER], f"advpure header of weights file {path}")
    parts = {"format": int, "architecture": str, "config": dict, "metadata": dict}
    if not isinstance(header, dict) or any(
        not isinstance(header.get(name), kind) for name, kind in parts.items()
    ):
        raise BadInput(f"weights file {path}", "has a malformed advpure header", fix)
    if header["format"] != (_WITH_BASE if "base" in header else FORMAT):
        raise BadInput(f"weights file {path}", f"has format {header['format']}", "update advpure")
    base = header.get("base", {"name": "", "sha256": ""})
    is_named = isinstance(base, dict) and isinstance(base.get("name"), str)
    if not is_named or not isinstance(base.get("sha256"), str):
        raise BadInput(f"weights file {path}", "has a malformed base in its header", fix)
    return header


def _parse_safetensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file."""
    try:
        return parse_safetensors(path.read_bytes())
    except (SafetensorError, ValueError, KeyError):
        raise BadInput(
            f"weights file {path}", "is damaged or cut short", "obtain it again"
        ) from None


def _is_garbage(path: Path) -> bool:
    """Tell bytes that no pickle or zip archive starts with."""
    with path.open("rb") as stream:
        return stream.read(1) not in (b"\x80", b"P", b"c", b"(", b"}", b"]")


def _damaged(path: Path, what: str = "") -> BadInput:
    """Build the error for a file that cannot be read."""
    if what:
        return BadInput(what, "is damaged or no file of tensors", "obtain it again")
    return BadInput(f"weights file {path}", "is damaged or no weights file", "obtain it again")
