"""Variance components, centroids and correlations: closed forms, oracles, and resuming."""

import errno
import math
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import IO

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from advpure.analysis.perturbations import directions
from advpure.analysis.variability import two_way as two_way_module
from advpure.analysis.variability.mixed import purify_rows
from advpure.analysis.variability.result import MEANS, RATIOS, SnrResult, SnrRow
from advpure.analysis.variability.settings import SnrSettings
from advpure.analysis.variability.tables import signal_to_noise, snr_tables
from advpure.analysis.variability.two_way import Table, TwoWay, table_statistics
from advpure.analysis.variability.variance import (
    Components,
    SumsOfSquares,
    expected_plain,
    plain_components,
    unbiased_components,
)
from advpure.base.errors import BadInput
from advpure.base.storage import StorageFull
from advpure.core.analytic import GaussianDenoiser
from advpure.core.chain import Chain
from advpure.core.defense import Defense
from advpure.core.denoisers import EDMDenoiser
from advpure.core.purifier import Purifier
from advpure.core.randomness import RandomnessConfig
from advpure.loading import load_purifier
from advpure.runs.row_file import RowFile
from advpure.statistics.ratio import ratio_of_means

Array = NDArray[np.float64]
ALPHA = 1e-5
K, S, D = 4, 3, 6


def _arrays(seed: int = 0) -> tuple[Array, Array, Array]:
    """A clean image [D], inputs [K, D] and outputs [S, K, D] without any structure."""
    generator = np.random.default_rng(seed)
    clean = generator.uniform(size=D)
    inputs = clean + 0.1 * generator.normal(size=(K, D))
    return clean, inputs, generator.normal(size=(S, K, D)) + generator.normal(size=(S, 1, D))


def _found(seed: int = 0) -> tuple[TwoWay, Array, Array, Array]:
    clean, inputs, outputs = _arrays(seed)
    return table_statistics(Table.of_arrays(inputs, outputs), clean), clean, inputs, outputs


def _norm(x: Array) -> Array:
    return np.linalg.norm(x, axis=-1)


def test_components_are_the_variances_of_the_table() -> None:
    found, _, _, y = _found()
    plain = plain_components(found.sums)
    assert plain.total == pytest.approx(y.reshape(-1, D).var(axis=0).mean(), rel=1e-12)
    assert plain.input == pytest.approx(y.var(axis=1).mean(), rel=1e-12)
    assert plain.internal == pytest.approx(y.mean(axis=1).var(axis=0).mean(), rel=1e-12)
    assert plain.snr == pytest.approx(plain.input / plain.internal, rel=1e-15)
    rest = y - y.mean(axis=0) - y.mean(axis=1, keepdims=True) + y.mean(axis=(0, 1))
    assert plain.interaction == pytest.approx(np.square(rest).mean(), rel=1e-12)


def test_unbiased_components_solve_the_expected_mean_squares() -> None:
    found, _, _, y = _found()
    true = unbiased_components(found.sums)
    grand = y.mean(axis=(0, 1))
    rows = S * np.square(y.mean(axis=0) - grand).sum() / ((K - 1) * D)
    columns = K * np.square(y.mean(axis=1) - grand).sum() / ((S - 1) * D)
    rest = y - y.mean(axis=0) - y.mean(axis=1, keepdims=True) + grand
    c = np.square(rest).sum() / ((K - 1) * (S - 1) * D)
    assert true.interaction == pytest.approx(c, rel=1e-12)
    assert true.input == pytest.approx((rows - c) / S + c, rel=1e-12)
    assert true.input == pytest.approx(y.var(axis=1, ddof=1).mean(), rel=1e-12)
    assert true.internal == pytest.approx((columns - c) / K, rel=1e-12)


def test_sums_of_squares_per_pixel_add_up() -> None:
    found, _, _, y = _found()
    rows, columns, within = found.maps
    assert found.sums[3:] == tuple(float(each.sum()) for each in (rows, columns, within))
    total = y.reshape(-1, D).var(axis=0) * K * S
    assert np.allclose(columns + within, total, rtol=1e-12, atol=0)
    assert (within > rows).all()


