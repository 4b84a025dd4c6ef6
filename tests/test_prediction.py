"""Predicted robustness: exact for linear maps, recovered from simulated laws, honest intervals."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from advpure.analysis import compression_rows
from advpure.analysis.compression.rates import CompressionSettings
from advpure.analysis.compression.result import CompressionResult
from advpure.analysis.prediction.predict import (
    KINDS,
    PredictionInput,
    common,
    mean_error,
    predict_robustness,
    resamples,
    stands,
)
from advpure.analysis.prediction.report import make_report
from advpure.analysis.prediction.sigmoid import (
    Sigmoid,
    _fit,
    fit_points,
    fit_sigmoid,
    leave_one_out,
)
from advpure.analysis.robustness.attack_choice import attack_settings
from advpure.analysis.survival.minimum_radius import RadiusSettings, minimum_radii
from advpure.attacks import pgd
from advpure.base.errors import BadInput
from advpure.statistics.rates import paired_difference

TINY = 1e-5  # probability that a statistical test fails by chance


class Linear(nn.Module):
    """Logits (w x - b, 0)."""

    def __init__(self) -> None:
        """Draw the weights."""
        super().__init__()
        generator = torch.Generator().manual_seed(2)
        self.weight = nn.Parameter(torch.randn(64, generator=generator), requires_grad=False)

    def score(self, images: Tensor) -> Tensor:
        """Return w x - b, where b is the score of grey."""
        return (images.flatten(1) - 0.5) @ self.weight

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        score = self.score(images)
        return torch.stack([score, torch.zeros_like(score)], 1)


class Shrink(nn.Module):
    """Shrink towards grey by a factor: compression rate 0.6 for every image and direction."""

    def forward(self, images: Tensor) -> Tensor:
        """Return 0.5 + 0.6 (x - 0.5)."""
        return 0.5 + 0.6 * (images - 0.5)


def setting(**known: Any) -> PredictionInput:
    n = len(known["clean"])
    return PredictionInput(**{"purifier": "x", "ids": np.arange(n), "cr": np.full(n, 0.5), **known})


def test_a_linear_purifier_and_classifier_are_predicted_image_by_image() -> None:
    generator = torch.Generator().manual_seed(7)
    images = 0.35 + 0.3 * torch.rand(24, 1, 8, 8, generator=generator)
    model, purifier, eps, top = Linear(), Shrink(), 0.012, 0.1
    labels = (model.score(images) <= 0).long()
    labels[:3] = 1 - labels[:3]  # errors of the classifier, which no purifier mends
    ids = torch.arange(24)
    how = CompressionSettings(eps=[eps], perturbations=2)
    rows = [row for batch in compression_rows(purifier, images, ids, how) for row in batch]
    means = CompressionResult(tuple(rows)).image_means(eps)
    rates = np.array([means[i] for i in range(24)])
    assert rates == pytest.approx(np.full(24, 0.6), abs=1e-4)
    chosen = attack_settings(
        "pgd", {"steps": 8, "step_size": top / 2}, eps=top, norm="linf", randomness="fixed"
    )
    search = RadiusSettings(attack="pgd", settings=chosen, bisections=14, search="plain")
    found = {}
    for place, points in (("clean", images), ("anchor", purifier(images))):
        there = minimum_radii(model, points, labels, search, ids=ids)
        found[place] = np.array([np.inf if r.upper is None else r.upper for r in there])
        exact = (model.score(points).abs() / model.weight.abs().sum()).double().numpy()
        exact[:3] = 0.0
        assert found[place] == pytest.approx(exact, abs=2 * top / 2**14)
    defense = nn.Sequential(purifier, model)
    attacked = pgd(defense, images, labels, eps=eps, steps=8, step_size=eps / 2)
    robust = ~attacked.success.numpy()
    known = setting(cr=rates, **found, robust=robust, top=(top, top))
    assert 0.2 < robust.mean() < 0.8
    # g(f(x + e)) = g(f(x) + 0.6 e): at anchor points the law is exact for every image.
    for kind in ("anchor", "anchor_images"):
        assert stands(known, kind, eps).tolist() == robust.tolist()
    outcome = predict_robustness(known, eps)
    assert outcome.predicted["anchor"].error is not None
    assert outcome.predicted["anchor"].error.value == 0.0
    assert outcome.cr.value == pytest.approx(0.6, abs=1e-4)
    # The clean images lie farther from the boundary by 1 / 0.6: survival at 0.6 eps, exactly.
    margins = (model.score(images).abs() / model.weight.abs().sum()).numpy()[3:]
    assert outcome.predicted["clean"].accuracy.value == (margins > 0.6 * eps).sum() / 24
    assert outcome.predicted["clean"].accuracy.value > robust.mean()


def test_scalar_and_own_rates_differ_as_they_should() -> None:
    known = setting(
        clean=np.array([0.05, 0.15, 0.25, np.inf]), cr=np.array([0.1, 1.9, 0.2, 1.0]),
        top=(1.0, np.inf),
    )  # fmt: skip
    assert stands(known, "clean", 0.1).tolist() == [False, True, True, True]  # at 0.08
    assert stands(known, "clean_images", 0.1).tolist() == [True, False, True, True]
    places = np.array([[0, 0, 0, 0], [1, 1, 1, 1]])
    assert stands(known, "clean", 0.1, places).tolist() == [[True] * 4, [False] * 4]
    outcome = predict_robustness(known, 0.1)
    assert tuple(outcome.predicted) == KINDS[:2]
    assert outcome.best == "clean"
    assert outcome.measured is outcome.accuracy is outcome.predicted["clean"].error is None
    assert mean_error([known], "clean", 0.1) is None


def test_errors_are_averaged_over_settings() -> None:
    radii = np.array([0.0, 0.1, 0.2, 0.3])
    half, none = np.array([False, False, True, True]), np.zeros(4, dtype=bool)
    known = [setting(clean=radii, robust=each) for each in (half, none)]
    found = mean_error(known, "clean", 0.3)  # both predicted 0.5
    assert found is not None
    assert found.value == 0.25
    assert found.low <= 0.25 <= found.high
    exact = mean_error([setting(clean=np.full(9, 0.3), robust=np.ones(9, bool))], "clean", 0.1)
    assert exact is not None
    assert (exact.value, exact.low) == (0.0, 0.0)
    assert exact.high > 0.2  # nine images cannot say more, though no resample differs


@pytest.mark.slow
def test_intervals_cover_what_they_estimate() -> None:
    draw = np.random.default_rng(11)
    runs, n, eps = 300, 60, 0.25
    true = 0.9 * (1 - stats.norm.cdf((0.4 * eps - 0.1) / 0.03))
    # Measured: falls at 1.2 CR eps, since an attacker finds a worse direction than noise.
    measured = 0.9 * (1 - stats.norm.cdf((1.2 * 0.4 * eps - 0.1) / np.hypot(0.03, 1.2 * 0.1 * eps)))
    hits, widths = np.zeros(2, dtype=int), []
    for _ in range(runs):
        radii = np.where(draw.random(n) < 0.9, draw.normal(0.1, 0.03, n).clip(1e-6), 0.0)
        cr = draw.normal(0.4, 0.1, n)
        known = setting(clean=radii, cr=cr, robust=radii > 1.2 * cr * eps)
        found = predict_robustness(known, eps).predicted["clean"]
        assert found.error is not None
        for k, (each, target) in enumerate(
            ((found.accuracy, true), (found.error, true - measured))
        ):
            hits[k] += each.low <= target <= each.high
        widths.append(found.accuracy.high - found.accuracy.low)
    assert (hits >= stats.binom.ppf(TINY / 2, runs, 0.95)).all(), hits
    # And they are no wider than they must be: r* - mean CR eps spreads by the delta method.
    slope = 0.9 * stats.norm.pdf(0.4 * eps, 0.1, 0.03)
    spread = np.sqrt(true * (1 - true) + (slope * 0.1 * eps) ** 2) / np.sqrt(n)
    assert np.mean(widths) < 1.25 * 2 * 1.96 * spread


def test_the_bootstrap_is_scipy_s() -> None:
    draw = np.random.default_rng(5)
    n, eps = 150, 0.2
    radii, cr = draw.normal(0.1, 0.04, n).clip(0), draw.normal(0.5, 0.1, n)
    robust = radii > 1.1 * cr * eps

    def gap(radii: Any, cr: Any, robust: Any, axis: int = -1) -> Any:
        return (radii > cr.mean(axis, keepdims=True) * eps).mean(axis) - robust.mean(axis)

    theirs = stats.bootstrap(
        (radii, cr, robust.astype(float)), gap, paired=True, method="percentile",
        n_resamples=4000, rng=np.random.default_rng(6),
    ).confidence_interval  # fmt: skip
    outcome = predict_robustness(setting(clean=radii, cr=cr, robust=robust), eps)
    ours = outcome.predicted["clean"].error
    assert ours is not None
    assert ours.value == pytest.approx(gap(radii, cr, robust))
    # Ours is joined with the paired interval; both have steps of 1 / 150.
    paired = paired_difference(radii > cr.mean() * eps, robust)
    assert ours.low == pytest.approx(min(theirs.low, paired.low), abs=0.015)
    assert ours.high == pytest.approx(max(theirs.high, paired.high), abs=0.015)


def test_the_same_images_are_drawn_for_every_purifier() -> None:
    places = resamples(40)
    assert places.shape == (2000, 40)
    assert (places == resamples(40)).all()
    counts = np.bincount(places.ravel(), minlength=40)
    assert stats.chisquare(counts).pvalue > TINY
    with pytest.raises(ValueError, match="read-only"):
        places[0, 0] = 1


LAW = Sigmoid(0.88, 0.3, 0.06)


def simulated(shift: float = 0.0, n: int = 1500) -> list[PredictionInput]:
    """Three purifiers at five strengths that follow the law; the last is off by a shift."""
    draw = np.random.default_rng(4)
    shared = draw.random(n)  # an image that is easy for one purifier is easy for all
    found = []
    for name, offset in (("a", 0.0), ("b", 0.02), ("c", 0.04)):
        for place, c in enumerate(np.linspace(0.12, 0.52, 5)):
            rates = (c + offset) * draw.uniform(0.9, 1.1, n)
            chance = np.clip(LAW.at(c + offset) - (shift if name == "c" else 0.0), 0, 1)
            found.append(
                setting(
                    purifier=name, t=place, cr=rates, clean=np.ones(n), robust=shared < chance
                )
            )  # fmt: skip
    return found


def test_a_simulated_law_is_recovered() -> None:
    fit = fit_sigmoid(simulated())
    assert fit is not None
    assert (fit.points, fit.n) == (15, 1500)
    # Rates of 1500 images scatter by 0.013 at most, all alike: five of those, over the slope
    # 0.88 / (4 w) = 3.7 for the midpoint.
    assert fit.best.plateau == pytest.approx(0.88, abs=0.065)
    assert fit.best.middle == pytest.approx(0.3, abs=0.02)
    assert fit.best.width == pytest.approx(0.06, abs=0.02)
    assert fit.rms < 0.03
    assert fit.astray == 0
    for name in Sigmoid._fields:
        found = fit.parameter(name)
        assert found.low < found.value < found.high
    assert fit.at(0.0).value == pytest.approx(float(LAW.at(0.0)), abs=0.065)
    exact = fit_points(*(np.array(each) for each in ([0.1, 0.2, 0.3, 0.4], [0.5] * 4)))
    assert exact is None  # accuracies that do not differ determine no midpoint
    assert fit_sigmoid(simulated()[:3]) is None
    assert fit_sigmoid([setting(clean=np.ones(3))]) is None


@pytest.mark.slow
def test_points_that_do_not_bend_determine_no_sigmoid(recwarn: pytest.WarningsRecorder) -> None:
    # A plateau with a step at its end: nothing says how wide the step is.
    known = [
        setting(
            purifier="a", t=place, cr=np.full(20, rate), clean=np.ones(20),
            robust=np.arange(20) < count,
        )
        for place, (rate, count) in enumerate(((0.2, 3), (0.3, 3), (0.4, 3), (0.5, 2)))
    ]  # fmt: skip
    fit = fit_sigmoid(known)
    assert fit is not None
    assert 0 < fit.astray <= 1 + len(fit.draws)
    assert not recwarn.list, "said in a note instead"
    report = make_report(known, 0.1, run=Path("runs"))
    assert any("not determined by these points" in note for note in report.notes)


def test_a_sigmoid_that_bends_nowhere_near_the_points_is_not_determined() -> None:
    # Accuracies that hardly fall and do not bend: the best fit is a piece of a far wider curve.
    rates, heights = np.linspace(0.2, 0.8, 5), [0.29, 0.27, 0.30, 0.26, 0.28]
    found = _fit(rates, np.array(heights), None)
    assert found is not None
    assert not found[1]
    sharp = _fit(rates, Sigmoid(0.9, 0.45, 0.08).at(rates), None)
    assert sharp is not None
    assert sharp[1]


@pytest.mark.parametrize("shift", [pytest.param(0.0, marks=pytest.mark.slow), 0.25])
def test_a_purifier_that_breaks_the_law_shows_when_left_out(shift: float) -> None:
    found = {each.purifier: each for each in leave_one_out(simulated(shift))}
    assert list(found) == ["a", "b", "c"]
    chance = [float(LAW.at(c + 0.04)) for c in np.linspace(0.12, 0.52, 5)]
    off = np.mean([min(shift, each) for each in chance])
    last = found["c"]
    assert last.settings == tuple(f"c, t = {k}" for k in range(5))
    assert last.bias.value == pytest.approx(off, abs=0.04)
    assert last.bias.low <= last.bias.value <= last.bias.high
    assert last.error.value == pytest.approx(off, abs=0.05)
    assert (last.bias.low > 0.05) == (shift > 0)
    assert leave_one_out(simulated()[:5]) == []  # nothing is left to fit


def test_runs_are_compared_on_shared_images() -> None:
    one = setting(ids=np.array([4, 1, 9]), clean=np.array([0.4, 0.1, 0.9]))
    two = setting(ids=np.array([9, 2, 4]), clean=np.array([0.8, 0.2, 0.3]))
    first, second = common([one, two])
    assert first.ids.tolist() == second.ids.tolist() == [4, 9]
    assert (first.clean.tolist(), second.clean.tolist()) == ([0.4, 0.9], [0.3, 0.8])
    with pytest.raises(BadInput, match="share no image"):
        common([one, setting(ids=np.arange(20, 22), clean=np.ones(2))])


def test_survival_beyond_the_search_is_refused() -> None:
    censored = np.array([0.1, np.inf])
    known = setting(clean=censored, cr=np.array([2.0, 0.2]), top=(0.2, np.inf))
    assert predict_robustness(known, 0.18).predicted["clean"].accuracy.value == 0.5
    with pytest.raises(BadInput, match=r"asks for survival at 0\.22, .*--top 0\.22"):
        predict_robustness(known, 0.2)
    with pytest.raises(BadInput, match=r"values .3. of cr do not match 2 images"):
        setting(clean=censored, cr=np.ones(3))
    with pytest.raises(BadInput, match="x has no image"):
        setting(clean=np.ones(0))
