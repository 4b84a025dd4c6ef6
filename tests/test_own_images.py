"""Images of users: every form gives the same images, and what cannot be decided is refused."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from advpure.analysis.robustness.study import Robustness
from advpure.base.errors import BadInput
from advpure.base.imports import load_code, trust_records, untrusted
from advpure.cli import run
from advpure.data import dataset_info, load_images
from advpure.data.own import default_tile
from advpure.report.pictures import class_names

PEN = np.random.default_rng(0)
PIXELS = PEN.integers(0, 256, (6, 3, 8, 10), dtype=np.uint8)
LABELS = np.array([0, 0, 1, 1, 2, 2])


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def store(form: str) -> str:
    """Store the images in a form; return the name of the data set."""
    last = PIXELS.transpose(0, 2, 3, 1)
    floats = PIXELS.astype(np.float64) / 255
    if form == "folder":
        for k, picture in enumerate(last):
            folder = Path("pictures") / f"class-{LABELS[k]}"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(folder / f"{k}.png")
        return "pictures"
    if form in ("csv", "json"):
        Path("listed").mkdir()
        for k, picture in enumerate(last):
            Image.fromarray(picture).save(Path("listed") / f"{k}.png")
        pairs = {f"{k}.png": int(label) for k, label in enumerate(LABELS)}
        lines = "file,label\n" + "".join(f"{file},{label}\n" for file, label in pairs.items())
        text = lines if form == "csv" else json.dumps(pairs)
        (Path("listed") / f"labels.{form}").write_text(text)
        return "./listed"
    if form == "npy":
        np.save("my-images.npy", last)
        np.save("my-labels.npy", LABELS)
        return "my-images.npy"
    if form == "pt":
        torch.save({"images": torch.from_numpy(PIXELS), "labels": torch.from_numpy(LABELS)}, "i.pt")
        return "i.pt"
    if form == "code":
        Path("made.py").write_text(
            f"import numpy as np\nimages = np.array({PIXELS.tolist()}, dtype=np.uint8)\n"
            f"def make(): return images, {LABELS.tolist()}\n"
        )
        return "made.py:make"
    images = {"first": PIXELS, "last": last, "float": floats}[form]
    np.savez("images.npz", images=images, labels=LABELS)
    return "images.npz"


FORMS = ("first", "last", "float", "npy", "pt", "folder", "csv", "json", "code")


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_images(form: str) -> None:
    name = store(form)
    images, labels, ids = load_images(name)
    assert images.dtype == torch.float32
    assert torch.equal(images, torch.from_numpy(PIXELS).float() / 255)
    assert labels.tolist() == LABELS.tolist()
    assert ids.tolist() == [*range(6)]
    assert load_images(name, subset="2:4").ids.tolist() == [2, 3]
    info = dataset_info(name)
    assert (info.shape, dict(info.splits), len(info.classes)) == ((3, 8, 10), {"test": 6}, 3)
    assert info.tile * 240 % 32 == 0


def test_grey_pictures_have_one_channel() -> None:
    Path("grey/a").mkdir(parents=True)
    Image.fromarray(PIXELS[0, 0]).save("grey/a/0.png")
    images, _, _ = load_images("grey")
    assert torch.equal(images[0, 0], torch.from_numpy(PIXELS[0, 0]).float() / 255)
    assert images.shape == (1, 1, 8, 10)


def test_what_the_file_says_of_its_threat_model_is_taken() -> None:
    np.savez(
        "images.npz", images=PIXELS, labels=LABELS, eps=0.5, norm="l2", classes=["a", "b", "c"]
    )
    info = dataset_info("images.npz")
    assert (info.norm, info.eps, info.classes) == ("l2", 0.5, ("a", "b", "c"))
    assert Robustness(dataset="images.npz").threat_model() == ("l2", 0.5)


def test_without_a_radius_one_is_asked_for() -> None:
    name = store("first")
    with pytest.raises(BadInput, match=r"has no default radius; give one with --eps"):
        Robustness(dataset=name).threat_model()
    assert Robustness(dataset=name, eps="8/255").threat_model() == ("linf", 8 / 255)


def test_other_images_are_another_run() -> None:
    name = store("first")
    before = dataset_info(name).digest
    np.savez("images.npz", images=255 - PIXELS, labels=LABELS)
    assert dataset_info(name).digest != before
    study = Robustness(dataset=name)
    assert study.identity("attack", load_images(name))["images"] == dataset_info(name).digest


FLOATS = PIXELS.astype(np.float32) / 255
BROKEN: dict[str, tuple[NDArray[Any], NDArray[Any], str]] = {
    "both": (PIXELS[:, :, :, :3], LABELS, "two axes that may be the channels"),
    "neither": (np.zeros((6, 8, 8, 4), np.uint8), LABELS, "have no axis of 1 or 3"),
    "flat": (np.zeros((6, 64), np.uint8), LABELS, "are no images"),
    "range": (FLOATS * 2 - 1, LABELS, r"span -1 to 1, not \[0, 1\]; divide by 255"),
    "nan": (np.full_like(FLOATS, np.nan), LABELS, "contain NaN or infinite values"),
    "int": (PIXELS.astype(np.int64), LABELS, "neither uint8 nor float"),
    "count": (PIXELS, LABELS[:5], "do not fit 6 images"),
    "negative": (PIXELS, LABELS - 1, "are no class indices"),
    "fraction": (PIXELS, LABELS / 2, "are no class indices"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_cannot_be_decided_is_refused(case: str) -> None:
    images, labels, rule = BROKEN[case]
    np.savez("images.npz", images=images, labels=labels)
    with pytest.raises(BadInput, match=rule):
        load_images("images.npz")


def test_missing_parts_are_named() -> None:
    np.savez("images.npz", pixels=PIXELS)
    with pytest.raises(BadInput, match="has no array 'images', but pixels"):
        load_images("images.npz")
    np.save("images.npy", PIXELS)
    with pytest.raises(BadInput, match="has no labels beside it"):
        load_images("images.npy")
    with pytest.raises(BadInput, match="is missing"):
        load_images("absent.npz")
    with pytest.raises(BadInput, match="did you mean digits"):
        load_images("digit")
    Path("listed").mkdir()
    Path("listed/labels.csv").write_text("../secret.png,0\n../other.png,1\n")
    with pytest.raises(BadInput, match="which is not there"):
        load_images("listed")


def test_pictures_of_two_sizes_are_refused() -> None:
    name = store("folder")
    Image.fromarray(PIXELS[0, 0]).resize((5, 5)).convert("RGB").save("pictures/class-2/9.png")
    with pytest.raises(BadInput, match=r"has 5x5 pixels, others 10x8; resize"):
        load_images(name)


def test_class_folders_that_are_numbers_of_other_classes_are_noted() -> None:
    name = store("folder")
    (Path(name) / ".cache").mkdir()  # of a file manager, and no class
    assert load_images(name).labels.tolist() == LABELS.tolist()
    for old, new in (("class-0", "2"), ("class-1", "7"), ("class-2", "10")):
        (Path(name) / old).rename(Path(name) / new)
    with pytest.warns(UserWarning, match=r"in the order of their names: 10 is class 0; .*labels"):
        assert load_images(name).labels.tolist() == [0, 0, 1, 1, 2, 2]
    for old, new in (("2", "1"), ("7", "2"), ("10", "0")):
        (Path(name) / old).rename(Path(name) / new)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_images(name)


def test_arrays_of_objects_never_run_code() -> None:
    np.savez("images.npz", images=np.array([print], dtype=object), labels=LABELS)
    with pytest.raises(BadInput, match="no npz of plain arrays"):
        load_images("images.npz")


def test_code_in_records_runs_only_when_trusted() -> None:
    Path("evil.py").write_text("from pathlib import Path\nPath('ran').touch()\nx = 1\n")
    with pytest.raises(BadInput, match=r"somebody's records name.*--trust"), untrusted():
        load_images("evil.py:x")
    assert class_names({"dataset": "evil.py:x"})(3) == "class 3"
    assert not Path("ran").exists()
    assert run(["--trust", "models", "list", "--json"]) == 0
    try:
        with untrusted():
            assert load_code("evil.py:x", "value").value == 1
    finally:
        trust_records(False)
    assert Path("ran").exists()


@pytest.mark.parametrize("sides", [(1, 5, 7), (3, 9, 9), (3, 64, 64), (3, 299, 299)])
def test_tiles_keep_rows_independent(sides: tuple[int, int, int]) -> None:
    tile = default_tile(sides)
    assert tile & (tile - 1) == 0
    assert tile * int(np.prod(sides)) % 32 == 0