def test_distances_are_those_to_the_centroids() -> None:
    found, clean, x, y = _found()
    wanted = np.stack(
        [
            _norm(y - y.mean(axis=1, keepdims=True)),
            _norm(y - y.mean(axis=0)),
            _norm(y - y.mean(axis=(0, 1))),
        ]
    )
    assert np.allclose(found.distances, wanted, rtol=1e-6, atol=0)
    means = (found.vary_input, found.vary_randomness, found.vary_both)
    assert means == pytest.approx(tuple(wanted.mean(axis=(1, 2))), rel=1e-12)
    assert found.initial == pytest.approx(_norm(x - clean).mean(), rel=1e-12)
    assert found.initial_centroid == pytest.approx(_norm(x - x.mean(axis=0)).mean(), rel=1e-12)
    sums = found.sums
    squares = np.square(wanted).sum(axis=(1, 2))
    assert squares[0] == pytest.approx(sums.within, rel=1e-12)
    assert squares[1] == pytest.approx(sums.columns + sums.within - sums.rows, rel=1e-12)
    assert squares[2] == pytest.approx(sums.columns + sums.within, rel=1e-12)


def test_correlations_are_means_over_pairs() -> None:
    found, _, x, y = _found()
    d = y - x
    at_input = [np.corrcoef(d[a, k], d[b, k])[0, 1] for k in range(K)
                for a, b in combinations(range(S), 2)]  # fmt: skip
    at_configuration = [np.corrcoef(d[s, a], d[s, b])[0, 1] for s in range(S)
                        for a, b in combinations(range(K), 2)]  # fmt: skip
    assert found.correlation_vary_randomness == pytest.approx(np.mean(at_input), rel=1e-10)
    assert found.correlation_vary_input == pytest.approx(np.mean(at_configuration), rel=1e-10)


def test_directions_without_variance_have_no_correlation_and_the_others_keep_theirs() -> None:
    clean, x, y = _arrays()
    same = table_statistics(Table.of_arrays(x, np.stack([x] * S)), clean)
    assert same.correlation_vary_input is same.correlation_vary_randomness is None
    assert same.sums.columns == 0.0
    assert same.distances[1].max() < 1e-15
    y[:, 1] = x[1] + 0.25  # one input's directions are constant
    y[2, 3] = x[3]
    found = table_statistics(Table.of_arrays(x, y), clean)
    d = y - x
    pairs = {
        k: [np.corrcoef(d[a, k], d[b, k])[0, 1] for a, b in combinations(range(S), 2)
            if not (k == 3 and b == 2)]
        for k in (0, 2, 3)
    }  # fmt: skip
    wanted = np.mean([np.mean(each) for each in pairs.values()])
    assert found.correlation_vary_randomness == pytest.approx(wanted, rel=1e-10)


def test_equal_columns_have_no_internal_variance_at_all_and_no_ratio() -> None:
    clean, x, y = _arrays()
    found = table_statistics(Table.of_arrays(x, np.stack([y[0]] * 7)), clean)
    for components in (plain_components(found.sums), unbiased_components(found.sums)):
        assert components.internal == pytest.approx(0.0, abs=1e-16)
        assert components.input > 0.0
    assert plain_components(found.sums).internal == 0.0
    assert plain_components(found.sums).snr is None


def test_blocks_only_bound_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, clean, x, y = _found()
    monkeypatch.setattr(two_way_module, "_BLOCK", 2 * D + 1)  # two rows a block
    calls: list[int] = []

    def outputs(s: int, a: int, b: int) -> Array:
        calls.append(b - a)
        return y[s, a:b]

    parts = table_statistics(Table(K, S, lambda a, b: x[a:b], outputs), clean)
    assert max(calls) == 2
    assert len(calls) == 4 * S * 2
    for one, other in zip(whole, parts, strict=True):
        assert np.allclose(np.asarray(one), np.asarray(other), rtol=1e-6, atol=0)
    assert parts.sums[3:] == pytest.approx(whole.sums[3:], rel=1e-12)


