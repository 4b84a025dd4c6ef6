"""Compression rates with a closed form, the rules of the measurement, and its bad inputs."""

import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from scipy.stats import binomtest
from torch import Tensor, nn

from advpure.analysis import (
    COMPRESSION_SCHEMA,
    CompressionResult,
    CompressionRow,
    CompressionSettings,
    Distribution,
    compression_evaluations,
    compression_rate,
    compression_rows,
    directions,
    expected_compression_rate,
)
from advpure.base.errors import BadInput
from advpure.core.analytic import GaussianDenoiser
from advpure.core.chain import Chain
from advpure.core.defense import Defense
from advpure.core.denoisers import EDMDenoiser
from advpure.core.purifier import Purifier
from advpure.core.randomness import RandomnessConfig
from advpure.core.schedules import linear_schedule
from advpure.loading import load_purifier
from advpure.networks import build_network
from advpure.purifiers.vp import noising_steps
from advpure.runs.records import RecordStore

SHAPE = (1, 4, 4)
DISTRIBUTIONS: tuple[Distribution, ...] = ("uniform", "gaussian", "sign")


def _images(
    count: int, dtype: torch.dtype = torch.float64, shape: tuple[int, ...] = SHAPE
) -> Tensor:
    generator = torch.Generator().manual_seed(11)
    return torch.rand(count, *shape, generator=generator, dtype=dtype)


def _network() -> EDMDenoiser:
    """Make a small U-Net whose every layer matters."""
    generator = torch.Generator().manual_seed(3)
    settings = {"image_size": 4, "image_channels": 1, "channels": (8, 8), "attention": (1,)}
    network = build_network("unet", settings, generator)
    for weight in network.parameters():
        torch.nn.init.normal_(weight, 0.0, 0.2, generator=generator)
    return EDMDenoiser(network.eval())


def _random_purifier(tile: int | None = 16) -> Purifier:
    return load_purifier("ddpm", t=3, denoiser=_network(), tile=tile, xi=RandomnessConfig(0))


