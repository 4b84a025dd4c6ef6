"""Images of users: a file, a folder or an object, taken where a data set's name is.

* ``.npz``: ``images`` [N, H, W, C], [N, C, H, W] or [N, H, W], uint8 or float in [0, 1]; ``labels``
  [N]. Optional: ``classes`` (names), ``eps`` and ``norm`` (the threat model).
* ``.npy``: the images; the labels stand beside it, ``images.npy`` and ``labels.npy``.
* ``.pt``: tensors ``{"images": ..., "labels": ...}`` or ``(images, labels)``.
* ``.parquet``: pictures and labels, as data sets of the model hub are stored; see
  `advpure.data.parquet`.
* a folder: a folder for each class, in the order of their names; or pictures with ``labels.csv``
  (file,label a line) or ``labels.json`` (file to label).
* an object: images and labels in a tuple or a mapping, arrays or tensors; `Images`, whose ids stay
  the keys of all randomness; or what torchvision calls a data set, a sequence of (picture, label).

The axis of channels is the one of 1 or 3. Pictures of a folder have one size. The content's SHA-256
enters the settings of a run.
"""

import csv
import hashlib
import io
import warnings
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from advpure.base import budget
from advpure.base.documents import parse_json
from advpure.base.errors import BadInput
from advpure.base.imports import Code, explain
from advpure.base.place import data_root
from advpure.base.units import Norm, parse_eps
from advpure.base.validation import as_integer, check_choice, shown
from advpure.data.arrays import read_arrays
from advpure.data.base import Dataset, DatasetInfo, Images, RawSplit, Split
from advpure.data.files import read_file
from advpure.data.pictures import open_picture

SUFFIXES = (".npz", ".npy", ".pt", ".pth", ".parquet")
GIVEN = "own images"
"""What a data set is called that was given as an object."""
_PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
_CHANNELS = (1, 3)
_FIRST = 100
_FORM = "store images as [N, H, W, C] or [N, C, H, W] with C = 1 or 3"


def is_place(name: object) -> bool:
    """Return whether a text names a file or a folder of images.

    Example:
        >>> is_place("images.npz"), is_place("cifar10")
        (True, False)
    """
    if not isinstance(name, str):
        return False
    try:
        is_folder = Path(name).is_dir()
    except (OSError, ValueError):
        is_folder = False
    return (
        name.lower().endswith(SUFFIXES)
        or (is_folder and ("/" in name or "." in name))
        or (is_folder and _holds_pictures(Path(name)))
    )


def open_place(name: str) -> Dataset:
    """Open a file or a folder of images.

    Raises:
        BadInput: for one that is missing, or in another form.
    """
    path = Path(name)
    if path.is_dir():
        return _folder(name, str(path.resolve()), _changed(path))
    try:
        there = path.stat()
    except (OSError, ValueError):
        raise BadInput(f"data set {name}", "is missing", "check the path") from None
    return _file(name, str(path.resolve()), there.st_mtime_ns, there.st_size)


def adapt(code: Code) -> Dataset:
    """Return a data set of a user's code or object: a `Dataset`, or images and labels.

    Raises:
        BadInput: for anything else.
    """
    from advpure.base.factories import read_factory

    value = code.value
    if not isinstance(value, Dataset | tuple | Mapping) and not is_pictures(value):
        value = read_factory(code, given=tuple(_given(value))).build({}, **_given(value))
    if isinstance(value, Dataset):
        return value
    what = f"data set {code.name}"
    if isinstance(value, Images):
        return _dataset(
            code.name,
            _Content(_array(value.images, what), _array(value.labels, what), {}),
            value.ids,
        )
    if is_pictures(value):
        return _dataset(code.name, read_pictures(value, what))
    return _dataset(code.name, _content(value, what))


def _given(value: object) -> Mapping[str, Any]:
    """Return what a class of torchvision is made with: our folder, the split that is tested on."""
    if not str(getattr(value, "__module__", "")).startswith("torchvision."):
        return {}
    return {"root": str(data_root() / "torchvision"), "train": False, "split": "test"}


def is_pictures(value: object) -> bool:
    """Return whether a value is a sequence of (picture, label), such as a torchvision data set."""
    is_sequence = hasattr(value, "__getitem__") and hasattr(value, "__len__")
    is_sequence = is_sequence and not isinstance(value, type)
    return is_sequence and not isinstance(value, tuple | list | Mapping | str | bytes)


