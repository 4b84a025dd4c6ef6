"""Data sets: splits, ids, subset words, integrity, refusals."""

from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_digits

from advpure.base.errors import BadInput
from advpure.data import DATASETS, dataset_info, load_images
from advpure.data.base import Split
from advpure.data.subsets import parse_subset

SPLITS: dict[Split, int] = {"test": 50, "train": 200}


def test_digits_are_scikit_learns_and_the_splits_are_disjoint_and_complete() -> None:
    source = load_digits()
    test, train = load_images("digits"), load_images("digits", subset="train")
    assert len(test.labels) == 450
    assert len(train.labels) == 1347
    expected = torch.from_numpy(source.images / 16).float()[:, None]
    assert torch.equal(test.images, expected[::4])
    kept = torch.arange(1797) % 4 != 0
    assert torch.equal(train.images, expected[kept])
    assert torch.equal(train.labels, torch.from_numpy(source.target)[kept].long())
    assert torch.equal(test.ids, torch.arange(450))


def test_an_id_means_the_same_image_in_every_subset() -> None:
    whole = load_images("digits")
    part = load_images("digits", n=3, subset="every-20th")
    assert part.ids.tolist() == [0, 20, 40]
    assert torch.equal(part.images, whole.images[part.ids])
    assert torch.equal(part.labels, whole.labels[part.ids])


@pytest.mark.parametrize("name", ["digits", "cifar10-sample"])
def test_every_data_set_keeps_the_contract(name: str) -> None:
    if name == "cifar10-sample":
        pytest.importorskip("foolbox")
    info = dataset_info(name)
    images, labels, ids = load_images(name, n=5)
    assert images.shape == (5, *info.shape)
    assert (images.dtype, labels.dtype, ids.dtype) == (torch.float32, torch.int64, torch.int64)
    assert 0 <= images.min() < images.max() <= 1
    assert int(labels.max()) < len(info.classes)
    assert info.name == name
    assert 0 < info.eps < 1


def test_every_registered_description_loads_without_reading_images() -> None:
    for name in DATASETS:
        assert DATASETS.get(name).info.name == name
        assert DATASETS.about(name)


def test_cifar10_sample_has_foolbox_s_labels() -> None:
    foolbox = pytest.importorskip("foolbox")
    images, labels, _ = load_images("cifar10-sample")
    model = foolbox.PyTorchModel(torch.nn.Flatten().eval(), bounds=(0, 1), device="cpu")
    theirs, their_labels = foolbox.samples(model, dataset="cifar10", batchsize=20)
    assert torch.equal(labels, their_labels.long())
    assert torch.allclose(images, theirs, atol=1e-6)
    with pytest.raises(BadInput, match="needs a train split"):
        load_images("cifar10-sample", subset="train")


@pytest.mark.parametrize(
    ("words", "split", "indices"),
    [
        ("test", "test", list(range(50))),
        ("train", "train", list(range(200))),
        ("first-3", "test", [0, 1, 2]),
        ("train/first-2", "train", [0, 1]),
        ("every-20th", "test", [0, 20, 40]),
        ("train/every-92nd", "train", [0, 92, 184]),
        ("test/4:7", "test", [4, 5, 6]),
    ],
)
def test_subset_words(words: str, split: str, indices: list[int]) -> None:
    chosen = parse_subset(words, SPLITS)
    assert (chosen.split, chosen.indices.tolist()) == (split, indices)


def test_index_file(tmp_path: Path) -> None:
    file = tmp_path / "ids.txt"
    file.write_text("7\n\n3 # the second\n")
    assert parse_subset(str(file), SPLITS).indices.tolist() == [7, 3]
    chosen = parse_subset(f"train/{file}", SPLITS)
    assert (chosen.split, chosen.indices.tolist()) == ("train", [7, 3])
    file.write_text("7\nseven\n")
    with pytest.raises(BadInput, match="line 2, 'seven', is not an index"):
        parse_subset(str(file), SPLITS)
    file.write_text("7\n7\n")
    with pytest.raises(BadInput, match="repeats an index"):
        parse_subset(str(file), SPLITS)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("tset", "did you mean 'test'"),
        ("frist-10", "did you mean 'first-100'"),
        ("???", "every-20th"),
        ("first-51", "asks for image 50, but the test split has 50"),
        ("40:60", "asks for image 50"),
        ("5:5", "is empty"),
        ("first-0", "is empty"),
        ("every-0", "is not understood"),
    ],
)
def test_bad_subsets_are_refused(words: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        parse_subset(words, SPLITS)


def test_unknown_data_set_and_impossible_n_are_refused() -> None:
    with pytest.raises(BadInput, match="did you mean digits"):
        load_images("digit")
    for n in (0, -1, 451):
        with pytest.raises(BadInput, match="use 1 to 450"):
            load_images("digits", n=n)
