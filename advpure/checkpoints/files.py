"""Read, check and convert the official files.

Whatever the format, the result is one dictionary of tensors under their official names. Converting
stores exactly that dictionary as safetensors, with the entry's name in the header, so that a
converted file needs no name beside it and stays readable for other tools.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from advpure.checkpoints.entry import Checkpoint
from advpure.checkpoints.layout import assemble
from advpure.checkpoints.msgpack import load_flax
from advpure.checkpoints.pickles import load_edm_pickle
from advpure.errors import BadInput
from advpure.storage import atomic_path
from advpure.weights import load_state, read_torch

HEADER = "advpure-checkpoint"


class Converted(NamedTuple):
    """What the header of a converted file says.

    Attributes:
        entry: The registry name.
        original: Checksum of the official file, ``sha256:...``.
    """

    entry: str
    original: str


def read_official(entry: Checkpoint, path: str | Path) -> dict[str, Tensor]:
    """Read a file of an entry, official or converted.

    Args:
        entry: What it is meant to be.
        path: The file.

    Returns:
        Tensors by official name, prefixes removed.

    Raises:
        BadInput: when it is missing, damaged, would run code or holds something else.
    """
    path = Path(path)
    if entry.reader == "tensors" or _is_safetensors(path):
        state = load_state(path)
    elif entry.reader == "edm":
        state = load_edm_pickle(path)
    elif entry.reader == "flax":
        state = load_flax(path)
    else:
        state = _averaged(path)
    for name, value in state.items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise BadInput(f"tensor {name!r} of {path}", "is not finite", "obtain the file again")
    return rename(entry, state)


def rename(entry: Checkpoint, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Apply an entry's aliases to the names of a file."""
    renamed = {}
    for name, value in state.items():
        for pattern, replacement in entry.aliases:
            name = re.sub(pattern, replacement, name)
        renamed[name] = value
    return renamed


def converted(path: str | Path) -> Converted | None:
    """Return what the header of a converted file says, None for any other file."""
    if not _is_safetensors(Path(path)):
        return None
    try:
        with safe_open(str(path), framework="pt") as stream:
            header = json.loads((stream.metadata() or {})[HEADER])
        return Converted(str(header["entry"]), str(header["original"]))
    except (SafetensorError, OSError, KeyError, ValueError, TypeError):
        return None


def check_sum(entry: Checkpoint, path: str | Path) -> bool | None:
    """Compare a file with the published checksum.

    Returns:
        Whether it is the official file or made from it; None when no checksum is published.

    Raises:
        BadInput: when the file is missing.
    """
    if entry.checksum is None:
        return None
    made = converted(path)
    if made is not None:  # the conversion has compared it, or was told not to
        return made.entry == entry.name
    kind, _, expected = entry.checksum.partition(":")
    return digest(path, kind) == expected


def require_sum(entry: Checkpoint, path: str | Path) -> None:
    """Refuse a file whose checksum is published and differs.

    Raises:
        BadInput: naming the checksum.
    """
    if check_sum(entry, path) is False:
        raise BadInput(
            f"weights file {path}",
            f"has not the {(entry.checksum or '').partition(':')[0]} sum of {entry.name}",
            "obtain it again, or convert it with --any-checksum if it is meant to differ",
        )


def convert(
    entry: Checkpoint, path: str | Path, to: str | Path, *, any_checksum: bool = False
) -> int:
    """Store the official tensors of a file as safetensors.

    Args:
        entry: What the file is.
        path: The file.
        to: Where to write, replaced atomically.
        any_checksum: Take a file that differs from the published one, such as a fine-tuned one.

    Returns:
        How many tensors were stored.

    Raises:
        BadInput: when the file cannot be used or does not fit the entry.
    """
    if Path(to).suffix != ".safetensors":
        raise BadInput(f"target {to}", "is no .safetensors file", "write --to out.safetensors")
    if not any_checksum:
        require_sum(entry, path)
    state = read_official(entry, path)
    _, layout = entry.skeleton()
    assemble(layout, state, entry.name)
    header = {"entry": entry.name, "original": f"sha256:{digest(path, 'sha256')}"}
    stored = {name: value.contiguous().clone() for name, value in state.items()}
    with atomic_path(Path(to)) as scratch:
        save_file(stored, str(scratch), {HEADER: json.dumps(header)})
    return len(stored)


def digest(path: str | Path, kind: str) -> str:
    """Return a file's checksum, in hexadecimal.

    Raises:
        BadInput: when the file is missing.
    """
    if not Path(path).is_file():
        raise BadInput(f"weights file {path}", "is missing", "check the path")
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, kind).hexdigest()


def _is_safetensors(path: Path) -> bool:
    if not path.is_file():
        raise BadInput(f"weights file {path}", "is missing", "check the path")
    with path.open("rb") as stream:
        return stream.read(9)[8:] == b"{"


def _averaged(path: Path) -> dict[str, Tensor]:
    """Put Score-SDE's averaged parameters, a list in parameter order, under their names."""
    content: Any = read_torch(path)
    model = content.get("model") if isinstance(content, dict) else None
    average = content.get("ema") if isinstance(content, dict) else None
    shadow = average.get("shadow_params") if isinstance(average, dict) else None
    if not isinstance(model, dict) or not isinstance(shadow, list | tuple):
        raise BadInput(
            f"weights file {path}", "has no 'model' and 'ema'", "use a Score-SDE checkpoint"
        )
    state = {name.removeprefix("module."): value for name, value in model.items()}
    trained = [name for name in state if name not in ("sigmas", "all_modules.0.W")]
    if len(trained) != len(shadow):
        raise BadInput(
            f"weights file {path}",
            f"averages {len(shadow)} of {len(trained)} parameters",
            "obtain it again",
        )
    for name, value in zip(trained, shadow, strict=True):
        if not isinstance(value, Tensor) or value.shape != state[name].shape:
            raise BadInput(
                f"averaged tensor {name!r} of {path}", "has another shape", "obtain it again"
            )
        state[name] = value
    return state
