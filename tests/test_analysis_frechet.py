"""Frechet distance: closed forms, two formulas, pytorch-fid as oracle, and the error's truth."""

import numpy as np
import numpy.typing as npt
import pytest
from scipy import linalg

from advpure.analysis.metrics.frechet import (
    frechet_distance,
    frechet_estimate,
    frechet_influence,
    standard_error,
    weighted_distance,
)
from advpure.analysis.metrics.moments import Moments
from advpure.analysis.metrics.resampling import bootstrap_distances, centred_interval
from advpure.base.errors import BadInput

Array = npt.NDArray[np.float64]
ALPHA = 1e-5
Z = 4.42  # two-sided normal quantile of ALPHA


def draw(n: int, d: int, seed: int = 0, decay: float = 0.5) -> Array:
    """Features of unlike spread, as those of networks are."""
    spread = np.arange(1, d + 1) ** -decay
    return np.random.default_rng(seed).normal(size=(n, d)) * spread


def mixing(d: int, seed: int = 9) -> Array:
    return np.eye(d) + 0.3 * np.random.default_rng(seed).normal(size=(d, d)) / d**0.5


@pytest.mark.parametrize(("n", "d"), [(200, 5), (20, 64), (2, 3), (64, 64), (65, 64)])
def test_equal_sets_have_no_distance(n: int, d: int) -> None:
    a = 3.0 + draw(n, d)
    assert frechet_distance(a, a) == pytest.approx(0.0, abs=1e-11)
    assert frechet_distance(a, a[::-1]) == pytest.approx(0.0, abs=1e-11)  # order is no matter
    assert frechet_distance(Moments.of(a), Moments.of(a)) == pytest.approx(0.0, abs=1e-11)


@pytest.mark.parametrize(("n", "d"), [(200, 5), (20, 64)])
def test_a_shift_costs_its_square(n: int, d: int) -> None:
    a, shift = draw(n, d), np.linspace(-1.0, 2.0, d)
    assert frechet_distance(a, a + shift) == pytest.approx(shift @ shift, rel=1e-11)


def test_a_scale_costs_the_square_of_the_difference_of_deviations() -> None:
    a = draw(300, 4)
    scaled = a * 3.0 - 2.0 * a.mean(axis=0)  # same mean, three times the deviation
    assert frechet_distance(a, scaled) == pytest.approx(4.0 * np.trace(np.cov(a.T)), rel=1e-11)


def test_commuting_covariances_have_the_hellinger_form() -> None:
    rng = np.random.default_rng(3)
    q = linalg.qr(rng.normal(size=(50, 6)), mode="economic")[0]  # orthonormal columns
    q = q - q.mean(axis=0)
    q = linalg.qr(q, mode="economic")[0]
    left, right = rng.uniform(0.5, 2.0, 6), rng.uniform(0.5, 2.0, 6)
    expected = np.square(left - right).sum() / 49
    assert frechet_distance(q * left, q * right) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("n", [30, 400])
def test_it_equals_the_square_root_of_the_product_of_covariances(n: int) -> None:
    a, b = draw(n, 12), draw(n + 7, 12, seed=1) @ mixing(12) + 0.1
    one, two = np.cov(a.T), np.cov(b.T)
    trace = np.trace(linalg.sqrtm(one @ two)).real
    shift = a.mean(axis=0) - b.mean(axis=0)
    expected = shift @ shift + np.trace(one) + np.trace(two) - 2.0 * trace
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(Moments.of(a), b) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("n", [10, 40, 200])
def test_samples_and_moments_agree_also_with_fewer_images_than_dimensions(n: int) -> None:
    a, b = draw(n, 40), draw(n, 40, seed=1) @ mixing(40) + 0.2
    assert frechet_distance(Moments.of(a), Moments.of(b)) == pytest.approx(
        frechet_distance(a, b), rel=1e-7
    )


@pytest.mark.slow  # its import takes seconds
def test_pytorch_fid_gives_the_same() -> None:
    library = pytest.importorskip("pytorch_fid.fid_score")
    a, b = draw(300, 16), draw(300, 16, seed=1) @ mixing(16) + 0.3
    expected = library.calculate_frechet_distance(
        a.mean(axis=0), np.cov(a.T), b.mean(axis=0), np.cov(b.T)
    )
    assert frechet_distance(a, b) == pytest.approx(float(expected), rel=1e-8)


def test_it_is_symmetric_and_blind_to_rotations_and_common_shifts() -> None:
    a, b = draw(60, 8), draw(60, 8, seed=1) @ mixing(8)
    turn = linalg.qr(np.random.default_rng(5).normal(size=(8, 8)))[0]
    expected = frechet_distance(a, b)
    assert frechet_distance(b, a) == pytest.approx(expected, rel=1e-10)
    assert frechet_distance(a @ turn + 7.0, b @ turn + 7.0) == pytest.approx(expected, rel=1e-9)


def test_streaming_gives_the_moments_of_the_whole_whatever_the_batches() -> None:
    rows = 1e4 + draw(500, 7)  # a large mean, where sums of squares would lose digits
    for sizes in ([500], [1] * 20 + [480], [7, 193, 300]):
        seen = Moments(7)
        start = 0
        for size in sizes:
            seen.update(rows[start : start + size])
            start += size
        assert seen.count == 500
        assert np.allclose(seen.mean, rows.mean(axis=0), rtol=1e-14)
        assert np.allclose(seen.covariance, np.cov(rows.T), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("n", "d"), [(40, 6), (12, 30)])
