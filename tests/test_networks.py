"""Networks: shapes, independence of rows, precision, forward-mode derivatives, no global draws."""

import copy
import dataclasses
import gc
import pickle
import weakref
from collections.abc import Callable
from typing import cast

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from advpure.base.errors import BadInput
from advpure.base.fingerprint import fingerprint
from advpure.core.precision import InPrecision, Precision
from advpure.networks import (
    ConvNet,
    ConvNetConfig,
    ResNet,
    ResNetConfig,
    UNet,
    UNetConfig,
    build_network,
)
from advpure.networks.convolution import _PRODUCTS, Conv3x3
from advpure.networks.layers import (
    Attention,
    SeededDropout,
    _normalised_parts,
    normalised,
    seed_dropout,
)

SHAPES = [
    {"image_size": 8, "image_channels": 1, "channels": [8, 16]},
    {"image_size": 8, "image_channels": 1, "channels": [8, 16], "patch": 2},
    {"image_size": 8, "image_channels": 3, "channels": [8, 16, 24], "blocks": 2},
    {"image_size": 8, "image_channels": 2, "channels": [8], "attention": [0], "embedding": 8},
]


def randomised(architecture: str, config: dict[str, object]) -> nn.Module:
    """Build a network whose zero-initialised layers are not zero."""
    generator = torch.Generator().manual_seed(0)
    network = build_network(architecture, config, generator).eval().requires_grad_(False)
    for parameter in network.parameters():
        parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return network


