"""Trace and Frobenius estimates against matrices, networks and closed forms."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from advpure.analysis.steps.adjoint import pull_back
from advpure.analysis.steps.divergence import Method, ProbeSettings, estimate_divergence, rademacher
from advpure.base.errors import BadInput
from advpure.core.analytic import GaussianDenoiser
from advpure.core.denoisers import EDMDenoiser
from advpure.core.randomness import RandomnessConfig
from advpure.loading import load_purifier

METHODS: tuple[Method, ...] = ("jvp", "vjp")
SHAPE = (1, 2, 4)
MATRIX = torch.randn(8, 8, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


def _multiply(x: Tensor) -> Tensor:
    return (x.flatten(1) @ MATRIX.T).reshape(x.shape)


@pytest.mark.parametrize("method", METHODS)
def test_probes_are_unbiased_and_have_the_variance_of_rademacher(method: Method) -> None:
    probes = 4000
    found = estimate_divergence(
        _multiply, torch.zeros(1, *SHAPE).double(), probes=probes, method=method, batch_size=1000
    )[0]
    a = MATRIX.numpy() if method == "jvp" else MATRIX.T.numpy()
    for estimate, form in ((found.trace, a), (found.energy, a.T @ a)):
        symmetric = (form + form.T) / 2
        spread = np.sqrt(2 * (np.square(symmetric).sum() - np.square(np.diag(symmetric)).sum()))
        # Two-sided, alpha 1e-5 for each of four comparisons.
        assert estimate.value == pytest.approx(np.trace(form), abs=4.42 * spread / probes**0.5)
        # A quadratic form's kurtosis is below 15: relative error of the std sqrt(14 / n) / 2.
        assert estimate.std == pytest.approx(spread, rel=4.42 * (14 / probes) ** 0.5 / 2)
        assert estimate.n == probes
    assert found.frobenius == pytest.approx(found.energy.value**0.5)
    assert found.dimensions == 8


@pytest.mark.slow
def test_one_probe_of_a_diagonal_matrix_is_exact() -> None:
    scale = torch.linspace(-1, 2, 8, dtype=torch.float64).reshape(SHAPE)
    found = estimate_divergence(lambda y: scale * y, torch.zeros(1, *SHAPE).double(), probes=1)[0]
    assert found.trace.value == pytest.approx(float(scale.sum()), rel=1e-12)
    assert found.energy.value == pytest.approx(float(scale.square().sum()), rel=1e-12)
    assert found.trace.interval is None


def test_both_forms_see_the_same_probes(toy_denoiser: Callable[..., EDMDenoiser]) -> None:
    network = toy_denoiser(4, dtype=torch.float64)
    x = torch.randn(3, 1, 4, 4, generator=torch.Generator().manual_seed(1)).double()
    pushed, pulled = (
        estimate_divergence(lambda y: network(y, 0.5), x, probes=3, method=m, ids=[4, 9, 2])
        for m in METHODS
    )
    for i in (4, 9, 2):
        assert pushed[i].trace.value == pytest.approx(pulled[i].trace.value, rel=1e-10)
        assert pushed[i].energy.value != pulled[i].energy.value  # J v against J^T v


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("mode", ["full", "checkpoint", "bpda"])
def test_a_purifier_is_differentiated_truly_in_every_gradient_mode(
    method: Method, mode: str
) -> None:
    variances = torch.linspace(0.05, 1.0, 8).reshape(SHAPE)
    purifier = load_purifier(
        "ddpm", t=6, denoiser=GaussianDenoiser(torch.zeros(SHAPE), variances), tile=4,
        xi=RandomnessConfig(0), gradient=mode,  # type: ignore[arg-type]
    )  # fmt: skip
    x = torch.full((2, *SHAPE), 0.4, dtype=torch.float64)
    found = estimate_divergence(purifier, x, probes=2, method=method)
    exact = purifier.at(gradient="full").bind([0, 1])
    slope = torch.autograd.functional.jvp(exact, x, torch.ones_like(x))[1]  # type: ignore[no-untyped-call]
    for i in (0, 1):  # the Jacobian is diagonal
        assert found[i].trace.value == pytest.approx(float(slope[i].sum()), rel=1e-10)
        assert found[i].energy.value == pytest.approx(float(slope[i].square().sum()), rel=1e-10)


def test_probes_depend_on_seed_sample_draw_and_purpose_alone() -> None:
    first = rademacher(0, [3, 5], [0, 1], (64,), "a")
    assert torch.equal(first[1:], rademacher(0, [5], [1], (64,), "a"))
    others = [
        rademacher(1, [3], [0], (64,), "a"), rademacher(0, [4], [0], (64,), "a"),
        rademacher(0, [3], [1], (64,), "a"), rademacher(0, [3], [0], (64,), "b"),
    ]  # fmt: skip
    assert all(not torch.equal(first[:1], other) for other in others)
    assert set(first.flatten().tolist()) == {-1.0, 1.0}


def test_company_and_batch_size_change_nothing(toy_denoiser: Callable[..., EDMDenoiser]) -> None:
    purifier = load_purifier(
        "onestep-edm", sigma=0.2, denoiser=toy_denoiser(8), tile=4, xi=RandomnessConfig(0)
    )
    x = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    together = estimate_divergence(purifier, x, probes=3, method="vjp", ids=[7, 1, 4], batch_size=4)
    alone = estimate_divergence(purifier, x[2:], probes=3, method="vjp", ids=[4])
    assert together[4] == alone[4]


def test_what_does_not_depend_on_the_state_pulls_back_zero() -> None:
    weight = torch.ones(1, requires_grad=True)
    assert pull_back(lambda y: weight * torch.ones_like(y), torch.ones(2), torch.ones(2)).sum() == 0
    with pytest.raises(BadInput, match="no derivative backwards"):
        pull_back(torch.ones_like, torch.ones(2), torch.ones(2))
    with pytest.raises(BadInput, match="is not finite"):
        pull_back(lambda y: y.sqrt(), torch.zeros(2), torch.ones(2))


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"probes": 0}, "probes 0 is not a whole number of 1 or more"),
        ({"method": "exact"}, "known: jvp, vjp"),
        ({"ids": [1, 1]}, "appears twice"),
        ({"batch_size": 0}, "holds no image"),
        ({"xi": RandomnessConfig(0, scope="fresh")}, "different noise"),
    ],
)
def test_what_cannot_be_probed_is_refused(more: dict[str, object], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        estimate_divergence(lambda y: y, torch.zeros(2, 1, 2, 2), **more)  # type: ignore[arg-type]


def test_states_that_are_no_rows_are_refused() -> None:
    with pytest.raises(BadInput, match="no rows of floats"):
        estimate_divergence(lambda y: y, torch.zeros(3))
    with pytest.raises(BadInput):
        ProbeSettings(seed=-1)