def test_the_influence_is_the_derivative_by_the_weights(n: int, d: int) -> None:
    a = draw(n, d)
    b = a @ mixing(d) + 0.3 + 0.2 * draw(n, d, seed=2)
    found = frechet_influence(a, b)
    assert found.value == pytest.approx(frechet_distance(a, b), rel=1e-12)
    assert found.of_a.sum() == pytest.approx(0.0, abs=1e-9)
    # Many copies of every image, so that the covariance's n - 1 is n: the part of the influence
    # that goes through the covariance is (n - 1) / n of that of n images.
    shift = a.mean(axis=0) - b.mean(axis=0)
    of_means = 2.0 * (a - b - shift) @ shift
    expected = of_means + (found.of_a + found.of_b - of_means) * (n - 1) / n
    copies, h = 1e6, 1.0
    for k in (0, n // 2, n - 1):
        direction = (np.arange(n) == k) - 1.0 / n  # the sum of the weights stays
        up, down = (weighted_distance(a, b, copies + sign * h * direction) for sign in (1, -1))
        slope = (up - down) / (2.0 * h) * n * copies
        assert slope == pytest.approx(expected[k], rel=1e-4)


def test_the_standard_error_is_that_of_new_images() -> None:
    def pair(seed: int, n: int = 150, d: int = 10) -> tuple[Array, Array]:
        a = draw(n, d, seed=seed)
        return a, 0.9 * a + 0.3 * draw(n, d, seed=10_000 + seed) + 0.2

    runs = 400
    found = [frechet_estimate(*pair(seed)) for seed in range(runs)]
    values = np.array([each.value for each in found])
    errors = np.array([each.error for each in found], dtype=np.float64)
    true = values.std(ddof=1)
    # The deviation of `runs` values is itself known to about 1 / sqrt(2 runs); the jackknife may
    # overstate it (its bias is upwards, of order d / n), so the upper bound allows 15 % more.
    noise = Z / np.sqrt(2 * runs)
    assert (1 - noise) * true < errors.mean() < (1.15 + noise) * true
    centre = values.mean()  # what other images give at this n
    covered = sum(each.interval.low < centre < each.interval.high for each in found)  # type: ignore[union-attr]
    assert covered / runs > 0.95 - Z * np.sqrt(0.95 * 0.05 / runs)


def test_unpaired_sets_add_their_variances() -> None:
    a, b = draw(80, 3), draw(50, 3, seed=1) + 1.0
    found, influence = frechet_estimate(a, b, paired=False), frechet_influence(a, b)
    parts = [standard_error(each) for each in (influence.of_a, influence.of_b)]
    assert found.error == pytest.approx(np.hypot(*parts))
    assert found.n == 50
    shifted = np.random.default_rng(0).normal(size=(4000, 1))
    # Pure shift by m of unit-variance sets: the mean's variance is 2 / n, and the square's 4 m^2 of
    # it; the deviations add a term of order 1 / n.
    other = np.random.default_rng(1).normal(size=(4000, 1)) + 3.0
    error = frechet_estimate(shifted, other, paired=False).error
    assert error == pytest.approx(2 * 3.0 * np.sqrt(2 / 4000), rel=0.1)


def test_the_bootstrap_is_paired_and_its_interval_centred() -> None:
    a = draw(120, 4)
    b, c = a + 0.5, a + np.array([0.5, 0.0, 0.0, 0.1])
    drawn = bootstrap_distances([(a, b), (a, c), (a, a)], 60, seed=3)
    assert drawn.shape == (60, 3)
    # Pure shifts of the same images keep their distance in every paired resample.
    assert np.allclose(drawn[:, 0], 1.0, rtol=1e-9)
    assert np.allclose(drawn[:, 2], 0.0, atol=1e-9)
    again = bootstrap_distances([(a, b), (a, c), (a, a)], 60, seed=3)
    assert np.array_equal(drawn, again)
    noisy = a + 0.3 * draw(120, 4, seed=8)
    resampled = bootstrap_distances([(a, noisy)], 200)[:, 0]
    value, spread = frechet_distance(a, noisy), resampled.std(ddof=1)
    low, high = centred_interval(value, resampled)
    assert low < value < high
    assert high - low == pytest.approx(2 * 1.96 * spread, rel=0.25)
    error = frechet_estimate(a, noisy).error
    assert error is not None
    assert 0.8 * error < spread < 1.8 * error  # wider: see the module


def test_too_few_images_have_no_interval() -> None:
    found = frechet_estimate([[0.0], [1.0]], [[1.0], [2.0]])
    assert found.value == pytest.approx(1.0)
    assert found.error is None
    assert found.interval is None


@pytest.mark.parametrize(
    ("a", "b", "words"),
    [
        ([[1.0]], [[1.0], [2.0]], "are not \\[n, d\\] of at least 2 images"),
        ([1.0, 2.0], [[1.0], [2.0]], "are not \\[n, d\\]"),
        ([[1.0], [np.nan]], [[1.0], [2.0]], "features of 1 of 2 images are not finite"),
        ([[1.0], [2.0]], [[1.0, 1.0], [2.0, 2.0]], "dimensions 1 and 2 are not the same"),
    ],
)
def test_what_is_no_set_of_features_is_refused(a: Array, b: Array, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        frechet_distance(a, b)


def test_other_refusals() -> None:
    a = draw(5, 2)
    with pytest.raises(BadInput, match="are no pairs"):
        frechet_estimate(a, a[:4])
    with pytest.raises(BadInput, match="1 resamples have no spread"):
        bootstrap_distances([(a, a)], 1)
    with pytest.raises(BadInput, match="moments of 1 images are not defined"):
        _ = Moments.of(a[:1]).covariance
    with pytest.raises(BadInput, match="dimensions 2 and 3"):
        frechet_distance(Moments.of(a), Moments.of(draw(5, 3)))
    with pytest.raises(BadInput, match="0 dimensions make no feature"):
        Moments(0)
