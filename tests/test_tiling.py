"""One compute tile: a row's bits depend on the row alone, forwards and backwards."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from advpure.base.errors import BadInput
from advpure.core.tiling import tiled

Draw = Callable[..., Tensor]


class _Pair(NamedTuple):
    a: Tensor
    b: Tensor


@pytest.fixture
def network(normals: Draw) -> nn.Module:
    """A small convolutional classifier whose kernels round differently for different batches."""
    net = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.SiLU(), nn.Conv2d(16, 16, 3, padding=1),
        nn.GroupNorm(4, 16), nn.SiLU(), nn.Flatten(), nn.Linear(16 * 64, 64), nn.SiLU(),
        nn.Linear(64, 10),
    )  # fmt: skip
    return _filled(net, normals)


def _filled(net: nn.Module, normals: Draw) -> nn.Module:
    for k, parameter in enumerate(net.parameters()):
        parameter.data.copy_(normals(*parameter.shape, seed=k) / parameter[0].numel() ** 0.5)
        parameter.requires_grad_(False)
    return net.eval()


def _answer(function: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.clone().requires_grad_()
    y = function(x)
    (gradient,) = torch.autograd.grad(y.logsumexp(1).sum(), x)
    return y.detach(), gradient


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[None]:
    """Run with one and with two threads: matrix products are split between them."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


def _hold_invariance(function: Callable[[Tensor], Tensor], x: Tensor, order: Tensor) -> None:
    values, gradients = _answer(function, x)
    for size in (1, 7, 64):
        parts = [_answer(function, x[a : a + size]) for a in range(0, 64, size)]
        assert torch.equal(torch.cat([p[0] for p in parts]), values)
        assert torch.equal(torch.cat([p[1] for p in parts]), gradients)
    shuffled = _answer(function, x[order])
    assert torch.equal(shuffled[0], values[order])
    assert torch.equal(shuffled[1], gradients[order])


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("tile", [1, 4, 16, 32, 64])
def test_rows_are_bit_identical_for_any_batch_size_and_order(
    tile: int, network: nn.Module, normals: Draw
) -> None:
    _hold_invariance(tiled(network, tile), normals(64, 1, 8, 8), normals(64, seed=1).argsort())


@pytest.mark.usefixtures("threads")
def test_a_tile_of_one_holds_for_odd_sizes_too(normals: Draw) -> None:
    net = _filled(nn.Sequential(nn.Conv2d(1, 33, 3), nn.SiLU(), nn.Conv2d(33, 1, 3)), normals)
    function = tiled(lambda x: net(x).flatten(1), 1)
    _hold_invariance(function, normals(64, 1, 9, 9), normals(64, seed=1).argsort())


def test_layout_and_alignment_of_a_batch_never_matter(network: nn.Module, normals: Draw) -> None:
    function = tiled(network, 4)
    x = normals(4, 1, 8, 8)
    value = function(x)
    shifted = torch.cat([torch.zeros(1), x.flatten()])[1:].view(x.shape)  # 4 bytes off
    assert shifted.data_ptr() % 64
    transposed = x.transpose(2, 3).contiguous().transpose(2, 3)
    for other in (shifted, transposed, x.to(memory_format=torch.channels_last)):
        assert torch.equal(function(other), value)


def test_neighbours_never_matter(network: nn.Module, normals: Draw) -> None:
    x, function = normals(5, 1, 8, 8), tiled(network, 8)
    alone = _answer(function, x[:1])
    for neighbours in (x[1:], 1e4 * x[1:], torch.zeros_like(x[1:])):
        value, gradient = _answer(function, torch.cat([x[:1], neighbours]))
        assert torch.equal(value[:1], alone[0])
        assert torch.equal(gradient[:1], alone[1])


def test_the_function_sees_exactly_one_shape() -> None:
    shapes = []

    def look(x: Tensor, ids: Tensor | None) -> Tensor:
        shapes.append((tuple(x.shape), None if ids is None else tuple(ids.shape)))
        return x

    for rows in (1, 3, 4, 9, 0):
        out = tiled(look, 4)(torch.zeros(rows, 2), torch.arange(rows))
        assert out.shape == (rows, 2)
    tiled(look, 4)(torch.zeros(5, 2), None)
    assert set(shapes) == {((4, 2), (4,)), ((4, 2), None)}
    assert len(shapes) == 1 + 1 + 1 + 3 + 1 + 2


def test_ids_travel_with_their_rows() -> None:
    out = tiled(lambda x, ids: x + 10 * ids, 4)(torch.arange(9.0), torch.arange(9))
    assert out.tolist() == [11.0 * k for k in range(9)]


def test_padding_never_leaks_into_values_or_gradients() -> None:
    # A function that mixes rows on purpose shows what it saw: copies of the first row.
    seen = tiled(lambda x: x.sum(0, keepdim=True).expand(4), 4)(torch.tensor([1.0, 10.0]))
    assert seen.tolist() == [13.0, 13.0]
    x = torch.tensor([1.0, 10.0, 100.0], requires_grad=True)
    tiled(lambda y: y**2, 2)(x).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [2.0, 20.0, 200.0]  # the padded copy of 100 adds nothing
    x = torch.tensor([3.0], requires_grad=True)
    tiled(lambda y: y * y.sum(), 4)(x).sum().backward()
    # y0 * (y0 + 3 copies); copies are constants, so the slope is 2 y0 + 3 y0.
    assert x.grad is not None
    assert x.grad.tolist() == [15.0]


def test_tuples_and_named_tuples_come_back_whole() -> None:
    x = torch.arange(5.0)
    pair = tiled(lambda y: _Pair(y, 2 * y), 2)(x)
    assert isinstance(pair, _Pair)
    assert pair.a.tolist() == x.tolist()
    assert pair.b.tolist() == (2 * x).tolist()
    plain = tiled(lambda y: (y, -y), 2)(x)
    assert type(plain) is tuple
    assert plain[1].tolist() == (-x).tolist()
    exact = tiled(lambda y: _Pair(y, y), 5)(x)
    assert isinstance(exact, _Pair)


def test_no_tile_calls_the_function_as_it_is() -> None:
    def function(x: Tensor) -> Tensor:
        return x

    assert tiled(function, None) is function


@pytest.mark.parametrize("tile", [0, -1])
def test_an_empty_tile_is_refused(tile: int) -> None:
    with pytest.raises(BadInput, match=f"tile {tile} holds no image"):
        tiled(lambda x: x, tile)