def read_pictures(value: Any, what: str) -> "_Content":
    """Read a sequence of (picture, label) into memory.

    Pictures are PIL images, which are decoded; or tensors [C, H, W] and arrays [H, W, C]. A torch
    data set that normalises its images gives values outside of [0, 1], which are refused.

    Raises:
        BadInput: for an entry of another form, or pictures of several sizes.
    """
    pictures, labels = [], []
    budget.check_repeats(len(value), "pictures", budget.FILES)
    for place in range(len(value)):
        try:
            picture, label = value[place]
        except BadInput:
            raise
        except Exception as error:
            rule, fix = f"has no (picture, label) at {place}", "give such pairs"
            raise BadInput(what, f"{rule} ({explain(error)})", fix) from error
        whole = as_integer(label)
        if whole is None:
            fix = "give pairs of a picture and a class index"
            raise BadInput(f"label {shown(label)} of {what}", "is no class index", fix)
        pictures.append(_one_picture(picture))
        labels.append(whole)
    if len({each.shape for each in pictures}) > 1:
        raise BadInput(what, "has pictures of several sizes", "resize all to one size")
    if not pictures:
        raise BadInput(what, "is empty", "give at least one picture")
    names = getattr(value, "classes", None)
    is_named = isinstance(names, list | tuple) and all(isinstance(each, str) for each in names)
    more = {"classes": list(names)} if is_named and names else {}
    return _Content(np.stack(pictures), np.asarray(labels, dtype=np.int64), more)


def _one_picture(picture: Any) -> NDArray[Any]:
    """Return a picture as [C, H, W] of a tensor, else as [H, W, C] or [H, W]."""
    if getattr(picture, "mode", None) in ("P", "RGBA", "CMYK", "LA", "1"):
        picture = picture.convert("RGB" if picture.mode not in ("LA", "1") else "L")
    return _array(picture, "a picture")


class _Content(NamedTuple):
    """Arrays as they are stored, and what else stands beside them."""

    images: NDArray[Any]
    labels: NDArray[Any]
    more: Mapping[str, Any]


@lru_cache(maxsize=4)
def _file(name: str, path: str, changed: int, size: int) -> Dataset:
    """Open a file; it is read again when it was changed."""
    place = Path(path)
    suffix = place.suffix.lower()
    if suffix == ".npz":
        arrays = read_arrays(place, f"data set {name}", most=budget.ARRAY)
        for wanted in ("images", "labels"):
            if wanted not in arrays:
                raise BadInput(
                    f"data set {name}",
                    f"has no array {wanted!r}, but {', '.join(arrays) or 'none'}",
                    "store it with np.savez(FILE, images=images, labels=labels)",
                )
        more = {key: arrays[key] for key in _MORE if key in arrays}
        if others := sorted(arrays.keys() - {"images", "labels", *_MORE}):
            said = f"{', '.join(others)} of data set {name} {'is' if len(others) == 1 else 'are'}"
            known = ", ".join(("images", "labels", *_MORE))
            warnings.warn(f"{said} not read; known: {known}", stacklevel=2)
        content = _Content(arrays["images"], arrays["labels"], more)
    elif suffix == ".npy":
        beside = place.with_name(place.name.replace("images", "labels"))
        if beside == place or not beside.is_file():
            raise BadInput(
                f"data set {name}",
                "has no labels beside it",
                "name the files images.npy, labels.npy",
            )
        content = _Content(_read_npy(place, name), _read_npy(beside, name), {})
    elif suffix == ".parquet":
        from advpure.data.parquet import read_table

        content = read_pictures(read_table(place, f"data set {name}"), f"data set {name}")
    else:
        from advpure.networks.weights import read_torch

        content = _content(read_torch(place, f"data set {name}"), f"data set {name}")
    return _dataset(name, content)


def _read_npy(path: Path, name: str) -> NDArray[Any]:
    budget.check_size(path.stat().st_size, budget.ARRAY, str(path))
    try:
        found: NDArray[Any] = np.load(path, allow_pickle=False)
    except Exception:  # damaged files fail in many ways, all meaning the same
        rule = f"is damaged or no plain array ({path.name})"
        raise BadInput(f"data set {name}", rule, "store it with np.save") from None
    return found


