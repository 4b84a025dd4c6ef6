"""Which files hold the weights that a path names: one file, a folder, or shards with an index.

A folder is one that ``save_pretrained`` wrote: its index or its file of weights is looked for under
the names that diffusers and transformers give them. An index, ``NAME.index.json``, lists for every
tensor the shard beside it that holds it.
"""

import hashlib
from pathlib import Path
from typing import NamedTuple

from advpure.base.documents import kind_of, parse_json, read_text
from advpure.base.errors import BadInput
from advpure.base.validation import name, shown

_STEMS = ("diffusion_pytorch_model", "model", "pytorch_model")
_ENDINGS = (".safetensors", ".safetensors.index.json", ".bin", ".bin.index.json")
_INDEX = ".index.json"


class Shards(NamedTuple):
    """The files of an index.

    Attributes:
        files: In the order of their names.
        names: The tensors of each file.
    """

    files: tuple[Path, ...]
    names: dict[Path, frozenset[str]]


def locate(path: str | Path) -> Path:
    """Return the file of weights, or the index, that a path names.

    Args:
        path: A file, or a folder that ``save_pretrained`` wrote.

    Raises:
        BadInput: when it is missing or unreadable, or a folder without a file of weights.
    """
    path = Path(path)
    kind = kind_of(path)
    if kind == "file":
        _check_readable(path)
        return path
    if kind is None:
        raise BadInput(f"weights file {path}", "is missing", _where_to_look(path))
    named = [path / f"{stem}{ending}" for ending in _ENDINGS for stem in _STEMS]
    files = [file for file in named if file.is_file()]
    if not files:
        files = sorted(file for file in path.glob("*.safetensors") if file.is_file())
        if len(files) != 1:
            inner = path / "unet"
            fix = f"name {inner}" if inner.is_dir() else "name the .safetensors in it"
            raise BadInput(f"weights {path}", "is a folder", fix)
    return files[0]


def _where_to_look(path: Path) -> str:
    """Return what to check about a path that names nothing."""
    name, colon, _ = str(path).partition(":")
    if colon and "/" not in name:
        return f"check the path; no official checkpoint is called {name!r} (advpure models list)"
    if "@" in path.name:
        return "check the path, and choose behind it by @raw, @ema, @bilinear or @bicubic alone"
    return "check the path"


def _check_readable(path: Path) -> None:
    """Refuse a file that the system does not let us read."""
    try:
        with path.open("rb") as stream:
            stream.read(1)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise BadInput(f"weights file {path}", f"cannot be read ({reason})", "check it") from None


def is_index(path: Path) -> bool:
    """Return whether a file lists shards."""
    return path.name.endswith(_INDEX)


def read_index(path: Path) -> Shards:
    """Read an index.

    Raises:
        BadInput: when it is damaged, or a shard is missing or lies elsewhere.
    """
    what = f"index {path}"
    content = parse_json(read_text(path, what), what)
    where = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(where, dict) or not where:
        raise BadInput(what, "has no weight_map", "obtain it again")
    held: dict[Path, set[str]] = {}
    for tensor, shard in where.items():
        held.setdefault(path.parent / name(shard, f"shard of {shown(tensor)} in {path}"), set())
        held[path.parent / shard].add(tensor)
    for file in held:
        if not file.is_file():
            raise BadInput(f"shard {file}", "is missing", "obtain all files of the index")
    return Shards(tuple(sorted(held)), {file: frozenset(names) for file, names in held.items()})


def digest(path: str | Path, kind: str = "sha256") -> str:
    """Return the checksum of the weights that a path names, in hexadecimal.

    Of shards it is the checksum of the index followed by the checksums of the shards.

    Args:
        path: As `locate`.
        kind: ``sha256`` or ``md5``.

    Raises:
        BadInput: when something is missing.
    """
    path = locate(path)
    if not is_index(path):
        return _digest(path, kind)
    whole = hashlib.new(kind, path.read_bytes())
    for file in read_index(path).files:
        whole.update(_digest(file, kind).encode())
    return whole.hexdigest()


def _digest(path: Path, kind: str) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, kind).hexdigest()
