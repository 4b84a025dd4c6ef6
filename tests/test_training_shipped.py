"""The networks that ship: small, described by their cards, and as good as the cards say."""

from pathlib import Path

import pytest
import torch

from advpure.core.tiling import tiled
from advpure.data import dataset_info, load_images
from advpure.models import list_models, model_path
from advpure.networks.weights import load_network
from advpure.training import list_recipes


@pytest.mark.parametrize("name", list_models())
def test_a_network_is_small_has_a_recipe_and_a_card_with_its_numbers(name: str) -> None:
    path = model_path(name)
    assert path.stat().st_size <= 10_000_000
    metadata = load_network(path).metadata
    card = path.with_suffix(".md").read_text()
    assert name in list_recipes()
    assert card.startswith(f"# {name}\n")
    assert f"{metadata['images_seen']:,} images seen" in card
    for rate in metadata["quality"]:
        assert f"{rate['what']}: {100 * rate['correct'] / rate['n']:.1f} % (n={rate['n']}" in card


def test_all_weights_of_the_checkout_fit_into_52_megabytes() -> None:
    folders = (model_path(list_models()[0]).parent, Path(__file__).parents[1] / "experiments")
    files = [each for folder in folders for each in folder.rglob("*.safetensors")]
    assert len(files) >= len(list_models())
    assert sum(each.stat().st_size for each in files) <= 52_000_000


def test_the_cifar10_classifier_knows_the_sample_and_its_rows_do_not_mix() -> None:
    pytest.importorskip("foolbox")
    info = dataset_info("cifar10-sample")
    assert info.classifier == dataset_info("cifar10").classifier == "cifar10-classifier"
    network, metadata = load_network(model_path(info.classifier))
    (rate,) = metadata["quality"]
    assert rate["n"] == 10_000
    assert rate["correct"] >= 9_300
    images, labels, _ = load_images("cifar10-sample")
    logits = tiled(network, info.tile)(images)
    # 20 images at 93 %: 16 or fewer right has a chance of 4 %, 14 or fewer of 0.2 %
    assert int((logits.argmax(dim=1) == labels).sum()) >= 15
    order = torch.arange(19, -1, -1)
    assert torch.equal(tiled(network, info.tile)(images[order]), logits[order])
