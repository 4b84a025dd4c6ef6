"""Matrix-free singular values against numpy's decomposition of explicit matrices."""

from typing import Any

import numpy as np
import pytest

from advpure.analysis.steps.lanczos import Floats, LanczosSettings, Triplets, lanczos, multiply
from advpure.base.errors import BadInput

RANDOM = np.random.Generator(np.random.Philox(key=[3, 0]))
DENSE = RANDOM.standard_normal((40, 40))
DECAYING = RANDOM.standard_normal((60, 60)) * np.geomspace(1.0, 1e-3, 60)


def _solve(matrix: Floats, **settings: Any) -> Triplets:
    def draw(k: int) -> Floats:
        own = np.random.Generator(np.random.Philox(key=[k, 7]))
        return own.standard_normal(len(matrix))

    return multiply(lanczos(len(matrix), LanczosSettings(**settings), draw), matrix)


@pytest.mark.parametrize("block", [1, 2, 3])
@pytest.mark.parametrize(
    "matrix", [DENSE, DECAYING, DENSE @ DENSE.T], ids=["dense", "decay", "psd"]
)
def test_values_and_vectors_are_those_of_numpy(matrix: Floats, block: int) -> None:
    found = _solve(matrix, count=4, block=block, tolerance=1e-9, basis=60)
    left, values, right = np.linalg.svd(matrix)
    assert found.values == pytest.approx(values[:4], rel=1e-12)
    assert found.converged.all()
    assert np.abs((found.right * right[:4]).sum(1)) == pytest.approx(np.ones(4), abs=1e-7)
    assert np.abs((found.left * left.T[:4]).sum(1)) == pytest.approx(np.ones(4), abs=1e-7)
    assert found.images == pytest.approx(found.values[:, None] * found.left, abs=1e-9)
    assert found.mismatch < 1e-12


def test_the_stopping_rule_saves_products_and_the_bounds_hold() -> None:
    exact = np.linalg.svd(DECAYING)[1]
    taken = []
    for tolerance in (1e-1, 1e-2, 1e-4):
        found = _solve(DECAYING, count=3, tolerance=tolerance)
        taken.append(found.products)
        assert found.converged.all()
        for k, (value, bound) in enumerate(zip(found.values, found.bounds, strict=True)):
            assert value <= exact[k] * (1 + 1e-12)  # from below
            assert np.abs(exact - value).min() <= bound + 1e-12
            assert bound <= tolerance * exact[0] * (1 + 1e-6)
    assert taken == sorted(taken)
    assert taken[0] < taken[2] < 60


def test_a_basis_that_is_too_small_says_so() -> None:
    found = _solve(DENSE, count=4, tolerance=1e-9, basis=10)
    assert found.products == 10
    assert not found.converged.all()
    exact = np.linalg.svd(DENSE)[1]
    gaps = [np.abs(exact - value).min() for value in found.values]
    assert (np.array(gaps) <= found.bounds).all()


def test_a_full_basis_is_exact() -> None:
    found = _solve(DENSE, count=40, tolerance=1e-12, basis=60)
    assert found.products == 40
    assert found.values == pytest.approx(np.linalg.svd(DENSE)[1], rel=1e-10)


@pytest.mark.parametrize(
    ("diagonal", "count"),
    [
        ([0.3] * 20, 3), ([5, 5, 3, 1, 0, 0], 4), ([5, 5, 5, 3, 1, 0], 6), ([0, 0, 0], 2),
        ([2.0], 5), ([7, 0, 0, 0], 3),
    ],
)  # fmt: skip
def test_repeated_values_and_low_rank(diagonal: list[float], count: int) -> None:
    rotation = np.linalg.qr(RANDOM.standard_normal((len(diagonal),) * 2))[0]
    matrix = rotation @ np.diag(np.array(diagonal, dtype=float)) @ rotation[::-1]
    found = _solve(matrix, count=count, tolerance=1e-10)
    wanted = sorted(diagonal, reverse=True)[:count]
    assert found.values == pytest.approx(wanted, abs=1e-12)
    for rows in (found.right, found.left):
        assert rows @ rows.T == pytest.approx(np.eye(len(wanted)), abs=1e-12)


def test_random_vectors_inside_the_basis_are_replaced() -> None:
    run = lanczos(4, LanczosSettings(count=3), lambda k: np.eye(4)[0])
    assert multiply(run, 2.0 * np.eye(4)).values == pytest.approx([2.0] * 3)


def test_a_matrix_that_is_not_the_transpose_is_refused() -> None:
    run = lanczos(40, LanczosSettings(count=2), lambda k: RANDOM.standard_normal(40))
    product = next(run)
    with pytest.raises(BadInput, match="run `advpure check-grad`"):  # noqa: PT012
        while True:
            wrong = DENSE if product.kind == "push" else DENSE.T
            product = run.send(product.rows @ (DENSE.T if product.kind == "push" else wrong))


def test_products_that_are_not_finite_are_refused() -> None:
    with pytest.raises(BadInput, match="is not finite"):
        _solve(np.full((5, 5), np.nan), count=2)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"count": 0}, "not a whole number of 1 or more"),
        ({"block": 1.5}, "not a whole number of 1 or more"),
        ({"basis": 6}, "use 7 or more"),
        ({"tolerance": 0.0}, r"not above 0 and below 1"),
    ],
)
def test_settings_that_find_nothing_are_refused(more: dict[str, object], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        LanczosSettings(**more)  # type: ignore[arg-type]
