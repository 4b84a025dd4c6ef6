"""ImageNet in its two layouts and its 64x64 batches, made up in small."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from torch import nn

from advpure.base.errors import BadInput
from advpure.data import imagenet, imagenet64, load_images
from advpure.data.resize import Resized, bilinear
from advpure.data.wordnet import ranks_of

WNIDS = ["n01440764", "n01443537", "n01484850"]  # labels 0, 1, 2 of the sorted list


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ADVPURE_DATA", str(tmp_path))
    return tmp_path


def picture(path: Path, seed: int, width: int = 300, height: int = 270) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (height // 10, width // 10, 3), np.uint8)
    Image.fromarray(noise).resize((width, height)).save(path, quality=95)


def kit(root: Path, labels: list[int]) -> None:
    """Write a development kit whose numbers run against the sorted order, with a parent class."""
    order = [2, 0, 1]
    rows = [(k + 1, WNIDS[order[k]], "words", "gloss", 0) for k in range(3)]
    rows.append((4, "n00000001", "parent", "gloss", 3))
    kinds = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("gloss", "O"), ("n", "O")]
    (root / "kit" / "data").mkdir(parents=True)
    savemat(root / "kit" / "data" / "meta.mat", {"synsets": np.array(rows, dtype=kinds)})
    truth = root / "kit" / "data" / "ILSVRC2012_validation_ground_truth.txt"
    truth.write_text("".join(f"{order.index(label) + 1}\n" for label in labels))


def test_a_folder_of_classes_has_the_official_labels_in_class_order(root: Path) -> None:
    pytest.importorskip("timm")
    for k, (wnid, number) in enumerate([(WNIDS[2], 1), (WNIDS[0], 2), (WNIDS[2], 3)]):
        picture(root / "imagenet" / "val" / wnid / f"ILSVRC2012_val_{number:08d}.JPEG", k)
    images, labels, ids = load_images("imagenet")
    assert images.shape == (3, 3, 224, 224)
    assert (labels.tolist(), ids.tolist()) == ([0, 2, 2], [0, 1, 2])
    again = load_images("imagenet", subset="2:3")
    assert torch.equal(again.images[0], images[2])
    with pytest.raises(BadInput, match="needs a train split"):
        load_images("imagenet", subset="train")


def test_folders_with_numbers_for_names_need_the_list_of_the_kit(root: Path) -> None:
    """Sorted as text, 10 would be class 1; the kit numbers classes in an order of its own."""
    listed = pytest.importorskip("timm.data.imagenet_info").ImageNetInfo().label_names()
    folder = root / "imagenet" / "val"
    for k in range(1, 1001):
        (folder / str(k)).mkdir(parents=True)
    for k, name in enumerate(("1", "2", "10", "1000")):
        picture(folder / name / "x.JPEG", k)
    with pytest.raises(BadInput, match="folder '1' among 1000 classes is none of ImageNet's 1,000"):
        load_images("imagenet")
    order = np.random.default_rng(0).permutation(1000)
    lines = [f"{listed[rank]} {number} words" for number, rank in enumerate(order, 1)]
    (root / "imagenet" / "map_clsloc.txt").write_text("\n".join(lines))
    expected = sorted(int(order[number - 1]) for number in (1, 2, 10, 1000))
    assert load_images("imagenet").labels.tolist() == expected
    (root / "imagenet" / "map_clsloc.txt").write_text("\n".join(lines[:999]))
    with pytest.raises(BadInput, match="does not hold ImageNet's 1,000 classes"):
        load_images("imagenet", subset="first-2")


def test_only_the_thousand_ids_of_imagenet_name_labels_by_their_order(tmp_path: Path) -> None:
    listed = pytest.importorskip("timm.data.imagenet_info").ImageNetInfo().label_names()
    absent = tmp_path / "map_clsloc.txt"
    shuffled = [listed[k] for k in np.random.default_rng(1).permutation(1000)]
    assert ranks_of(shuffled, absent) == {name: rank for rank, name in enumerate(listed)}
    others = ["n00000001", *listed[1:]]
    with pytest.raises(BadInput, match="folder 'n00000001' among 1000 classes"):
        ranks_of(others, absent)
    with pytest.raises(BadInput, match="folder 'n1440764²' among 1 classes"):
        ranks_of(["n1440764²"], absent)


def test_the_flat_layout_gives_the_same_images_labels_and_ids(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("timm")
    truth = [2, 0, 2, 1]
    kit(root / "imagenet", truth)
    for number, label in enumerate(truth, 1):
        name = f"ILSVRC2012_val_{number:08d}.JPEG"
        picture(root / "imagenet" / "val" / name, number)
        picture(root / "b" / "imagenet" / "val" / WNIDS[label] / name, number)
    flat = load_images("imagenet")
    monkeypatch.setenv("ADVPURE_DATA", str(root / "b"))
    classes = load_images("imagenet")
    assert flat.labels.tolist() == classes.labels.tolist() == [0, 1, 2, 2]
    assert torch.equal(flat.images, classes.images)


@pytest.mark.parametrize(("width", "height"), [(300, 270), (257, 400), (500, 333), (64, 48)])
def test_resize_and_crop_equal_torchvision_s(tmp_path: Path, width: int, height: int) -> None:
    transforms = pytest.importorskip("torchvision.transforms")
    picture(tmp_path / "a.png", 0, width, height)
    both = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224)])
    with Image.open(tmp_path / "a.png") as original:
        expected = np.asarray(both(original.convert("RGB"))).transpose(2, 0, 1)
    assert np.array_equal(imagenet.load_picture(tmp_path / "a.png"), expected)


def test_what_is_wrong_with_an_imagenet_folder_is_said(root: Path) -> None:
    with pytest.raises(BadInput, match="holds no images; link"):
        load_images("imagenet")
    path = root / "imagenet" / "val" / "ILSVRC2012_val_00000001.JPEG"
    picture(path, 0)
    with pytest.raises(BadInput, match=r"has flat images but no ILSVRC2012_validation_ground"):
        load_images("imagenet")
    kit(root / "imagenet", [1])
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(BadInput, match=r"00000001\.JPEG is damaged"):
        load_images("imagenet")
    path.rename(path.with_name("ILSVRC2012_val_00000002.JPEG"))
    with pytest.raises(BadInput, match="has no number that the ground truth knows"):
        load_images("imagenet")
    (root / "imagenet" / "kit" / "data" / "meta.mat").write_bytes(b"nothing")
    with pytest.raises(BadInput, match=r"development kit in .* is damaged"):
        load_images("imagenet")


def test_a_folder_that_is_no_class_is_refused(root: Path) -> None:
    pytest.importorskip("timm")
    picture(root / "imagenet" / "val" / "goldfish" / "1.JPEG", 0)
    with pytest.raises(BadInput, match="'goldfish' among 1 classes is none of"):
        load_images("imagenet")


def batch(
    path: Path, numbers: list[int], seed: int
) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = np.random.default_rng(seed).integers(0, 256, (len(numbers), 12288), dtype=np.uint8)
    np.savez(path, data=data, labels=np.array(numbers), mean=np.zeros(12288))
    return data


def test_imagenet64_reads_its_batches_in_order_with_sorted_labels(root: Path) -> None:
    folder = root / "imagenet64"
    test = batch(folder / "val_data.npz", [3, 1, 2], 0)
    one = batch(folder / "train_data_batch_1.npz", [1, 1], 1)
    two = batch(folder / "train_data_batch_2.npz", [2, 3], 2)
    with pytest.raises(BadInput, match=r"has no map_clsloc\.txt"):
        load_images("imagenet64")
    lines = [f"{WNIDS[k]} {n} words\n" for k, n in ((2, 1), (0, 2), (1, 3))]
    (folder / "map_clsloc.txt").write_text("".join(lines))
    images, labels, _ = load_images("imagenet64")
    assert labels.tolist() == [1, 2, 0]
    assert float(images[1, 2, 5, 7]) == pytest.approx(test[1, 2 * 4096 + 5 * 64 + 7] / 255)
    whole = imagenet64.read("train")
    assert whole.labels.tolist() == [2, 2, 0, 1]
    assert torch.equal(whole.pixels.flatten(1), torch.from_numpy(np.concatenate([one, two])))
    assert load_images("imagenet64", subset="train/3:4").labels.tolist() == [1]


def test_what_is_wrong_with_imagenet64_is_said(root: Path) -> None:
    folder = root / "imagenet64"
    with pytest.raises(BadInput, match="holds no batches"):
        load_images("imagenet64")
    batch(folder / "val_data.npz", [7], 0)
    (folder / "map_clsloc.txt").write_text(f"{WNIDS[0]} 1 words\n")
    with pytest.raises(BadInput, match="has a label 7 that map_clsloc"):
        load_images("imagenet64")
    np.savez(folder / "val_data.npz", data=np.zeros((1, 3072), np.uint8), labels=np.array([1]))
    with pytest.raises(BadInput, match="use the 64x64 version"):
        load_images("imagenet64")
    path = folder / "val_data.npz"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(BadInput, match="is damaged or no npz"):
        load_images("imagenet64")
    batch(path, [1], 0)
    (folder / "map_clsloc.txt").write_text("one two three\n")
    with pytest.raises(BadInput, match="has another form"):
        load_images("imagenet64")


def test_working_at_another_resolution_keeps_the_shape_and_damps_noise_as_predicted() -> None:
    noise = torch.randn(8, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    # 256 to 224 without antialiasing leaves white noise .6629 of its deviation. Of
    # 1.2 M values each is correlated with its neighbours only: the standard error is below 1e-3
    assert float(bilinear(noise, 224, 224).std()) == pytest.approx(0.6629, abs=2e-3)
    images = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    seen: list[torch.Size] = []

    class Note(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x.shape)
            return x

    out = Resized(Note(), 256)(images)
    assert seen == [torch.Size([2, 3, 256, 256])]
    there_and_back = bilinear(bilinear(images, 256, 256), 224, 224)
    assert torch.equal(out, there_and_back)
    constant = torch.full((1, 3, 224, 224), 0.3)
    assert torch.allclose(Resized(Note(), 256)(constant), constant, atol=1e-6)
