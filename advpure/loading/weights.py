"""Networks by name or file: shipped ones, files of users, official checkpoints."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import nn

from advpure.base.devices import plain_defaults
from advpure.base.documents import kind_of
from advpure.base.errors import BadInput
from advpure.base.validation import as_integer, instance, number, shown
from advpure.checkpoints.choices import split_choices
from advpure.checkpoints.loader import fetch, open_checkpoint, split_reference
from advpure.core.denoisers import DENOISERS
from advpure.core.levelled import LEVELLED
from advpure.core.tiling import check_tile
from advpure.data import DATASETS, Source, dataset_info
from advpure.data.own import is_place
from advpure.models import list_models, model_path
from advpure.networks.joint import JointClassifier
from advpure.networks.weights import load_network, read_header, sha256, state_sha256

OFFICIAL = "official checkpoint"
SELECTOR = "selector"
REPRESENTATION = "representation"
_APART = {SELECTOR: "selector", LEVELLED: "levelled", REPRESENTATION: "representation"}
"""Tasks whose networks are neither denoisers nor classifiers of images alone."""
JOINT = "joint"

Kind = Literal["denoiser", "classifier", "selector", "levelled", "representation"]


class Loaded(NamedTuple):
    """A network, what its file says about it, and what identifies it in records."""

    module: nn.Module
    metadata: dict[str, Any]
    identity: dict[str, str]


def shipped(kind: Kind, dataset: Source | None = None) -> list[str]:
    """Return the shipped networks of a kind, for the images of a data set where it is given."""
    shape = None if dataset is None else dataset_info(dataset).shape
    names = []
    for name in list_models():
        metadata = read_header(model_path(name))["metadata"]
        task = metadata["task"]
        its = "denoiser" if task in DENOISERS else _APART.get(task, "classifier")
        if its == kind and shape in (None, image_shape(metadata)):
            names.append(name)
    return names


@plain_defaults()
def load_weights(model: str | Path, kind: Kind, dataset: Source | None = None) -> Loaded:
    """Load a shipped network by name, a weights file by path, or NAME:FILE of a checkpoint.

    What it is to be, a network of a kind for a data set, is for suggestions alone. Every call makes
    a module of its own, so that `.double()` on one changes no other.
    """
    instance(model, (str, Path), "network", "name a shipped one, or a file")
    official = split_reference(model)
    if official is not None:
        name, path = official.entry.name, official.path or fetch(official.entry)
        module, choices = open_checkpoint(name, path)
        identity = {"name": name, "sha256": sha256(split_choices(path).path), **choices}
        return Loaded(module, {"task": OFFICIAL}, identity)
    path = Path(model)
    if not str(model) or (not path.suffix and len(path.parts) == 1 and kind_of(path) != "folder"):
        path = model_path(str(model), lambda: shipped(kind, dataset))
    network, metadata = load_network(path)
    network = network.to(memory_format=torch.channels_last)  # a fifth faster on the CPU
    if metadata.get("task") == JOINT:
        level = metadata.get("l0")
        what = f"l0 of {str(model)!r}"
        network = JointClassifier(network, None if level is None else number(level, what))
    return Loaded(network, metadata, {"name": path.stem, "sha256": sha256(path)})


def identity_of(module: nn.Module) -> dict[str, str]:
    """Describe a module that came as an object: its class, and a digest of its state."""
    return {"name": type(module).__name__, "sha256": state_sha256(module)}


def image_shape(metadata: Mapping[str, Any]) -> tuple[int, ...] | None:
    """Return the shape of the images that a network of ours was trained on, where it says.

    Raises:
        BadInput: for a data set that nobody knows, or one whose images are of another size than
            the settings of the network say.
    """
    trained = metadata.get("dataset")
    if trained is None or (trained not in DATASETS and (is_place(trained) or "/" in str(trained))):
        return None  # files and folders of a user may be elsewhere by now
    called = f"network {metadata.get('name', 'file')!r}"
    if not isinstance(trained, str) or not (trained in DATASETS or DATASETS.takes(trained)):
        rule = f"says that it was trained on {shown(trained)}, which is no data set here"
        raise BadInput(called, rule, f"obtain it again; known: {', '.join(DATASETS)}")
    if trained not in DATASETS:  # code of a user, which is not run for this
        return None
    shape, config = dataset_info(trained).shape, metadata.get("config") or {}
    said = (config.get("image_channels", shape[0]), config.get("image_size", shape[1]))
    if said != shape[:2]:
        rule = f"says {said[0]} channels of side {said[1]}, and {trained} images {list(shape)}"
        raise BadInput(called, rule, "obtain it again")
    return shape


def check_shape(metadata: Mapping[str, Any], dataset: Source) -> None:
    """Refuse a network of ours that was trained on images of another shape."""
    trained, theirs, ours = (
        metadata.get("dataset"),
        image_shape(metadata),
        dataset_info(dataset).shape,
    )
    if theirs is not None and theirs != ours:
        raise BadInput(
            f"network {metadata.get('name', 'file')!r} for {trained} images {list(theirs)}",
            f"does not fit {dataset} images {list(ours)}",
            f"choose one for {dataset}, or pass --dataset {trained}",
        )
    size = (metadata.get("config") or {}).get("image_size", ours[1])
    if theirs is None and size not in ours[1:]:
        raise BadInput(
            f"network {metadata.get('name', 'file')!r} for images of side {size}",
            f"does not fit {dataset} images {list(ours)}",
            f"choose one for {dataset}",
        )


def tile_for(dataset: Source, tile: int | None) -> int | None:
    """Return the compute tile, that of a data set where none is given; None for none.

    Raises:
        BadInput: for a tile that is no power of two.
    """
    if tile is None:
        return dataset_info(dataset).tile
    tile = check_tile(tile) if as_integer(tile) != 0 else 0
    assert tile is not None
    if tile & (tile - 1):
        raise BadInput(
            f"tile {tile}",
            "is no power of two, and only then do a row's bits not depend on its place",
            f"use {1 << tile.bit_length() - 1} or {1 << tile.bit_length()}",
        )
    return tile or None


def lineage(model: str | Path) -> set[str]:
    """Return the sha256 of a network and, of one of ours, of those whose weights it began with.

    Args:
        model: A shipped name or a weights file. A teacher that is not here ends the chain.

    Raises:
        BadInput: for a file that is missing.
    """
    path = Path(model)
    if not path.suffix and len(path.parts) == 1 and kind_of(path) != "folder":
        path = model_path(str(model))
    own = {sha256(path)}
    if path.suffix != ".safetensors":
        return own
    try:
        metadata = read_header(path)["metadata"]
    except BadInput:  # a file of somebody else's
        return own
    teacher, digest = metadata.get("teacher"), metadata.get("teacher_sha256")
    if not teacher or not digest:
        return own
    try:
        before = lineage(str(teacher))
    except BadInput:
        return own | {str(digest)}
    return own | {str(digest)} | (before if digest in before else set())