_MORE = ("eps", "norm", "classes")
"""What a file or a mapping may say beside its images and labels."""


def _content(value: Any, what: str) -> _Content:
    if isinstance(value, Mapping) and {"images", "labels"} <= set(value):
        more = {key: value[key] for key in _MORE if key in value}
        return _Content(_array(value["images"], what), _array(value["labels"], what), more)
    if isinstance(value, tuple | list) and len(value) == 2:
        return _Content(_array(value[0], what), _array(value[1], what), {})
    raise BadInput(what, "holds no images and labels", "store {'images': ..., 'labels': ...}")


def _array(value: Any, what: str) -> NDArray[Any]:
    try:
        return value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
    except Exception:  # sparse, quantised and meta tensors, lists of unlike lengths
        subject = f"{type(value).__name__} of {what}"
        raise BadInput(subject, "is no plain array of numbers", "give one dense array") from None


def _dataset(name: str, content: _Content, ids: Any = None) -> Dataset:
    """Check arrays and describe them; ids are those of the images, None for their positions."""
    what = f"data set {name}"
    pixels, scale = pixels_of(content.images, what)
    labels = _labels(content.labels, len(pixels), what)
    digest = hashlib.sha256(f"{pixels.dtype} {tuple(pixels.shape)} {scale}".encode())
    digest.update(pixels.numpy().tobytes())
    digest.update(labels.numpy().tobytes())
    keys = None if ids is None else _ids(ids, len(pixels), what)
    if keys is not None:
        digest.update(keys.numpy().tobytes())
    info = _info(name, pixels.shape, labels, content.more, digest.hexdigest())

    def pick(split: Split, indices: Tensor) -> RawSplit:
        return RawSplit(pixels[indices], labels[indices], scale)

    return Dataset(info, lambda split: RawSplit(pixels, labels, scale), pick=pick, ids=keys)


def pixels_of(images: NDArray[Any], what: str) -> tuple[Tensor, int]:
    """Return pixels [N, C, H, W] of arrays in any of the forms, and the value that means 1.

    Args:
        images: See the module.
        what: What they are, for the messages.

    Raises:
        BadInput: for another form.
    """
    if images.ndim == 3:
        images = images[:, None]
    if images.ndim != 4 or not images.size:
        raise BadInput(f"images of shape {images.shape} of {what}", "are no images", _FORM)
    first, last = (images.shape[axis] in _CHANNELS for axis in (1, 3))
    if first == last:
        rule = "have two axes that may be the channels" if first else "have no axis of 1 or 3"
        raise BadInput(f"images of shape {images.shape} of {what}", rule, _FORM)
    if last:
        images = images.transpose(0, 3, 1, 2)
    if images.dtype == np.uint8:
        return torch.from_numpy(np.ascontiguousarray(images)), 255
    if images.dtype.kind != "f":
        rule = f"are {images.dtype}, neither uint8 nor float"
        raise BadInput(f"images of {what}", rule, "store uint8 in 0 .. 255 or float in [0, 1]")
    if not np.isfinite(images).all():
        raise BadInput(f"images of {what}", "contain NaN or infinite values", "remove them")
    low, high = float(images.min()), float(images.max())
    if not (low >= 0.0 and high <= 1.0):
        fix = "divide by 255, or undo the normalisation and pass --normalize MEAN/STD"
        raise BadInput(f"images of {what}", f"span {low:.4g} to {high:.4g}, not [0, 1]", fix)
    return torch.from_numpy(np.ascontiguousarray(images, dtype=np.float32)), 1


def _labels(labels: NDArray[Any], count: int, what: str) -> Tensor:
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.shape != (count,):
        rule = f"do not fit {count} images"
        raise BadInput(
            f"labels of shape {labels.shape} of {what}", rule, "store one label an image"
        )
    if labels.dtype.kind not in "iu" or (count and int(labels.min()) < 0):
        raise BadInput(
            f"labels of {what}", "are no class indices", "store whole numbers from 0, one an image"
        )
    if count and int(labels.max()) >= _MOST_CLASSES:
        rule = f"is above {_MOST_CLASSES - 1}"
        raise BadInput(f"label {int(labels.max())} of {what}", rule, "count classes from 0")
    return torch.from_numpy(labels.astype(np.int64))


