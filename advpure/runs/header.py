"""What a run is: its settings decide its identity, its context says where it was computed.

Two runs are the same run exactly when the canonical JSON of their resolved settings is the same.
The context (versions, device, threads, ...) never decides the identity, with one exception that
`check_context` guards: results of other weights or other data must not join a run.
"""

import hashlib
import json
import re
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from advpure.base.errors import BadInput

if TYPE_CHECKING:
    from torch import Tensor

# The same run computed elsewhere may round differently: these keys say so when they change.
NUMERIC_CONTEXT = (
    "advpure",
    "torch",
    "numpy",
    "device",
    "dtype",
    "threads",
    "tile",
    "cpu",
    "matmul",
)
# Another value of these makes it another experiment.
FIXED_CONTEXT = ("weights", "data")
_ABSENT = "absent"
_OTHER_OUT = "choose another --out"
_PLAIN = "use text, finite numbers, booleans, None, lists and mappings"


def canonical_json(settings: Mapping[str, Any]) -> str:
    """Write settings as the one JSON text that stands for them.

    Args:
        settings: Nested mappings, lists, tuples, strings, numbers, booleans, None and paths.

    Returns:
        Sorted, compact JSON; floats with the fewest digits that read back exactly.

    Raises:
        BadInput: for a value that JSON cannot hold (NaN, infinity, objects) or a key that is
            no string; the message names the dotted key.

    Example:
        >>> canonical_json({"t": 0.1, "defense": "cm", "eps": (1, None)})
        '{"defense":"cm","eps":[1,null],"t":0.1}'
    """
    plain = _plain(settings, "")
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False)


def run_id(settings: Mapping[str, Any]) -> str:
    """Return the 12 hexadecimal digits that name a run: sha256 of its canonical settings.

    Example:
        >>> run_id({"seed": 0}) == run_id({"seed": 0}) != run_id({"seed": 1})
        True
    """
    return hashlib.sha256(canonical_json(settings).encode()).hexdigest()[:12]


def default_run_folder(root: str | Path, verb: str, settings: Mapping[str, Any]) -> Path:
    """Return the folder that a verb with these settings always uses: root/verb-<run id>.

    The same command therefore finds, and goes on with, its own run.

    Example:
        >>> default_run_folder("runs", "cr", {"seed": 0}).as_posix()
        'runs/cr-bd0488843468'
    """
    return Path(root) / f"{verb}-{run_id(settings)}"


