"""Classifiers of users: code by name, objects, TorchScript and `torch.export` files.

They take images in [0, 1], after the normalisation that ``normalize`` names; nothing is guessed.
One whose accuracy on the images is that of chance is refused where no normalisation was named.
"""

import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from scipy import stats
from torch import Tensor, nn

from advpure.base.errors import BadInput, ModelFault
from advpure.base.factories import read_factory
from advpure.base.imports import Code, explain
from advpure.base.registry import Registry
from advpure.base.validation import number, shown
from advpure.core.chain import Chain, Noise
from advpure.core.denoisers import Denoiser
from advpure.core.outputs import AsLogits, Outputs
from advpure.core.own import JUDGE, OwnModel, keys_of
from advpure.core.randomness import RandomnessConfig
from advpure.core.recipe import Recipe
from advpure.core.tiling import tiled
from advpure.data import Source, dataset_info, load_images
from advpure.networks.weights import load_restricted, sha256, state_sha256
from advpure.options import read_values

CLASSIFIERS: Registry[Code] = Registry(
    "classifier", group="advpure.classifiers", adapt="advpure.base.imports:as_code"
)
"""Classifiers of other packages; the shipped and the official ones are files of weights."""
_TRIAL, _LEAST, _LEVEL = 64, 16, 0.05
_EXPORT_FIX = "export it again with torch.export.save, or name code, --classifier file.py:make"


class Normalize(nn.Module):
    """Subtract a mean and divide by a standard deviation, channel by channel.

    Args:
        text: ``MEAN/STD``, comma lists of one number or one a channel, in [0, 1] units.

    Raises:
        BadInput: for a text of another form.

    Example:
        >>> Normalize("0.5/0.25")(torch.ones(1, 1, 1, 1)).item()
        2.0
    """

    mean: Tensor
    std: Tensor

    def __init__(self, text: str) -> None:
        """Read the numbers."""
        super().__init__()
        halves = str(text).split("/")
        fix = "write MEAN/STD, such as 0.485,0.456,0.406/0.229,0.224,0.225, or 0/1 for none"
        if len(halves) != 2:
            raise BadInput(f"normalize {shown(text)}", "is no MEAN/STD", fix)
        mean, std = ([number(one, "normalize") for one in half.split(",")] for half in halves)
        if len(mean) != len(std):
            raise BadInput(f"normalize {text}", "has two lists of unequal length", fix)
        if min(std) <= 0:
            raise BadInput(f"normalize {text}", "divides by 0 or less", fix)
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(values).reshape(-1, 1, 1), persistent=False)
        self.training = False

    def forward(self, images: Tensor) -> Tensor:
        """Normalise images [B, C, H, W].

        Raises:
            BadInput: for images of another number of channels.
        """
        if len(self.mean) not in (1, images.shape[1]):
            rule = f"does not fit images of {images.shape[1]} channels"
            raise BadInput(f"normalize with {len(self.mean)} numbers", rule, "give one a channel")
        return (images - self.mean.to(images)) / self.std.to(images)


def own_classifier(
    built: Any,
    code: Code,
    dataset: Source,
    outputs: Outputs,
    normalize: str | None,
    *,
    state: str | None = None,
    is_strict: bool = True,
    is_untrained: bool = False,
) -> tuple[OwnModel, dict[str, Any]]:
    """Wrap a classifier of a user's for the images of a data set, and say what identifies it.

    Args:
        built: The module or function.
        code: Where it stands.
        dataset: The data set.
        outputs: What it answers with.
        normalize: MEAN/STD; None for images in [0, 1] as they are.
        state: SHA-256 of its weights, where they are no state of a module.
        is_strict: Whether it must take the data set's images; an object may meet others.
        is_untrained: Whether chance is what is expected of it.

    Raises:
        BadInput: for what is no classifier of these images.
    """
    name = f"classifier {code.name}"
    if isinstance(built, Denoiser | Recipe | Chain) or not callable(built):
        fix = "name a module or function from images to logits"
        raise BadInput(name, f"is of type {type(built).__name__}, no classifier", fix)
    info = dataset_info(dataset)
    after: Callable[[Tensor, Tensor], Tensor] | None = None
    if outputs != "logits":
        after = AsLogits(nn.Identity(), outputs, len(info.classes)).convert
    before = None if normalize is None else Normalize(normalize)
    model = OwnModel(built, name, before=before, after=after, module=code.module)
    model.training = False
    try:
        model.examine(info.shape, info.tile)
        if model.answers != "classes":
            fix = "return logits [B, classes]"
            raise BadInput(name, "answers with images, not with logits", fix)
        if normalize is None and is_strict and not is_untrained:
            _refuse_chance(model, dataset)
    except BadInput:
        if is_strict or model.is_examined:
            raise
    if state is None and isinstance(built, nn.Module):
        state = state_sha256(built)
    identity = {
        "name": code.name,
        "code": code.sha256,
        "sha256": state or code.sha256,
        "draws": model.draws,
    }
    return model, identity | ({} if normalize is None else {"normalize": normalize})