@pytest.mark.parametrize("shapes", [((3, 2), (2, 4, 2)), ((3,), (2, 3)), ((3, 2), (2, 3, 3))])
def test_arrays_that_are_no_table_are_refused(shapes: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(BadInput, match="are no table"):
        Table.of_arrays(np.zeros(shapes[0]), np.zeros(shapes[1]))
    for y in (np.zeros((1, 3, 2)), np.zeros((3, 1, 2))):
        with pytest.raises(BadInput, match="has no variance to compare"):
            table_statistics(Table.of_arrays(y[0], y), np.zeros(2))


def _z(values: list[float] | Array, truth: float) -> float:
    data = np.asarray(values)
    return float((data.mean() - truth) / (data.std(ddof=1) / math.sqrt(len(data))))


# Inputs, configurations and interaction are not normal: unbiasedness needs no normality.
A, B, C = 0.5, 2.0, 0.3
TRUE = Components(total=A + B + C, input=A + C, internal=B, interaction=C, snr=(A + C) / B)


@pytest.fixture(scope="module")
def simulated() -> list[SumsOfSquares]:
    generator = np.random.default_rng(5)
    k, s, tables = 3, 4, 3000

    def draw(variance: float, *shape: int) -> Array:
        return math.sqrt(variance) * (generator.exponential(size=shape) - 1.0)

    found = []
    for _ in range(tables):
        rows, columns = draw(A, 1, k, 1), draw(B, s, 1, 1)
        y = 0.7 + rows + columns + draw(C, s, k, 1)
        found.append(table_statistics(Table.of_arrays(rows[0], y), np.zeros(1)).sums)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", ["total", "input", "internal", "interaction"])
def test_the_components_are_unbiased_and_the_plain_ones_biased_as_stated(
    simulated: list[SumsOfSquares], name: str
) -> None:
    limit = stats.norm.isf(ALPHA / 2)  # two-sided, 3000 tables
    truth = getattr(TRUE, name)
    unbiased = [getattr(unbiased_components(sums), name) for sums in simulated]
    plain = [getattr(plain_components(sums), name) for sums in simulated]
    assert abs(_z(unbiased, truth)) < limit
    assert abs(_z(plain, getattr(expected_plain(TRUE, 3, 4), name))) < limit
    assert abs(_z(plain, truth)) > limit  # so that the test can see a bias


class _Linear:
    """f_s(x) = a x + b z_s, and with g the interacting f_s(x) = (a + g z_s) x, pixel by pixel."""

    def __init__(self, a: float, b: float, g: float = 0.0) -> None:
        self.a, self.b, self.g = a, b, g
        self.ids: list[int] | None = None
        self.bound: RandomnessConfig | None = None

    def at(self, *, ids: list[int], xi: RandomnessConfig) -> "_Linear":
        """Return a bound view."""
        view = _Linear(self.a, self.b, self.g)
        view.ids, view.bound = ids, xi
        return view

    def noise(self, xi: RandomnessConfig, ids: list[int], like: Tensor) -> Tensor:
        """The keyed noise of the map."""
        return xi.normal(ids, "forward", 0, like.shape[1:]).to(like)

    def __call__(self, x: Tensor) -> Tensor:
        """Map under the bound configuration."""
        assert self.bound is not None
        assert self.ids is not None
        z = self.noise(self.bound, self.ids, x)
        return (self.a + self.g * z) * x + self.b * z


SHAPE = (1, 4, 4)


def _images(count: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(count, *SHAPE, generator=generator, dtype=dtype)


def test_an_affine_purifier_has_the_variances_of_its_inputs_and_its_noise() -> None:
    a, b, eps, k, s = 0.4, 0.2, 8 / 255, 5, 6
    x = _images(3)
    found = signal_to_noise(
        _Linear(a, b), x, perturbations=k, configurations=s, ids=[4, 0, 9], seed=2
    )
    by_id = {row.id: row for row in found.rows}
    for image, i in zip(x, [4, 0, 9], strict=True):
        eta = eps * directions("uniform", 2, [i] * k, range(k), SHAPE).double().flatten(1).numpy()
        z = np.stack([RandomnessConfig(seed).normal([i], "forward", 0, SHAPE)[0].flatten().numpy()
                      for seed in range(2, 2 + s)]).astype(np.float64)  # fmt: skip
        row = by_id[i]
        inside, internal = a**2 * eta.var(axis=0).mean(), b**2 * z.var(axis=0).mean()
        assert row.plain.input == pytest.approx(inside, rel=1e-10)
        assert row.plain.internal == pytest.approx(internal, rel=1e-10)
        assert row.plain.snr == pytest.approx(inside / internal, rel=1e-10)
        assert row.unbiased.input == pytest.approx(a**2 * eta.var(axis=0, ddof=1).mean(), rel=1e-9)
        assert row.unbiased.internal == pytest.approx(
            b**2 * z.var(axis=0, ddof=1).mean(), rel=1e-10
        )
        assert row.unbiased.interaction == pytest.approx(0.0, abs=1e-14)
        assert row.initial == pytest.approx(_norm(eta).mean(), rel=1e-10)
        assert row.vary_input == pytest.approx(a * row.initial_centroid, rel=1e-10)
        assert row.vary_randomness == pytest.approx(b * _norm(z - z.mean(axis=0)).mean(), rel=1e-10)
        assert row.vary_both > row.vary_randomness
        y = a * (image.flatten().numpy() + eta)[None] + b * z[:, None]
        d = y - image.flatten().numpy() - eta
        pairs = [np.corrcoef(d[m, j], d[n, j])[0, 1] for j in range(k)
                 for m, n in combinations(range(s), 2)]  # fmt: skip
        assert row.correlation_vary_randomness == pytest.approx(np.mean(pairs), rel=1e-8)


def _check_mean(values: dict[int, float], truth: float) -> None:
    """Accept a mean over images that Student's test does not tell from the truth, two-sided."""
    data = list(values.values())
    assert stats.ttest_1samp(data, truth).pvalue > ALPHA
    assert stats.ttest_1samp(data, 1.2 * truth).pvalue < ALPHA


@pytest.mark.slow
def test_population_values_of_an_affine_and_of_an_interacting_purifier() -> None:
    a, b, g, eps = 0.5, 0.05, 0.3, 0.25
    x, v = _images(150), 0.25**2 / 3
    options = {"perturbations": 4, "configurations": 4, "eps": eps}
    plain = signal_to_noise(_Linear(a, b), x, **options)  # type: ignore[arg-type]
    _check_mean(plain.of_images("input_unbiased"), a**2 * v)
    _check_mean(plain.of_images("internal_unbiased"), b**2)
    shares = [row.unbiased.input - a**2 * v / b**2 * row.unbiased.internal for row in plain.rows]
    assert abs(_z(shares, 0.0)) < stats.norm.isf(ALPHA / 2)
    mixed = signal_to_noise(_Linear(a, 0.0, g), x, **options)  # type: ignore[arg-type]
    _check_mean(mixed.of_images("interaction_unbiased"), g**2 * v)
    _check_mean(mixed.of_images("input_unbiased"), (a**2 + g**2) * v)
    # Given the images, the internal variance is g^2 x^2, so the difference has mean 0.
    means = x.square().flatten(1).mean(1).tolist()
    apart = {i: value - g**2 * means[i] for i, value in
             mixed.of_images("internal_unbiased").items()}  # fmt: skip
    assert abs(_z(list(apart.values()), 0.0)) < stats.norm.isf(ALPHA / 2)
    assert abs(_z(list(apart.values()), 0.2 * g**2 * float(np.mean(means)))) > 5


def _gains(chain: Chain) -> tuple[Tensor, Tensor]:
    """Propagate an affine chain: its slope, and the variance of its output, pixel by pixel.

    Each step is y = p x + q z + const; in model units.
    """
    zero, one = torch.zeros(1, *SHAPE, dtype=torch.float64), torch.ones(1, *SHAPE).double()
    slope, variance = one.clone(), zero.clone()
    for step in chain:
        z = zero if step.noisy else None
        base = step.move(zero, z)
        p = step.move(one, z) - base
        slope, variance = slope * p, variance * p**2
        if step.noisy:
            variance = variance + (step.move(zero, one) - base) ** 2
    return slope, variance


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("onestep-edm", {"sigma": 0.1}),
        ("onestep-ddpm", {"sigma": 0.25, "clip_x0": False}),
        ("ddpm", {"t": 8}),
        ("reverse", {"t": 5}),
        ("ddim", {"t": 6, "eta": 0.5}),
        ("vpsde", {"t": 4}),
    ],
)
def test_purifiers_of_gaussian_data_have_their_closed_form(
    name: str, options: dict[str, float]
) -> None:
    variances = torch.linspace(0.02, 0.5, 16, dtype=torch.float64).reshape(SHAPE)
    network = GaussianDenoiser(torch.full(SHAPE, 0.2), variances)
    purifier = load_purifier(name, denoiser=network, tile=0, **options)
    slope, variance = _gains(purifier.chain)
    found = signal_to_noise(purifier, _images(60), perturbations=4, configurations=5, eps=0.2)
    # [0, 1] units: the slope stays, variances of [-1, 1] are a quarter.
    _check_mean(found.of_images("input_unbiased"), float(slope.square().mean()) * 0.2**2 / 3)
    _check_mean(found.of_images("internal_unbiased"), float(variance.mean()) / 4)
    snr = [row.plain.snr for row in found.rows]
    assert all(value is not None for value in snr)


