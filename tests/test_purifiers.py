"""What each purifier promises beyond Gaussian data: limits, orders, counts, options, refusals."""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from advpure.base.errors import BadInput
from advpure.core.analytic import GaussianDenoiser, empirical_denoiser
from advpure.core.chain import Noise
from advpure.core.denoisers import ConsistencyDenoiser, Denoiser, EpsilonDenoiser
from advpure.core.randomness import RandomnessConfig
from advpure.core.schedules import linear_schedule
from advpure.loading import load_purifier
from advpure.purifiers import PURIFIERS
from advpure.purifiers.dpm import group_orders

Draw = Callable[..., Tensor]
XI = RandomnessConfig(0)
POINTS = torch.tensor([-1.0, 1.0], dtype=torch.float64).view(2, 1, 1, 1)


def gaussian(variance: float = 0.25) -> GaussianDenoiser:
    return GaussianDenoiser(torch.zeros(1, 1, 1), variance)


# --- two-point data: the posterior mean hesitates, the ODE decides


def test_one_shot_gives_tanh(pictures: Draw) -> None:
    purifier = load_purifier(
        "onestep-edm", denoiser=empirical_denoiser(POINTS), sigma=0.25, time_rule="exact", tile=0
    )
    ids = torch.arange(40)
    images = pictures(40, 1, 1, 1, dtype=torch.float64)
    noisy = 2 * images - 1 + 0.5 * XI.normal(ids, "forward", 1, (1, 1, 1)).double()
    found = 2 * purifier.at(ids=ids, xi=XI)(images) - 1
    torch.testing.assert_close(found, torch.tanh(noisy / 0.25))
    assert float(found.abs().min()) < 0.9  # it does hesitate


@pytest.mark.parametrize("recipe", ["full", "truncated"])
def test_pf_ode_gives_the_sign(recipe: str, pictures: Draw) -> None:
    purifier = load_purifier(
        "pf-ode", denoiser=empirical_denoiser(POINTS), sigma=0.5, nodes=80, recipe=recipe, tile=0
    )
    ids = torch.arange(40)
    images = pictures(40, 1, 1, 1, dtype=torch.float64)
    noisy = 2 * images - 1 + XI.normal(ids, "forward", 1, (1, 1, 1)).double()
    found = 2 * purifier.at(ids=ids, xi=XI)(images) - 1
    assert float(noisy.abs().min()) > 1e-3
    torch.testing.assert_close(found, noisy.sign(), atol=1e-6, rtol=0)


# --- orders of convergence


def _slopes(errors: list[float]) -> np.ndarray:
    return np.log2(np.array(errors[:-1]) / np.array(errors[1:]))


def test_heun_converges_at_order_two() -> None:
    s, top, end = 0.5, 1.0, 0.002
    exact = math.sqrt((s**2 + end**2) / (s**2 + top**2))
    errors = []
    for nodes in (11, 21, 41, 81, 161):
        chain = load_purifier("pf-ode", denoiser=gaussian(), sigma=0.5, nodes=nodes).chain
        x = torch.ones(1, 1, 1, 1, dtype=torch.float64)
        errors.append(abs(chain[1:-1].run(x, Noise(None, None)).item() - exact))
    assert np.allclose(_slopes(errors), 2, atol=0.1)
    # With the last step to zero the limit is x s / sqrt(s^2 + t^2), up to end^2 / (2 s^2) = 8e-6.
    whole = chain[1:].run(x, Noise(None, None)).item()
    assert whole == pytest.approx(s / math.sqrt(s**2 + top**2), rel=2e-4)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_dpm_solver_converges_at_its_order(order: int) -> None:
    schedule, t, variance = linear_schedule(), 600, 0.25
    start, end = float(schedule.abar[t - 1]), float(schedule.abar[0])

    def deviation(abar: float) -> float:
        """Of a variance-preserving state of the data: the ODE keeps x / deviation constant."""
        return math.sqrt(abar * variance + 1 - abar)

    errors = []
    for groups in (10, 20, 40, 80):
        evaluations = order * groups - (1 if order == 3 else 0)  # avoids the [.., 2, 1] tail
        chain = load_purifier(
            "dpm", denoiser=gaussian(variance), t=t, order=order, evaluations=evaluations,
            spacing="logSNR",
        ).chain[1:]  # fmt: skip
        assert chain.evaluations == evaluations
        x = torch.ones(1, 1, 1, 1, dtype=torch.float64)
        found = chain.run(x, Noise(None, None)).item()
        errors.append(abs(found - deviation(end) / deviation(start)))
    slopes = _slopes(errors)
    # Order 3 ends on one second-order step, whose local error is of order 3 as well.
    assert abs(slopes[-1] - order) < 0.15, slopes