def collect_context(
    *,
    device: str = "cpu",
    dtype: str = "float32",
    tile: int | None = None,
    weights: Mapping[str, str] | None = None,
    data: str | None = None,
    sources: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Gather what can change the last bits of a result without changing its settings.

    Args:
        device: The torch device that computes.
        dtype: The type that networks compute in.
        tile: Rows that networks see at once; None for as many as they are given.
        weights: sha256 of each weights file, by name.
        data: Digest of the data set and the ids in use.
        sources: Digests of the code in use, as from `source_digests`.

    Returns:
        A JSON-ready mapping: versions, platform, CPU capability, threads and the arguments.
    """
    import platform
    import sqlite3

    import numpy as np
    import torch

    import advpure

    where = torch.device(device)
    name = torch.cuda.get_device_name(where) if where.type == "cuda" else platform.machine()
    return {
        "advpure": advpure.__version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "sqlite": sqlite3.sqlite_version,
        "platform": platform.platform(),
        "device": f"{device} ({name})",
        "dtype": dtype,
        "threads": torch.get_num_threads(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "matmul": torch.get_float32_matmul_precision(),
        "tile": tile,
        "weights": dict(weights or {}),
        "data": data,
        "sources": dict(sources or {}),
    }


def source_digests(*things: object) -> dict[str, str]:
    """Return the SHA-256 of the file that each class or function stands in, by its module.

    What has no file, as in an interactive session, is left out. The files that these import are
    not followed.

    Example:
        >>> {name: len(digest) for name, digest in source_digests(run_id, Path).items()}
        {'advpure.runs.header': 64, 'pathlib': 64}
    """
    digests = {}
    for thing in things:
        module = sys.modules.get(str(getattr(thing, "__module__", None)))
        path = Path(getattr(module, "__file__", None) or "")
        if module is not None and path.is_file():
            digests[module.__name__] = hashlib.sha256(path.read_bytes()).hexdigest()
    return digests


def image_digests(images: "Tensor", labels: "Tensor", ids: "Tensor") -> dict[str, str]:
    """Return 16 hexadecimal digits for every image: of the sha256 of its pixels and its label.

    Args:
        images: float32 [n, C, H, W].
        labels: int64 [n].
        ids: int64 [n].

    Returns:
        Sample id, as text, to its digits.
    """
    pixels = images.detach().cpu().contiguous().numpy().astype("<f4", copy=False)
    return {
        str(i): hashlib.sha256(image.tobytes() + str(label).encode()).hexdigest()[:16]
        for i, label, image in zip(ids.tolist(), labels.tolist(), pixels, strict=True)
    }


def changed_images(first: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return the ids of the images that two contexts have in common, and with other bytes."""
    before, after = first.get("images") or {}, now.get("images") or {}
    return sorted((i for i in before.keys() & after.keys() if before[i] != after[i]), key=int)


def check_settings(stored: Mapping[str, Any], given: Mapping[str, Any], folder: Path) -> None:
    """Refuse to go on with a run under other settings.

    Raises:
        BadInput: naming the first key, in sorted order, that differs, with both values; the verb
            before all others.
    """
    verbs = ({"verb": each["verb"]} if "verb" in each else {} for each in (stored, given))
    if difference := _first_difference(*verbs) or _first_difference(stored, given):
        key, there, here = difference
        rule = f"differs from {there} of the run in {folder}"
        raise BadInput(f"setting {key} = {here}", rule, _OTHER_OUT)


def check_context(first: Mapping[str, Any], now: Mapping[str, Any], folder: Path) -> None:
    """Compare the context of this session with that of the run's first session.

    Raises:
        BadInput: when the weights, the data or an image are others.

    Warns:
        RuntimeWarning: when a version, the device, the type, the threads or the tile changed,
            so that rows may differ in their last bits from those of an uninterrupted run; or when
            the code changed, so that rows of two programs may stand side by side.
    """
    for name in FIXED_CONTEXT:
        if difference := _first_difference({name: first.get(name)}, {name: now.get(name)}):
            key, there, here = difference
            rule = f"are not those of the run in {folder} ({there})"
            raise BadInput(f"{key} = {here}", rule, _OTHER_OUT)
    if others := changed_images(first, now):
        rule = f"has other pixels or another label than in the run in {folder}"
        raise BadInput(f"image {others[0]}", rule, _OTHER_OUT)
    changed = [
        f"{key} {first.get(key, _ABSENT)} -> {now.get(key, _ABSENT)}"
        for key in NUMERIC_CONTEXT
        if first.get(key, _ABSENT) != now.get(key, _ABSENT)
    ]
    if changed:
        warnings.warn(
            f"the run in {folder} began elsewhere ({', '.join(changed)}): "
            "new rows are not promised to equal an uninterrupted run to the last bit",
            RuntimeWarning,
            stacklevel=3,
        )
    before, after = first.get("sources") or {}, now.get("sources") or {}
    edited = sorted(name for name in before.keys() & after.keys() if before[name] != after[name])
    if edited:
        warnings.warn(
            f"the code of {', '.join(edited)} changed since the run in {folder} began, and its "
            "rows are kept: delete the folder or choose another --out to compute them anew",
            RuntimeWarning,
            stacklevel=3,
        )


def check_folder(folder: Path, run: str) -> None:
    """Refuse a folder that is named after another run, such as a copy of one.

    Args:
        folder: A run folder. Only one that is named as `default_run_folder` does is checked; what
            consists of decimal digits alone may be a date that a user chose.
        run: The name of the run that it holds, from `run_id`.

    Raises:
        BadInput: when the hash in the folder's name is not that of the run.
    """
    named = re.fullmatch(r".+-([0-9a-f]{12})", folder.resolve().name)
    if named is not None and not named[1].isdecimal() and named[1] != run:
        fix = "delete the folder and run its command again"
        raise BadInput(str(folder), f"holds another run ({run})", fix)


def flatten(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Iterate over nested settings as dotted keys and values.

    Example:
        >>> dict(flatten({"attack": {"eps": 0.1, "steps": 40}, "n": 8}))
        {'attack.eps': 0.1, 'attack.steps': 40, 'n': 8}
    """
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _first_difference(
    stored: Mapping[str, Any], given: Mapping[str, Any]
) -> tuple[str, str, str] | None:
    there, here = (
        {key: json.dumps(value, sort_keys=True) for key, value in flatten(_plain(side, ""))}
        for side in (stored, given)
    )
    for key in sorted(there.keys() | here.keys()):
        if there.get(key) != here.get(key):
            return key, there.get(key, _ABSENT), here.get(key, _ABSENT)
    return None


def _plain(value: Any, key: str) -> Any:
    if isinstance(value, Mapping):
        for name in value:
            if not isinstance(name, str):
                where = f"settings key {name!r} in {key or 'the top level'}"
                raise BadInput(where, "is not text", "name settings by text")
        prefix = f"{key}." if key else ""
        return {name: _plain(inner, f"{prefix}{name}") for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner, f"{key}.{index}") for index, inner in enumerate(value)]
    if isinstance(value, Path):
        return value.as_posix()
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float) and value - value == 0.0:
        return value
    raise BadInput(f"setting {key} = {value!r}", "cannot be stored as JSON", _PLAIN)
