"""From an entry's name and a file to a working denoiser or classifier."""

import warnings
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from torch import nn

from advpure.base.devices import plain_defaults
from advpure.base.documents import kind_of
from advpure.base.errors import BadInput
from advpure.base.extras import optional
from advpure.checkpoints.adapters import AsClassifier
from advpure.checkpoints.catalogue import CHECKPOINTS
from advpure.checkpoints.choices import PREPROCESSOR, split_choices
from advpure.checkpoints.entry import Checkpoint
from advpure.checkpoints.files import choose_resample, converted, read_weights, require_sum
from advpure.checkpoints.layout import assemble
from advpure.networks.weight_files import locate


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

    Choices behind FILE stay with it, see `advpure.checkpoints.choices`.

    Args:
        text: What the user gave for weights.

    Returns:
        The entry and its file; None when the text means no official checkpoint.

    Raises:
        BadInput: for a name with a colon and no file.

    Example:
        >>> entry, path = split_reference("pesser-ddpm-cifar10:model-790000.ckpt")
        >>> entry.name, str(path)
        ('pesser-ddpm-cifar10', 'model-790000.ckpt')
        >>> split_reference("digits-edm") is None
        True
    """
    name, colon, file = str(text).partition(":")
    if name in CHECKPOINTS:
        if colon and not file:
            raise BadInput(f"weights {text}", "name no file", f"write {name}:FILE")
        return Reference(CHECKPOINTS.get(name), Path(file) if colon else None)
    made = converted(text) if kind_of(text) == "file" else None
    if made is not None and made.entry in CHECKPOINTS:
        return Reference(CHECKPOINTS.get(made.entry), Path(text))
    return None


class Opened(NamedTuple):
    """A checkpoint in use.

    Attributes:
        module: A `Denoiser` D(x; sigma) in model units, or a classifier of images in [0, 1].
        choices: What its file left open: which weights were read, how images are resized.
    """

    module: nn.Module
    choices: dict[str, str]


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
        file: The official file or a converted one, an index of shards, or a folder that
            ``save_pretrained`` wrote; without it, the entry is fetched from the model hub if it is
            there. Choices may follow, such as ``model.pth@raw``, see
            `advpure.checkpoints.choices`.
        label: Class that a class-conditional network is asked about; the mean of all class
            embeddings by default.
        any_checksum: Take a file that differs from the published one.

    Returns:
        A `Denoiser` D(x; sigma) in model units, or a classifier of images in [0, 1].

    Raises:
        BadInput: for an unknown name, or a file that is missing, damaged, unsafe or another one.
        MissingExtra: when the network's library is not installed.

    Warns:
        UserWarning: when the file holds averaged and raw weights and none were chosen.
    """
    return open_checkpoint(name, file, label=label, any_checksum=any_checksum).module


def open_checkpoint(
    name: str,
    file: str | Path | None = None,
    *,
    label: int | None = None,
    any_checksum: bool = False,
) -> Opened:
    """Load an official checkpoint, and say what was chosen; see `load_checkpoint`."""
    entry = CHECKPOINTS.get(name)
    classes = getattr(entry.config, "classes", 0) if entry.kind == "denoiser" else 0
    if label is not None and not 0 <= label < classes:
        rule = f"is not below {classes}" if classes else "means nothing to it"
        raise BadInput(f"label {label} of {name}", rule, "leave it out for the mean class")
    choices = split_choices(file if file is not None else fetch(entry))
    path = locate(choices.path)
    if not any_checksum:
        require_sum(entry, path)
    resample = choose_resample(entry, choices, path)
    _, layout = entry.skeleton()
    state, weights = read_weights(entry, path, layout, weights=choices.weights)
    network = entry.network(assemble(layout, state, name))
    if label is not None:
        network.label = label  # type: ignore[assignment]
    chosen: dict[str, str] = {"weights": weights} if weights else {}
    adapt = entry.adapt
    if isinstance(adapt, AsClassifier) and resample is not None and resample != adapt.resample:
        adapt = replace(adapt, resample=resample)
        chosen |= {"resample": resample}
    return Opened(adapt(network).eval(), chosen)


def fetch(entry: Checkpoint) -> Path:
    """Bring an entry's file from the model hub, or from its cache.

    Raises:
        BadInput: when the entry is elsewhere, or the hub cannot be reached.
        MissingExtra: when huggingface_hub is not installed.
    """
    fix = f"obtain {entry.source} and write {entry.name}:FILE"
    if not entry.source.startswith("hf:"):
        raise BadInput(f"weights of {entry.name}", "are not on the model hub", fix)
    with optional("huggingface_hub", "hub"):
        from huggingface_hub import hf_hub_download
    source = entry.source.removeprefix("hf:")
    kind = "dataset" if source.startswith("datasets/") else "model"
    owner, name, file = source.removeprefix("datasets/").split("/", 2)
    try:
        path = Path(hf_hub_download(f"{owner}/{name}", file, repo_type=kind))
    except Exception:  # offline, moved, refused: the hub's errors have no common ancestor
        raise BadInput(f"weights of {entry.name}", "cannot be fetched from the hub", fix) from None
    if getattr(entry.config, "names", None) == "transformers":
        try:  # it lies beside the weights then, and says how images are resized
            hf_hub_download(f"{owner}/{name}", PREPROCESSOR, repo_type=kind)
        except Exception:  # as above
            warnings.warn(
                f"{PREPROCESSOR} of {entry.name} cannot be fetched from the hub: images are "
                "resized bicubic",
                stacklevel=2,
            )
    return path