def test_one_step_of_edm_in_full() -> None:
    sigma, v = 0.1, 0.3
    network = GaussianDenoiser(torch.zeros(SHAPE), v)
    purifier = load_purifier(
        "onestep-edm", denoiser=network, tile=0, sigma=sigma, time_rule="exact"
    )
    share = v / (v + (2 * sigma) ** 2)
    found = signal_to_noise(purifier, _images(60), perturbations=4, configurations=5, eps=0.2)
    _check_mean(found.of_images("input_unbiased"), share**2 * 0.2**2 / 3)
    _check_mean(found.of_images("internal_unbiased"), share**2 * sigma**2)


def _toy(make: Callable[..., EDMDenoiser], tile: int | None = 8) -> Purifier:
    return load_purifier("ddpm", denoiser=make(), t=3, tile=tile, xi=RandomnessConfig(0))


QUICK = SnrSettings(perturbations=3, configurations=4, seed=1)


def _rows(purifier: Purifier, x: Tensor, ids: list[int], **options: object) -> list[SnrRow]:
    tables = snr_tables(purifier, x, ids, QUICK, **options)  # type: ignore[arg-type]
    return [SnrRow.of(i, table) for i, table in tables]


@pytest.mark.parametrize("scheme", ["hash", "counter"])
def test_neither_batch_size_order_nor_company_changes_a_bit(
    toy_denoiser: Callable[..., EDMDenoiser], pictures: Callable[..., Tensor], scheme: str
) -> None:
    purifier, x = _toy(toy_denoiser), pictures(4, 1, 8, 8)
    xi = RandomnessConfig(0, scheme)  # type: ignore[arg-type]
    whole = _rows(purifier, x, [3, 1, 4, 15], xi=xi)
    for batch_size in (1, 20, 1000):
        assert _rows(purifier, x, [3, 1, 4, 15], xi=xi, batch_size=batch_size) == whole
    turned = _rows(purifier, x.flip(0), [15, 4, 1, 3], xi=xi)
    assert turned == whole[::-1]
    assert _rows(purifier, x[2:3], [4], xi=xi) == whole[2:3]
    assert _rows(purifier, x, [3, 1, 4, 15], xi=xi, skip={3, 4}) == [whole[1], whole[3]]


