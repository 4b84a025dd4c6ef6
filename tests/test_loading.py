"""From names to working objects, and everything an answer depends on in one description."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import advpure
from advpure import RandomnessConfig, load_classifier, load_defense, load_images, load_purifier
from advpure.base.errors import BadInput
from advpure.core.analytic import GaussianDenoiser
from advpure.core.defense import Policy
from advpure.core.denoisers import Denoiser, EDMDenoiser
from advpure.data import dataset_info
from advpure.loading import describe, load_denoiser, make_recipe
from advpure.models import model_path
from advpure.networks import build_network
from advpure.networks.weights import save_network, sha256
from advpure.purifiers import PURIFIERS

MakeDenoiser = Callable[..., Denoiser]
XI = RandomnessConfig(0)


def test_the_example_of_the_readme_runs() -> None:
    images, labels, ids = load_images("digits", n=4)
    defense = load_defense("ddpm", t=5, xi=XI)
    logits = defense.bind(ids)(images)
    assert logits.shape == (4, 10)
    assert logits.argmax(1).tolist() == labels.tolist()


@pytest.mark.parametrize("name", PURIFIERS.names())
def test_every_name_loads_and_classifies(name: str, toy_denoiser: MakeDenoiser) -> None:
    images, _, ids = load_images("digits", n=2)
    defense = load_defense(name, denoiser=toy_denoiser(), xi=XI)
    described = describe(defense)
    assert described["purifier"] == name
    assert described["evaluations"] == defense.evaluations
    assert described["tile"] == dataset_info("digits").tile
    assert json.loads(json.dumps(described)).keys() == described.keys()
    if name in ("none", "cm", "onestep-edm", "onestep-ddpm", "pf-ode"):
        assert defense.bind(ids)(images).shape == (2, 10)


@pytest.mark.parametrize(
    ("config", "metadata", "words"),
    [
        ({"image_size": 16}, {"dataset": "digits"}, "says 1 channels of side 16, and digits"),
        ({"image_size": 16}, {}, "for images of side 16 does not fit digits images"),
        ({}, {"dataset": "digitz"}, "was trained on 'digitz', which is no data set here"),
        ({}, {"dataset": 3}, "was trained on 3, which is no data set here"),
    ],
)
def test_a_header_that_says_other_images_is_refused(
    tmp_path: Path, config: dict[str, Any], metadata: dict[str, Any], words: str
) -> None:
    own = {"image_size": 8, "image_channels": 1, "channels": [8], "blocks": 1, "embedding": 8}
    path = tmp_path / "other.safetensors"
    save_network(
        path,
        build_network("unet", own),
        architecture="unet",
        config={**own, **config},
        metadata={"task": "edm", "sigma_data": 0.5, "name": "other", **metadata},
    )
    with pytest.raises(BadInput, match=words):
        load_purifier("ddpm", "digits", weights=path)


def test_weights_of_images_that_a_user_brings_load_where_those_are_not(tmp_path: Path) -> None:
    config = {"image_size": 8, "image_channels": 1, "channels": [8], "blocks": 1, "embedding": 8}
    metadata = {"task": "edm", "sigma_data": 0.5, "dataset": "mine/pictures.npz"}
    network, path = build_network("unet", config), tmp_path / "own.safetensors"
    save_network(path, network, architecture="unet", config=config, metadata=metadata)
    assert load_purifier("ddpm", "digits", weights=path).chain.evaluations == 100


def test_weights_are_described_by_name_and_sum() -> None:
    described = describe(load_defense("ddpm", t=5, xi=XI))
    for part, model in (("denoiser", "digits-edm"), ("classifier", "digits-classifier")):
        assert described[part] == {"name": model, "sha256": sha256(model_path(model))}


def test_what_is_described_changes_with_what_is_chosen(toy_denoiser: MakeDenoiser) -> None:
    base = {"denoiser": toy_denoiser(), "xi": XI}
    described = [
        describe(load_defense("ddpm", **{**base, **more}))  # type: ignore[arg-type]
        for more in ({}, {"t": 7}, {"sigma": 0.1}, {"clip_x0": True}, {"gradient": "bpda"},
                     {"policy": "eot:3"}, {"tile": 8}, {"tile": 0})
    ]  # fmt: skip
    assert len({json.dumps(d, sort_keys=True) for d in described}) == len(described)
    assert described[-1]["tile"] is None


def test_densepure_votes_unless_told_otherwise(toy_denoiser: MakeDenoiser) -> None:
    voting = load_defense("densepure", denoiser=toy_denoiser(), xi=XI)
    assert voting.policy == Policy("majority", 10, reverse_only=True)
    assert load_defense("densepure", denoiser=toy_denoiser(), policy="single").policy == Policy()
    assert load_defense("cm", denoiser=toy_denoiser(), policy=Policy("eot", 2)).policy.draws == 2


def test_options_may_be_text() -> None:
    recipe = make_recipe("ddpm", {"t": "50", "clip_x0": "true", "variance": "small"})
    assert recipe == PURIFIERS.get("ddpm")(t=50, clip_x0=True, variance="small")  # type: ignore[call-arg]
    assert make_recipe("pf-ode", {"sigma": "0.5"}).level == 1.0  # type: ignore[attr-defined]


def test_an_own_classifier_and_own_weights(tmp_path: Path, toy_denoiser: MakeDenoiser) -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1)[:, :2]

    defense = load_defense("none", classifier=Two())
    assert describe(defense)["classifier"]["name"] == "Two"
    assert defense(torch.full((1, 1, 8, 8), 0.5)).shape == (1, 2)
    made = toy_denoiser()
    config = {
        "image_size": 8, "image_channels": 1, "channels": (8,), "blocks": 1, "embedding": 8,
    }  # fmt: skip
    path = tmp_path / "own.safetensors"
    span = {"task": "edm", "sigma_data": 0.5, "sigma_min": 0.01, "sigma_max": 50.0}
    save_network(path, made.network, architecture="unet", config=config, metadata=span)  # type: ignore[arg-type]
    loaded = load_denoiser(path)
    assert isinstance(loaded, EDMDenoiser)
    assert (loaded.sigma_min, loaded.sigma_max, loaded.training) == (0.01, 50.0, False)
    purifier = load_purifier("onestep-edm", weights=path)
    assert purifier.settings["denoiser"] == {"name": "own", "sha256": sha256(path)}
    # Another file under the same name is read again, not remembered.
    path.unlink()
    changed = toy_denoiser(seed=1)
    save_network(path, changed.network, architecture="unet", config=config,
                 metadata={**span, "sigma_min": 0.02})  # type: ignore[arg-type] # fmt: skip
    assert load_denoiser(path).sigma_min == 0.02


def test_networks_come_frozen_and_ready_for_evaluation() -> None:
    assert all(not p.requires_grad for p in load_classifier().parameters())
    assert not load_classifier().training


@pytest.mark.parametrize(("make", "rule"), [
    (lambda: load_defense("ddpn"), "defense 'ddpn' is not known; did you mean ddpm"),
    (lambda: load_purifier("ddpm", tt=3), "option 'tt' of ddpm is not known; did you mean t"),
    (lambda: load_purifier("none", t=3), "t 3 means nothing to none; leave out t"),
    (lambda: load_purifier("none", sigma=0.1), "sigma 0.1 means nothing to none"),
    (lambda: load_purifier("ddpm", t="many"), "t 'many' is not a whole number"),  # type: ignore[arg-type]
    (lambda: load_purifier("ddpm", variance="huge"), "variance 'huge' of ddpm is not known"),
    (lambda: load_purifier("ddpm", t=10, sigma=0.1), "are two strengths"),
    (lambda: load_purifier("ddpm", tile=-1), "tile -1 holds no image"),
    (lambda: load_defense("none", "mnist"), "data set 'mnist' is not known"),
    (lambda: load_denoiser("digits-classifier"), "is no denoiser"),
    (lambda: load_denoiser("digits-edn"), "did you mean 'digits-edm'"),
    (lambda: load_denoiser("/nowhere/x.safetensors"), "is missing"),
    (lambda: load_defense("none", policy="vote"), "policy 'vote' is not known"),
    (lambda: load_classifier("imagenet"), "has no classifier here; pass --classifier FILE"),
])  # fmt: skip
def test_bad_names_and_values_are_refused_in_one_line(
    make: Callable[[], object], rule: str
) -> None:
    with pytest.raises(BadInput, match=rule) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_public_names_are_there_and_unknown_ones_are_not() -> None:
    for name in advpure.__all__:
        assert getattr(advpure, name) is not None
    assert set(advpure.__all__) <= set(dir(advpure))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = advpure.nothing


def test_every_load_makes_networks_of_its_own() -> None:
    first, second = load_denoiser("digits-edm"), load_denoiser("digits-edm")
    first.double()
    assert all(p.dtype == torch.float32 for p in second.parameters())


def test_a_denoiser_object_is_identified_by_its_state() -> None:
    grey, black = (GaussianDenoiser(torch.full((1, 8, 8), m), 0.5) for m in (0.0, -1.0))
    names = [load_purifier("onestep-edm", denoiser=d).settings["denoiser"] for d in (grey, black)]
    assert names[0]["name"] == names[1]["name"] == "GaussianDenoiser"
    assert names[0]["sha256"] != names[1]["sha256"]


def test_weights_for_a_purifier_without_a_network_are_refused() -> None:
    with pytest.raises(BadInput, match="mean nothing to none"):
        load_defense("none", weights="digits-edm")


def test_a_tile_that_is_no_power_of_two_is_refused() -> None:
    with pytest.raises(BadInput, match="use 4 or 8"):
        load_defense("none", tile=6)


def test_networks_of_the_wrong_kind_or_for_other_images_are_refused() -> None:
    with pytest.raises(BadInput, match=r"'digits-edm' is no classifier; pass it as weights"):
        load_defense("none", classifier="digits-edm")
    with pytest.raises(BadInput, match=r"for digits images .* does not fit cifar10 images"):
        load_purifier("onestep-edm", "cifar10", weights="digits-edm")
    with pytest.raises(BadInput, match=r"for digits images .* does not fit cifar10 images"):
        load_defense("none", "cifar10", classifier="digits-classifier")


@pytest.mark.parametrize(
    ("name", "weights", "line"),
    [
        ("cm", "digits-edm", "digits-edm is a denoiser, which estimates the mean image; cm is"),
        ("ddpm", "digits-cm", "digits-cm is a consistency model, which samples an image; ddpm is"),
    ],
)
def test_a_network_of_another_kind_runs_with_a_note(name: str, weights: str, line: str) -> None:
    with pytest.warns(UserWarning, match=line):
        load_purifier(name, "digits", weights=weights)


@pytest.mark.parametrize("name", ["cm", "onestep-edm", "pf-ode"])
def test_the_default_strength_is_one_that_the_network_covers(name: str) -> None:
    narrow = EDMDenoiser(nn.Identity(), sigma_min=1.0, sigma_max=2.0)
    with pytest.raises(BadInput, match=r"sigma 0\.25 is outside .* 0\.5 to 1 in"):
        load_purifier(name, "digits", denoiser=narrow)