def test_dpm_order_one_is_ddim() -> None:
    # On one and the same pair of levels the two formulas agree.
    for t in (2, 50, 400):
        dpm = load_purifier("dpm", denoiser=gaussian(), t=t, order=1, evaluations=1).chain[1:]
        ddim = load_purifier("ddim", denoiser=gaussian(), t=t, stride=t - 1).chain[-2:-1]
        x = torch.full((1, 1, 1, 1), 0.7, dtype=torch.float64)
        a, b = (chain.run(x, Noise(None, None)).item() for chain in (dpm, ddim))
        assert a == pytest.approx(b, rel=1e-9)


@pytest.mark.parametrize(("order", "budget", "groups"), [
    (3, 20, [3] * 6 + [2]), (3, 21, [3] * 6 + [2, 1]), (3, 19, [3] * 6 + [1]), (3, 3, [2, 1]),
    (3, 2, [2]), (3, 1, [1]), (2, 20, [2] * 10), (2, 5, [2, 2, 1]), (1, 4, [1] * 4),
])  # fmt: skip
def test_dpm_groups(order: int, budget: int, groups: list[int]) -> None:
    assert group_orders(order, budget) == groups
    assert sum(groups) == budget


# --- ancestral and implicit steps


def test_ancestral_variance_is_beta_and_the_last_step_is_noiseless() -> None:
    schedule = linear_schedule()
    for name, options, expected in (
        ("ddpm", {"variance": "large"}, schedule.betas),
        ("ddpm", {"variance": "small"}, schedule.posterior_variance),
        ("ddim", {"eta": 1.0}, schedule.posterior_variance),
    ):
        chain = load_purifier(name, denoiser=gaussian(), t=50, **options).chain[50:]
        assert [step.time for step in chain] == list(range(50, 0, -1))
        assert [step.noisy for step in chain] == [True] * 49 + [False]
        x, one = torch.zeros(1, 1, 1, 1).double(), torch.ones(1, 1, 1, 1).double()
        for step in chain[:-1]:
            added = (step.move(x, one) - step.move(x, 0 * one)).item() ** 2
            assert added == pytest.approx(expected[step.time - 1], rel=1e-9)


def test_ddim_with_an_exact_noise_oracle_returns_the_image(normals: Draw) -> None:
    schedule, t = linear_schedule(), 300
    x0 = normals(2, 1, 3, 3, dtype=torch.float64)
    noise = normals(2, 1, 3, 3, seed=1, dtype=torch.float64)
    denoiser = EpsilonDenoiser(lambda x, time: noise, schedule)
    abar = float(schedule.abar[t - 1])
    for stride in (1, 7, 300):
        chain = load_purifier("ddim", denoiser=denoiser, t=t, stride=stride).chain[t:]
        found = chain.run(abar**0.5 * x0 + (1 - abar) ** 0.5 * noise, Noise(None, None))
        torch.testing.assert_close(found, x0, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("blend", "weight"), [(1.0, 1.0), (-1.0, 0.0), (0.0, 0.5)])
def test_learned_variance_blends_in_the_logarithm(blend: float, weight: float) -> None:
    schedule = linear_schedule()

    def network(x: Tensor, time: Tensor) -> Tensor:
        return torch.cat([0 * x, torch.full_like(x, blend)], 1)

    denoiser = EpsilonDenoiser(network, schedule, learned_variance=True)
    chain = load_purifier("ddpm", denoiser=denoiser, t=20, variance="learned").chain[20:]
    x, one = torch.zeros(1, 1, 1, 1).double(), torch.ones(1, 1, 1, 1).double()
    for step in chain[:-1]:
        i = step.time - 1
        log = weight * math.log(schedule.betas[i])
        log += (1 - weight) * math.log(schedule.posterior_variance[i])
        added = (step.move(x, one) - step.move(x, 0 * one)).item()
        assert added == pytest.approx(math.exp(log / 2), rel=1e-9)