@pytest.mark.parametrize("name", ["ddpm", "densepure", "cm", "vpsde", "none"])
def test_a_row_with_its_own_configuration_is_the_row_alone(
    name: str, toy_denoiser: Callable[..., EDMDenoiser], pictures: Callable[..., Tensor]
) -> None:
    steps = {"t": 3} if name in ("ddpm", "vpsde") else {}
    purifier = load_purifier(name, denoiser=toy_denoiser(), tile=4, **steps)
    x, ids, seeds = pictures(7, 1, 8, 8), [2, 2, 5, 5, 2, 9, 9], [0, 1, 1, 1, 0, 3, 3]
    configurations = [RandomnessConfig(seed) for seed in seeds]
    for owner in (purifier, Defense(purifier, torch.nn.Identity(), xi=configurations[0], tile=4)):
        found = purify_rows(owner)(x, ids, configurations)
        for row, image, i, xi in zip(found, x, ids, configurations, strict=True):
            alone = purifier.at(ids=[i], xi=xi)(image[None])[0]
            assert torch.equal(row, alone)


def test_composed_chains_keep_their_streams_apart(
    toy_denoiser: Callable[..., EDMDenoiser], pictures: Callable[..., Tensor]
) -> None:
    one = _toy(toy_denoiser)
    both = Purifier("twice", one.chain + one.chain, one.denoiser, tile=8)
    xis = [RandomnessConfig(0), RandomnessConfig(1).fold("x")]
    found = purify_rows(both)(pictures(2, 1, 8, 8), [0, 0], xis)
    for k, xi in enumerate(xis):
        alone = both.at(ids=[0], xi=xi)(pictures(2, 1, 8, 8)[k : k + 1])
        assert torch.equal(found[k : k + 1], alone)


