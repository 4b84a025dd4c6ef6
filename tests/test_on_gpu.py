"""What is prepared for a GPU, at toy size on the CPU through the same calls."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from advpure.base.errors import BadInput
from advpure.data import RawSplit, cifar10, cifar10_part, load_images
from advpure.loading import load_levelled
from advpure.networks.weights import load_network, sha256
from advpure.training import load_recipe, train
from advpure.training.randomness import step_generator
from benchmarks.on_gpu import FAMILIES, attack, main, of_stage, train_all

TOY = {"batch": 8, "compiled": False, "network": {"channels": [4], "patch": 8}}
TOYS = {"rrcm": TOY, "cifar10": {**TOY, "network": {"channels": [4, 4, 4], "patch": 4}}}
"""Capturing a network takes seconds, so it has a test of its own."""


def images(split: str) -> RawSplit:
    count = 540 if split == "train" else 30
    pixels = torch.randint(0, 256, (count, 3, 32, 32), generator=step_generator(0, split))
    return RawSplit(pixels.to(torch.uint8), torch.arange(count) % 10, 255)


@pytest.fixture
def packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of a packed file of 520 training and ten test images."""
    monkeypatch.setattr(cifar10, "read", images)
    monkeypatch.setenv("ADVPURE_DATA", str(tmp_path))
    main(["pack", "--images", "520", "--test", "10", "--to", str(tmp_path / "cifar10-part.npz")])
    return tmp_path


def test_packed_images_are_the_first_of_both_splits(packed: Path) -> None:
    train_part = cifar10_part.read("train")
    assert torch.equal(train_part.pixels, images("train").pixels[:520])
    found = load_images("cifar10-part", subset="test")
    assert found.ids.tolist() == list(range(10))
    assert torch.equal(found.images, images("test").pixels[:10].float() / 255)
    with pytest.raises(BadInput, match="n 11 does not fit, cifar10-part test has 10 images"):
        load_images("cifar10-part", n=11)
    with pytest.raises(BadInput, match="541 images are not 1 to 540, all train images"):
        cifar10_part.pack(packed / "more.npz", 541, 1)


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
@pytest.mark.parametrize("family", list(FAMILIES))
def test_all_stages_train_in_a_given_time(family: str, packed: Path) -> None:
    found = train_all(family, 0.02, packed / "out", device="cpu", changes=TOYS[family])
    stages = [stage.recipe for stage in FAMILIES[family]]
    assert [each["stage"].removesuffix("-l2") for each in found] == stages
    assert json.loads((packed / "out" / "summary.json").read_text()) == found
    made = {}
    for each in found:
        assert each["steps"] >= 24
        assert each["images_seen"] == 8 * each["steps"]
        path = packed / "out" / each["stage"] / f"{each['stage']}.safetensors"
        assert path.with_suffix(".md").is_file()
        made[each["stage"]] = sha256(path), load_network(path).metadata
    for name, (_, metadata) in made.items():
        assert metadata["dataset"] == "cifar10-part", name
        assert metadata["recipe"]["autocast"], name
        named = load_recipe(name)
        if named.teacher in made:  # the network that was made here, not the one that ships
            assert metadata["teacher_sha256"] == made[named.teacher][0], name
    if family == "rrcm":
        metadata = made["cifar10-rrcm"][1]
        assert metadata["images_seen_before"] == sum(each["images_seen"] for each in found[:2])
        last = packed / "out" / "cifar10-rrcm" / "cifar10-rrcm.safetensors"
        assert load_levelled("cifar10", last).at(0.5)(torch.rand(2, 3, 32, 32)).shape == (2, 10)
    else:
        tuned = made["cifar10-classifier-denoised"][1]
        assert tuned["denoiser_sha256"] == made["cifar10-edm"][0]


def test_the_shares_of_a_family_leave_a_tenth_of_the_time() -> None:
    for stages in FAMILIES.values():
        assert sum(stage.share for stage in stages) == pytest.approx(0.9)
        for stage in stages:
            assert of_stage(stage, {}, {}).compiled


def test_images_are_attacked_through_a_long_chain(
    packed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = {"t": 3, "attack_options": {"steps": 1}}
    found = attack(packed / "runs", n=4, device="cpu", changes=short)
    assert json.loads(capsys.readouterr().out) == found
    assert json.loads((packed / "runs" / "summary.json").read_text()) == found
    assert found["n"] == 4
    assert found["settings"]["precision"] == "bfloat16"
    low, high = found["interval"]
    assert 0 <= low <= found["robust_accuracy"] <= high <= 1
    again = attack(packed / "runs", n=4, device="cpu", changes=short)
    assert again["robust_accuracy"] == found["robust_accuracy"]


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
