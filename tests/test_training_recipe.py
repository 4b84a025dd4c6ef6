"""Recipes: names are names, values are of their kind, and a network fits its images."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from advpure.base.errors import BadInput
from advpure.base.storage import RECORDS_FILE, TRAINING_FILE
from advpure.cli import run
from advpure.models import model_path
from advpure.runs.records import RecordStore
from advpure.training import Recipe, load_recipe, train

VALUES: dict[str, Any] = {
    "name": "'x'",
    "about": "'x'",
    "task": "'classifier'",
    "dataset": "'digits'",
    "architecture": "'resnet'",
    "steps": "1",
    "batch": "1",
    "seed": "0",
    "network": "{image_channels = 1, classes = 10, channels = [8]}",
}


def written(path: Path, **changes: str) -> Path:
    values = {**VALUES, **changes}
    path.write_text("\n".join(f"{name} = {value}" for name, value in values.items()))
    return path


@pytest.mark.parametrize(
    "name", ["../../escaped", "/tmp/escaped", "a/b", "..", ".", "", " ", "a\\u0000b", "-x", "ü"]
)
def test_a_name_is_no_path(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    written(inner / "e.toml", name=f'"{name}"')
    for out in ([], ["--out", "here"]):
        assert run(["train", "./e.toml", *out]) == 2
        error = capsys.readouterr().err
        assert error.startswith("advpure: name ")
        assert error.count("\n") == 1
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [inner / "e.toml"]


@pytest.mark.parametrize("name", ["../models/digits-edm", "../../x", "", ".", "/etc/passwd", 3])
def test_a_model_is_one_that_ships(name: Any) -> None:
    with pytest.raises(BadInput, match="is not shipped"):
        model_path(name)


WRONG = [
    ("steps", '"x"', "steps 'x' is not a whole number of 1 or more"),
    ("steps", '"3"', "steps '3' is not a whole number"),
    ("steps", "true", "steps True is not a whole number"),
    ("steps", "1.5", "steps 1.5 is not a whole number"),
    ("steps", "9223372036854775808", "is too large for 64 bits"),
    ("steps", "[1]", "is not a whole number"),
    ("batch", "1000000000000000", "batch 1000000000000000 is not a whole number from 1 to 1048576"),
    ("shift", "100000", "shift 100000 is not a whole number from 0 to 4096"),
    ("network", "3", "network 3 is no table; write [network]"),
    ("network", '"unet"', "network 'unet' is no table"),
    ("network", "{image_channels = 1, classes = 10, channels = 8}", "channels 8 is no list"),
    ("network", "{image_channels = 1, classes = 10, blocks = true}", "blocks True is not a whole"),
    (
        "network",
        "{image_channels = 3, classes = 10, mean = [0.5, 0.5, 0.5], std = [1, 1, 1]}",
        "network of 3 image channels does not fit digits images [1, 8, 8]",
    ),
    ("network", "{image_channels = 1, classes = 7}", "does not fit the 10 classes of digits"),
    ("loss", "[]", "loss [] is no table"),
    ("loss", "{noise = 'x'}", "noise 'x' is not a number"),
    ("loss", "{noise = true}", "noise True is not a number"),
    ("loss", "{noise = -1}", "noise -1 is not 0 or more"),
    ("loss", "{label_smoothing = 1}", "label_smoothing 1 is not 0 or more and below 1"),
    ("loss", "{noise = [[[1]]]}", "is not a number"),
    ("learning_rate", "nan", "is not finite"),
    ("learning_rate", "'fast'", "learning rate 'fast' is not a number"),
    ("learning_rate", "true", "learning rate True is not a number"),
    ("learning_rate", "1e300", "learning rate 1e+300 is not 1e-12 or more and 10000 or less"),
    ("learning_rate", "1e-300", "learning rate 1e-300 is not 1e-12 or more"),
    ("clip", "1e300", "clip 1e+300 is not"),
    ("weight_decay", "1e300", "weight decay 1e+300 is not"),
    ("loss", "{noise = 1e300}", "noise 1e+300 is not 0 or more and 1e+06 or less"),
    ("network", "{image_channels = 1, classes = 10, std = [1e300]}", "std[0] 1e+300 is not"),
    ("network", "{image_channels = 1, classes = 10, std = [1e-300]}", "std[0] 1e-300 is not"),
    ("network", "{image_channels = 1, classes = 10, mean = [1e300]}", "mean[0] 1e+300 is not"),
    ("shift", "8", "shift 8 is no less than the side"),
    ("momentum", "0\noptimizer = 'sgd'", "momentum 0 of sgd leaves nothing to Nesterov"),
    ("flip", "1", "flip 1 is neither true nor false"),
    ("reflect", "true\nshift = 8", "shift 8 is no less than the side"),
    ("about", '""', "about '' is empty"),
    ("about", "3", "about 3 is not a text"),
    ("task", "3", "task 3 is not a text"),
    ("dataset", "''", "dataset '' is empty"),
    ("teacher", "3", "teacher 3 is not a text"),
    ("base", "3", "base of r.toml 3 is not a text"),
    ("base", "''", "is empty"),
    ("order", "3", "order 3 is not known"),
    ("warmup", "2", "warmup 2 of r.toml is longer than the training, 1 in all; warm up less"),
    ("x", "[" * 2000 + "]" * 2000, "is nested deeper than 64"),
]


@pytest.mark.parametrize(("key", "value", "message"), WRONG)
def test_a_wrong_value_is_one_line(
    key: str, value: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path / "r.toml", **{key: value})
    assert run(["train", str(path), "--out", str(tmp_path / "run"), "--quiet"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error


def test_files_that_are_no_recipes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bytes.toml").write_bytes(b"name = '\xff'")
    (tmp_path / "folder.toml").mkdir()
    for name, message in (
        ("bytes.toml", "is no UTF-8 text"),
        ("folder.toml", "is a folder"),
        ("none.toml", "is missing"),
        ("a" * 5000 + ".toml", "is missing"),
    ):
        assert run(["train", str(tmp_path / name)]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    (tmp_path / "r.toml").write_text("name = 'x'")
    with pytest.raises(BadInput, match="is incomplete, without about, task, dataset"):
        load_recipe(tmp_path / "r.toml")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": True}, "steps True"),
        ({"steps": float("nan")}, "steps nan"),
        ({"network": None}, "network None is no table"),
        ({"network": {1: 2}}, "is no table"),
        ({"network": {"a": 2**70}}, "is too large for 64 bits"),
        ({"name": None}, "name None"),
        ({"clip": float("inf")}, "clip inf is not finite"),
        ({"seed": -1}, "seed -1"),
        ({"decay": True}, "decay True is not known"),
        ({"autocast": "yes"}, "autocast 'yes'"),
        ({"momentum": 0.5}, "momentum 0.5 means nothing to optimizer adamw"),
        ({"shift": 0, "reflect": True}, "reflect means nothing without a shift"),
    ],
)
def test_a_recipe_in_python_obeys_the_same_rules(settings: dict[str, Any], message: str) -> None:
    recipe = load_recipe("digits-classifier")
    with pytest.raises(BadInput, match=message):
        dataclasses.replace(recipe, **settings)


def test_numbers_are_stored_plainly() -> None:
    import numpy as np

    recipe = dataclasses.replace(
        load_recipe("digits-classifier"), steps=np.int64(3), clip=np.float32(0.5), weight_decay=0
    )
    assert (type(recipe.steps), type(recipe.clip), type(recipe.weight_decay)) == (int, float, float)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"until": -1}, "until -1 is not a whole number"),
        ({"until": 0}, "until 0 is not a whole number from 1 to"),
        ({"until": 10**6}, "until 1000000 is not a whole number from 1 to"),
        ({"until": True}, "until True is not a whole number"),
        ({"save_seconds": -1}, "save_seconds -1 is not 0 or more"),
        ({"steps": 0}, "steps 0 is not a whole number"),
        ({"teacher": "digits-edm"}, "alone, which need one"),
        ({"out": 3}, "out 3 of type int cannot be used"),
    ],
)
def test_arguments_of_train_are_checked(
    arguments: dict[str, Any], message: str, tmp_path: Path
) -> None:
    recipe: Recipe = load_recipe("digits-classifier")
    with pytest.raises(BadInput, match=message):
        train(recipe, **{"out": tmp_path, "progress": False, **arguments})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("held", "own"), [(RECORDS_FILE, TRAINING_FILE), (TRAINING_FILE, RECORDS_FILE)]
)
def test_verbs_keep_out_of_the_folders_of_each_other(held: str, own: str, tmp_path: Path) -> None:
    (tmp_path / held).touch()

    def begin() -> object:
        if own == TRAINING_FILE:
            return train("digits-classifier", out=tmp_path, steps=1, progress=False)
        return RecordStore.open(tmp_path, schemas=[], settings={}, context={})

    with pytest.raises(BadInput, match=f"holds .* \\({held}\\); choose another folder"):
        begin()
    assert [each.name for each in tmp_path.iterdir()] == [held]


def test_a_network_that_halves_its_images_to_nothing_is_refused(tmp_path: Path) -> None:
    network = {"image_channels": 1, "classes": 10, "channels": [8, 8, 8, 8]}
    recipe = dataclasses.replace(load_recipe("digits-classifier"), network=network)
    deep = dataclasses.replace(recipe, architecture="convnet")
    with pytest.raises(BadInput, match=r"does not fit digits images \[1, 8, 8\] \(.*; mend"):
        train(deep, out=tmp_path, progress=False)


@pytest.mark.parametrize(
    ("name", "task", "line"),
    [
        ("digits-classifier", "edm", "resnet takes images alone, and task edm"),
        ("digits-edm", "classifier", "unet takes images and noise levels, and task classifier"),
    ],
)
def test_an_architecture_of_another_kind_is_refused(
    name: str, task: str, line: str, tmp_path: Path
) -> None:
    recipe = dataclasses.replace(load_recipe(name), task=task, loss={})
    with pytest.raises(BadInput, match=line):
        train(recipe, out=tmp_path, progress=False)


def test_a_teacher_of_another_kind_is_refused(tmp_path: Path) -> None:
    recipe = load_recipe("digits-cm")
    with pytest.raises(BadInput, match="does not fit digits images"):
        train(dataclasses.replace(recipe, teacher="cifar10-edm"), out=tmp_path, progress=False)
    with pytest.raises(BadInput, match=r"of architecture unet is no resnet; mend architecture"):
        train(dataclasses.replace(recipe, architecture="resnet"), out=tmp_path, progress=False)
    wider = dataclasses.replace(recipe, network={"channels": [8]})
    with pytest.raises(BadInput, match="of teacher digits-edm"):
        train(wider, out=tmp_path, progress=False)