def named_classifier(
    text: str,
    dataset: Source,
    outputs: Outputs,
    normalize: str | None,
    options: Mapping[str, Any] | None,
) -> tuple[nn.Module, dict[str, Any]]:
    """Load a classifier that is code, by name; see `own_classifier`."""
    code = CLASSIFIERS.get(text)
    factory = read_factory(code)
    values = read_values(factory.options, options or {}, f"classifier {text}")
    return own_classifier(factory.build(values), code, dataset, outputs, normalize)


def exported_classifier(path: Path) -> nn.Module | None:
    """Load a TorchScript or `torch.export` file; None for a file that is neither.

    No pickle of it runs code: each is read by the restricted unpickler first.

    Raises:
        BadInput: for one that is damaged or would run code.
    """
    if not path.is_file() or not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        is_script = any("/code/" in name and name.endswith(".py") for name in names)
        is_export = path.suffix == ".pt2" or any("models/" in name for name in names)
        if is_export and not is_script:
            for name in names:
                with archive.open(name) as stream:
                    start = stream.read(2)
                if start in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
                    _check_pickle(archive, name, path)
    if not (is_script or is_export):
        return None
    try:
        if is_script:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "`torch.jit.load` is deprecated")
                script: nn.Module = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
            return script
        return torch.export.load(str(path)).module()
    except Exception as error:
        rule = f"cannot be loaded ({explain(error)})"
        raise BadInput(f"classifier {path}", rule, _EXPORT_FIX) from error


def exported_identity(path: Path) -> Code:
    """Describe a file that is a program: its name and the SHA-256 of its bytes."""
    return Code(str(path), None, sha256(path), "")


def _check_pickle(archive: zipfile.ZipFile, name: str, path: Path) -> None:
    import io

    try:
        load_restricted(io.BytesIO(archive.read(name)))
    except Exception as error:
        rule = f"would run code when loaded ({name})"
        raise BadInput(f"classifier {path}", rule, _EXPORT_FIX) from error


def _refuse_chance(model: OwnModel, dataset: Source) -> None:
    """Refuse a classifier that is not better than chance on images spread over the data set."""
    images, labels, ids = load_images(dataset)
    count = min(_TRIAL, len(ids))
    if count < _LEAST:
        return
    chosen = torch.linspace(0, len(ids) - 1, count, device="cpu").long()
    parameter = next(model.parameters(), None)
    shown_images = images[chosen].to("cpu" if parameter is None else parameter.device)
    info = dataset_info(dataset)

    def ask(x: Tensor, i: Tensor) -> Tensor:
        return model.keyed(x, keys_of(model, Noise(RandomnessConfig(0), i), JUDGE, len(x)))

    with torch.no_grad():  # an accuracy
        logits = tiled(ask, info.tile)(shown_images, ids[chosen])
    right = int((logits.argmax(1).cpu() == labels[chosen]).sum())
    chance = 1.0 / logits.shape[1]
    if stats.binomtest(right, count, chance, alternative="greater").pvalue > _LEVEL:
        raise ModelFault(
            f"{model.name}, right on {right} of {count} images of {dataset}",
            f"is no better than chance among {logits.shape[1]} classes on images in [0, 1]",
            "give --normalize MEAN/STD if it takes normalised images, or 0/1 if it really is so",
            "chance",
        )
