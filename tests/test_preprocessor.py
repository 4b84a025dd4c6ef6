"""How a classifier resizes: as Pillow does by either filter, and as the file beside it says."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from advpure.base.errors import BadInput
from advpure.checkpoints import load_checkpoint
from advpure.checkpoints.adapters import AsClassifier, NormalisedClassifier, Resample
from advpure.checkpoints.catalogue import CHECKPOINTS
from advpure.checkpoints.choices import PREPROCESSOR, Choices
from advpure.checkpoints.files import choose_resample, convert
from advpure.checkpoints.loader import open_checkpoint
from advpure.checkpoints.proof import recipe_weights

PROCESSOR = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": 224, "resample": 2}


class Kept(nn.Module):
    """Returns what it is given."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x."""
        return x


@pytest.mark.parametrize(("filter_", "number"), [("bilinear", 2), ("bicubic", 3)])
@pytest.mark.parametrize(("side", "size"), [(32, 224), (64, 24)])
def test_either_filter_is_pillow_s(filter_: Resample, number: int, side: int, size: int) -> None:
    image = pytest.importorskip("PIL.Image")
    x = torch.rand(1, 1, side, side, generator=torch.Generator().manual_seed(0))
    ours = NormalisedClassifier(Kept(), AsClassifier(size=size, resample=filter_))(x)[0, 0]
    picture = image.fromarray(x[0, 0].numpy(), mode="F").resize((size, size), number)
    # Pillow sums float32 numbers below 1 with weights in float64, torch in float32.
    assert np.abs(ours.numpy() - np.asarray(picture)).max() < 1e-5


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A registered classifier that resizes to 40 pixels, and a file of its weights."""
    official = CHECKPOINTS.get("resnet56-cifar10")
    adapt = AsClassifier(mean=(0.5,) * 3, std=(0.5,) * 3, size=40)
    entry = replace(official, name="small", checksum=None, adapt=adapt)
    monkeypatch.setattr(CHECKPOINTS, "_entries", dict(CHECKPOINTS._entries))
    CHECKPOINTS.register("small", entry)
    path = tmp_path / "small.pt"
    state = recipe_weights(entry.skeleton()[1].official(), 0)
    torch.save(state, path)
    return path


def resample_of(path: Path | str) -> tuple[str, dict[str, str]]:
    opened = open_checkpoint("small", path)
    assert isinstance(opened.module, NormalisedClassifier)
    return opened.module.settings.resample, opened.choices


@pytest.mark.slow
def test_the_filter_is_that_of_the_file_beside_the_weights(small: Path) -> None:
    assert resample_of(small) == ("bicubic", {})  # the default, which records do not name
    processor = small.parent / PREPROCESSOR
    processor.write_text(json.dumps(PROCESSOR))
    assert resample_of(small) == ("bilinear", {"resample": "bilinear"})
    assert resample_of(f"{small}@bicubic") == ("bicubic", {})
    processor.write_text(json.dumps({**PROCESSOR, "resample": 3}))
    assert resample_of(small) == ("bicubic", {})
    assert resample_of(f"{small}@bilinear") == ("bilinear", {"resample": "bilinear"})
    processor.write_text(json.dumps({"do_normalize": False}))
    assert resample_of(small) == ("bicubic", {})
    # Answers differ, and a conversion keeps the choice.
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    one, two = (load_checkpoint("small", f"{small}@{name}")(x) for name in ("bilinear", "bicubic"))
    assert not torch.allclose(one, two)
    to = small.parent / "sub" / "small.safetensors"
    convert(CHECKPOINTS.get("small"), f"{small}@bilinear", to)
    assert resample_of(to) == ("bilinear", {"resample": "bilinear"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"resample": 1}, r"resample 1 of .* is neither 2 \(bilinear\) nor 3"),
        ({"resample": "bilinear"}, "is neither 2"),
        ({"resample": True}, "is neither 2"),
        ({"resample": [2]}, "is neither 2"),
        ({"image_mean": [0.4, 0.5, 0.5]}, r"image_mean .* is not that of small, \[0.5, 0.5, 0.5\]"),
        ({"image_std": 0.5}, "image_std 0.5 of .* is not that of small"),
        ({"image_std": ["x", 0.5, 0.5]}, "is not a number"),
        ([], "is no table"),
    ],
)
def test_a_file_that_says_something_else_is_refused(change: Any, message: str, small: Path) -> None:
    content = {**PROCESSOR, **change} if isinstance(change, dict) else change
    (small.parent / PREPROCESSOR).write_text(json.dumps(content))
    with pytest.raises(BadInput, match=message):
        load_checkpoint("small", small)


def test_the_published_transformer_takes_either_filter(tmp_path: Path) -> None:
    entry = CHECKPOINTS.get("vit-b16-cifar10")
    (tmp_path / "w").write_bytes(b"")
    assert choose_resample(entry, Choices(tmp_path / "w"), tmp_path / "w") is None
    (tmp_path / PREPROCESSOR).write_text(json.dumps(PROCESSOR))
    assert choose_resample(entry, Choices(tmp_path / "w"), tmp_path / "w") == "bilinear"
