"""Steps written as kappa (x - gamma epsilon(x)) + noise against the steps themselves."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from advpure.core.analytic import MixtureDenoiser
from advpure.core.chain import Step
from advpure.core.denoisers import EDMDenoiser
from advpure.core.purifier import Purifier
from advpure.core.schedules import linear_schedule, vp_abar, vp_beta
from advpure.loading import load_purifier
from advpure.networks import build_network
from advpure.purifiers import PURIFIERS

SHAPE = (1, 4, 4)
POINTS = torch.stack([torch.full(SHAPE, -0.8), torch.full(SHAPE, 0.8)])
# Every purifier with the names of its steps that have no such form.
CASES: list[tuple[str, dict[str, Any], set[str]]] = [
    ("none", {}, set()),
    ("rrcm", {"sigma": 0.25}, set()),
    ("ddpm", {"t": 6}, set()),
    ("ddpm", {"t": 6, "stride": 4, "variance": "small", "forward": "oneshot"}, set()),
    ("ddpm", {"t": 6, "clip_x0": True}, {"ancestral"}),
    ("reverse", {"t": 6, "prescale": True}, set()),
    ("ddim", {"t": 6}, set()),
    ("ddim", {"t": 6, "eta": 0.7, "stride": 2}, set()),
    ("ddim", {"t": 6, "clip_x0": True}, {"implicit"}),
    ("vpsde", {"t": 6}, set()),
    ("vpsde", {"t": 6, "kind": "ode", "label": "floor"}, set()),
    ("dpm", {"order": 1, "evaluations": 4}, set()),
    ("dpm", {"evaluations": 8}, {"dpm-3", "dpm-2"}),
    ("onestep-ddpm", {"t": 50, "clip_x0": False}, set()),
    ("onestep-ddpm", {"t": 50}, {"denoise"}),
    ("onestep-edm", {"sigma": 0.25}, set()),
    ("calibrated", {"sigma": 0.25}, set()),
    ("pf-ode", {"sigma": 0.25, "nodes": 4}, {"heun"}),
    ("cm", {"sigma": 0.25, "steps": 2}, set()),
    ("cm", {"sigma": 0.25, "clip": True}, {"denoise"}),
    ("cm-ft", {"sigma": 0.25}, set()),
    ("densepure", {"sigma": 0.25, "steps": 3, "clip_x0": False}, set()),
    ("densepure", {"sigma": 0.25, "steps": 3}, {"ancestral"}),
]


def _load(name: str, options: dict[str, Any]) -> Purifier:
    return load_purifier(name, denoiser=MixtureDenoiser(POINTS, 0.1), tile=0, **options)


def _states(count: int = 5) -> Tensor:
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(2)).double()


def _slope(step: Step, x: Tensor) -> Tensor:
    """The part of a step that depends on the state: its difference to the state 0."""
    zero = torch.zeros_like(x)
    z = zero if step.noisy else None
    return step.move(x, z) - step.move(zero, z)


def test_every_registered_purifier_is_covered() -> None:
    assert {name for name, _, _ in CASES} == set(PURIFIERS)


@pytest.mark.parametrize(("name", "options", "without"), CASES)
def test_the_form_is_the_step(name: str, options: dict[str, Any], without: set[str]) -> None:
    chain, x = _load(name, options).chain, _states()
    assert {s.name for s in chain if s.gain is None and s.form is None} == without
    for step in chain:
        if step.gain is not None:
            assert step.form is None
            torch.testing.assert_close(_slope(step, x), step.gain * x, rtol=1e-12, atol=1e-12)
        if step.form is not None:
            form, zero = step.form, torch.zeros_like(x)
            plain = form.kappa * (x - form.gamma * form.epsilon(x))
            rest = form.kappa * -form.gamma * form.epsilon(zero)
            torch.testing.assert_close(_slope(step, x), plain - rest, rtol=1e-9, atol=1e-10)


def test_ancestral_steps_have_the_published_factors() -> None:
    schedule = linear_schedule()
    for step in _load("reverse", {"t": 30}).chain:
        alpha, abar = 1 - schedule.betas[step.time - 1], schedule.abar[step.time - 1]
        assert step.form is not None
        assert step.form.kappa == pytest.approx(alpha**-0.5, rel=1e-12)
        assert step.form.gamma == pytest.approx((1 - alpha) / math.sqrt(1 - abar), rel=1e-9)


def test_implicit_and_euler_steps_have_their_factors() -> None:
    schedule = linear_schedule()
    for step in _load("ddim", {"t": 30}).chain[30:]:
        i = step.time - 1
        abar, before = schedule.abar[i], schedule.abar[i - 1] if i else 1.0
        assert step.form is not None
        assert step.form.kappa == pytest.approx(math.sqrt(before / abar), rel=1e-12)
        gamma = math.sqrt(1 - abar) - math.sqrt(1 - before) * math.sqrt(abar / before)
        assert step.form.gamma == pytest.approx(gamma, rel=1e-7)
    first = _load("vpsde", {"t": 30}).chain[1]
    assert first.form is not None
    beta, abar, dt = vp_beta(0.03), vp_abar(0.03), 1e-3
    assert first.form.kappa == pytest.approx(1 + beta * dt / 2, rel=1e-12)
    pull = beta * dt / math.sqrt(1 - abar) / first.form.kappa
    assert first.form.gamma == pytest.approx(pull, rel=1e-9)


def test_one_evaluation_is_the_state_less_the_level_times_the_noise() -> None:
    step = _load("onestep-edm", {"sigma": 0.25, "time_rule": "exact"}).chain[1]
    assert step.form is not None
    assert (step.form.kappa, step.form.gamma) == (1.0, 0.5)


def test_a_learned_variance_moves_with_the_state() -> None:
    config = {"image_size": 4, "image_channels": 1, "channels": (8,)}
    network = build_network("unet", config)
    purifier = load_purifier("ddpm", t=3, variance="learned", denoiser=EDMDenoiser(network), tile=0)
    reverse = purifier.chain[3:]
    assert [step.form is None for step in reverse] == [True, True, False]
