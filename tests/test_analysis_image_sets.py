"""Precision and recall, the inception score: closed forms, another writing, refusals."""

import numpy as np
import numpy.typing as npt
import pytest
from scipy.spatial.distance import cdist

from advpure.analysis.metrics.inception_score import inception_score
from advpure.analysis.metrics.precision_recall import precision_recall
from advpure.base.errors import BadInput

Array = npt.NDArray[np.float64]


def draw(n: int, d: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=(n, d))


def test_equal_sets_have_all_and_far_sets_nothing() -> None:
    a = draw(40, 6)
    same, apart = precision_recall(a, a[::-1]), precision_recall(a, a + 100.0)
    assert (same.precision.value, same.recall.value) == (1.0, 1.0)
    assert (apart.precision.value, apart.recall.value) == (0.0, 0.0)
    assert same.precision.n == 40


def test_a_set_within_part_of_the_other_is_precise_and_recalls_that_part() -> None:
    real = np.concatenate([draw(50, 2), draw(150, 2, seed=1) + 1000.0])
    generated = draw(60, 2, seed=2) * 0.05  # the middle of the first cluster
    found = precision_recall(real, generated)
    assert found.precision.value == 1.0
    assert 0.0 < found.recall.value < 0.25  # at most the first cluster
    turned = precision_recall(generated, real)
    assert turned.recall.value == found.precision.value
    assert turned.precision.value == found.recall.value


@pytest.mark.parametrize("k", [1, 3, 7])
def test_the_definition_written_out_gives_the_same(k: int) -> None:
    real, generated = draw(60, 3), draw(45, 3, seed=1) + 1.5

    def covered(points: Array, centres: Array) -> float:
        within = np.sort(cdist(centres, centres), axis=1)[:, k]  # place 0 is the point itself
        return float((cdist(points, centres) <= within).any(axis=1).mean())

    found = precision_recall(real, generated, k)
    assert 0.2 < found.precision.value < 1.0
    assert found.precision.value == covered(generated, real)
    assert found.recall.value == covered(real, generated)


def test_blocks_are_no_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    real, generated = draw(70, 4), draw(30, 4, seed=1)
    whole = precision_recall(real, generated)
    monkeypatch.setattr("advpure.analysis.metrics.precision_recall._BLOCK", 500)
    assert precision_recall(real, generated) == whole


def test_a_large_common_offset_changes_nothing() -> None:
    real, generated = draw(50, 4), draw(50, 4, seed=1)
    assert precision_recall(real + 1e6, generated + 1e6) == precision_recall(real, generated)


def test_sets_without_a_kth_neighbour_are_refused() -> None:
    with pytest.raises(BadInput, match="have no 3-th nearest neighbour"):
        precision_recall(draw(3, 2), draw(9, 2))
    with pytest.raises(BadInput, match="nearest neighbour"):
        precision_recall(draw(9, 2), draw(9, 2), k=0)
    with pytest.raises(BadInput, match="dimensions 2 and 3"):
        precision_recall(draw(9, 2), draw(9, 3))


def test_sure_and_balanced_images_score_the_number_of_classes() -> None:
    sure = np.eye(5)[np.arange(50) % 5]
    assert inception_score(sure).value == pytest.approx(5.0)
    assert inception_score(np.full((50, 5), 0.2)).value == pytest.approx(1.0)
    assert inception_score(np.eye(5)[np.zeros(50, dtype=int)]).value == pytest.approx(1.0)


def test_it_is_the_exponential_of_the_mutual_information() -> None:
    rows = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8], [0.3, 0.4, 0.3]])
    mean = rows.mean(axis=0)
    entropy = -(mean * np.log(mean)).sum()
    noise = -(rows * np.log(rows)).sum(axis=1).mean()
    assert inception_score(rows).value == pytest.approx(np.exp(entropy - noise))


def test_splits_are_scored_on_their_own() -> None:
    rows = np.random.default_rng(0).dirichlet(np.full(4, 0.3), size=90)
    found = inception_score(rows, splits=3)
    scores = [inception_score(part).value for part in np.split(rows, 3)]
    assert found.value == pytest.approx(np.mean(scores))
    assert found.std == pytest.approx(np.std(scores))
    assert inception_score(rows).std is None


def test_the_interval_covers_what_other_images_give() -> None:
    def score(seed: int) -> tuple[float, float, float]:
        rows = np.random.default_rng(seed).dirichlet(np.full(6, 0.4), size=400)
        found = inception_score(rows)
        assert found.interval is not None
        return found.value, *found.interval

    found = np.array([score(seed) for seed in range(300)])
    covered = ((found[:, 1] < found[:, 0].mean()) & (found[:, 2] > found[:, 0].mean())).mean()
    deviation = np.sqrt(0.95 * 0.05 / 300)
    assert abs(covered - 0.95) < 4.42 * deviation  # two-sided, alpha 1e-5


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([0.5, 0.5], "are not \\[n, classes\\]"),
        ([[1.0]], "are not \\[n, classes\\]"),
        ([[1.5, -0.5]], "is negative or not finite"),
        ([[np.nan, 1.0]], "is negative or not finite"),
        ([[0.5, 0.6]], "does not sum to 1"),
    ],
)
def test_what_is_no_probability_is_refused(rows: list[list[float]], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        inception_score(rows)


def test_more_splits_than_images_are_refused() -> None:
    with pytest.raises(BadInput, match="3 splits do not fit 2 images"):
        inception_score([[0.5, 0.5], [0.5, 0.5]], splits=3)