def test_what_was_purified_is_not_purified_again(
    tmp_path: Path, toy_denoiser: Callable[..., EDMDenoiser], pictures: Callable[..., Tensor]
) -> None:
    x, ids, seen = pictures(4, 1, 8, 8), [0, 1, 2, 3], []
    purifier = _toy(toy_denoiser, tile=4)
    assert purifier.denoiser is not None
    purifier.denoiser.network.register_forward_hook(lambda m, i, out: seen.append(len(out)))
    purifier.check_steady(x)  # asks once
    seen.clear()
    whole = _rows(purifier, x, ids)
    cost = sum(seen)
    assert cost == 4 * QUICK.cells * purifier.chain.evaluations  # 48 cells fill their tiles
    seen.clear()

    class _Stop(Exception):
        """Stand for a kill in the middle of the second image."""

    def stop(done: int) -> None:
        if done >= 16:
            raise _Stop

    tables = snr_tables(purifier, x, ids, QUICK, scratch=tmp_path, batch_size=4, progress=stop)
    kept = [SnrRow.of(*next(tables))]
    with pytest.raises(_Stop):
        next(tables)
    assert [row.id for row in kept] == [0]
    assert (tmp_path / "1.rows").is_file()
    reported: list[int] = []
    rest = _rows(purifier, x, ids, scratch=tmp_path, skip={0}, progress=reported.append)
    assert kept + rest == whole
    assert sum(seen) == cost
    assert (reported[0] > 16, reported[-1]) == (True, 48)
    assert list(tmp_path.iterdir()) == []


def test_a_table_that_was_not_recorded_is_measured_again_from_its_file(
    tmp_path: Path, toy_denoiser: Callable[..., EDMDenoiser], pictures: Callable[..., Tensor]
) -> None:
    purifier, x = _toy(toy_denoiser, tile=4), pictures(2, 1, 8, 8)
    tables = snr_tables(purifier, x, [0, 1], QUICK, scratch=tmp_path)
    first = SnrRow.of(*next(tables))
    del tables  # killed between the table and its record
    seen: list[int] = []
    assert purifier.denoiser is not None
    purifier.denoiser.network.register_forward_hook(lambda m, i, out: seen.append(len(out)))
    assert _rows(purifier, x, [0, 1], scratch=tmp_path)[0] == first
    assert sum(seen) == 0  # both images were in the first batch