_MOST_CLASSES = 1_000_000


def _ids(ids: Any, count: int, what: str) -> Tensor | None:
    """Return the ids of the images, None where they are the positions."""
    found = torch.as_tensor(_array(ids, f"ids of {what}"))
    if found.shape != (count,) or found.is_floating_point() or found.dtype == torch.bool:
        fix = "give one whole number an image"
        raise BadInput(f"ids of {what}", f"do not fit {count} images", fix)
    found = found.to("cpu", torch.int64).clone()
    if len(set(found.tolist())) < count or bool((found < 0).any()):
        raise BadInput(f"ids of {what}", "repeat or are negative", "give each image its own id")
    is_plain = torch.equal(found, torch.arange(count, dtype=torch.int64, device="cpu"))
    return None if is_plain else found


def _info(
    name: str, shape: Sequence[int], labels: Tensor, more: Mapping[str, Any], digest: str
) -> DatasetInfo:
    count, *sides = shape
    classes = tuple(str(each) for each in np.asarray(more.get("classes", ())).ravel().tolist())
    most = int(labels.max()) + 1
    if classes and len(classes) < most:
        rule = f"has {len(classes)} class names and a label {most - 1}"
        raise BadInput(f"data set {name}", rule, "store a name for each class")
    norm: Norm = "linf"
    for key in more.keys() & {"eps", "norm"}:
        if np.asarray(more[key]).size != 1:
            raise BadInput(f"{key} of data set {name}", "is not one value", "store one")
    if "norm" in more:
        given = str(np.asarray(more["norm"]).item())
        check_choice(given, ("linf", "l2"), f"norm of data set {name}")
        norm = "l2" if given == "l2" else "linf"
    eps = parse_eps(np.asarray(more["eps"]).item(), norm) if "eps" in more else None
    return DatasetInfo(
        name=name,
        classes=classes or tuple(map(str, range(most))),
        shape=(sides[0], sides[1], sides[2]),
        splits={"test": count},
        norm=norm,
        eps=eps,
        first=min(_FIRST, count),
        tile=default_tile(sides),
        networks=name,
        classifier=None,
        description="images of your own",
        digest=digest,
    )


def default_tile(shape: Sequence[int]) -> int:
    """Return a compute tile for images of a shape [C, H, W]; see `DatasetInfo.tile`.

    Example:
        >>> default_tile((1, 8, 8)), default_tile((3, 32, 32)), default_tile((3, 224, 224))
        (64, 32, 4)
    """
    pixels = int(np.prod(shape))
    tile = 64 if pixels <= 1024 else 32 if pixels <= 3 * 64 * 64 else 4
    while tile * pixels % 32:
        tile *= 2
    return tile


class _Picture(NamedTuple):
    """A picture of a folder, and its label."""

    path: Path
    label: int


def _holds_pictures(folder: Path) -> bool:
    named = any((folder / f"labels.{kind}").is_file() for kind in ("csv", "json"))
    return named or any(_is_picture(each) for each in folder.glob("*/*"))


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in _PICTURES and not path.name.startswith(".")


def _changed(folder: Path) -> int:
    """Return when a folder, one within it or its table of labels was changed last, nanoseconds."""
    inner = [each for each in folder.iterdir() if each.is_dir() or each.name.startswith("labels.")]
    return max(each.stat().st_mtime_ns for each in (folder, *inner))


@lru_cache(maxsize=4)
def _folder(name: str, place: str, changed: int) -> Dataset:
    """List a folder of pictures; it is listed again when a picture came, went or was renamed."""
    folder = Path(place)
    listed, names = _listed(folder, name)
    digest = hashlib.sha256()
    for each in listed:
        content = hashlib.sha256(read_file(each.path)).hexdigest()
        digest.update(f"{each.path.relative_to(folder)} {each.label} {content}\n".encode())
    is_grey = all(_mode(each.path) in ("L", "1") for each in listed)
    first = _decoded(listed[0].path, is_grey)
    labels = torch.tensor([each.label for each in listed], dtype=torch.int64, device="cpu")
    shape = (len(listed), *first.shape)
    info = _info(name, shape, labels, {"classes": names} if names else {}, digest.hexdigest())

    def pick(split: Split, indices: Tensor) -> RawSplit:
        rows = []
        for k in indices.tolist():
            picture = _decoded(listed[k].path, is_grey)
            if picture.shape != first.shape:
                height, width = picture.shape[1:]
                raise BadInput(
                    f"picture {listed[k].path}",
                    f"has {width}x{height} pixels, others {first.shape[2]}x{first.shape[1]}",
                    "resize all to one size",
                )
            rows.append(torch.from_numpy(picture))
        return RawSplit(torch.stack(rows), labels[indices], 255)

    def read(split: Split) -> RawSplit:
        return pick(split, torch.arange(len(listed), dtype=torch.int64, device="cpu"))

    return Dataset(info, read, pick=pick)