def test_learned_variance_needs_a_network_that_predicts_it() -> None:
    purifier = load_purifier("ddpm", denoiser=gaussian(), t=5, variance="learned", tile=0, xi=XI)
    with pytest.raises(BadInput, match="variance 'learned' needs a network that predicts it"):
        purifier.bind([0])(torch.full((1, 1, 1, 1), 0.5))


# --- clipping


@pytest.mark.parametrize(("name", "options", "switch"), [
    ("onestep-ddpm", {"sigma": 0.25}, "clip_x0"), ("onestep-edm", {}, "clip"), ("cm", {}, "clip"),
    ("ddpm", {"t": 40}, "clip_x0"), ("reverse", {"t": 40}, "clip_x0"),
    ("ddim", {"t": 40}, "clip_x0"), ("densepure", {}, "clip_x0"),
    ("densepure", {"steps": 1}, "clip_x0"),
])  # fmt: skip
def test_clipping_acts_only_where_x0_leaves_the_box(
    name: str, options: dict[str, object], switch: str, normals: Draw
) -> None:
    ids = torch.arange(64)
    for variance, acts in ((1e-3, False), (4.0, True)):
        plain, clipped = (
            load_purifier(
                name, denoiser=gaussian(variance), tile=0, xi=XI, **{**options, switch: on}
            ).bind(ids)(torch.linspace(0, 1, 64).view(64, 1, 1, 1))
            for on in (False, True)
        )  # fmt: skip
        assert torch.equal(plain, clipped) != acts
        if acts and name not in ("cm", "onestep-edm"):
            assert float((2 * clipped - 1).abs().max()) <= 1 + 1e-6


# --- evaluations, counted before anything runs


@pytest.mark.parametrize(("name", "options", "evaluations"), [
    ("none", {}, 0), ("ddpm", {}, 100), ("ddpm", {"t": 7}, 7), ("ddpm", {"t": 7, "stride": 3}, 3),
    ("reverse", {"t": 9}, 9), ("ddim", {"t": 9}, 9), ("vpsde", {}, 100), ("vpsde", {"t": 17}, 17),
    ("vpsde", {"t": 98, "dt": 1.1e-3}, 90), ("vpsde", {"t": 10, "dt": 5e-4}, 20),
    ("dpm", {}, 20), ("dpm", {"evaluations": 21}, 21), ("onestep-ddpm", {}, 1),
    ("onestep-edm", {}, 1), ("pf-ode", {}, 35), ("pf-ode", {"nodes": 40}, 79),
    ("pf-ode", {"recipe": "truncated", "sigma": 0.25}, 13),
    ("pf-ode", {"recipe": "truncated", "sigma": 0.5}, 15),
    ("pf-ode", {"recipe": "truncated", "sigma": 1.0}, 17),
    ("cm", {}, 1), ("cm", {"steps": 4}, 4), ("densepure", {}, 10), ("densepure", {"steps": 1}, 1),
    ("densepure", {"steps": None, "sigma": 0.05}, 227),
])  # fmt: skip
def test_evaluations(name: str, options: dict[str, object], evaluations: int) -> None:
    class Counting(Denoiser):
        calls = 0

        def predict(self, x: Tensor, sigma: float | Tensor) -> object:  # type: ignore[override]
            Counting.calls += 1
            return gaussian().predict(x, sigma)

    purifier = load_purifier(name, denoiser=Counting(), tile=0, xi=XI, **options)
    assert purifier.chain.evaluations == evaluations
    assert Counting.calls == 0
    purifier.bind([0])(torch.full((1, 1, 1, 1), 0.5))
    assert Counting.calls == evaluations


