"""Per-step compression against Gaussian data, explicit Jacobians and the whole chain's rate."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from advpure.analysis import compression_rate, push_forward
from advpure.analysis.perturbations import directions
from advpure.analysis.steps.manifold import ManifoldSettings, local_spans
from advpure.analysis.steps.rates import StepBatch, step_rows
from advpure.analysis.steps.result import StepsResult
from advpure.analysis.steps.settings import StepProbe, StepSettings, describe_chain
from advpure.base.errors import BadInput
from advpure.base.units import to_model
from advpure.core.analytic import GaussianDenoiser
from advpure.core.chain import Noise
from advpure.core.denoisers import EDMDenoiser
from advpure.core.purifier import Purifier
from advpure.core.randomness import RandomnessConfig
from advpure.core.schedules import linear_schedule
from advpure.loading import load_purifier

SHAPE, XI = (1, 2, 3), RandomnessConfig(0)
VARIANCES = torch.tensor([0.25, 0.02, 0.7, 0.1, 1.3, 0.4], dtype=torch.float64).reshape(SHAPE)
CASES: list[tuple[str, dict[str, Any]]] = [
    ("ddpm", {"t": 5}), ("reverse", {"t": 5, "prescale": True}), ("ddim", {"t": 5}),
    ("vpsde", {"t": 4}), ("dpm", {"order": 1, "evaluations": 3}), ("onestep-edm", {"sigma": 0.2}),
    ("onestep-ddpm", {"t": 30, "clip_x0": False}), ("cm", {"sigma": 0.25, "steps": 2}),
]  # fmt: skip


def _gaussian(name: str, options: dict[str, Any]) -> Purifier:
    network = GaussianDenoiser(torch.full(SHAPE, 0.1), VARIANCES)
    return load_purifier(name, denoiser=network, tile=0, xi=XI, **options)


def _images(count: int, shape: tuple[int, ...] = SHAPE) -> Tensor:
    generator = torch.Generator().manual_seed(11)
    return torch.rand(count, *shape, generator=generator, dtype=torch.float64)


def _measure(
    purifier: Purifier, x: Tensor, spans: Tensor | None = None, **more: Any
) -> StepsResult:
    settings = StepSettings(**more)
    batches = list(step_rows(purifier, x, None, settings, spans=spans))
    return _result(purifier, batches, x[0].numel(), settings)


def _result(
    purifier: Purifier, batches: list[StepBatch], dimensions: int, settings: StepSettings
) -> StepsResult:
    return StepsResult(
        describe_chain(purifier.chain, settings.every),
        [row for batch in batches for row in batch.rates],
        [row for batch in batches for row in batch.probes], dimensions,
    )  # fmt: skip


def _slopes(purifier: Purifier) -> list[np.ndarray]:
    """The diagonal Jacobian of every step on Gaussian data, from its values at 0 and 1."""
    found = []
    for step in purifier.chain:
        zero = torch.zeros(1, *SHAPE, dtype=torch.float64)
        z = zero if step.noisy else None
        found.append((step.move(zero + 1, z) - step.move(zero, z)).flatten().numpy())
    return found


@pytest.mark.parametrize(("name", "options"), CASES)
def test_gaussian_data_have_closed_form_rates(name: str, options: dict[str, Any]) -> None:
    purifier, x = _gaussian(name, options), _images(2)
    spans = torch.eye(6).double()[2:3].expand(2, 1, 6)  # the third pixel
    found = _measure(purifier, x, spans, probes=2, perturbations=2, directions=2)
    exact, first = (found.predictions(first_order=order) for order in (False, True))
    kinds = {kind: found.by_image[kind] for kind in ("limit", "isotropic", "along", "across")}
    for k, (step, slope) in enumerate(zip(purifier.chain, _slopes(purifier), strict=True)):
        if step.gain is not None:
            assert exact[:, k] == pytest.approx([abs(step.gain)] * 2)
            assert found.by_image["transported"][:, k] == pytest.approx([abs(step.gain)] * 2)
            assert np.isnan(kinds["limit"][:, k]).all()
            continue
        # A diagonal Jacobian: one Rademacher probe gives trace and Frobenius norm.
        assert exact[:, k] == pytest.approx([np.sqrt(np.square(slope).mean())] * 2, rel=1e-9)
        assert first[:, k] == pytest.approx([slope.mean()] * 2, rel=1e-9)
        assert kinds["along"][:, k] == pytest.approx([abs(slope[2])] * 2, rel=1e-9)
        rest = np.abs(np.delete(slope, 2))
        assert (rest.min() <= kinds["across"][:, k]).all()
        assert (kinds["across"][:, k] <= rest.max()).all()
        assert kinds["isotropic"][:, k] == pytest.approx(kinds["limit"][:, k], rel=1e-9)  # affine
    whole, product = found.whole(), np.prod(_slopes(purifier), axis=0)
    assert whole is not None
    eta = directions("uniform", 0, [0, 1, 0, 1], [0, 0, 1, 1], SHAPE).double().flatten(1).numpy()
    rates = np.linalg.norm(product * eta, axis=1) / np.linalg.norm(eta, axis=1)
    assert whole.measured.value == pytest.approx(rates.mean(), rel=1e-7)
    assert whole.linear is not None
    assert whole.linear.value == pytest.approx(rates[:2].mean(), rel=1e-7)


@pytest.mark.parametrize(("name", "options"), [("ddpm", {"t": 4}), ("cm", {"sigma": 0.2})])
def test_products_are_the_rate_of_the_whole_chain(
    name: str, options: dict[str, Any], toy_denoiser: Callable[..., EDMDenoiser]
) -> None:
    network = toy_denoiser(4, dtype=torch.float64)
    purifier = load_purifier(name, denoiser=network, tile=4, xi=XI, **options)
    x, eps = _images(2, (1, 4, 4)), 8 / 255
    found = _measure(purifier, x, probes=1, perturbations=1)
    eta = directions("uniform", 0, [0, 1], [0, 0], x.shape[1:]).double() * eps
    rates = compression_rate(purifier, x, eta, ids=[0, 1], xi=XI)
    assert found.cumulative()[:, -1] == pytest.approx(rates.tolist(), rel=1e-9)
    exact = purifier.at(gradient="full")
    pushed = push_forward(
        lambda y: exact.purify(y, Noise(XI, torch.arange(2))), x + eta, eta
    )  # fmt: skip
    wanted = pushed.flatten(1).norm(dim=1) / eta.flatten(1).norm(dim=1)
    assert found.by_image["linear"].prod(axis=1) == pytest.approx(wanted.tolist(), rel=1e-9)


def test_the_forward_factor_is_the_root_of_abar() -> None:
    found = _measure(_gaussian("ddpm", {"t": 100}), _images(1), probes=1, every=100).whole()
    assert found is not None
    assert found.forward == pytest.approx(math.sqrt(linear_schedule().abar[99]), rel=1e-12)
    assert found.linear is None  # steps were left out
    assert found.exact is None


def test_the_exact_prediction_is_the_frobenius_norm_of_the_step(
    toy_denoiser: Callable[..., EDMDenoiser],
) -> None:
    # Any Jacobian, not symmetric: with the true trace and norm of epsilon in place of probes.
    purifier = load_purifier("ddpm", t=3, denoiser=toy_denoiser(4, dtype=torch.float64), tile=0)
    x = _images(1, (1, 4, 4))
    probes = []
    wanted = {}
    for k, step in enumerate(purifier.chain[3:], 3):
        assert step.form is not None
        jacobian = _explicit(step.form.epsilon, to_model(x))
        energy = float(jacobian.square().sum())
        probes.append(StepProbe(0, k, 0, float(jacobian.trace()), energy))
        whole = _explicit(lambda y, s=step: s.move(y, None if s.time == 1 else 0 * y), to_model(x))
        wanted[k] = float(whole.norm()) / 4
    batches = list(step_rows(purifier.at(xi=XI), x, None, StepSettings(probes=1)))
    made = [batch._replace(probes=probes) for batch in batches]
    found = _result(purifier, made, 16, StepSettings()).predictions(first_order=False)
    for k, value in wanted.items():
        assert found[0, k] == pytest.approx(value, rel=1e-9)


def _explicit(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    found = torch.autograd.functional.jacobian(function, x)  # type: ignore[no-untyped-call]
    return torch.as_tensor(found).reshape(x.numel(), x.numel())


@pytest.mark.slow
def test_probes_predict_what_fresh_directions_measure(
    toy_denoiser: Callable[..., EDMDenoiser],
) -> None:
    purifier = load_purifier("reverse", t=2, denoiser=toy_denoiser(4), tile=64, xi=XI)
    found = _measure(purifier, _images(4, (1, 4, 4)).float(), probes=200)
    for each in found.steps():
        assert each.exact is not None
        assert each.exact_error is not None
        assert each.limit_error is not None
        gap = each.exact.value - each.rates["limit"].value
        # Independent probes and directions; alpha 1e-5, two-sided.
        assert abs(gap) < 4.42 * math.hypot(each.exact_error, each.limit_error)
        assert each.first_order is not None
        assert each.first_order.value < each.exact.value  # the root is convex in gamma


@pytest.mark.parametrize("method", ["jvp", "vjp"])
def test_both_methods_predict_the_same_trace(
    method: str, toy_denoiser: Callable[..., EDMDenoiser]
) -> None:
    purifier = load_purifier("ddim", t=2, denoiser=toy_denoiser(4, dtype=torch.float64), tile=0)
    x = _images(1, (1, 4, 4))
    found = _measure(purifier.at(xi=XI), x, probes=2, method=method)
    other = _measure(purifier.at(xi=XI), x, probes=2)
    wanted = [probe.trace for probe in other.probes]
    assert [probe.trace for probe in found.probes] == pytest.approx(wanted, rel=1e-9)


@pytest.mark.slow
def test_company_and_batch_size_change_no_row(toy_denoiser: Callable[..., EDMDenoiser]) -> None:
    purifier = load_purifier("ddpm", t=2, denoiser=toy_denoiser(8), tile=4, xi=XI)
    x = _images(3, (1, 8, 8)).float()
    spans = local_spans(x, _images(20, (1, 8, 8)), ManifoldSettings(neighbours=6, components=2))
    settings = StepSettings(probes=2, directions=2, perturbations=2)

    def rows(**more: Any) -> tuple[list[Any], list[Any]]:
        batches = list(step_rows(purifier, x, [7, 1, 4], settings, spans=spans, **more))
        parts = [[row for b in batches for row in part(b)] for part in (_rates, _probes)]
        return sorted(parts[0]), sorted(parts[1])

    whole = rows()
    assert rows(batch_size=4) == whole
    assert rows(batch_size=100) == whole
    rest = rows(skip={1})
    assert rest == tuple([row for row in part if row.sample != 1] for part in whole)


def _rates(batch: StepBatch) -> list[Any]:
    return batch.rates


def _probes(batch: StepBatch) -> list[Any]:
    return batch.probes


def test_other_steps_are_measured_and_not_predicted(
    toy_denoiser: Callable[..., EDMDenoiser],
) -> None:
    purifier = load_purifier(
        "pf-ode", sigma=0.2, nodes=3, denoiser=toy_denoiser(4, dtype=torch.float64), tile=0, xi=XI
    )
    found = _measure(purifier, _images(1, (1, 4, 4)), probes=3)
    assert [info.form for info in found.chain] == ["scalar", "other", "other", "epsilon"]
    heun = found.steps()[1]
    assert heun.exact is None
    assert heun.rates["limit"].value > 0
    whole = found.whole()
    assert whole is not None
    assert whole.exact is None
    assert whole.isotropic is not None


def test_derivatives_can_be_taken_at_some_steps_only() -> None:
    purifier = _gaussian("reverse", {"t": 7})
    infos = describe_chain(purifier.chain, 3)
    assert [info.selected for info in infos] == [True, False, False, True, False, False, True]
    assert [i.selected for i in describe_chain(purifier.chain[:6], 3)] == [1, 0, 0, 1, 0, 1]
    found = _measure(purifier, _images(1), probes=1, every=3)
    assert {probe.step for probe in found.probes} == {0, 3, 6}
    assert not np.isnan(found.by_image["transported"]).any()


def test_a_perturbation_that_vanishes_has_no_later_rate() -> None:
    network = GaussianDenoiser(torch.zeros(SHAPE), 0.0)  # all data in one point
    purifier = load_purifier("cm", sigma=0.25, steps=2, denoiser=network, tile=0, xi=XI)
    found = _measure(purifier, _images(1), probes=1)
    assert [row.rate for row in found.rates if row.kind == "transported"][-1] is None
    assert found.cumulative()[0].tolist() == [1.0, 0.0, 0.0, 0.0]


def test_no_steps_have_no_rates() -> None:
    found = _measure(load_purifier("none", denoiser=None, tile=0), _images(1))
    assert found.whole() is None
    assert found.steps() == ()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"eps": 8}, "is ambiguous"),
        ({"eps": 1e-5}, "keeps few digits"),
        ({"distribution": "cauchy"}, "is not known"),
        ({"perturbations": 0}, "perturbations 0 is not"),
        ({"every": 0}, "every 0 is not"),
        ({"directions": True}, "directions True is not"),
        ({"probes": 0}, "probes 0 is not a whole number"),
        ({"method": "both"}, "known: jvp, vjp"),
        ({"seed": -1}, "seed -1"),
    ],
)
def test_what_cannot_be_measured_is_refused(more: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        _measure(_gaussian("cm", {"sigma": 0.2}), _images(1).float(), **more)