def test_rate_of_a_linear_map_is_the_ratio_of_norms() -> None:
    matrix = torch.randn(16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x, eta = _images(5), 0.1 * (_images(5).flip(0) - 0.5)
    found = compression_rate(lambda y: (y.flatten(1) @ matrix.T + 3.0).reshape(y.shape), x, eta)
    wanted = (eta.flatten(1) @ matrix.T).norm(dim=1) / eta.flatten(1).norm(dim=1)
    assert torch.allclose(found, wanted, rtol=1e-12, atol=0)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("clip", [False, True])
def test_scaling_by_a_has_rate_a_for_every_perturbation(
    distribution: Distribution, clip: bool
) -> None:
    result = expected_compression_rate(
        lambda y: 1.5 - 0.3 * y, _images(3), eps=["2/255", 0.5, "1e-6"],
        distribution=distribution, perturbations=4, seeds=[0, 7], clip=clip,
    )  # fmt: skip
    assert len(result.rows) == 3 * 3 * 4 * 2
    for row in result.rows:
        # Rounding of 1 around images of 1 leaves 16 - 6 digits at eps = 1e-6.
        assert row.rate == pytest.approx(0.3, rel=1e-9 if row.eps < 1e-3 else 1e-13)
    counts = {result.summary(eps, seed).n for eps in result.eps for seed in result.seeds}
    assert counts == {3}


def test_no_purification_has_rate_one_under_clipping_and_rounding() -> None:
    # Half of these pixels sit on the border, where clipping takes half of eta.
    x = (_images(4, torch.float32) > 0.5).float()
    for clip in (False, True):
        result = expected_compression_rate(load_purifier("none"), x, clip=clip)
        assert {row.rate for row in result.rows} == {1.0}
    assert result.rows[0].norm < 8 / 255 * math.sqrt(16 / 3)


@pytest.mark.parametrize("index", [0, 9, 99])
def test_forward_diffusion_compresses_by_the_root_of_abar(index: int) -> None:
    schedule = linear_schedule()
    for steps in (
        noising_steps(schedule, index, "stepwise"), noising_steps(schedule, index, "oneshot")
    ):  # fmt: skip
        chain = Purifier("noise", Chain(steps), xi=RandomnessConfig(0))
        result = expected_compression_rate(chain, _images(2), perturbations=3)
        for row in result.rows:
            assert row.rate == pytest.approx(float(schedule.abar[index]) ** 0.5, rel=1e-12)


def test_one_forward_step_compresses_by_the_root_of_alpha() -> None:
    schedule = linear_schedule()
    step = noising_steps(schedule, 50, "stepwise")[50]
    result = expected_compression_rate(
        Purifier("step", Chain([step]), xi=RandomnessConfig(0)), _images(1), perturbations=2
    )
    assert result.mean == pytest.approx(math.sqrt(1 - float(schedule.betas[50])), rel=1e-12)


def _ddpm(v: float, abar: float) -> float:
    # Ancestral means are posterior means, so the product over steps telescopes.
    return abar * v / (abar * v + 1 - abar)


def _ddim(v: float, index: int) -> float:
    abar = [1.0, *(float(a) for a in linear_schedule().abar[: index + 1])]
    rate = math.sqrt(abar[-1])
    for before, here in pairwise(abar):
        across = math.sqrt((1 - before) * (1 - here))
        rate *= (math.sqrt(before * here) * v + across) / (here * v + 1 - here)
    return rate


def _flow(v: float, index: int) -> float:
    # The probability flow from an index to the first keeps x / sqrt(variance).
    start, end = (float(linear_schedule().abar[i]) for i in (index, 0))
    return math.sqrt(start * (end * v + 1 - end) / (start * v + 1 - start))


V = 0.3
ABAR = float(linear_schedule().abar[19])
EXPECTED: list[tuple[str, dict[str, object], float, float]] = [
    ("onestep-edm", {"sigma": 0.25, "time_rule": "exact"}, V / (V + 0.25), 1e-12),
    ("cm", {"sigma": 0.4, "time_rule": "exact"}, V / (V + 0.64), 1e-12),
    ("onestep-ddpm", {"t": 20, "clip_x0": False}, _ddpm(V, ABAR), 1e-12),
    ("ddpm", {"t": 20}, _ddpm(V, ABAR), 1e-11),
    ("ddpm", {"t": 20, "stride": 5, "variance": "small"}, _ddpm(V, ABAR), 1e-11),
    ("reverse", {"t": 20}, _ddpm(V, ABAR) / math.sqrt(ABAR), 1e-11),
    ("reverse", {"t": 20, "prescale": True}, _ddpm(V, ABAR), 1e-11),
    ("ddim", {"t": 20}, _ddim(V, 19), 1e-11),
    # Solvers of an ODE or SDE, against the exact flow; the tolerance is their step error.
    ("dpm", {"t": 100, "evaluations": 180, "spacing": "logSNR"}, _flow(V, 99), 2e-6),
    ("pf-ode", {"sigma": 0.25}, math.sqrt(V / (V + 0.25)), 2e-3),
    ("vpsde", {"t": 20}, _ddpm(V, ABAR), 3e-3),
]


@pytest.mark.parametrize(("name", "options", "wanted", "tolerance"), EXPECTED)
def test_purifiers_of_gaussian_data_have_their_closed_form_rate(
    name: str, options: dict[str, object], wanted: float, tolerance: float
) -> None:
    network = GaussianDenoiser(torch.zeros(SHAPE), V)
    purifier = load_purifier(name, denoiser=network, xi=RandomnessConfig(0), tile=0, **options)  # type: ignore[arg-type]
    result = expected_compression_rate(purifier, _images(2), eps=["8/255", 0.5], perturbations=2)
    for row in result.rows:
        assert row.rate == pytest.approx(wanted, rel=tolerance)


def test_anisotropic_data_compress_each_direction_by_its_own_share() -> None:
    variances = torch.linspace(0.1, 1.0, 16, dtype=torch.float64).reshape(SHAPE)
    network = GaussianDenoiser(torch.zeros(SHAPE), variances)
    purifier = load_purifier("onestep-edm", sigma=0.25, time_rule="exact", denoiser=network,
                             xi=RandomnessConfig(0), tile=0)  # fmt: skip
    eta = 0.02 * torch.eye(16, dtype=torch.float64).reshape(16, *SHAPE)
    found = compression_rate(purifier, _images(1).expand(16, *SHAPE), eta, ids=[0] * 16)
    assert torch.allclose(found, (variances / (variances + 0.25)).flatten(), rtol=1e-11)


def test_batches_order_and_company_change_no_bit() -> None:
    purifier, x, ids = _random_purifier(), _images(9, torch.float32), list(range(20, 29))
    whole = expected_compression_rate(
        purifier, x, ids=ids, eps=["8/255", 0.1], perturbations=3, seeds=[0, 2]
    )
    assert len({row.rate for row in whole.rows}) == len(whole.rows)
    for batch_size in (1, 7, 64):
        order = torch.randperm(9, generator=torch.Generator().manual_seed(batch_size)).tolist()
        other = expected_compression_rate(
            purifier, x[order], ids=[ids[i] for i in order], eps=[0.1, "8/255"], perturbations=3,
            seeds=[2, 0], batch_size=batch_size,
        )  # fmt: skip
        assert other.rows == whole.rows
        assert other.pooled == whole.pooled
    alone = expected_compression_rate(purifier, x[4:5], ids=[24], perturbations=3)
    assert set(alone.rows) <= set(whole.rows)


def test_a_resumed_run_measures_only_what_is_missing(tmp_path: Path) -> None:
    purifier, x = _random_purifier(), _images(20, torch.float32)
    settings = CompressionSettings(eps=["8/255", "16/255"], perturbations=3, seeds=[0, 1])
    whole = [row for b in compression_rows(purifier, x, None, settings) for row in b]
    with RecordStore.open(tmp_path, schemas=[COMPRESSION_SCHEMA], settings={}, context={}) as store:
        for batch in list(compression_rows(purifier, x, None, settings, batch_size=16))[:7]:
            store.append("compression", [row._asdict() for row in batch])
        half = store.count("compression")
        done = CompressionResult.from_records(store.rows("compression")).rows
        rest = list(compression_rows(purifier, x, None, settings, skip={row.key for row in done}))
        assert 0 < half < len(whole)
        assert sum(len(batch) for batch in rest) == len(whole) - half
        for batch in rest:
            store.append("compression", [row._asdict() for row in batch])
        again = CompressionResult.from_records(store.rows("compression"))
    assert again.rows == CompressionResult(tuple(whole)).rows


@pytest.mark.parametrize(("count", "batch_size"), [(9, None), (20, 16), (3, 1)])
def test_evaluations_are_counted_before_they_are_made(count: int, batch_size: int | None) -> None:
    network, seen = _network(), []
    network.eval()
    network.network.register_forward_hook(lambda m, inputs, out: seen.append(inputs[0].shape[0]))
    purifier = load_purifier("ddpm", t=3, denoiser=network, tile=16)
    settings = CompressionSettings(eps=[0.1, 0.2], perturbations=4, seeds=[0, 1])
    wanted = compression_evaluations(purifier, count, settings, batch_size=batch_size)
    x = _images(count, torch.float32)
    list(compression_rows(purifier, x, None, settings, batch_size=batch_size))
    assert sum(seen) == wanted
    assert set(seen) == {16}


@pytest.mark.parametrize("tile", [0, 16])
def test_copies_of_a_network_in_training_mode_are_counted(tile: int) -> None:
    network, seen = _network(), []
    network.train()
    network.network.register_forward_hook(lambda m, inputs, out: seen.append(inputs[0].shape[0]))
    purifier = load_purifier("ddpm", t=3, denoiser=network, tile=tile)
    settings = CompressionSettings(perturbations=4)
    wanted = compression_evaluations(purifier, 9, settings)
    list(compression_rows(purifier, _images(9, torch.float32), None, settings))
    assert sum(seen) == wanted


def test_copies_of_a_module_in_training_mode_are_counted() -> None:
    halve, seen = nn.Conv2d(1, 1, 1), []
    halve.register_forward_hook(lambda m, inputs, out: seen.append(len(out)))
    settings = CompressionSettings(perturbations=3, seeds=[0, 1])
    list(compression_rows(halve, _images(5, torch.float32), None, settings, batch_size=2))
    assert sum(seen) == compression_evaluations(halve, 5, settings, batch_size=2) == 2 * 20 + 10


def test_calls_of_a_plain_map_are_counted_with_the_check_that_it_repeats_itself() -> None:
    seen: list[int] = []

    def halve(y: Tensor) -> Tensor:
        seen.append(len(y))
        return y / 2

    settings = CompressionSettings(perturbations=3, seeds=[0, 1])
    list(compression_rows(halve, _images(5), None, settings, batch_size=2))
    assert sum(seen) == compression_evaluations(halve, 5, settings, batch_size=2) == 2 * 20 + 4
    assert max(seen) == 2


def test_a_defense_is_measured_by_its_purifier_in_its_own_tile_and_randomness() -> None:
    purifier, x = _random_purifier(tile=None), _images(3, torch.float32)
    defense = Defense(purifier, torch.nn.Identity(), xi=RandomnessConfig(5), tile=16).bind(
        [4, 5, 6]
    )
    found = expected_compression_rate(defense, x, perturbations=2)
    wanted = expected_compression_rate(
        _random_purifier(tile=16), x, ids=[4, 5, 6], xi=RandomnessConfig(5), perturbations=2
    )
    assert found.rows == wanted.rows
    assert found.seeds == (5,)
    assert found.settings["tile"] == 16


class _Shifted:
    """A foreign map with `at`: a noise that cancels only if both sides share it."""

    def __init__(self, ids: list[int] | None = None, xi: RandomnessConfig | None = None) -> None:
        self.own = (ids, xi)

    def at(self, *, ids: list[int], xi: RandomnessConfig) -> "_Shifted":
        """Return a bound view."""
        return _Shifted(ids, xi)

    def __call__(self, x: Tensor) -> Tensor:
        """Scale and add the noise of the ids."""
        ids, xi = self.own
        assert ids is not None
        assert xi is not None
        return 0.5 * x + 9 * xi.normal(ids, "forward", 0, x.shape[1:]).to(x)


def test_a_foreign_random_map_sees_the_same_noise_on_both_sides() -> None:
    result = expected_compression_rate(_Shifted(), _images(4), perturbations=2, seeds=[1, 2])
    for row in result.rows:
        assert row.rate == pytest.approx(0.5, rel=1e-10)


def test_perturbations_have_the_stated_scale_and_are_shared_between_strengths() -> None:
    root = {"uniform": 3**-0.5, "gaussian": 3**-0.5, "sign": 1.0}
    for distribution in DISTRIBUTIONS:
        u = directions(distribution, 0, range(200), [1] * 200, (100,)).double()
        # 20,000 entries: the variance of u^2 is at most 2/9 and that of u at most 1; 5 sigma.
        assert float(u.square().mean().sqrt()) == pytest.approx(root[distribution], rel=0.011)
        assert abs(float(u.mean())) < 5 / math.sqrt(20000)
        assert float((u[:-1] * u[1:]).mean()) == pytest.approx(0.0, abs=5 / math.sqrt(19900))
        assert torch.equal(u[7], directions(distribution, 0, [7], [1], (100,))[0].double())
    assert float(directions("uniform", 0, [0], [0], (10**5,)).abs().max()) <= 1.0
    assert set(directions("sign", 0, [0], [0], (50,))[0].tolist()) == {-1.0, 1.0}
    seen: list[Tensor] = []
    settings = CompressionSettings(eps=[0.25, 0.5], perturbations=1)
    x = torch.zeros(1, *SHAPE)

    def remember(y: Tensor) -> Tensor:
        seen.append(y)
        return y

    list(compression_rows(remember, x, [3], settings))
    assert torch.equal(seen[-1][1], 2 * seen[-1][0])


def test_the_norm_is_the_realised_one() -> None:
    # Pixels at 1 lose every upward sign; 2 of 16 at 0.5 keep both.
    x = torch.ones(1, *SHAPE)
    x[0, 0, 0, :2] = 0.5
    settings = CompressionSettings(eps=0.125, distribution="sign", perturbations=20, clip=True)
    rows = [row for b in compression_rows(lambda y: 0.5 * y, x, [0], settings) for row in b]
    eta = directions("sign", 0, [0] * 20, range(20), SHAPE)
    kept = (eta < 0) | (x < 1)
    wanted = 0.125 * kept.flatten(1).sum(1).double().sqrt()
    assert [row.norm for row in rows] == pytest.approx(wanted.tolist(), rel=1e-12)
    assert {row.rate for row in rows} == {0.5}


def test_a_perturbation_that_clipping_removes_has_no_rate() -> None:
    x = torch.tensor([[[[1.0]]], [[[0.5]]]])
    result = expected_compression_rate(
        lambda y: y / 2, x, eps=0.25, distribution="sign", perturbations=12, clip=True
    )
    gone = [row for row in result.rows if row.rate is None]
    assert gone
    assert all(row.id == 0 and row.norm == row.change == 0.0 for row in gone)
    assert result.summary().absent == len(gone)
    assert result.mean == 0.5
    up = directions("sign", 0, [0] * 2, range(2), (1, 1, 1))
    settings = {"eps": 0.25, "distribution": "sign", "perturbations": 1, "clip": True}
    lost = torch.full((1, 1, 1, 1), float(up[0] > 0))
    with pytest.raises(BadInput, match="no value at all"):
        expected_compression_rate(lambda y: y, lost, **settings)  # type: ignore[arg-type]


def test_summaries_average_within_images_first() -> None:
    rates = {0: [0.1, 0.3], 1: [0.5, 0.7, 0.9], 2: [0.2]}
    rows = tuple(
        CompressionRow(0.1, s, i, k, rate, 1.0, rate)
        for i, listed in rates.items()
        for k, rate in enumerate(listed)
        for s in (0, 1)
    )
    result = CompressionResult(rows[::-1])
    assert result.rows == tuple(sorted(rows))
    for found in (result.summary(0.1), result.summary(0.1, 1)):
        assert found.mean == pytest.approx((0.2 + 0.7 + 0.2) / 3)
        assert found.std == pytest.approx(math.sqrt(0.25 / 3))
        assert (found.n, found.absent) == (3, 0)
    assert result.image_means(0.1, 0) == pytest.approx({0: 0.2, 1: 0.7, 2: 0.2})
    assert CompressionResult(rows[:1]).std is None
    assert CompressionResult(rows[:1]).interval is None


def test_the_interval_covers_though_draws_of_one_image_agree() -> None:
    generator = torch.Generator().manual_seed(17)
    runs, images, draws, hits = 600, 8, 10, 0
    for _ in range(runs):
        centre = 0.3 + 0.05 * torch.randn(images, 1, generator=generator)
        rates = (centre + 0.01 * torch.randn(images, draws, generator=generator)).tolist()
        interval = CompressionResult(
            tuple(
                CompressionRow(0.1, 0, i, k, rates[i][k], 1.0, 1.0)
                for i in range(images)
                for k in range(draws)
            )
        ).interval
        assert interval is not None
        hits += interval.low <= 0.3 <= interval.high
    assert binomtest(hits, runs, 0.95).pvalue > 1e-5  # two-sided, alpha 1e-5


def _call(purifier: Callable[[Tensor], Tensor] | Purifier, x: Tensor, **options: object) -> None:
    expected_compression_rate(purifier, x, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"eps": 0}, "not positive"),
        ({"eps": -0.1}, "not positive"),
        ({"eps": float("nan")}, "not finite"),
        ({"eps": "8"}, "ambiguous"),
        ({"eps": 8}, "ambiguous"),
        ({"eps": 8.0}, "ambiguous"),
        ({"eps": []}, "is empty"),
        ({"eps": ["8/255", 8 / 255]}, "repeat a value"),
        ({"eps": 1e-4}, "is below 0.00035"),
        ({"distribution": "normal"}, "is not known"),
        ({"perturbations": 0}, "not a whole number of 1 or more"),
        ({"perturbations": 2.5}, "not a whole number of 1 or more"),
        ({"seeds": [1, 1]}, "repeat a value"),
        ({"seeds": -1}, "seed -1 is not a whole number from 0"),
        ({"ids": [0, 0]}, "appears twice"),
        ({"ids": [0]}, "do not match"),
        ({"batch_size": 0}, "holds no image"),
        ({"xi": RandomnessConfig(0, scope="fresh")}, "different noise"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(options: dict[str, object], match: str) -> None:
    with pytest.raises(BadInput, match=match):
        _call(lambda y: y, _images(2, torch.float32), **options)


class _Counter:
    """A map with hidden randomness: it adds the number of the call."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, x: Tensor) -> Tensor:
        """Answer differently every time."""
        self.calls += 1
        return x + self.calls


@pytest.mark.parametrize(
    ("purifier", "match"),
    [
        (lambda y: y[:, :, 1:], "does not have the images' shape"),
        (lambda y: y / 0.0 * 0.0, "is not finite"),
        (lambda y: y.numpy(), "is no float tensor"),
        (lambda y: (y * 255).to(torch.uint8), "is no float tensor"),
        (7, "cannot be called"),
        (_Counter(), "answers to two equal calls differ by 1 is no function"),
    ],
)
def test_maps_that_are_no_purifiers_are_refused(
    purifier: Callable[[Tensor], Tensor], match: str
) -> None:
    with pytest.raises(BadInput, match=match):
        _call(purifier, _images(2))


@pytest.mark.parametrize(
    ("x", "match"),
    [
        (torch.full((1, 1, 2, 2), 2.0), "leave"),
        (torch.full((1, 1, 2, 2), float("nan")), "leave"),
        (torch.zeros(1, 2, 2), "are not"),
        (torch.zeros(1, 1, 2, 2, dtype=torch.uint8), "floating point"),
    ],
)
def test_images_outside_the_contract_are_refused(x: Tensor, match: str) -> None:
    with pytest.raises(BadInput, match=match):
        _call(lambda y: y, x)
    with pytest.raises(BadInput, match=match):
        compression_rate(lambda y: y, x, torch.ones_like(x))


def test_given_perturbations_are_checked() -> None:
    x = torch.full((1, 1, 2, 2), 0.5)
    for eta, match in (
        (torch.zeros_like(x), "zero perturbation"),
        (torch.full_like(x, 1e-9), "zero perturbation"),  # lost in rounding x + eta
        (torch.full_like(x, 1e-5), "keeps few digits"),
        (torch.full_like(x, float("inf")), "not finite"),
        (torch.ones(1, 1, 2, 3), "do not match"),
    ):
        with pytest.raises(BadInput, match=match):
            compression_rate(lambda y: y, x, eta)
    with pytest.raises(BadInput, match="no randomness configuration"):
        compression_rate(load_purifier("ddpm", t=2, denoiser=_network()), x, x)


def test_float32_keeps_the_stated_digits_at_the_floor() -> None:
    network = GaussianDenoiser(torch.zeros(SHAPE), V)
    for name, options in (("onestep-edm", {"sigma": 0.25}), ("ddpm", {"t": 50})):
        purifier = load_purifier(name, denoiser=network, xi=RandomnessConfig(0), tile=0, **options)
        x, settings = _images(8), {"eps": 4e-4, "perturbations": 4}
        exact = expected_compression_rate(purifier, x, **settings)  # type: ignore[arg-type]
        rough = expected_compression_rate(purifier, x.float(), **settings)  # type: ignore[arg-type]
        # rms(eta) is 2.3e-4 and a few dozen roundings of 6e-8 add up to less than 1e-6.
        assert rough.mean == pytest.approx(exact.mean, rel=2e-3)
