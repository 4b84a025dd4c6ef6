"""Classifiers that receive the noise level: nodes, refusals, certificates, official files."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from quick_studies import quick
from torch import Tensor, nn

from advpure.analysis.certification.loading import at_level, load_certification
from advpure.analysis.certification.settings import CertificationSettings
from advpure.analysis.certification.study import Certification
from advpure.analysis.perturbations import directions
from advpure.analysis.representation import Representation
from advpure.base.errors import BadInput
from advpure.checkpoints.proof import recipe_weights
from advpure.checkpoints.rrcm import import_rrcm, layout_of, read_rrcm
from advpure.core.denoisers import network_inputs
from advpure.core.levelled import LevelledClassifier, NoiseLevels
from advpure.core.randomness import RandomnessConfig
from advpure.data import load_images
from advpure.loading import describe, load_classifier, load_defense, load_levelled
from advpure.networks import build_network
from advpure.networks.registry import shapes_of
from advpure.networks.vit import ViTConfig
from advpure.networks.weights import load_network, save_network
from advpure.training.randomness import step_generator

PUBLISHED = {"sigma_data": 0.5, "sigma_min": 0.002, "sigma_max": 80.0}
SMALL = {"image_channels": 1, "channels": [4], "embedding": 8, "classes": 10}


def levels(*covers: float, nodes: int = 81) -> NoiseLevels:
    return NoiseLevels(nodes=nodes, low=covers[0], high=covers[-1], **PUBLISHED)


def network(seed: int = 0) -> nn.Module:
    made = build_network("conv-encoder", SMALL, step_generator(seed)).eval().requires_grad_(False)
    made.linear_head.weight.mul_(1e4)  # type: ignore[union-attr, operator]
    return made


@pytest.fixture
def weights(tmp_path: Path) -> Callable[..., str]:
    """Return a maker of files of untrained classifiers."""

    def make(name: str, *covers: float, nodes: int = 81, **facts: Any) -> str:
        metadata = {
            "name": name, "task": "levelled-classifier", "dataset": "digits", "nodes": nodes,
            "noise_sigmas": list(covers), "covers": [covers[0], covers[-1]], **PUBLISHED, **facts,
        }  # fmt: skip
        path = tmp_path / f"{name}.safetensors"
        save_network(
            path, network(len(name)), architecture="conv-encoder", config=SMALL, metadata=metadata
        )
        return str(path)

    return make


# --- the node of a noise level


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        (81, (0.49271, 0.96542, 2.00365)),
        (41, (0.56663, 0.96542, 2.00365)),
        (21, (0.56663, 0.96542, 1.58398)),
    ],
)
def test_the_node_follows_from_the_n_of_training(nodes: int, expected: tuple[float, ...]) -> None:
    found = [round(levels(0.25, 1.0, nodes=nodes).node(sigma), 5) for sigma in (0.25, 0.5, 1.0)]
    assert tuple(found) == expected


def test_the_network_is_asked_once_at_the_node() -> None:
    asked: list[tuple[Tensor, Tensor]] = []

    class Spy(nn.Module):
        def forward(self, x: Tensor, noise: Tensor) -> Tensor:
            asked.append((x, noise))
            return x.flatten(1)[:, :3]

    x = torch.rand(2, 1, 2, 2, generator=step_generator(1))
    LevelledClassifier([Spy()], [levels(0.5)]).at(0.5)(x)
    ((state, noise),) = asked
    node = 0.96542
    torch.testing.assert_close(state, (2 * x - 1) / math.sqrt(node**2 + 0.25), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(noise, torch.full((2,), math.log(node) / 4), rtol=1e-4, atol=1e-4)


def test_of_several_networks_the_narrowest_is_asked() -> None:
    parts = [nn.Identity(), nn.Identity(), nn.Identity()]
    family = LevelledClassifier(parts, [levels(0.25, 1.0), levels(0.25), levels(0.5)])
    assert [family.at(sigma).number for sigma in (0.25, 0.5, 1.0, 0.7)] == [1, 2, 0, 0]
    with pytest.raises(BadInput, match=r"trained for, 0\.25 to 1, 0\.25, 0\.5 in"):
        family.at(2.0)
    with pytest.raises(BadInput, match="was given none; use --defense rrcm"):
        family(torch.zeros(1, 1, 1, 1))


# --- the defense


def test_the_defense_adds_keyed_noise_and_classifies_it() -> None:
    net, span = network(), levels(0.25, 1.0)
    defense = load_defense(
        "rrcm", "digits", sigma=0.5, classifier=LevelledClassifier([net], [span]),
        xi=RandomnessConfig(3), tile=0,
    )  # fmt: skip
    images, _, ids = load_images("digits", n=3)
    noise = RandomnessConfig(3).normal(ids, "forward", 1, (1, 8, 8))
    state, condition = network_inputs(2 * images - 1 + noise, span.node(0.5), 0.5)
    torch.testing.assert_close(defense.bind(ids)(images), net(state, condition))
    assert (defense.evaluations, defense.is_random) == (1, True)
    described = describe(defense)
    assert (described["purifier"], described["sigma"]) == ("rrcm", 0.5)
    x = images.clone().requires_grad_()
    defense(x).sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert float(x.grad.norm()) > 0


def test_files_by_name_are_one_classifier(weights: Callable[..., str]) -> None:
    names = [weights("quarter", 0.25), weights("half-", 0.5)]
    classifier = load_levelled("digits", ",".join(names))
    assert [each.nodes for each in classifier.levels] == [81, 81]
    described = describe(load_defense("rrcm", "digits", sigma=0.5, classifier=",".join(names)))
    assert described["classifier"]["name"] == "quarter,half-"
    assert described["classifier"]["nodes"] == [81, 81]
    first = describe(load_defense("rrcm", "digits", classifier=names[0]))
    assert first["classifier"]["sha256"] != described["classifier"]["sha256"]


def test_what_does_not_fit_is_refused_in_one_line(weights: Callable[..., str]) -> None:
    file = weights("quarter", 0.25, nodes=41)
    cases: list[tuple[dict[str, Any], str]] = [
        ({"sigma": 0.5}, "sigma 0.5 is no noise level that the classifier was trained for, 0.25"),
        ({"nodes": 81}, "nodes 81 are not the N of the classifier, which was trained with 41"),
        ({"classifier": "digits-classifier"}, "'digits-classifier' of task 'classifier' is no cl"),
        ({"classifier": load_classifier("digits")}, "does not receive the noise level"),
        ({"normalize": "0.5/0.5"}, "normalize 0.5/0.5 means nothing to rrcm"),
        ({"weights": "digits-edm"}, "weights digits-edm mean nothing to rrcm"),
    ]
    for more, message in cases:
        with pytest.raises(BadInput, match=message) as caught:
            load_defense("rrcm", "digits", **{"classifier": file, **more})
        assert "\n" not in str(caught.value)
    with pytest.raises(BadInput, match="receives the noise level of its images; use --defense rr"):
        load_defense("none", "digits", classifier=file)
    with pytest.raises(BadInput, match="for digits images"):
        load_levelled("cifar10", file)
    with pytest.raises(BadInput, match="does not say which levels it covers"):
        load_levelled("digits", weights("silent", 0.25, covers=None))


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["attack", "survival", "snr"])
def test_every_question_about_it_has_the_same_rows_for_any_batch_size(
    verb: str, tmp_path: Path
) -> None:
    study = quick(verb, defense="rrcm", sigma=0.5)
    for size in (1, 3):
        study.run(out=tmp_path / str(size), batch_size=size)
    one, three = (type(study).records(tmp_path / name) for name in ("1", "3"))
    with one, three:
        for schema in study.tables:
            mine, theirs = (sorted(map(str, each.rows(schema.table))) for each in (one, three))
            assert mine == theirs
        assert list(one.rows(study.tables[0].table))


# --- its representation


def test_compression_of_a_linear_representation_is_that_of_its_direction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The direction of E(x) = x A moves by the part of eta A across E, over ||E||; noise t z makes E
    # longer, so that the rate falls.
    a = torch.linalg.qr(torch.randn(64, 64, generator=step_generator(1)))[0][:, :5]
    monkeypatch.setattr(
        LevelledClassifier, "features", lambda self, states, level: states.flatten(1) @ a
    )
    report = Representation(dataset="digits", n=2, perturbations=1, levels=3, eps=1e-3).run(
        out=tmp_path / "run"
    )
    images, _, ids = load_images("digits", n=2)
    noise = RandomnessConfig(0).normal(ids, "forward", 1, (1, 8, 8))
    eta = directions("uniform", 0, [0, 1], [0, 0], (64,))
    clean = None
    for level in report.levels:
        feature = ((2 * images - 1) + 2 * level.sigma * noise).flatten(1) @ a
        unit = feature / feature.norm(dim=1, keepdim=True)
        moved = eta @ a
        across = moved - (moved * unit).sum(1, keepdim=True) * unit
        expected = across.norm(dim=1) / feature.norm(dim=1) / eta.norm(dim=1)
        found = [level.rate.images()[i] for i in (0, 1)]
        assert found == pytest.approx(expected.tolist(), rel=1e-2)
        clean = unit if clean is None else clean
        gaps = [level.distance.images()[i] for i in (0, 1)]
        assert gaps == pytest.approx((1 - (clean * unit).sum(1)).tolist(), abs=1e-5)
    assert report.levels[0].rate.value > 10 * report.levels[-1].rate.value


def test_only_a_classifier_that_receives_the_noise_level_has_a_representation() -> None:
    with pytest.raises(BadInput, match="defense cm has no representation of noisy images; use --d"):
        Representation(dataset="digits", defense="cm", n=1).load()
    with pytest.raises(BadInput, match="levels 82 are more than the 81 nodes of the classifier"):
        Representation(dataset="digits", n=1, levels=82).load()


# --- certificates


def test_certificates_ask_the_network_of_each_level_once_a_sample(
    weights: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ",".join([weights("quarter", 0.25), weights("half-", 0.5)])
    settings = {
        "defense": "rrcm", "dataset": "digits", "n": 2, "sigmas": "0.25,0.5", "samples": 30,
        "selection": 10, "classifier": names,
    }  # fmt: skip
    loaded = load_certification(CertificationSettings(**settings))
    assert loaded.evaluations == {0.25: 1, 0.5: 1}
    noisy = torch.rand(4, 1, 8, 8, generator=step_generator(1))
    rows = torch.tensor([[0, k] for k in range(4)])
    classifier = load_levelled("digits", names)
    for sigma in (0.25, 0.5):
        expected = classifier.at(sigma)(noisy).argmax(1)
        assert torch.equal(loaded.classify(sigma, "certify")(noisy, rows), expected)
    asked: list[int] = []
    forward = LevelledClassifier.forward

    def counted(self: LevelledClassifier, images: Tensor) -> Tensor:
        asked.append(len(images))
        return forward(self, images)

    monkeypatch.setattr(LevelledClassifier, "forward", counted)
    report = Certification(**settings, tile=0).run(out=tmp_path / "run")
    assert sum(asked) == 2 * 2 * 40
    assert [curve.images.name for curve in report.curves]
    with pytest.raises(BadInput, match="sigma 1 is no noise level that the classifier"):
        load_certification(CertificationSettings(**{**settings, "sigmas": "0.25,1.0"}))


def test_a_defense_at_another_level_leaves_the_first_alone() -> None:
    family = LevelledClassifier([network()], [levels(0.25, 1.0)])
    defense = load_defense("rrcm", "digits", sigma=0.25, classifier=family)
    other: Any = at_level(defense, 1.0).classifier
    mine: Any = defense.classifier
    assert (mine.sigma, other.sigma, family.sigma) == (0.25, 1.0, None)
    plain = load_defense("none", "digits")
    assert at_level(plain, 1.0) is plain


# --- files of the released code

_CIFAR, _IMAGENET = {"image_size": 32, "patch": 4}, {"image_size": 224, "patch": 16}
SHAPES = {
    "cifar-b": ({**_CIFAR, "width": 768, "depth": 12, "hidden": 2048}, 66),
    "imagenet-b": ({**_IMAGENET, "width": 768, "depth": 12, "hidden": 4096}, 198),
    "imagenet-s": ({**_IMAGENET, "width": 512, "depth": 6, "hidden": 2048}, 198),
}


@pytest.mark.parametrize(
    ("name", "parameters", "tensors"),
    [
        ("cifar-b", 91_417_088, 151),
        ("imagenet-b", 106_759_680, 151),
        ("imagenet-s", 25_177_088, 85),
    ],
)
def test_published_shapes_have_the_published_parameters(
    name: str, parameters: int, tensors: int
) -> None:
    shape, tokens = SHAPES[name]
    config = ViTConfig(image_channels=3, heads=shape["width"] // 64, **shape)
    pre, fine = layout_of(config, tuned=False), layout_of(config, tuned=True)
    assert (pre.parameters(), len(pre.official())) == (parameters, tensors)
    assert pre.official()["pos_embed"] == (1, tokens, shape["width"])
    assert {*fine.official()} == {f"module.base_model.{each}" for each in pre.official()}
    sources = pre.official()
    assert sources["blocks.0.attn.qkv.weight"] == (3 * shape["width"], shape["width"])
    assert "blocks.0.attn.qkv.bias" not in sources
    assert "projection_head.6.bias" not in sources


CONFIG = {
    "image_size": 8, "image_channels": 3, "patch": 2, "width": 32, "depth": 2, "heads": 2,
    "hidden": 24, "projection": 12,
}  # fmt: skip


def official(seed: int = 3, **more: int) -> dict[str, Tensor]:
    own = shapes_of("vit", {**CONFIG, **more})
    return recipe_weights({name: tuple(each.shape) for name, each in own.items()}, seed)


def test_outputs_are_those_of_the_released_code(tmp_path: Path) -> None:
    # rRCMViT and its denoise() of jiachenlei/rRCM @0793ebb, in evaluation mode, with these weights.
    torch.save(official(), tmp_path / "nnet_ema.pth")
    net = read_rrcm(tmp_path / "nnet_ema.pth", heads=2)
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    t = torch.tensor([0.49271, 2.00365])[:, None, None, None]
    features = net.features(*network_inputs(x, t, 0.5))
    expected = [
        -1.067713,
        0.203314,
        -0.433557,
        -0.365837,
        -0.888905,
        1.279307,
        -3.749431,
        -0.627413,
    ]
    torch.testing.assert_close(
        features.flatten()[::9], torch.tensor(expected), rtol=1e-4, atol=1e-4
    )
    projected = [-0.090417, -0.40516, 0.38512, -1.185904, -0.239587]
    torch.testing.assert_close(
        net.project(features).flatten()[::5], torch.tensor(projected), rtol=1e-4, atol=1e-4
    )


def test_a_fine_tuned_file_becomes_a_classifier_with_a_stated_n(tmp_path: Path) -> None:
    encoder = official(image_size=32, patch=8)
    state = {f"module.base_model.{name}": value for name, value in encoder.items()}
    head = torch.randn(10, 32, generator=step_generator(1))
    state |= {"module.linear_head.weight": head, "module.linear_head.bias": torch.zeros(10)}
    torch.save(state, tmp_path / "linear_300k_x.pt")
    net = read_rrcm(tmp_path / "linear_300k_x.pt", heads=2)
    x, noise = torch.randn(2, 3, 32, 32, generator=step_generator(2)), torch.zeros(2)
    torch.testing.assert_close(net(x, noise), net.encode(x, noise) @ head.T)
    whole = read_rrcm(tmp_path / "linear_300k_x.pt", heads=2, normed=True)
    torch.testing.assert_close(whole(x, noise), net.features(x, noise) @ head.T)
    to = tmp_path / "mine.safetensors"
    with pytest.raises(BadInput, match="does not say which noise it was tuned at; give sigmas"):
        import_rrcm(tmp_path / "linear_300k_x.pt", to, dataset="cifar10", nodes=81, heads=2)
    import_rrcm(
        tmp_path / "linear_300k_x.pt", to, dataset="cifar10", nodes=81, heads=2, sigmas=[0.25]
    )
    metadata = load_network(to).metadata
    assert (metadata["nodes"], metadata["covers"]) == (81, [0.25, 0.25])
    assert round(load_levelled("cifar10", to).at(0.25).node, 5) == 0.49271


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"norm.bias": None}, "tensor 'norm.bias' of rRCM file .* is missing from the file"),
        ({"head.bias": torch.zeros(2)}, "tensor 'head.bias' is unknown to rRCM file"),
        ({"pos_embed": torch.zeros(1, 17, 32)}, "17 tokens, which are no square of patches and tw"),
        ({"cls_token": torch.zeros(1, 1, 31)}, r"has shape \(1, 1, 31\), not \(1, 1, 32\)"),
        ({"patch_embed.proj.weight": None}, "has no patch_embed.proj.weight of its network"),
    ],
)
def test_files_of_another_network_are_refused(
    tmp_path: Path, change: dict[str, Tensor | None], message: str
) -> None:
    state = {k: v for k, v in {**official(), **change}.items() if v is not None}
    torch.save(state, tmp_path / "nnet.pth")
    with pytest.raises(BadInput, match=message) as caught:
        read_rrcm(tmp_path / "nnet.pth", heads=2)
    assert "\n" not in str(caught.value)
