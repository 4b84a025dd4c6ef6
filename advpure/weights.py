"""Weights are data: safetensors files with a self-describing header, and nothing that runs code.

A file of ours stores parameters as float16 and, under the key `advpure` of the safetensors
header, one JSON object {format, architecture, config, metadata}. Foreign files are read as plain
tensors only: safetensors, or PyTorch files through the restricted unpickler (`weights_only=True`).
"""

import hashlib
import json
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load as parse_safetensors
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

from advpure.devices import plain_defaults
from advpure.errors import BadInput
from advpure.networks import build_network
from advpure.storage import atomic_path

HEADER = "advpure"
FORMAT = 1
_CODE_SIGNS = ("global", "reduce", "instance", "persistent", "weights only load failed")
_CONVERT = (
    "load it once in a sandbox that you can throw away and store its tensors with "
    "safetensors.torch.save_file"
)


class LoadedNetwork(NamedTuple):
    """A network read from a file.

    Attributes:
        network: float32, evaluation mode, parameters without gradients.
        metadata: What was stored with it, with `architecture` and `config` added.
    """

    network: nn.Module
    metadata: dict[str, Any]


def sha256(path: str | Path) -> str:
    """Return the SHA-256 sum of a file, in hexadecimal.

    Raises:
        BadInput: when the file is missing.
    """
    with _existing(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def state_sha256(module: nn.Module) -> str:
    """Return the SHA-256 sum of a module's parameters and buffers, whatever file they came from."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().double().contiguous().numpy().tobytes())
    return digest.hexdigest()


def save_network(
    path: str | Path,
    network: nn.Module,
    *,
    architecture: str,
    config: Mapping[str, Any],
    metadata: Mapping[str, Any],
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

    Raises:
        BadInput: when a value is not finite or does not fit in float16.
        StorageFull: when the disk is full; an existing file stays as it was.
    """
    tensors = {}
    for name, value in network.state_dict().items():
        stored = value.half() if value.is_floating_point() else value
        if not torch.isfinite(stored).all():
            raise BadInput(f"tensor {name!r}", "is not finite in float16", "train it again")
        tensors[name] = stored.contiguous().cpu()
    header = {
        "format": FORMAT,
        "architecture": architecture,
        "config": dict(config),
        "metadata": dict(metadata),
    }
    with atomic_path(Path(path)) as scratch:
        scratch.write_bytes(to_safetensors(tensors, {HEADER: json.dumps(header)}))


@plain_defaults()
def load_network(path: str | Path) -> LoadedNetwork:
    """Rebuild a network that `save_network` stored.

    Args:
        path: The file.

    Returns:
        LoadedNetwork: The network and its metadata.

    Raises:
        BadInput: when the file is missing, damaged, not ours, or does not fit its own header.
    """
    path = _existing(path)
    header = _read_header(path)
    network = build_network(header["architecture"], header["config"])
    state = load_state(path)
    expected = network.state_dict()
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
    network.load_state_dict(state)
    network.float().eval().requires_grad_(False)
    described = {key: header[key] for key in ("architecture", "config")}
    return LoadedNetwork(network, {**header["metadata"], **described})


def load_state(path: str | Path) -> dict[str, Tensor]:
    """Read named tensors from a file without ever running code from it.

    Args:
        path: A safetensors file, or a PyTorch file (zip or legacy) that holds tensors by name,
            possibly under `state_dict` or `model`.

    Returns:
        Named tensors on the CPU, in the stored types.

    Raises:
        BadInput: when the file is missing, damaged, would run code, holds no named tensors, or
            holds values that are not finite.
    """
    path = _existing(path)
    with path.open("rb") as stream:
        start = stream.read(9)
    is_safetensors = len(start) == 9 and start[8:] == b"{"
    state = _parse_safetensors(path) if is_safetensors else _parse_torch(path)
    for name, value in state.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise BadInput(f"tensor {name!r} of {path}", "is not finite", "obtain the file again")
    return state


def read_torch(path: str | Path) -> Any:
    """Read a PyTorch file through the restricted unpickler: tensors and plain containers only.

    Args:
        path: The file.

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
            return torch.load(stream, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if any(sign in str(error).lower() for sign in _CODE_SIGNS) and not _is_garbage(path):
            raise BadInput(f"weights file {path}", "would run code when loaded", _CONVERT) from None
        raise _damaged(path) from None
    except Exception:  # the unpickler fails on damaged input in many ways, all meaning the same
        raise _damaged(path) from None


def _existing(path: str | Path) -> Path:
    """Return the path of an existing file."""
    path = Path(path)
    if not path.is_file():
        raise BadInput(f"weights file {path}", "is missing", "check the path")
    return path


def _read_header(path: Path) -> dict[str, Any]:
    """Read and check our part of a safetensors header."""
    try:
        with safe_open(str(path), framework="pt") as stream:
            stored = stream.metadata() or {}
    except (SafetensorError, OSError):
        with path.open("rb") as raw:
            foreign = raw.read(9)[8:] != b"{"
        rule = "is no safetensors file" if foreign else "is damaged or cut short"
        raise BadInput(f"weights file {path}", rule, "obtain it again") from None
    fix = "use a file that `advpure train` wrote"
    try:
        header = json.loads(stored[HEADER])
    except (KeyError, ValueError):
        raise BadInput(f"weights file {path}", "has no advpure header", fix) from None
    parts = {"format": int, "architecture": str, "config": dict, "metadata": dict}
    if not isinstance(header, dict) or any(
        not isinstance(header.get(name), kind) for name, kind in parts.items()
    ):
        raise BadInput(f"weights file {path}", "has a malformed advpure header", fix)
    if header["format"] != FORMAT:
        raise BadInput(f"weights file {path}", f"has format {header['format']}", "update advpure")
    return header


def _parse_safetensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file."""
    try:
        return parse_safetensors(path.read_bytes())
    except (SafetensorError, ValueError, KeyError):
        raise BadInput(
            f"weights file {path}", "is damaged or cut short", "obtain it again"
        ) from None


def _parse_torch(path: Path) -> dict[str, Tensor]:
    """Read named tensors of a PyTorch file."""
    content = read_torch(path)
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not content:
        raise BadInput(f"weights file {path}", "holds no named tensors", "save a state_dict")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise BadInput(f"entry {name!r} of {path}", "is no named tensor", "save a state_dict")
    return dict(content)


def _is_garbage(path: Path) -> bool:
    """Tell bytes that no pickle or zip archive starts with."""
    with path.open("rb") as stream:
        return stream.read(1) not in (b"\x80", b"P", b"c", b"(", b"}", b"]")


def _damaged(path: Path) -> BadInput:
    """Build the error for a file that cannot be read."""
    return BadInput(f"weights file {path}", "is damaged or no weights file", "obtain it again")