def draw(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("config", SHAPES)
def test_unet_keeps_shape_and_depends_on_image_and_noise(config: dict[str, object]) -> None:
    network = randomised("unet", config)
    x = draw(3, int(str(config["image_channels"])), 8, 8)
    out = network(x, torch.zeros(3))
    assert out.shape == x.shape
    assert (network(x, torch.full((3,), 0.7)) - out).abs().max() > 1e-3
    assert (network(x + 0.1, torch.zeros(3)) - out).abs().max() > 1e-3


@pytest.mark.parametrize("config", SHAPES)
def test_untrained_unet_returns_exactly_zero(config: dict[str, object]) -> None:
    network = build_network("unet", config, torch.Generator().manual_seed(0))
    x = draw(2, int(str(config["image_channels"])), 8, 8)
    assert torch.equal(network(x, torch.zeros(2)), torch.zeros_like(x))


@pytest.mark.parametrize("config", SHAPES)
def test_unet_rows_are_bit_identical_in_any_slot(config: dict[str, object]) -> None:
    # 32 rows: the vectorised silu rounds the last numel % 32 elements in another way
    network = randomised("unet", config)
    x, noise = draw(32, int(str(config["image_channels"])), 8, 8), draw(32, seed=2)
    order = torch.randperm(32, generator=torch.Generator().manual_seed(3))
    x.requires_grad_(True)
    moved = x.detach()[order].requires_grad_(True)
    straight, shuffled = network(x, noise), network(moved, noise[order])
    assert torch.equal(straight[order], shuffled)
    (one,) = torch.autograd.grad(straight.square().sum(), x)
    (two,) = torch.autograd.grad(shuffled.square().sum(), moved)
    assert torch.equal(one[order], two)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_rows_are_bit_identical_in_any_slot_where_upsampling_comes_last(precision: str) -> None:
    config = {"image_size": 16, "image_channels": 3, "channels": [8, 16]}
    network = InPrecision(randomised("unet", config), cast(Precision, precision))
    x, noise = draw(32, 3, 16, 16), draw(32, seed=2)
    order = torch.randperm(32, generator=torch.Generator().manual_seed(3))
    rows = x.clone().requires_grad_()
    moved = torch.cat([x[order[:16]], draw(16, 3, 16, 16, seed=4)]).requires_grad_()
    answer = network(rows, noise)
    other = network(moved, torch.cat([noise[order[:16]], draw(16, seed=5)]))
    assert torch.equal(answer[order[:16]], other[:16])
    (one,) = torch.autograd.grad(answer.square().sum(), rows)
    (two,) = torch.autograd.grad(other.square().sum(), moved)
    assert torch.equal(one[order[:16]], two[:16])


@pytest.mark.parametrize("blocks", [1, 2])
def test_what_is_done_before_upsampling_equals_what_would_be_done_after(
    blocks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {"image_size": 16, "image_channels": 2, "channels": [8, 12], "blocks": blocks}
    network = randomised("unet", config).double()
    x, noise = draw(3, 2, 16, 16).double().requires_grad_(), draw(3, seed=2).double()
    answers = []
    for many in (16, 17):  # pixels a side from which on it is done before
        monkeypatch.setattr("advpure.networks.unet._MANY", many)
        y = network(x, noise)
        answers.append((y, *torch.autograd.grad(y.square().sum(), x)))
    assert not torch.equal(answers[0][0], answers[1][0])  # two ways of rounding
    for before, after in zip(*answers, strict=True):
        torch.testing.assert_close(before, after, rtol=1e-12, atol=1e-12)


def test_parts_are_normalised_as_one_and_differentiable_twice_both_ways_and_mapped() -> None:
    norm = nn.GroupNorm(2, 4).double().requires_grad_(False)  # a group of both parts, one of one
    norm.weight.copy_(draw(4, seed=3))
    low, beside = (draw(2, c, n, n, seed=c).double().requires_grad_() for c, n in ((1, 2), (3, 4)))

    def both(low: Tensor, beside: Tensor) -> tuple[Tensor, ...]:
        return tuple(_normalised_parts(norm, low, beside))

    up = F.interpolate(low, scale_factor=2.0)
    whole = norm(torch.cat([up, beside], 1))
    first, second = both(low, beside)
    torch.testing.assert_close(F.interpolate(first, scale_factor=2.0), whole[:, :1])
    torch.testing.assert_close(second, whole[:, 1:])
    assert torch.autograd.gradcheck(both, (low, beside), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(both, (low, beside))
    mapped = torch.vmap(both)(low[:, None].detach(), beside[:, None].detach())
    torch.testing.assert_close(mapped[1][:, 0], second)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_norm_in_a_lower_precision_is_that_of_float32(dtype: torch.dtype) -> None:
    norm, x = nn.GroupNorm(2, 4), draw(2, 4, 4, 4).to(dtype)
    with torch.autocast("cpu", dtype):
        assert torch.equal(normalised(norm, x), norm(x.float()))


def test_one_noise_level_for_all_rows_equals_the_level_of_each() -> None:
    network = randomised("unet", {"image_size": 8, "image_channels": 1, "classes": 2}).double()
    x, noise = draw(3, 1, 8, 8).double(), torch.full((3,), 0.3).double()
    labels = torch.tensor([0, 1, -1])
    for given in (None, labels):
        one = network(x, noise[:1].expand(3), given)
        torch.testing.assert_close(one, network(x, noise, given), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("config", SHAPES)
def test_unet_forward_mode_equals_central_differences_in_float64(config: dict[str, object]) -> None:
    network = randomised("unet", config).double()
    x = draw(2, int(str(config["image_channels"])), 8, 8).double()
    noise, direction, h = draw(2, seed=2).double(), draw(*x.shape, seed=3).double(), 1e-5

    def function(state: Tensor) -> Tensor:
        out: Tensor = network(state, noise)
        return out

    slope = torch.func.jvp(function, (x,), (direction,))[1]
    central = (function(x + h * direction) - function(x - h * direction)) / (2 * h)
    assert slope.dtype == torch.float64
    # central differences err by h^2 f''' / 6 and by rounding / h: both near 1e-10 here
    assert (slope - central).norm() / central.norm() < 1e-7


def frozen_conv(before: int, after: int, dtype: torch.dtype = torch.float64) -> Conv3x3:
    conv = Conv3x3(before, after).requires_grad_(False)
    conv.weight.copy_(draw(after, before, 3, 3))
    return conv.to(dtype)


def convolved(conv: Conv3x3, x: Tensor) -> Tensor:
    assert conv.bias is not None
    return F.conv2d(x, conv.weight, conv.bias, padding=1)


@pytest.mark.parametrize(
    "shape", [(5, 1, 1), (5, 2, 2), (3, 1, 3), (20, 2, 2), (5, 2, 1), (4, 3, 4)]
)
def test_a_convolution_of_few_pixels_is_a_product_with_the_same_answer_and_derivatives(
    shape: tuple[int, int, int],
) -> None:
    width, *sides = shape
    conv = frozen_conv(width, 7)
    x, tangent = draw(3, width, *sides).double(), draw(3, width, *sides, seed=2).double()
    for layout in (torch.contiguous_format, torch.channels_last):
        laid = x.contiguous(memory_format=layout)
        torch.testing.assert_close(conv(laid), convolved(conv, x), rtol=1e-12, atol=1e-12)
        forward = torch.func.jvp(conv, (laid,), (tangent,))[1]
        torch.testing.assert_close(forward, convolved(conv, tangent) - convolved(conv, 0 * x))
    assert list(_PRODUCTS[conv]) == [tuple(sides)]
    left = x.requires_grad_()
    weights = draw(3, 7, *sides, seed=3).double()
    (ours,) = torch.autograd.grad((conv(left) * weights).sum(), left)
    (theirs,) = torch.autograd.grad((convolved(conv, left) * weights).sum(), left)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_a_convolution_stays_one_on_larger_maps_for_one_row_and_where_it_learns() -> None:
    conv = frozen_conv(32, 32)
    assert torch.equal(
        conv(draw(2, 32, 4, 4).double()), convolved(conv, draw(2, 32, 4, 4).double())
    )
    assert torch.equal(
        conv(draw(1, 32, 2, 2).double()), convolved(conv, draw(1, 32, 2, 2).double())
    )
    conv.requires_grad_()
    conv(draw(2, 32, 2, 2).double()).sum().backward()
    assert conv.weight.grad is not None
    conv.requires_grad_(False)
    x, filters = draw(2, 32, 2, 2).double(), dict(conv.named_parameters())
    by_filters = torch.func.jvp(
        lambda given: torch.func.functional_call(conv, given, (x,)), (filters,), (filters,)
    )[1]
    torch.testing.assert_close(by_filters, convolved(conv, x))  # linear in the filters
    assert conv not in _PRODUCTS
    assert conv.bias is not None
    conv.bias.requires_grad_()
    conv(x).sum().backward()
    assert conv.bias.grad is not None


def test_a_product_made_in_a_lower_precision_keeps_that_of_its_filters() -> None:
    conv, x = frozen_conv(20, 6, torch.float32), draw(3, 20, 2, 2)
    with torch.autocast("cpu", torch.bfloat16):
        assert conv(x).dtype == torch.bfloat16
    torch.testing.assert_close(conv(x), convolved(conv, x), rtol=1e-5, atol=1e-5)


def test_a_product_follows_its_filters() -> None:
    conv, x = frozen_conv(6, 6), draw(2, 6, 2, 2).double()

    def follows(each: Conv3x3) -> bool:
        inputs = x.to(each.weight.dtype)
        return torch.allclose(each(inputs), convolved(each, inputs), rtol=1e-5, atol=1e-5)

    assert follows(conv)
    conv.weight.mul_(2.0)  # in place
    assert follows(conv)
    conv.weight.data = draw(6, 6, 3, 3, seed=5).double()  # another storage
    assert follows(conv)
    assert conv.bias is not None
    conv.bias.add_(1.0)
    assert follows(conv)
    conv.weight.data.mul_(0.5)  # which no version counts
    assert follows(conv)
    conv.weight.numpy()[:, 1:] = 0.25
    assert follows(conv)
    conv.requires_grad_()
    conv(x).sum().backward()
    torch.optim.Adam(conv.parameters(), lr=0.1, fused=True).step()  # nor this
    assert follows(conv.requires_grad_(False))
    conv.load_state_dict({name: 3.0 * each for name, each in conv.state_dict().items()})
    assert follows(conv)
    conv.weight = nn.Parameter(draw(6, 6, 3, 3, seed=6).double(), requires_grad=False)
    assert follows(conv)
    assert follows(conv.half().float())  # rounded, perhaps where the former ones were
    twin = copy.deepcopy(conv)
    twin.weight.neg_()
    assert follows(twin)
    assert follows(conv)
    assert follows(pickle.loads(pickle.dumps(conv)))


def test_a_product_leaves_no_trace_in_copies_files_and_fingerprints() -> None:
    conv, x = frozen_conv(6, 6), draw(2, 6, 2, 2).double()
    before = fingerprint(conv), pickle.dumps(conv), set(conv.__dict__)
    conv(x)
    assert conv in _PRODUCTS
    assert (fingerprint(conv), pickle.dumps(conv), set(conv.__dict__)) == before
    reference, used = weakref.ref(conv), len(_PRODUCTS)
    del conv
    gc.collect()
    assert reference() is None
    assert len(_PRODUCTS) == used - 1


def test_a_product_made_within_a_transformation_serves_outside_and_in_others() -> None:
    conv, x, v = frozen_conv(6, 6), draw(2, 6, 2, 2).double(), draw(2, 6, 2, 2, seed=2).double()

    def curvature(network: Callable[[Tensor], Tensor]) -> Tensor:
        def slope(at: Tensor) -> Tensor:
            return torch.func.jvp(lambda y: network(y).sin(), (at,), (v,))[1].square().sum()

        return torch.func.grad(slope)(x)  # type: ignore[no-any-return]

    for _ in range(2):
        torch.testing.assert_close(curvature(conv), curvature(lambda y: convolved(conv, y)))
    torch.testing.assert_close(conv(x), convolved(conv, x))
    jacobian = torch.func.vmap(torch.func.jacrev(lambda y: conv(y[None])[0]))(x)
    plain = torch.func.vmap(torch.func.jacrev(lambda y: convolved(conv, y[None])[0]))(x)
    torch.testing.assert_close(jacobian, plain)
    torch.testing.assert_close(torch.func.vmap(conv)(x), convolved(conv, x))  # rows of three axes
    copy.deepcopy(conv)


def test_what_is_exported_or_traced_takes_batches_of_other_sizes() -> None:
    conv, x, more = frozen_conv(6, 6), draw(2, 6, 2, 2).double(), draw(9, 6, 2, 2).double()
    batch = torch.export.Dim("batch", min=1, max=64)
    exported = torch.export.export(conv, (x,), dynamic_shapes=({0: batch},), strict=False).module()
    traced = torch.jit.trace(conv, (x,))  # type: ignore[no-untyped-call]
    for network in (exported, traced):
        torch.testing.assert_close(network(more), convolved(conv, more))


def test_a_product_made_in_inference_mode_has_gradients_and_follows_filters_made_there() -> None:
    conv, x = frozen_conv(6, 6), draw(2, 6, 2, 2).double()
    with torch.inference_mode():
        conv(x)
        made_there = frozen_conv(6, 6)
        for _ in range(2):
            torch.testing.assert_close(made_there(x), convolved(made_there, x))
            made_there.weight.neg_()
    (gradient,) = torch.autograd.grad(conv(x.requires_grad_()).sum(), x)
    (theirs,) = torch.autograd.grad(convolved(conv, x).sum(), x)
    torch.testing.assert_close(gradient, theirs)


def test_attention_of_equal_positions_adds_the_projected_value() -> None:
    layer = Attention(4).requires_grad_(False)
    x = draw(1, 4, 1, 1).expand(1, 4, 3, 3)  # one value a channel: every score is equal
    value = layer.qkv(layer.norm(x)).chunk(3, dim=1)[2]
    assert torch.allclose(layer(x), x + layer.project(value), atol=1e-6)


def test_dropout_keeps_the_mean_needs_a_generator_and_repeats() -> None:
    layer = SeededDropout(0.25).train()
    x = torch.ones(200_000)
    with pytest.raises(BadInput, match="has no generator"):
        layer(x)
    seed_dropout(layer, torch.Generator().manual_seed(5))
    first = layer(x)
    seed_dropout(layer, torch.Generator().manual_seed(5))
    assert torch.equal(first, layer(x))
    # the kept share is a mean of 200,000 coins: 5 standard deviations, alpha 6e-7
    assert abs(float((first > 0).float().mean()) - 0.75) < 5 * (0.25 * 0.75 / 200_000) ** 0.5
    assert torch.equal(first.unique(), torch.tensor([0.0, 1 / 0.75]))
    assert torch.equal(layer.eval()(x), x)


def test_resnet_classifies_in_both_precisions_and_rows_do_not_mix() -> None:
    config = {"image_channels": 1, "classes": 10, "channels": [8, 16], "blocks": 2}
    network = randomised("resnet", config)
    x = draw(5, 1, 8, 8).sigmoid()
    logits = network(x)
    assert logits.shape == (5, 10)
    changed = torch.cat([x[:4], 1 - x[4:]])
    assert torch.equal(network(changed)[:4], logits[:4])
    assert torch.allclose(network.double()(x.double()).float(), logits, atol=1e-4)
    slope = torch.func.jvp(network, (x.double(),), (torch.ones_like(x).double(),))[1]
    assert slope.abs().max() > 0


def test_normalisation_is_inside_the_classifier() -> None:
    config = ResNetConfig(
        image_channels=2, classes=3, channels=(8,), mean=(0.25, 0.5), std=(0.5, 0.25)
    )
    network = ResNet(config).eval()
    plain = ResNet(dataclasses.replace(config, mean=(0, 0), std=(1, 1))).eval()
    plain.load_state_dict(network.state_dict())
    x = draw(4, 2, 8, 8).sigmoid()
    mean, std = torch.tensor([0.25, 0.5]), torch.tensor([0.5, 0.25])
    normal = (x - mean[:, None, None]) / std[:, None, None]
    assert torch.allclose(network(x), plain(normal), atol=1e-6)


CONVNET = {
    "image_channels": 2,
    "classes": 3,
    "channels": [8, 16],
    "mean": [0.5, 0.25],
    "std": [0.5, 0.25],
}


def test_whitening_makes_patches_white() -> None:
    # Correlated pixels: after the fit, patches of the normalised images have the identity as
    # second-moment matrix, up to the 5e-4 that is added to every eigenvalue.
    network = ConvNet(ConvNetConfig(**CONVNET)).double()  # type: ignore[arg-type]
    noise = draw(50, 2, 8, 8).double()
    images = (noise + noise.roll(1, 3) + noise.roll(1, 1)).div(6).add(0.5)
    network.fit(images)
    mean, std = torch.tensor([0.5, 0.25])[:, None, None], torch.tensor([0.5, 0.25])[:, None, None]
    filtered = F.conv2d((images - mean) / std, network.whitening)
    half = len(network.whitening) // 2
    assert torch.equal(filtered[:, half:], -filtered[:, :half])
    flat = filtered[:, :half].transpose(0, 1).flatten(1)
    assert torch.allclose(flat @ flat.T / flat.shape[1], torch.eye(half).double(), atol=0.02)


def test_convnet_rows_are_bit_identical_in_any_slot_and_differentiable() -> None:
    network = randomised("convnet", CONVNET)
    x = draw(32, 2, 12, 12).sigmoid()
    order = torch.randperm(32, generator=torch.Generator().manual_seed(3))
    x.requires_grad_(True)
    moved = x.detach()[order].requires_grad_(True)
    straight, shuffled = network(x), network(moved)
    assert straight.shape == (32, 3)
    assert torch.equal(straight[order], shuffled)
    (one,) = torch.autograd.grad(straight.square().sum(), x)
    (two,) = torch.autograd.grad(shuffled.square().sum(), moved)
    assert torch.equal(one[order], two)
    assert one.abs().max() > 0


def test_convnet_forward_mode_equals_central_differences_in_float64() -> None:
    network = randomised("convnet", CONVNET).double()
    x, direction, h = draw(3, 2, 12, 12).double().sigmoid(), draw(3, 2, 12, 12).double(), 1e-6
    slope = torch.func.jvp(network, (x,), (direction,))[1]
    central = (network(x + h * direction) - network(x - h * direction)) / (2 * h)
    # rounding over h leaves about 1e-10; a maximum that changes hands would show as more
    assert (slope - central).norm() / central.norm() < 1e-6


def test_an_untrained_convnet_passes_its_first_channels_on() -> None:
    network = build_network("convnet", CONVNET, torch.Generator().manual_seed(0))
    assert isinstance(network, ConvNet)
    first = network.get_parameter("blocks.0.conv2.weight")
    assert torch.equal(first, nn.init.dirac_(torch.empty_like(first)))
    assert float(network.leave.weight.detach().std()) == pytest.approx(1.0, abs=1e-5)
    names = dict(network.named_parameters())
    assert not any(name.endswith(("norm1.weight", "whitening")) for name in names)


def test_building_is_seeded_and_leaves_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    first = build_network("unet", SHAPES[0], torch.Generator().manual_seed(3)).state_dict()
    second = build_network("unet", SHAPES[0], torch.Generator().manual_seed(3)).state_dict()
    other = build_network("unet", SHAPES[0], torch.Generator().manual_seed(4)).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["enter.weight"], other["enter.weight"])


@pytest.mark.parametrize(
    ("architecture", "change", "message"),
    [
        ("unnet", {}, "did you mean unet"),
        ("unet", {"chanels": [8]}, "'chanels' of unet is unknown"),
        ("unet", {"image_size": 9}, "is not a multiple of 2"),
        ("unet", {"channels": []}, "make no network"),
        ("unet", {"attention": [2]}, "names no level"),
        ("unet", {"dropout": 1.0}, "is not 0 or more and below 1"),
        ("unet", {"embedding": 7}, "is odd"),
        ("resnet", {}, "'image_size' of resnet is unknown"),
        ("convnet", {}, "'image_size' of convnet is unknown"),
    ],
)
def test_bad_settings_are_refused(
    architecture: str, change: dict[str, object], message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        build_network(architecture, {**SHAPES[0], **change})


def test_missing_and_inconsistent_settings_are_refused() -> None:
    with pytest.raises(BadInput, match="do not fit"):
        build_network("unet", {"image_size": 8})
    with pytest.raises(BadInput, match="does not match the channels"):
        build_network("resnet", {"image_channels": 3, "classes": 10})
    with pytest.raises(BadInput, match=r"std\[0\] 0 is not 1e-06 or more"):
        ResNetConfig(image_channels=1, classes=10, std=(0.0,))
    with pytest.raises(BadInput, match=r"std\[0\] 0 is not 1e-06 or more"):
        ConvNetConfig(image_channels=1, classes=10, std=(0.0,))
    with pytest.raises(BadInput, match="does not match the channels"):
        ConvNetConfig(image_channels=3, classes=10)
    with pytest.raises(BadInput, match="make no network"):
        ConvNetConfig(image_channels=1, classes=10, channels=())


def test_configurations_survive_json() -> None:
    assert UNetConfig(image_size=8, image_channels=1, channels=[8, 16]).channels == (8, 16)  # type: ignore[arg-type]
    assert isinstance(build_network("unet", SHAPES[3]), UNet)