@pytest.mark.parametrize("name", PURIFIERS.names())
def test_levels_of_the_steps_are_told(name: str) -> None:
    # Each step's `scale` and `sigma` describe the state after it: scale x0 + scale sigma z.
    chain = load_purifier(name, denoiser=gaussian()).chain
    assert all(step.scale > 0 and step.sigma >= 0 for step in chain)
    for step in chain:
        if step.gain is not None:
            x = torch.full((1, 1, 1, 1), 3.0, dtype=torch.float64)
            z = torch.zeros_like(x)
            slope = step.move(x + 1, z) - step.move(x, z)
            assert slope.item() == pytest.approx(step.gain, rel=1e-12)
    if chain and name != "rrcm":  # which leaves its noise to the classifier
        assert chain[-1].sigma == pytest.approx(0.01 if name == "dpm" else 0.0, abs=1e-2)


# --- options


OTHER: dict[str, object] = {
    "t": 60, "sigma": 0.3, "index_rule": "nearest", "schedule": "cosine", "schedule_steps": 900,
    "forward": "oneshot", "variance": "small", "clip_x0": None, "stride": 2, "surrogate_stride": 5,
    "prescale": True, "eta": 0.5, "kind": "ode", "dt": 2e-3, "label": "floor",
    "surrogate_dt": 2e-2, "order": 2, "evaluations": 11, "spacing": "logSNR", "inner": "spacing",
    "time_rule": "exact", "nodes": 12, "clip": True, "recipe": "truncated", "steps": 2,
    "smoothing": False, "surrogate_steps": 2,
}  # fmt: skip


@pytest.mark.parametrize("name", PURIFIERS.names())
def test_every_option_is_stored_with_its_value(name: str) -> None:
    kind = PURIFIERS.get(name)
    for option in dataclasses.fields(kind):
        value = OTHER[option.name] if option.name != "clip_x0" else not option.default
        if name == "vpsde" and option.name in ("schedule", "schedule_steps"):
            value = {"schedule": "linear", "schedule_steps": 1000}[option.name]
        settings = load_purifier(name, denoiser=gaussian(), **{option.name: value}).settings
        assert settings["purifier"] == name
        assert settings[option.name] == value
        assert {f.name for f in dataclasses.fields(kind)} <= set(settings)
    defaults = load_purifier(name, denoiser=gaussian()).settings
    for option in dataclasses.fields(kind):
        assert defaults[option.name] == option.default


@pytest.mark.parametrize(("name", "options", "rule"), [
    ("ddpm", {"t": 0}, r"t 0 is outside the linear schedule; use 1 \.\. 1000"),
    ("ddpm", {"t": 1001}, r"t 1001 is outside"),
    ("ddpm", {"t": 5, "sigma": 0.1}, "are two strengths; give one of them"),
    ("ddpm", {"sigma": 0.0}, "outside"), ("ddpm", {"sigma": 41}, "outside"),
    ("ddpm", {"sigma": float("nan")}, "not finite"), ("cm", {"t": 1001}, "outside"),
    ("ddpm", {"stride": 0}, "stride 0 goes nowhere"), ("ddim", {"eta": 1.5}, "eta 1.5 is outside"),
    ("vpsde", {"schedule": "cosine"}, "is not the one that the SDE continues"),
    ("vpsde", {"dt": 0.0}, "outside"), ("vpsde", {"dt": float("nan")}, "not finite"),
    ("dpm", {"evaluations": 0}, "evaluations 0"), ("dpm", {"t": 1}, "leaves the solver no inter"),
    ("dpm", {"order": 4}, "order 4 of dpm is not known"),
    ("cm", {"steps": 0}, "0 steps purify nothing"), ("cm", {"steps": 8}, "do not fit the 6 nodes"),
    ("densepure", {"steps": 0}, "steps 0 is not a whole number of 1 or more"),
    ("densepure", {"steps": 9999}, "do not fit"),
    ("ddpm", {"schedule_steps": 20}, "would need a beta of 1 or more; use 21 or more"),
    ("onestep-edm", {"time_rule": "best"}, "time_rule 'best' of onestep-edm is not known"),
    ("pf-ode", {"nodes": 1}, "is empty"),
])  # fmt: skip
def test_unusable_options_name_the_rule(name: str, options: dict[str, object], rule: str) -> None:
    with pytest.raises(BadInput, match=rule) as caught:
        load_purifier(name, denoiser=gaussian(), **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [name for name in PURIFIERS if name not in ("none", "rrcm")])
