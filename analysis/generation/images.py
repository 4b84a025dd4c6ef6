"""Sets of generated images: what a generator makes, and what files of others' hold."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from advpure.analysis.generation.samplers import (
    PURIFIER,
    Sampler,
    classes_of,
    grey_images,
    sampler_chain,
    with_classes,
)
from advpure.base import budget
from advpure.base.errors import BadInput
from advpure.base.storage import atomic_path
from advpure.base.validation import as_integer
from advpure.core.chain import Noise
from advpure.core.denoisers import Denoiser
from advpure.core.randomness import RandomnessConfig
from advpure.core.tiling import tiled
from advpure.data import DatasetInfo, dataset_info, load_images
from advpure.data.arrays import read_arrays
from advpure.data.own import pixels_of
from advpure.loading import load_purifier
from advpure.models import list_models

Pixels = Literal["rounded", "truncated", "float"]
UNIFORM, NONE, AUTO = "uniform", "none", "auto"


class Generated(NamedTuple):
    """Generated images.

    Attributes:
        images: float32 [n, C, H, W] in [0, 1].
        labels: int64 [n]; None where they have none.
    """

    images: Tensor
    labels: Tensor | None


@dataclass(frozen=True, kw_only=True)
class Generator:
    """A network that makes images of noise.

    Attributes:
        sampler: How.
        denoiser: The network.
        shape: Of an image, (C, H, W).
        tile: Images that it makes at once.
        labels: ``uniform``, ``none`` or a class.
        classes: Number of classes that labels are drawn among; 0 without labels.
        identity: What identifies the network in records.
        at: Of cm, the nodes.
    """

    sampler: Sampler
    denoiser: Denoiser
    shape: tuple[int, int, int]
    tile: int | None
    labels: str | int
    classes: int
    identity: Mapping[str, Any]
    at: tuple[int, ...] = ()

    def make(self, ids: Sequence[int], steps: int, xi: RandomnessConfig) -> Generated:
        """Make images; image i depends on the configuration and on i alone.

        Cost: the evaluations of the chain for each image. No gradient flows.
        """
        rows = torch.tensor(list(ids), dtype=torch.int64, device="cpu")
        classes = self.classes_for(rows, xi)
        device = next((str(each.device) for each in self.denoiser.parameters()), "cpu")

        def run(x: Tensor, i: Tensor, c: Tensor | None) -> Tensor:
            network = self.denoiser if c is None else with_classes(self.denoiser, c.to(device))
            chain = sampler_chain(self.sampler, network, steps, at=self.at)
            return chain.purify(x, Noise(xi, i))

        with torch.no_grad():  # see above
            made = tiled(run, self.tile)(grey_images(len(rows), self.shape, device), rows, classes)
        return Generated(made.clamp(0.0, 1.0).float(), classes)

    def classes_for(self, ids: Tensor, xi: RandomnessConfig) -> Tensor | None:
        """Return the class of every image, int64 [n] on the CPU; None without labels."""
        if not self.classes:
            return None
        if self.labels != UNIFORM:
            return torch.full_like(ids, int(self.labels))
        drawn = xi.fold("labels").uniform(ids, 0, (1,))[:, 0]
        return (drawn.double() * self.classes).floor().to(torch.int64)


def load_generator(
    sampler: Sampler,
    dataset: str,
    *,
    labels: str | int = AUTO,
    weights: str | Path | None = None,
    tile: int | None = None,
    at: tuple[int, ...] = (),
    device: str | None = None,
) -> Generator:
    """Load a generator.

    Args:
        sampler: ``cm``, ``edm``, ``ddim`` or ``ddpm``.
        dataset: The data set whose shipped network it is, the class-conditional one for labels
            where there is one.
        labels: ``uniform``, ``none``, a class by name or number, or ``auto``: uniform for a
            class-conditional network, else none.
        weights: Another shipped name, weights file or official ``NAME:FILE``.
        tile: Compute tile; the data set's by default.
        at: Of cm, the indices of its nodes; see `sampler_chain`.
        device: Where it computes.

    Raises:
        BadInput: for a network that is not there or of another shape, or labels that it does not
            take.
    """
    info = dataset_info(dataset)
    if weights is None and labels != NONE:
        kind = "cm" if sampler == "cm" else "edm"
        conditional = f"{info.networks}-{kind}-conditional"
        weights = conditional if conditional in list_models() else None
    purifier = load_purifier(PURIFIER[sampler], dataset, weights=weights, tile=tile)
    purifier = purifier if device is None else purifier.to(device)
    assert purifier.denoiser is not None
    known = classes_of(purifier.denoiser)
    name = purifier.settings["denoiser"]["name"]
    wanted: str | int = labels
    if labels == AUTO:
        wanted = UNIFORM if known else NONE
    elif labels not in (UNIFORM, NONE):
        wanted = class_number(labels, info)
    if wanted != NONE and not known:
        raise BadInput(
            f"labels {labels}",
            f"need a class-conditional network, which {name} is not",
            "use labels none, or name one: --weights FILE",
        )
    if isinstance(wanted, int) and not 0 <= wanted < known:
        fix = f"use 0 .. {known - 1}"
        raise BadInput(f"class {wanted}", f"is outside the {known} classes of {name}", fix)
    return Generator(
        sampler=sampler,
        denoiser=purifier.denoiser,
        shape=info.shape,
        tile=purifier.tile,
        labels=wanted,
        classes=0 if wanted == NONE else known,
        identity=purifier.settings["denoiser"],
        at=at,
    )


def class_number(given: str | int, info: DatasetInfo) -> int:
    """Return the number of a class that is given by name or number.

    Raises:
        BadInput: for a class that the data set does not have.

    Example:
        >>> class_number("7", dataset_info("digits"))
        7
    """
    number = as_integer(given)
    if number is None and isinstance(given, str):
        if given in info.classes:
            return info.classes.index(given)
        number = int(given) if given.isascii() and given.isdigit() else None
    if number is None or not 0 <= number < len(info.classes):
        few = ", ".join(info.classes[:10])
        rule = f"is no class of {info.name}"
        fix = f"use uniform, none, 0 .. {len(info.classes) - 1}, or a name such as {few}"
        raise BadInput(f"label {given!r}", rule, fix)
    return number


def read_generated(path: str | Path) -> Generated:
    """Read images of somebody's generator.

    Args:
        path: An .npz with ``images`` and, where there are any, ``labels``; or with ``arr_0`` and
            ``arr_1``, as published samplers write them; or whatever a data set's name may be, such
            as a folder of pictures.

    Raises:
        BadInput: for a file that is missing, damaged or in another form.
    """
    place = Path(path)
    what = f"images {path}"
    if place.suffix.lower() != ".npz":
        loaded = load_images(str(path))
        return Generated(loaded.images, loaded.labels)
    if not place.is_file():
        raise BadInput(what, "are missing", "check the path")
    arrays = read_arrays(place, what, most=budget.ARRAY)
    for images, labels in (("images", "labels"), ("arr_0", "arr_1")):
        if images in arrays:
            pixels, scale = pixels_of(arrays[images], what)
            return Generated(pixels.float() / scale, _labels(arrays.get(labels), len(pixels), what))
    rule = f"have no array 'images', but {', '.join(arrays) or 'none'}"
    raise BadInput(what, rule, "store them with np.savez(FILE, images=images, labels=labels)")


def _labels(labels: Any, count: int, what: str) -> Tensor | None:
    if labels is None:
        return None
    if labels.shape != (count,) or labels.dtype.kind not in "iu" or int(labels.min()) < 0:
        fix = "store one whole number from 0 an image"
        raise BadInput(f"labels of {what}", f"are no classes of {count} images", fix)
    return torch.from_numpy(labels.astype(np.int64))


def to_bytes(images: Tensor, pixels: Pixels) -> Tensor:
    """Return images as uint8 of the same shape.

    Args:
        images: In [0, 1].
        pixels: ``rounded`` to the nearest byte, or ``truncated``, as the published code of
            [Ganz2022] does, which darkens by half a byte on average.

    Example:
        >>> [to_bytes(torch.tensor(0.999), how).item() for how in ("truncated", "rounded")]
        [254, 255]
    """
    shift = 0.5 if pixels == "rounded" else 0.0
    return (images.clamp(0.0, 1.0) * 255.0 + shift).floor().to(torch.uint8)


def write_generated(path: str | Path, generated: Generated, pixels: Pixels) -> Path:
    """Write images and labels into an .npz that `read_generated` and `load_images` read.

    Args:
        path: The file, replaced atomically.
        generated: What is written: ``images`` [n, H, W, C], and ``labels`` [n] where there are any.
        pixels: Bytes, or ``float``.

    Raises:
        BadInput: for another ending.
        StorageFull: when there is no room.
    """
    check_npz(path)
    images = generated.images.cpu()
    kept = images if pixels == "float" else to_bytes(images, pixels)
    arrays = {"images": kept.permute(0, 2, 3, 1).numpy()}
    if generated.labels is not None:
        arrays["labels"] = generated.labels.cpu().numpy()
    with atomic_path(Path(path)) as scratch, scratch.open("wb") as stream:
        np.savez(stream, **arrays)  # type: ignore[arg-type]
    return Path(path)


def write_pictures(
    folder: str | Path, generated: Generated, ids: Sequence[int], pixels: Pixels
) -> Path:
    """Write a PNG of every image, in a folder for each class where there are labels.

    Raises:
        BadInput: for floating point, which a PNG does not hold.
    """
    from PIL import Image

    if pixels == "float":
        rule = "does not fit pictures, which hold bytes"
        raise BadInput("pixels float", rule, "use rounded or truncated")
    rows = to_bytes(generated.images.cpu(), pixels).permute(0, 2, 3, 1).numpy()
    labels = None if generated.labels is None else generated.labels.tolist()
    for k, (i, row) in enumerate(zip(ids, rows, strict=True)):
        place = Path(folder) if labels is None else Path(folder) / f"{labels[k]:04d}"
        place.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(row[..., 0] if row.shape[-1] == 1 else row)
        with atomic_path(place / f"{i:06d}.png") as scratch:
            picture.save(scratch, format="PNG")
    return Path(folder)


def check_npz(path: str | Path) -> None:
    """Refuse a file of another ending, before anything is computed for it.

    Raises:
        BadInput: naming the ending.
    """
    if Path(path).suffix.lower() != ".npz":
        raise BadInput(f"file {Path(path).name}", "is no file of images", "end it in .npz")


def digest(generated: Generated) -> str:
    """Return the SHA-256 of images and labels."""
    content = hashlib.sha256(str(tuple(generated.images.shape)).encode())
    content.update(generated.images.cpu().contiguous().numpy().tobytes())
    if generated.labels is not None:
        content.update(generated.labels.cpu().contiguous().numpy().tobytes())
    return content.hexdigest()
