"""Feature networks: what each returns, what is said when it is missing, choice of metrics."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from advpure.analysis.metrics import clip_features, inception_features, vgg_features
from advpure.analysis.metrics.choice import METRICS, load_metrics, parse_metrics
from advpure.analysis.metrics.classifier_features import last_features
from advpure.analysis.metrics.classifier_features import load as load_judge
from advpure.analysis.metrics.frechet import frechet_distance
from advpure.analysis.metrics.networks import NETWORKS, FeatureNetwork, MetricContext
from advpure.base.errors import BadInput, MissingExtra
from advpure.data import load_images
from advpure.loading import load_classifier
from advpure.networks.lpips import LPIPS

Pictures = Callable[..., Tensor]


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let nothing be there: no weights of ours, none in torch's cache."""
    monkeypatch.setenv("ADVPURE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "data"


@pytest.fixture
def small_vgg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LPIPS:
    """Put a small network in the place of VGG16."""
    network = LPIPS((3, 4, 5, 6, 7)).requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        parameter.copy_(torch.rand(parameter.shape, generator=generator) - 0.3)
    file = tmp_path / "vgg16.safetensors"
    file.write_bytes(b"weights")
    monkeypatch.setattr(vgg_features, "load_lpips", lambda: network)
    monkeypatch.setattr(vgg_features, "lpips_path", lambda: file)
    monkeypatch.setattr("advpure.networks.lpips.load_lpips", lambda: network)
    return network


def test_the_classifiers_features_give_its_logits() -> None:
    classifier, images = load_classifier("digits"), load_images("digits", n=9).images
    features, logits = last_features(classifier, images)
    last = classifier.leave
    assert isinstance(last, nn.Linear)
    assert torch.equal(logits, classifier(images))
    assert torch.allclose(F.linear(features, last.weight, last.bias), logits, atol=1e-5)
    assert not last._forward_hooks, "the hooks are gone"
    network = load_judge(MetricContext(classifier=classifier, tile=4))
    found = network(images)
    assert found["classifier"].shape == features.shape
    assert np.allclose(found["classifier-classes"].sum(axis=1), 1.0, atol=1e-6)
    assert (found["classifier-classes"].argmax(axis=1) == logits.argmax(1).numpy()).all()


def test_features_do_not_depend_on_the_batch() -> None:
    images = load_images("digits", n=11).images
    network = load_judge(MetricContext(classifier=load_classifier("digits"), tile=4))
    whole = network(images)
    for name, rows in whole.items():
        parts = [network(images[k : k + 3])[name] for k in range(0, 11, 3)]
        assert np.array_equal(np.concatenate(parts), rows)
        assert rows.dtype == np.float32


def test_images_are_clipped_as_in_a_file(pictures: Pictures) -> None:
    network = FeatureNetwork(
        run=lambda x: {"pixels": x.flatten(1)}, outputs=("pixels",), tile=4, identity={}
    )
    images = 3.0 * pictures(5, 1, 4, 4) - 1.0
    assert np.array_equal(network(images)["pixels"], images.clamp(0, 1).flatten(1).numpy())
    broken = FeatureNetwork(run=lambda x: {"a": x / 0.0}, outputs=("a",), tile=4, identity={})
    with pytest.raises(BadInput, match="features 'a' are not finite"):
        broken(images)


def test_a_classifier_without_a_last_linear_layer_is_refused(pictures: Pictures) -> None:
    pooling = nn.Sequential(nn.Conv2d(1, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(BadInput, match="does not end in a linear layer"):
        last_features(pooling, pictures(2, 1, 8, 8))
    inside = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Softmax(1), nn.Unflatten(1, (2, 4)),
                           nn.Flatten(2), nn.AdaptiveMaxPool1d(1), nn.Flatten())  # fmt: skip
    with pytest.raises(BadInput, match="does not end in a linear layer"):
        last_features(inside, pictures(2, 1, 8, 8))
    with pytest.raises(BadInput, match="features of a classifier need one"):
        load_judge(MetricContext())


def test_vgg_features_are_the_mean_of_the_last_stage(small_vgg: LPIPS, pictures: Pictures) -> None:
    network = NETWORKS.get("vgg")(MetricContext())
    images = pictures(3, 3, 48, 32)
    expected = small_vgg.activations(2 * images - 1)[-1]
    assert expected.shape == (3, 7, 3, 2)
    assert np.allclose(network(images)["vgg"], expected.mean(dim=(2, 3)).numpy(), atol=1e-6)
    grey = pictures(3, 1, 8, 8)
    enlarged = F.interpolate(grey, (32, 32), mode="bilinear").expand(-1, 3, -1, -1)
    assert np.allclose(network(grey)["vgg"], network(enlarged)["vgg"], atol=1e-6)
    with pytest.raises(BadInput, match="images of 2 channels are neither grey nor RGB"):
        network(pictures(1, 2, 32, 32))


class StandIn(nn.Module):
    """What pytorch-fid's `InceptionV3([2, 3])` looks like from outside."""

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return a map of 768 channels that varies in space, and 2048 pooled features."""
        wide = F.interpolate(images.mean(dim=1, keepdim=True), (17, 17), mode="bilinear")
        one = wide * torch.arange(768.0)[:, None, None]
        two = images.mean(dim=(1, 2, 3))[:, None] * torch.linspace(0, 1, 2048)
        return [one, two[:, :, None, None]]


def test_the_768_features_are_those_before_the_auxiliary_classifier(pictures: Pictures) -> None:
    last = torch.randn(1008, 2048, generator=torch.Generator().manual_seed(0)) / 45
    network = inception_features.features_of(StandIn(), last, {"sha256": "x"})
    images = pictures(6, 3, 32, 32)
    found = network(images)
    assert {name: rows.shape for name, rows in found.items()} == {
        "inception-768": (6, 768), "inception-2048": (6, 2048), "inception-classes": (6, 1008),
    }  # fmt: skip
    one, two = StandIn()(images)
    assert np.allclose(found["inception-768"], one.mean(dim=(2, 3)).numpy(), rtol=1e-5)
    assert np.allclose(found["inception-2048"], two.flatten(1).numpy(), rtol=1e-5)
    shares = (two.flatten(1) @ last.T).softmax(1).numpy()
    assert np.allclose(found["inception-classes"], shares, rtol=1e-4)
    # A shift of the images moves all 768 features: the distance is the squared mean shift.
    moved = network(images + 0.05)["inception-768"]
    expected = np.square(0.05 * np.arange(768)).sum()
    assert frechet_distance(found["inception-768"], moved) == pytest.approx(expected, rel=1e-4)


def test_pytorch_fid_is_handed_our_tensors_and_downloads_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = ModuleType("pytorch_fid.inception")
    seen: list[Any] = []

    def download(url: str) -> Mapping[str, Tensor]:
        raise AssertionError("nothing is downloaded")

    def make(blocks: list[int]) -> nn.Module:
        seen.append((blocks, module.load_state_dict_from_url("https://x", progress=True)))
        return StandIn()

    module.load_state_dict_from_url = download  # type: ignore[attr-defined]
    module.InceptionV3 = make  # type: ignore[attr-defined]
    package = ModuleType("pytorch_fid")
    package.inception = module  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pytorch_fid", package)
    monkeypatch.setitem(sys.modules, "pytorch_fid.inception", module)
    state = {"fc.weight": torch.zeros(1)}
    assert not inception_features.make_network(state).training
    assert seen == [([2, 3], state)]
    assert module.load_state_dict_from_url is download


@pytest.mark.slow
def test_the_network_is_pytorch_fids(pictures: Pictures, monkeypatch: pytest.MonkeyPatch) -> None:
    library = pytest.importorskip("pytorch_fid.inception")
    # Minutes of draws that a state replaces.
    monkeypatch.setattr(torch.nn.init, "trunc_normal_", lambda tensor, *a, **k: tensor)
    plain = library._inception_v3(num_classes=1008, aux_logits=False, weights=None)
    state = {name: value for name, value in plain.state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    for name, value in state.items():
        if value.ndim > 1:
            state[name] = torch.randn(value.shape, generator=generator) / value[0].numel() ** 0.5
    network = inception_features.make_network(state)
    found = inception_features.features_of(network, state["fc.weight"], {})(pictures(2, 3, 32, 32))
    monkeypatch.setattr(library, "load_state_dict_from_url", lambda *a, **k: state)
    with torch.no_grad():
        sizes = (768, 2048)
        blocks = [library.InceptionV3.BLOCK_INDEX_BY_DIM[dims] for dims in sizes]
        answers = library.InceptionV3(blocks).eval()(pictures(2, 3, 32, 32))
        for dims, expected in zip(sizes, answers, strict=True):
            ours = found[f"inception-{dims}"]
            assert ours.shape == (2, dims)
            assert np.allclose(ours, expected.mean(dim=(2, 3)).numpy(), rtol=1e-3, atol=1e-5)
    with pytest.raises(BadInput, match="does not fit pytorch-fid's network"):
        inception_features.make_network({"fc.weight": torch.zeros(3)})


def test_weights_that_are_missing_or_others_are_named(
    empty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    around = MetricContext()
    with pytest.raises(BadInput, match=r"FID weights .*6726825d.pth are missing; put the file"):
        NETWORKS.get("inception")(around)
    with pytest.raises(BadInput, match=r"CLIP weights .*ViT-B-32.safetensors are missing; put"):
        NETWORKS.get("clip")(around)
    with pytest.raises(BadInput, match=r"LPIPS weights .* are missing; run advpure data lpips"):
        NETWORKS.get("vgg")(around)
    cached = Path(torch.hub.get_dir()) / "checkpoints" / inception_features.FILE
    cached.parent.mkdir(parents=True)
    cached.write_bytes(b"not it")
    with pytest.raises(BadInput, match=r"FID weights .* have a wrong sha256"):
        NETWORKS.get("inception")(around)
    (empty / "clip").mkdir(parents=True)
    save_file({"a": torch.zeros(1)}, empty / "clip" / "ViT-B-32.safetensors")
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(MissingExtra, match="pip install 'advpure\\[metrics\\]'"):
        NETWORKS.get("clip")(around)
    monkeypatch.setitem(sys.modules, "pytorch_fid", None)
    with pytest.raises(MissingExtra, match="pytorch-fid is not installed"):
        inception_features.make_network({})


def test_clip_embeds_prepared_images(
    empty: Path, monkeypatch: pytest.MonkeyPatch, pictures: Pictures
) -> None:
    class Tower(nn.Linear):
        def encode_image(self, images: Tensor) -> Tensor:
            assert images.shape[1:] == (3, 224, 224)
            return self(images.mean(dim=(2, 3)))

    fake = SimpleNamespace(create_model=lambda name: asked.append(name) or Tower(3, 5))
    asked: list[str] = []
    monkeypatch.setitem(sys.modules, "open_clip", fake)
    (empty / "clip").mkdir(parents=True)
    file = empty / "clip" / "ViT-B-32.safetensors"
    weight = torch.arange(15.0).reshape(5, 3) - 6.0
    save_file({"weight": weight, "bias": torch.ones(5)}, file)
    network = NETWORKS.get("clip")(MetricContext())
    assert asked == ["ViT-B-32-quickgelu"]
    images = pictures(2, 1, 8, 8)
    found = network(images)["clip"]
    assert np.allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-6)
    mean = clip_features.prepared(images).mean(dim=(2, 3))
    assert np.allclose(found, F.normalize(mean @ weight.T + 1.0, dim=1).numpy(), atol=1e-5)
    save_file({"weight": weight}, file)
    with pytest.raises(BadInput, match="fit no ViT-B-32"):
        NETWORKS.get("clip")(MetricContext())


def test_clip_images_are_normalised_as_clip_was_trained() -> None:
    flat = torch.tensor([0.2, 0.5, 0.9]).reshape(1, 3, 1, 1).expand(1, 3, 32, 32)
    found = clip_features.prepared(flat)
    assert found.shape == (1, 3, 224, 224)
    expected = torch.tensor([0.2, 0.5, 0.9]) - torch.tensor([0.48145466, 0.4578275, 0.40821073])
    expected = expected / torch.tensor([0.26862954, 0.26130258, 0.27577711])
    assert torch.allclose(found[0].mean(dim=(1, 2)), expected, atol=1e-5)


def test_what_is_missing_is_said_and_the_rest_goes_on(empty: Path) -> None:
    around = MetricContext(
        classifier=load_classifier("digits"), identity={"sha256": "c"}, shape=(1, 8, 8)
    )
    chosen = load_metrics("all", around)
    assert chosen.metrics == (
        "compression", "compression-linf", "ssim", "frechet-classifier", "classifier-score",
        "precision-recall-classifier",
    )  # fmt: skip
    assert chosen.identity["networks"] == {"classifier": {"sha256": "c"}, "ssim": {"window": 7}}
    assert set(chosen.missing) == set(METRICS) - set(chosen.metrics)
    assert len(chosen.notes) == 3, "one line for each file"
    assert chosen.notes[0].startswith("without lpips, frechet-vgg, precision-recall-vgg: LPIPS")
    with pytest.raises(BadInput, match="metrics lpips, clip cannot be had here; without lpips: "):
        load_metrics("clip,lpips", around)
    assert load_metrics("ssim,clip", around).metrics == ("ssim",)
    assert load_metrics("none", around).metrics == ()


def test_a_network_that_only_a_pair_needs_makes_no_features(small_vgg: LPIPS) -> None:
    around = MetricContext(shape=(3, 32, 32))
    chosen = load_metrics("lpips", around)
    assert not chosen.networks
    assert chosen.identity["networks"]["vgg"]["least_side"] == 32
    assert list(load_metrics(["lpips", "frechet-vgg"], around).networks) == ["vgg"]
    value = chosen.pairs["lpips"](torch.full((2, 3, 32, 32), 0.5), torch.full((2, 3, 32, 32), 0.5))
    assert value.tolist() == [0.0, 0.0]


def test_metrics_are_read_by_name() -> None:
    assert parse_metrics(None) == parse_metrics("all") == tuple(METRICS)
    assert parse_metrics(["FID_768", "ssim"]) == ("ssim", "fid-768")
    with pytest.raises(BadInput, match="metric 'fid' is not known"):
        parse_metrics("fid")
    assert {each.network for each in METRICS.values()} - {None} == set(NETWORKS.names())