def test_a_purifier_without_a_denoiser_says_so(name: str) -> None:
    with pytest.raises(BadInput, match="has no denoiser"):
        PURIFIERS.get(name)().chain(None)


# --- particulars


def test_none_leaves_every_bit(pictures: Draw) -> None:
    images = pictures(3, 1, 4, 4)
    assert torch.equal(load_purifier("none", tile=0)(images), images)


def test_several_steps_of_a_consistency_model_use_its_own_smallest_level() -> None:
    class Zero(nn.Module):
        def forward(self, x: Tensor, condition: Tensor) -> Tensor:
            return torch.zeros_like(x)

    model = ConsistencyDenoiser(Zero(), sigma_min=0.01, sigma_max=10.0)
    chain = load_purifier("cm", denoiser=model, sigma=0.5, steps=3).chain
    ramp = np.arange(18) / 17
    grid = (10 ** (1 / 7) + ramp * (0.01 ** (1 / 7) - 10 ** (1 / 7))) ** 7
    start = int(np.argmin(abs(grid - 1.0)))
    nodes = [grid[start + round(k * (17 - start) / 3)] for k in (1, 2)]
    again = [step.sigma for step in chain if step.phase == "forward"][1:]
    np.testing.assert_allclose(again, np.sqrt(np.square(nodes) - 1e-4), rtol=1e-9)


def test_densepure_votes_and_the_others_do_not() -> None:
    assert {name: PURIFIERS.get(name).votes for name in PURIFIERS if name != "densepure"} == {
        name: 1 for name in PURIFIERS if name != "densepure"
    }
    assert PURIFIERS.get("densepure").votes == 10


def test_densepure_one_step_is_the_one_shot_rule() -> None:
    options = {"sigma": 0.25, "schedule": "cosine", "index_rule": "densepure"}
    one, dense = (
        load_purifier(name, denoiser=gaussian(), tile=0, xi=XI, **options, **more).bind([3])
        for name, more in (("onestep-ddpm", {}), ("densepure", {"steps": 1}))
    )
    image = torch.full((1, 1, 1, 1), 0.6, dtype=torch.float64)
    torch.testing.assert_close(one(image), dense(image), rtol=1e-14, atol=1e-14)


def test_densepure_takes_noisy_input_when_told_to() -> None:
    with_noise, without = (
        load_purifier("densepure", denoiser=gaussian(), tile=0, xi=XI, sigma=0.25, smoothing=on)
        for on in (True, False)
    )
    image = torch.full((1, 1, 1, 1), 0.6, dtype=torch.float64)
    index = with_noise.chain[0].time
    noise = XI.normal([3], "forward", index, (1, 1, 1)).double()
    first = without.chain.run(2 * image - 1 + 0.5 * noise, Noise(XI, torch.tensor([3])))
    second = with_noise.chain.run(2 * image - 1, Noise(XI, torch.tensor([3])))
    torch.testing.assert_close(first, second)


def test_the_three_one_shot_rules_differ_as_published() -> None:
    noise = {}
    for rule in ("dds", "densepure", "nearest"):
        chain = load_purifier(
            "onestep-ddpm", denoiser=gaussian(), sigma=0.25, index_rule=rule, schedule="cosine"
        ).chain
        noise[rule] = (chain[0].sigma, chain[0].time - 1, chain[-1].evaluations)
    # The search draws its noise at its own index; the others add exactly 2 sigma.
    assert noise["dds"] == (pytest.approx(0.500237, abs=1e-6), 1158, 1)
    assert noise["densepure"] == (0.5, 1159, 1)
    assert noise["nearest"] == (0.5, 1158, 1)


@pytest.mark.parametrize("dt", [1e-3, 1.1e-3, 1.5e-3, 3e-3, 1e-2, 7e-4])
@pytest.mark.parametrize("t", [1, 2, 97, 98, 99, 100, 1000])
def test_any_step_of_the_sde_has_noise_of_its_own(t: int, dt: float) -> None:
    chain = load_purifier("vpsde", denoiser=gaussian(), t=t, dt=dt).chain
    assert chain.draws == len(chain) == math.ceil((t / 1000 - 1e-5) / dt - 1e-9) + 1
    if dt == 1e-3:
        assert [step.time for step in chain[1:]] == list(range(t, 0, -1))
