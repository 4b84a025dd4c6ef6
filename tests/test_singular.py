"""Singular values of whole purifications against explicit Jacobians and closed forms."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from advpure.analysis.steps.singular import Spectrum, leading_singular_values
from advpure.analysis.steps.singular_result import SingularResult, singular_records
from advpure.base.errors import BadInput
from advpure.core.analytic import GaussianDenoiser
from advpure.core.denoisers import EDMDenoiser
from advpure.core.purifier import Purifier
from advpure.core.randomness import RandomnessConfig
from advpure.loading import load_purifier

XI = RandomnessConfig(0)
CASES: list[tuple[str, dict[str, Any]]] = [
    ("ddpm", {"t": 3}), ("ddim", {"t": 3}), ("cm", {"sigma": 0.2}), ("none", {}),
]  # fmt: skip


def _jacobian(purifier: Purifier, x: Tensor, sample: int) -> Tensor:
    exact = purifier.at(gradient="full", ids=[sample], xi=XI)
    found = torch.autograd.functional.jacobian(exact, x[None])  # type: ignore[no-untyped-call]
    return torch.as_tensor(found).reshape(x.numel(), x.numel())


@pytest.mark.parametrize(("name", "options"), CASES)
def test_values_and_directions_are_those_of_the_explicit_jacobian(
    name: str, options: dict[str, Any], toy_denoiser: Callable[..., EDMDenoiser]
) -> None:
    network = toy_denoiser(4, dtype=torch.float64)
    purifier = load_purifier(name, denoiser=network, tile=4, xi=XI, **options)
    x = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(3)).double()
    found = leading_singular_values(purifier, x, ids=[5, 2], count=3, tolerance=1e-8)
    for image, sample in zip(x, (5, 2), strict=True):
        left, values, right = np.linalg.svd(_jacobian(purifier, image, sample).numpy())
        own = found[sample]
        assert own.values == pytest.approx(values[:3], rel=1e-9)
        assert all(own.converged)
        assert max(own.bounds) < 1e-8
        if name != "none":  # the identity has no direction of its own
            for rows, exact in ((own.right, right), (own.left, left.T)):
                overlap = (rows.flatten(1).numpy() * exact[:3]).sum(1)
                assert np.abs(overlap) == pytest.approx(np.ones(3), abs=1e-5)
        assert own.energy.n == 8
        assert own.mismatch < 1e-10


def test_gaussian_data_have_the_chain_of_shares() -> None:
    variances = torch.linspace(0.01, 1.0, 16, dtype=torch.float64).reshape(1, 4, 4)
    purifier = load_purifier(
        "onestep-edm", sigma=0.25, time_rule="exact", xi=XI,
        denoiser=GaussianDenoiser(torch.zeros(1, 4, 4), variances), tile=0,
    )  # fmt: skip
    shares = (variances / (variances + 0.25)).flatten().flip(0).numpy()
    x = torch.full((1, 1, 4, 4), 0.5, dtype=torch.float64)
    found = leading_singular_values(purifier, x, count=4, tolerance=1e-10)[0]
    assert found.values == pytest.approx(shares[:4], rel=1e-12)
    # All that is left has diagonal form, so every probe is exact up to the deflation's mixing.
    assert found.energy.value == pytest.approx(np.square(shares).sum(), rel=1e-9)
    assert found.rms_rate == pytest.approx(np.sqrt(np.square(shares).mean()), rel=1e-9)
    assert found.stable_rank == pytest.approx(np.square(shares).sum() / shares[0] ** 2, rel=1e-9)


def test_the_frobenius_estimate_is_unbiased_and_deflation_narrows_it() -> None:
    matrix = torch.randn(16, 16, generator=torch.Generator().manual_seed(0)).double()
    matrix[:, 0] *= 20.0

    def multiply(x: Tensor) -> Tensor:
        return (x.flatten(1) @ matrix.T).reshape(x.shape)

    x, probes = torch.full((1, 1, 4, 4), 0.5, dtype=torch.float64), 2000
    found = leading_singular_values(multiply, x, count=1, probes=probes, batch_size=500)[0]
    exact = float(matrix.square().sum())
    assert found.energy.std is not None
    # Two-sided, alpha 1e-5.
    assert found.energy.value == pytest.approx(exact, abs=4.42 * found.energy.std / probes**0.5)
    rest = matrix - torch.outer(matrix @ (v := found.right[0].flatten().double()), v)
    form = (rest.T @ rest).numpy()
    off = form - np.diag(np.diag(form))
    # The variance of v^T M v is 2 ||M - diag M||^2; quadratic forms' kurtosis is below 15.
    wanted = (2 * np.square(off).sum()) ** 0.5
    assert found.energy.std == pytest.approx(wanted, rel=4.42 * (14 / probes) ** 0.5 / 2)


@pytest.mark.parametrize(
    "mode",
    [
        "checkpoint",
        pytest.param("full", marks=pytest.mark.slow),
        pytest.param("bpda", marks=pytest.mark.slow),
    ],
)
def test_the_true_map_is_solved_in_every_gradient_mode(
    mode: str, toy_denoiser: Callable[..., EDMDenoiser]
) -> None:
    purifier = load_purifier(
        "ddpm", t=4, denoiser=toy_denoiser(8), tile=4, xi=XI,
        gradient=mode,  # type: ignore[arg-type]
    )  # fmt: skip
    x = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    found = leading_singular_values(purifier, x, count=2, tolerance=1e-4)[0]
    exact = np.linalg.svd(_jacobian(purifier, x[0], 0).double().numpy())[1]
    assert found.values == pytest.approx(exact[:2], rel=1e-5)  # float32
    assert 0.0 < found.mismatch < 1e-4


@pytest.mark.slow
def test_company_order_and_batch_size_change_nothing(
    toy_denoiser: Callable[..., EDMDenoiser],
) -> None:
    purifier = load_purifier("onestep-edm", sigma=0.2, denoiser=toy_denoiser(8), tile=4, xi=XI)
    x = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    many = leading_singular_values(purifier, x, ids=[7, 1, 4], count=2, batch_size=4)
    other = leading_singular_values(purifier, x.flip(0), ids=[4, 1, 7], count=2, batch_size=16)
    alone = leading_singular_values(purifier, x[1:2], ids=[1], count=2)
    for i in (7, 1, 4):
        _assert_same(many[i], other[i])
    _assert_same(many[1], alone[1])


def _assert_same(a: Spectrum, b: Spectrum) -> None:
    assert torch.equal(a.right, b.right)
    assert a._replace(right=b.right, left=b.left) == b


def test_a_map_that_forgets_the_image_has_no_stretch() -> None:
    x = torch.full((1, 1, 2, 2), 0.5)
    found = leading_singular_values(lambda y: 0.0 * y, x, count=2)[0]
    assert found.values == (0.0, 0.0)
    assert found.stable_rank is None
    values, spectrum = singular_records(found, None)
    assert SingularResult(values, [spectrum], 4).tree()["worst_over_rms"] is None


def test_records_and_summaries() -> None:
    x = torch.full((2, 1, 2, 2), 0.5)
    scale = torch.tensor([[3.0, 2.0], [1.0, 1.0]])
    found = leading_singular_values(lambda y: scale * y, x, count=2)
    span = torch.eye(4).double()[:1]
    parts = [singular_records(found[i], span) for i in (0, 1)]
    result = SingularResult([v for vs, _ in parts for v in vs], [s for _, s in parts], 4, 1)
    tree = result.tree()
    assert tree["n"] == 2
    assert tree["sigma_max"].value == pytest.approx(3.0)
    assert tree["rms_rate"].value == pytest.approx((15 / 4) ** 0.5)
    assert tree["worst_over_rms"].images() == pytest.approx(
        dict.fromkeys((0, 1), 3 / (15 / 4) ** 0.5)
    )
    assert [row["along"].value for row in tree["rows"]] == pytest.approx([1.0, 0.0], abs=1e-6)
    assert tree["along_by_chance"] == 0.25


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"count": 0}, "not a whole number of 1 or more"),
        ({"probes": 0}, "probes 0 is not a whole number"),
        ({"ids": [1, 1]}, "appears twice"),
        ({"xi": RandomnessConfig(0, scope="fresh")}, "different noise"),
    ],
)
def test_what_cannot_be_solved_is_refused(more: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        leading_singular_values(lambda y: y, torch.zeros(2, 1, 2, 2), **more)


def test_derivatives_that_disagree_are_refused() -> None:
    class Straight(torch.autograd.Function):
        """Rounds forwards, passes gradients through: no Jacobian has both products."""

        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return 3.0 * x

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            return gradient

        @staticmethod
        def jvp(ctx: Any, tangent: Tensor) -> Tensor:
            return 3.0 * tangent

    x = torch.full((1, 1, 2, 2), 0.5)
    with pytest.raises(BadInput, match="run `advpure check-grad`"):
        leading_singular_values(lambda y: Straight.apply(y), x, count=1)