def test_rows_survive_a_torn_end_and_nothing_else(tmp_path: Path) -> None:
    path, data = tmp_path / "deep" / "0.rows", np.arange(15.0).reshape(5, 3)
    with RowFile(path, 3, np.float64) as rows:
        rows.append(data[:2])
        rows.append(data[2:])
        assert np.array_equal(rows.read(1, 4), data[1:4])
        with pytest.raises(IndexError):
            rows.read(0, 6)
    size = path.stat().st_size
    for cut, whole in ((size - 1, 4), (size // 5 * 2 + 3, 2), (0, 0)):
        with path.open("r+b") as handle:
            handle.truncate(cut)
            handle.seek(size - 1)
            handle.write(b"\0")  # a hole, as a file system may leave one
        with RowFile(path, 3, np.float64) as rows:
            assert rows.count == whole
            assert np.array_equal(rows.read(0, whole), data[:whole])
            rows.append(data[whole:])
            assert np.array_equal(rows.read(0, 5), data)
    with path.open("r+b") as handle:
        handle.seek(size // 5 + 2)
        handle.write(b"\xff")
    assert RowFile(path, 3, np.float64).count == 1


def test_two_sessions_do_not_share_a_file(tmp_path: Path) -> None:
    path = tmp_path / "0.rows"
    first, second = RowFile(path, 1, np.float32), RowFile(path, 1, np.float32)
    first.append([[1.0]])
    second.append([[2.0], [3.0]])
    assert (first.count, second.count) == (1, 2)
    assert second.read(0, 1).item() == 2.0
    second.close(remove=True)
    assert path.is_file()
    first.close(remove=True)
    assert not path.exists()


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="cannot be written"):
        RowFile(tmp_path / "file" / "0.rows", 1, np.float32)


class _Full:
    """A file on a full disk: the first bytes go in, then there is no room."""

    def __init__(self, handle: IO[bytes]) -> None:
        self.handle = handle

    def __getattr__(self, name: str) -> object:
        return getattr(self.handle, name)

    def write(self, data: bytes) -> int:
        """Write half and refuse the rest."""
        self.handle.write(data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "no space")


def test_a_full_disk_keeps_whole_rows(tmp_path: Path) -> None:
    path, data = tmp_path / "0.rows", np.arange(12.0).reshape(4, 3)
    rows = RowFile(path, 3, np.float32)
    rows.append(data[:2])
    rows._handle = _Full(rows._handle)  # type: ignore[assignment]
    with pytest.raises(StorageFull, match="everything before is kept"):
        rows.append(data[2:])
    assert rows.count == 2
    rows.close()
    with RowFile(path, 3, np.float32) as again:
        assert again.count == 3  # a row that was written whole counts
        assert again.read(0, 3).tolist() == data[:3].tolist()


def test_perturbations_are_those_of_the_compression_rate(tmp_path: Path) -> None:
    x = _images(1, torch.float32)
    settings = SnrSettings(perturbations=70, configurations=2, seed=3, clip=True, eps=0.5)
    seen: list[Tensor] = []

    class _Watch(_Linear):
        def at(self, *, ids: list[int], xi: RandomnessConfig) -> "_Linear":
            return _Watch(self.a, self.b)

        def __call__(self, y: Tensor) -> Tensor:
            seen.append(y)
            return y

    list(snr_tables(_Watch(1.0, 0.0), x, [6], settings, batch_size=11))
    eta = directions("uniform", 3, [6] * 70, range(70), SHAPE)
    wanted = (x + 0.5 * eta).clamp(0, 1)
    assert torch.equal(torch.cat(seen[2:]), torch.cat([wanted, wanted]))  # after two questions


def test_a_purifier_without_randomness_has_no_ratio() -> None:
    found = signal_to_noise(
        load_purifier("none"), _images(3, torch.float32), perturbations=4, configurations=3
    )
    assert {row.plain.internal for row in found.rows} == {0.0}
    for name in ("snr_mean_of_ratios", "correlation_vary_input", "correlation_vary_randomness"):
        assert found.mean(name) is None
    assert found.ratio("snr_ratio_of_means") is None
    ratio = found.ratio("internal_to_input")
    assert ratio is not None
    assert ratio.value == 0.0
    values = found.to_json()
    assert values["snr_mean_of_ratios"] is None
    assert values["input"] == pytest.approx((8 / 255) ** 2 / 3, rel=0.5)


def test_the_result_has_every_quantity_with_its_interval() -> None:
    found = signal_to_noise(_Linear(0.5, 0.1), _images(6), perturbations=4, configurations=4)
    values = found.to_json()
    for name in (*MEANS, *RATIOS):
        low, high = values[f"{name}_interval"]
        assert low <= values[name] <= high
        assert values[f"{name}_n"] == values["n"] == 6
    plain = [row.plain for row in found.rows]
    assert values["snr_mean_of_ratios"] == pytest.approx(np.mean([p.snr for p in plain]))  # type: ignore[arg-type]
    assert values["snr_ratio_of_means"] == pytest.approx(
        np.mean([p.input for p in plain]) / np.mean([p.internal for p in plain])
    )
    assert values["total_summed"] == pytest.approx(16 * values["total"])
    assert values["input_std"] == pytest.approx(np.std([p.input for p in plain], ddof=1))
    one = SnrResult(found.rows[:1]).to_json()
    assert one["input_interval"] is one["input_std"] is one["internal_to_input_interval"] is None
    with pytest.raises(BadInput, match="quantity 'inputs' is not known"):
        found.mean("inputs")
    for rows, words in (((), "no rows"), (found.rows[:1] * 2, "an image twice")):
        with pytest.raises(BadInput, match=words):
            SnrResult(rows)


def test_the_interval_of_a_ratio_is_that_of_scipy() -> None:
    generator = np.random.default_rng(3)
    bottom = generator.gamma(4.0, size=40)
    top = bottom * generator.uniform(0.5, 1.5, size=40)
    found = ratio_of_means(top, bottom)
    oracle = stats.bootstrap(
        (top, bottom), lambda a, b, axis: a.mean(axis=axis) / b.mean(axis=axis), paired=True,
        n_resamples=9999, method="BCa", rng=np.random.default_rng(4),
    )  # fmt: skip
    assert found is not None
    assert found.interval is not None
    # Two bootstraps of 9999 resamples: a 2.5 % quantile is good to about 2 % of the standard error.
    spread = oracle.standard_error
    assert found.interval.low == pytest.approx(oracle.confidence_interval.low, abs=0.12 * spread)
    assert found.interval.high == pytest.approx(oracle.confidence_interval.high, abs=0.12 * spread)
    assert ratio_of_means(top, bottom) == found


def test_the_interval_of_a_ratio_over_many_images_is_that_of_the_delta_method() -> None:
    generator = np.random.default_rng(5)
    bottom = generator.gamma(4.0, size=2000)
    top = bottom * generator.uniform(0.5, 1.5, size=2000)
    estimate = ratio_of_means(top, bottom, level=0.9)
    assert estimate is not None
    assert estimate.interval is not None
    residuals = top - estimate.value * bottom
    error = residuals.std(ddof=1) / math.sqrt(2000) / bottom.mean()
    # A 5 % quantile of 9999 resamples is good to 2 % of the error; skewness moves it by 1 / n.
    for end, sign in zip(estimate.interval, (-1.0, 1.0), strict=True):
        expected = estimate.value + sign * float(stats.norm.ppf(0.95)) * error
        assert end == pytest.approx(expected, abs=0.12 * error)


def test_ratios_that_do_not_exist_are_absent() -> None:
    assert ratio_of_means([1.0, 2.0], [0.0, 0.0]) is None
    assert ratio_of_means([1.0, 2.0], [1.0, -1.0]) is None
    single = ratio_of_means([1.0], [2.0])
    assert single is not None
    assert (single.value, single.interval) == (0.5, None)
    near = ratio_of_means([1.0, 2.0, 3.0], [5.0, -1.0, 1.0])  # some resamples have none
    assert near is not None
    assert near.interval is None
    for top, bottom, words in (
        ([1.0], [1.0, 2.0], "are not pairs"), ([], [], "are not pairs"),
        ([math.nan], [1.0], "is not finite"),
    ):  # fmt: skip
        with pytest.raises(BadInput, match=words):
            ratio_of_means(top, bottom)
    for level in (95, 1.0 - 1e-10):  # so far out 9999 resamples have no quantile
        with pytest.raises(BadInput, match="outside"):
            ratio_of_means([1.0], [1.0], level=level)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"eps": 0}, "not positive"),
        ({"eps": "8"}, "ambiguous"),
        ({"eps": 1e-4}, "is below 0.00035"),
        ({"distribution": "cauchy"}, "is not known"),
        ({"perturbations": 1}, "is not a whole number of 2 or more"),
        ({"configurations": 1}, "is not a whole number of 2 or more"),
        ({"configurations": 2.5}, "is not a whole number of 2 or more"),
        ({"perturbations": True}, "is not a whole number of 2 or more"),
        ({"seed": -1}, "seed -1 is not a whole number from 0"),
        ({"seed": 2**32 - 3}, "does not fit"),
        ({"ids": [0, 0]}, "appears twice"),
        ({"ids": [0]}, "do not match"),
        ({"batch_size": 0}, "holds no image"),
        ({"xi": RandomnessConfig(0, scope="fresh")}, "different noise"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(options: dict[str, object], words: str) -> None:
    few = {"perturbations": 2, "configurations": 4} | options
    with pytest.raises(BadInput, match=words):
        signal_to_noise(_Linear(1.0, 0.1), _images(2, torch.float32), **few)  # type: ignore[arg-type]


def test_maps_that_are_no_purifiers_are_refused() -> None:
    class _Wrong(_Linear):
        def at(self, *, ids: list[int], xi: RandomnessConfig) -> "_Linear":
            return self

        def __call__(self, y: Tensor) -> Tensor:
            return y / 0.0 * 0.0

    few = {"perturbations": 2, "configurations": 2}
    with pytest.raises(BadInput, match="is not finite"):
        signal_to_noise(_Wrong(1, 1), _images(2), **few)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="takes no randomness"):
        signal_to_noise(lambda y: y, _images(2), **few)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="leave"):
        signal_to_noise(_Linear(1, 1), _images(2) + 1.0, **few)  # type: ignore[arg-type]
