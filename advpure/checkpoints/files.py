"""Read, check and convert the official files.

Whatever the format, the result is one dictionary of tensors under their official names. Converting
stores exactly that dictionary as safetensors, with the entry's name in the header, so that a
converted file needs no name beside it and stays readable for other tools.
"""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, get_args

from safetensors import SafetensorError, safe_open
from torch import Tensor

from advpure.base.documents import parse_json
from advpure.base.errors import BadInput
from advpure.checkpoints.adapters import AsClassifier, Resample
from advpure.checkpoints.choices import Choices, read_preprocessor, split_choices
from advpure.checkpoints.entry import Checkpoint
from advpure.checkpoints.flax import load_flax
from advpure.checkpoints.layout import Layout, assemble
from advpure.checkpoints.pickles import load_edm_pickle
from advpure.checkpoints.robustness import read_robustness, unwrap
from advpure.networks.named_tensors import (
    NamedTensors,
    Weights,
    check_tensors,
    choose_set,
    plain_names,
)
from advpure.networks.weight_files import digest, is_index, locate
from advpure.networks.weights import load_tensors, read_torch, write_safetensors

HEADER = "advpure-checkpoint"


class Converted(NamedTuple):
    """What the header of a converted file says.

    Attributes:
        entry: The registry name.
        original: Checksum of the official file, ``sha256:...``.
    """

    entry: str
    original: str


def read_weights(
    entry: Checkpoint,
    path: str | Path,
    layout: Layout | None = None,
    *,
    weights: Weights | None = None,
) -> NamedTensors:
    """Read a file of an entry, official or converted.

    Args:
        entry: What it is meant to be.
        path: The file, an index of shards, or a folder that ``save_pretrained`` wrote.
        layout: The entry's; built here when None.
        weights: Averaged or raw weights, where the file holds both; the entry's when None.

    Returns:
        Tensors by official name, see `advpure.networks.named_tensors` for the rule, and which set
        they are.

    Raises:
        BadInput: when something is missing, damaged, would run code or holds something else.

    Warns:
        UserWarning: when the file holds both kinds of weights and none was chosen.
    """
    path = locate(path)
    if entry.reader == "tensors" or is_index(path) or _is_safetensors(path):
        read = load_tensors(path, weights, entry.weights)
    else:
        read = _READERS[entry.reader](path, weights)
        check_tensors(read.tensors, path)
    if isinstance(entry.adapt, AsClassifier) and entry.reader == "robustness":
        read = read._replace(tensors=unwrap(read.tensors, path, entry.adapt))
    known = (layout or entry.skeleton()[1]).official()
    return read._replace(tensors=plain_names(rename(entry, read.tensors), known, path))


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
    header = _header(path)
    if "entry" not in header or "original" not in header:
        return None
    return Converted(str(header["entry"]), str(header["original"]))


def _header(path: str | Path) -> dict[str, Any]:
    """Return what a conversion stored in the header of a file; nothing for any other file."""
    if not _is_safetensors(Path(path)):
        return {}
    try:
        with safe_open(str(path), framework="pt") as stream:
            header = parse_json((stream.metadata() or {}).get(HEADER, "{}"), HEADER)
    except (SafetensorError, OSError, ValueError):
        return {}
    return header if isinstance(header, dict) else {}


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

    The header keeps what was chosen: which weights, and how images are resized.

    Args:
        entry: What the file is.
        path: The file, an index of shards or a folder, with choices behind it, see
            `advpure.checkpoints.choices`.
        to: Where to write, replaced atomically.
        any_checksum: Take a file that differs from the published one, such as a fine-tuned one.

    Returns:
        How many tensors were stored.

    Raises:
        BadInput: when the file cannot be used or does not fit the entry.
    """
    if Path(to).suffix != ".safetensors":
        raise BadInput(f"target {to}", "is no .safetensors file", "write --to out.safetensors")
    choices = split_choices(path)
    file = locate(choices.path)
    if not any_checksum:
        require_sum(entry, file)
    _, layout = entry.skeleton()
    state, weights = read_weights(entry, file, layout, weights=choices.weights)
    assemble(layout, state, entry.name)
    resample = choose_resample(entry, choices, file)
    header = {"entry": entry.name, "original": f"sha256:{digest(file, 'sha256')}"}
    header |= {"weights": weights} if weights else {}
    header |= {"resample": resample} if resample else {}
    stored = {name: value.contiguous().clone() for name, value in state.items()}
    write_safetensors(to, stored, {HEADER: json.dumps(header)})
    return len(stored)


def choose_resample(entry: Checkpoint, choices: Choices, file: Path) -> Resample | None:
    """Return how a classifier resizes images: as chosen, or as its files say.

    Args:
        entry: The checkpoint.
        choices: What was chosen.
        file: The file of weights.

    Returns:
        The filter; None for the entry's own.

    Raises:
        BadInput: for a choice that means nothing to the entry, or a bad preprocessor file.
    """
    settings = entry.adapt
    if not isinstance(settings, AsClassifier) or settings.size is None:
        if choices.resample is not None:
            raise BadInput(
                f"choice {choices.resample}", f"means nothing to {entry.name}", "leave it out"
            )
        return None
    if choices.resample is not None:
        return choices.resample
    stored: Resample | None = _header(file).get("resample")
    if stored in get_args(Resample):
        return stored
    return read_preprocessor(file, settings, entry.name)


def _is_safetensors(path: Path) -> bool:
    with locate(path).open("rb") as stream:
        return stream.read(9)[8:] == b"{"


def _edm(path: Path, weights: Weights | None) -> NamedTensors:
    if weights == "raw":
        raise BadInput(f"weights file {path}", "holds averaged weights alone", "leave out raw")
    return NamedTensors(load_edm_pickle(path), None)


def _flax(path: Path, weights: Weights | None) -> NamedTensors:
    return NamedTensors(load_flax(path, "params" if weights == "raw" else "params_ema"), weights)


def _score_sde(path: Path, weights: Weights | None) -> NamedTensors:
    """Read the raw parameters by name, or the averages, a list in the order of the parameters."""
    content: Any = read_torch(path)
    model = content.get("model") if isinstance(content, dict) else None
    average = content.get("ema") if isinstance(content, dict) else None
    shadow = average.get("shadow_params") if isinstance(average, dict) else None
    if not isinstance(model, dict) or not isinstance(shadow, list | tuple):
        raise BadInput(
            f"weights file {path}", "has no 'model' and 'ema'", "use a Score-SDE checkpoint"
        )
    state, _ = choose_set(model, path)
    if weights == "raw":
        return NamedTensors(state, "raw")
    trained = [name for name in state if not _CONSTANT.search(name)]
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
    return NamedTensors(state, weights)


_CONSTANT = re.compile(r"(?:^|\.)(?:sigmas|all_modules\.0\.W)$")
"""What Score-SDE stores beside its parameters."""

_READERS: Mapping[str, Callable[[Path, Weights | None], NamedTensors]] = {
    "edm": _edm,
    "flax": _flax,
    "score-sde": _score_sde,
    "robustness": read_robustness,
}
