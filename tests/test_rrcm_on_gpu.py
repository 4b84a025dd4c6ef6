"""The training that is prepared for a GPU, at toy size on the CPU through the same calls."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from advpure.base.errors import BadInput
from advpure.data import RawSplit, cifar10, cifar10_part, load_images
from advpure.loading import load_levelled
from advpure.networks.weights import load_network
from advpure.training import load_recipe, train
from advpure.training.randomness import step_generator
from benchmarks.rrcm_on_gpu import STAGES, main, of_stage, train_all

TOY = {"batch": 8, "compiled": False, "network": {"channels": [4], "patch": 8}}
"""Capturing a network takes seconds, so it has a test of its own."""


def images(split: str) -> RawSplit:
    count = 40 if split == "train" else 30
    pixels = torch.randint(0, 256, (count, 3, 32, 32), generator=step_generator(0, split))
    return RawSplit(pixels.to(torch.uint8), torch.arange(count) % 10, 255)


@pytest.fixture
def packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of a packed file of twenty training and ten test images."""
    monkeypatch.setattr(cifar10, "read", images)
    monkeypatch.setenv("ADVPURE_DATA", str(tmp_path))
    main(["pack", "--images", "20", "--test", "10", "--to", str(tmp_path / "cifar10-part.npz")])
    return tmp_path


def test_packed_images_are_the_first_of_both_splits(packed: Path) -> None:
    train_part = cifar10_part.read("train")
    assert torch.equal(train_part.pixels, images("train").pixels[:20])
    found = load_images("cifar10-part", subset="test")
    assert found.ids.tolist() == list(range(10))
    assert torch.equal(found.images, images("test").pixels[:10].float() / 255)
    with pytest.raises(BadInput, match="n 11 does not fit, cifar10-part test has 10 images"):
        load_images("cifar10-part", n=11)
    with pytest.raises(BadInput, match="41 images are not 1 to 40, all train images"):
        cifar10_part.pack(packed / "more.npz", 41, 1)


def test_a_packed_file_that_is_not_there_or_damaged_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADVPURE_DATA", str(tmp_path))
    with pytest.raises(BadInput, match=r"cifar10-part.npz is missing; pack it where CIFAR-10 is"):
        cifar10_part.read("train")
    (tmp_path / "cifar10-part.npz").write_bytes(b"PK")
    with pytest.raises(BadInput, match="is damaged or of another form; pack it"):
        cifar10_part.read("train")


@pytest.mark.slow
def test_all_stages_train_in_a_given_time_and_make_a_classifier(packed: Path) -> None:
    found = train_all(0.02, packed / "out", device="cpu", changes=TOY)
    assert [stage["stage"] for stage in found] == list(STAGES)
    assert json.loads((packed / "out" / "summary.json").read_text()) == found
    assert all(
        stage["steps"] >= 24 and stage["images_seen"] == 8 * stage["steps"] for stage in found
    )
    last = packed / "out" / "cifar10-rrcm" / "cifar10-rrcm.safetensors"
    metadata = load_network(last).metadata
    assert metadata["images_seen_before"] == sum(stage["images_seen"] for stage in found[:2])
    assert (metadata["dataset"], metadata["recipe"]["autocast"]) == ("cifar10-part", True)
    assert of_stage("cifar10-rrcm", None, 512, {}).compiled
    classifier = load_levelled("cifar10", last).at(0.5)
    assert classifier(torch.rand(2, 3, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize("more", [{"steps": 3}, {"until": 3}])
def test_a_time_leaves_no_choice_of_steps(more: dict[str, int], tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="minutes 1 leave no choice of steps; leave one out"):
        train("digits-classifier", out=tmp_path, minutes=1.0, **more)
    with pytest.raises(BadInput, match="minutes 0 is not above 0"):
        train("digits-classifier", out=tmp_path, minutes=0.0)


@pytest.mark.slow
def test_a_captured_network_trains_to_the_same_bits(tmp_path: Path) -> None:
    small = {"image_channels": 1, "channels": [4], "hidden": 8, "projection": 4}
    plain = dataclasses.replace(
        load_recipe("digits-rrcm-pretrain"), name="tiny", steps=3, batch=8, warmup=1, network=small
    )
    made = [
        load_network(train(recipe, out=tmp_path / name, progress=False).weights).network
        for name, recipe in {
            "plain": plain,
            "captured": dataclasses.replace(plain, compiled=True),
        }.items()
    ]
    mine, theirs = (network.state_dict() for network in made)
    assert all(torch.equal(mine[key], theirs[key]) for key in mine)