def _listed(folder: Path, name: str) -> tuple[list[_Picture], list[str]]:
    """Return the pictures of a folder with their labels, and the names of the classes if any."""
    what = f"data set {name}"
    for kind in ("csv", "json"):
        table = folder / f"labels.{kind}"
        if table.is_file():
            return _from_table(folder, table, what)
    folders = (each for each in folder.iterdir() if each.is_dir())
    classes = sorted(each.name for each in folders if not each.name.startswith("."))
    _note_numbers(classes, what)
    found = [
        _Picture(path, label)
        for label, each in enumerate(classes)
        for path in sorted((folder / each).iterdir())
        if _is_picture(path)
    ]
    if not found:
        fix = "make a folder of pictures for each class, or add labels.csv (file,label)"
        raise BadInput(what, "holds no pictures in class folders", fix)
    if len(found) > budget.FILES:
        raise BadInput(what, f"holds more than {budget.FILES:,} pictures", "give fewer")
    return found, classes


def _note_numbers(classes: Sequence[str], what: str) -> None:
    """Warn of class folders that are numbers, and not the numbers of their classes."""
    numbers = [_digits(each) for each in classes]
    astray = [(name, k) for k, name in enumerate(classes) if numbers[k] != k]
    if astray and None not in numbers:
        name, label = astray[0]
        warnings.warn(
            f"class folders of {what} are numbered in the order of their names: {name} is class "
            f"{label}; to say it otherwise, put the pictures into one folder with labels.csv "
            "(file,label)",
            stacklevel=2,
        )


def _from_table(folder: Path, table: Path, what: str) -> tuple[list[_Picture], list[str]]:
    text = budget.read_text(table, "labels")
    if table.suffix == ".json":
        given = parse_json(text, f"{table}")
        if not isinstance(given, Mapping):
            raise BadInput(f"{table}", "is no mapping of files to labels", 'write {"a.png": 0}')
        pairs = list(given.items())
    else:
        rows = [row for row in csv.reader(io.StringIO(text)) if row]
        if rows and not (folder / rows[0][0]).is_file():
            rows = rows[1:]  # the heads
        if any(len(row) < 2 for row in rows):
            raise BadInput(f"{table}", "has a line without a label", "write file,label")
        pairs = [(row[0], row[1].strip()) for row in rows]
    if not pairs:
        raise BadInput(what, f"has no labels in {table.name}", "write file,label, one a line")
    numbers = [
        as_integer(each) if not isinstance(each, str) else _digits(each) for _, each in pairs
    ]
    names: list[str] = []
    if any(each is None for each in numbers):
        names = sorted({str(each) for _, each in pairs})
        numbers = [names.index(str(each)) for _, each in pairs]
    found = []
    for (file, _), label in zip(pairs, numbers, strict=True):
        path = folder / str(file)
        if not path.resolve().is_relative_to(folder.resolve()) or not path.is_file():
            raise BadInput(f"{table}", f"names {shown(file)}, which is not there", "correct it")
        found.append(_Picture(path, label or 0))
    return found, names


def _digits(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() else None


def _mode(path: Path) -> str:
    from PIL import Image

    try:
        with Image.open(path) as picture:
            return str(picture.mode)
    except (OSError, SyntaxError, ValueError):
        raise BadInput(f"picture {path}", "is damaged or no picture", "obtain it again") from None


def _decoded(path: Path, is_grey: bool) -> NDArray[np.uint8]:
    """Decode a picture to uint8 [C, H, W]."""
    colours = np.asarray(open_picture(path, f"picture {path}"), dtype=np.uint8)
    return np.ascontiguousarray(colours.transpose(2, 0, 1)[: 1 if is_grey else 3])
