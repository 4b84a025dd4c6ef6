"""From an entry's name and a file to a working denoiser or classifier."""

from pathlib import Path
from typing import NamedTuple

from torch import nn

from advpure.checkpoints.catalogue import CHECKPOINTS
from advpure.checkpoints.entry import Checkpoint
from advpure.checkpoints.files import converted, read_official, require_sum
from advpure.checkpoints.layout import assemble
from advpure.devices import plain_defaults
from advpure.errors import BadInput, MissingExtra


class Reference(NamedTuple):
    """An entry and its file.

    Attributes:
        entry: The registered checkpoint.
        path: Where its weights are; None when only the name was given.
    """

    entry: Checkpoint
    path: Path | None


def split_reference(text: str | Path) -> Reference | None:
    """Understand ``NAME:FILE``, ``NAME``, or the path of a converted file.

    Args:
        text: What the user gave for weights.

    Returns:
        The entry and its file; None when the text means no official checkpoint.

    Example:
        >>> entry, path = split_reference("pesser-ddpm-cifar10:model-790000.ckpt")
        >>> entry.name, str(path)
        ('pesser-ddpm-cifar10', 'model-790000.ckpt')
        >>> split_reference("digits-edm") is None
        True
    """
    name, colon, file = str(text).partition(":")
    if name in CHECKPOINTS:
        return Reference(CHECKPOINTS.get(name), Path(file) if colon else None)
    made = converted(text) if Path(text).is_file() else None
    if made is not None and made.entry in CHECKPOINTS:
        return Reference(CHECKPOINTS.get(made.entry), Path(text))
    return None


@plain_defaults()
def load_checkpoint(
    name: str,
    file: str | Path | None = None,
    *,
    label: int | None = None,
    any_checksum: bool = False,
) -> nn.Module:
    """Load an official checkpoint.

    Args:
        name: A name in `advpure.checkpoints.catalogue.CHECKPOINTS`.
        file: The official file or a converted one; without it, the entry is fetched from the
            model hub if it is there.
        label: Class that a class-conditional network is asked about; the mean of all class
            embeddings by default.
        any_checksum: Take a file that differs from the published one.

    Returns:
        A `Denoiser` D(x; sigma) in model units, or a classifier of images in [0, 1].

    Raises:
        BadInput: for an unknown name, or a file that is missing, damaged, unsafe or another one.
        MissingExtra: when the network's library is not installed.
    """
    entry = CHECKPOINTS.get(name)
    classes = getattr(entry.config, "classes", 0) if entry.kind == "denoiser" else 0
    if label is not None and not 0 <= label < classes:
        rule = f"is not below {classes}" if classes else "means nothing to it"
        raise BadInput(f"label {label} of {name}", rule, "leave it out for the mean class")
    path = Path(file) if file is not None else fetch(entry)
    if not any_checksum:
        require_sum(entry, path)
    _, layout = entry.skeleton()
    network = entry.network(assemble(layout, read_official(entry, path), name))
    if label is not None:
        network.label = label  # type: ignore[assignment]
    return entry.adapt(network).eval()


def fetch(entry: Checkpoint) -> Path:
    """Bring an entry's file from the model hub, or from its cache.

    Raises:
        BadInput: when the entry is elsewhere, or the hub cannot be reached.
        MissingExtra: when huggingface_hub is not installed.
    """
    fix = f"obtain {entry.source} and write {entry.name}:FILE"
    if not entry.source.startswith("hf:"):
        raise BadInput(f"weights of {entry.name}", "are not on the model hub", fix)
    try:
        from huggingface_hub import hf_hub_download
    except ImportError:
        raise MissingExtra("huggingface_hub", "hub") from None
    place = entry.source.removeprefix("hf:")
    kind = "dataset" if place.startswith("datasets/") else "model"
    owner, name, file = place.removeprefix("datasets/").split("/", 2)
    try:
        return Path(hf_hub_download(f"{owner}/{name}", file, repo_type=kind))
    except Exception:  # offline, moved, refused: the hub's errors have no common ancestor
        raise BadInput(f"weights of {entry.name}", "cannot be fetched from the hub", fix) from None
