"""Signal and noise of random gradients where both are known: a linear model with noisy weights."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch import Tensor

from advpure.analysis.gradient_noise.draws import DrawSettings
from advpure.analysis.gradient_noise.moments import (
    Moments,
    cosine_of_agreement,
    enough_draws,
    expected_cosine,
    sign_agreement,
)
from advpure.analysis.gradient_noise.noise import gradient_noise
from advpure.analysis.gradient_noise.result import GradientResult, Measure
from advpure.attacks.losses import LOSSES
from advpure.base.errors import BadInput
from advpure.core.randomness import Ids, RandomnessConfig
from advpure.data import load_images
from advpure.loading import load_defense
from advpure.statistics.quantiles import quantile

SHAPE = (1, 8, 8)
D = math.prod(SHAPE)
Z = float(norm.isf(0.5e-5))  # two-sided, alpha = 1e-5


def _weights(seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(SHAPE, generator=generator, dtype=torch.float64)


@dataclass
class NoisyLinear:
    """Logits (0, (w + s z_xi) x) with standard normal z_xi of each sample: the margin's gradient.

    For label 0 the gradient of the margin is w + s z: mean w, covariance s^2 I.
    """

    std: float
    weight: Tensor = field(default_factory=_weights)
    silent: tuple[int, ...] = ()
    ids: Tensor | None = None
    xi: RandomnessConfig = field(default_factory=lambda: RandomnessConfig(0))
    tile: int | None = None

    def at(self, *, ids: Ids | None = None, xi: RandomnessConfig | None = None, **_: Any) -> Any:
        """Return a view."""
        listed = self.ids if ids is None else torch.as_tensor(list(ids))
        return replace(self, ids=listed, xi=xi or self.xi)

    def __call__(self, images: Tensor) -> Tensor:
        """Return the logits; samples that are silent have constant ones."""
        assert self.ids is not None
        noise = self.xi.normal(self.ids, "forward", 0, SHAPE).double()
        loud = torch.tensor([i not in self.silent for i in self.ids.tolist()]).double()
        weight = (self.weight + self.std * noise) * loud[:, None, None, None]
        score = (weight * images).sum((1, 2, 3))
        return torch.stack([torch.zeros_like(score), score], 1)

    @property
    def snr(self) -> float:
        """The exact signal-to-noise ratio."""
        return float(self.weight.square().sum()) / (D * self.std**2)


def _measure(model: NoisyLinear, count: int, draws: int, reference: int) -> GradientResult:
    images = torch.full((count, *SHAPE), 0.5, dtype=torch.float64)
    labels = torch.zeros(count, dtype=torch.int64)
    return gradient_noise(model, images, labels, draws=draws, reference=reference, loss="margin")


def _within(values: Iterable[float], exact: float, bias: float = 0.0) -> bool:
    """Say whether a mean is within Z standard errors, and a bias, of its expectation."""
    data = np.array(list(values))
    return bool(abs(data.mean() - exact) <= Z * data.std(ddof=1) / math.sqrt(len(data)) + bias)


@pytest.fixture(scope="module")
def measured() -> tuple[NoisyLinear, GradientResult]:
    model = NoisyLinear(std=2.0)
    return model, _measure(model, 200, draws=32, reference=64)


def _oracle(model: NoisyLinear, draws: int) -> dict[str, float]:
    """Simulate what the mean of some draws gains, with numpy and the exact mean."""
    w = model.weight.flatten().numpy()
    noise = np.random.Generator(np.random.Philox(7)).standard_normal((40_000, D))
    mean = w + model.std / math.sqrt(draws) * noise
    other = w + model.std * noise[::-1]
    lengths = np.linalg.norm(mean, axis=1)
    singles = (mean * other).sum(1) / lengths / np.linalg.norm(other, axis=1)
    return {
        "cosine": float((mean @ w / lengths).mean() / np.linalg.norm(w)),
        "gain": float((np.sign(mean) @ w).mean() / np.abs(w).sum()),
        "agreement": float((np.sign(mean) == np.sign(w)).mean()),
        "single": float(singles.mean()),
    }


def test_signal_and_noise_are_unbiased(measured: tuple[NoisyLinear, GradientResult]) -> None:
    model, found = measured
    moments = [image.moments for image in found.images]
    signal, variance = float(model.weight.square().sum()), D * model.std**2
    assert {m.draws for m in moments} == {96}
    assert _within([m.signal for m in moments], signal)
    assert _within([m.variance for m in moments], variance)
    # The spread is the one that normal noise has, so the estimates are no better than they claim.
    per = model.std**2 / 96
    spread = math.sqrt(4 * per * signal + 2 * D * per**2)
    assert np.std([m.signal for m in moments], ddof=1) == pytest.approx(spread, rel=0.25)
    assert model.snr == pytest.approx(float(np.mean(list(found.snrs.values()))), rel=0.05)


@pytest.mark.parametrize("draws", [1, 2, 4, 8, 16, 32])
def test_curves_are_those_of_the_exact_mean(
    measured: tuple[NoisyLinear, GradientResult], draws: int
) -> None:
    model, found = measured
    exact = _oracle(model, draws)
    assert found.unresolved == 0
    for name in ("cosine", "gain", "agreement", "single"):
        values = [getattr(image, name)[draws] for image in found.images]
        # The second-order bias of dividing by an estimated length, and of the arcs: below 0.01.
        assert _within(values, exact[name], 0.0 if name == "single" else 0.01), name


@pytest.mark.parametrize("draws", [1, 4, 32, 256])
def test_the_closed_form_is_right_up_to_the_dimension(draws: int) -> None:
    model = NoisyLinear(std=2.0)
    exact, closed = _oracle(model, draws), expected_cosine(model.snr, draws)
    # Left out of the closed form: 1 / (k d) under the root, and the spread of a single cosine.
    assert closed == pytest.approx(exact["cosine"], abs=1 / math.sqrt(D) / draws)
    assert closed == pytest.approx(exact["gain"], abs=0.05)
    assert sign_agreement(closed) == pytest.approx(exact["agreement"], abs=0.03)


def test_curve_and_closed_form_meet_in_the_result(
    measured: tuple[NoisyLinear, GradientResult],
) -> None:
    model, found = measured
    for point in found.curve():
        assert point.cosine is not None
        assert point.cosine.n == 200
        assert point.expected_cosine == pytest.approx(point.cosine.value, abs=0.05)
        assert point.expected_cosine == pytest.approx(
            expected_cosine(model.snr, point.draws), abs=0.02
        )


@pytest.mark.parametrize("target", [0.5, 0.8, 0.9])
@pytest.mark.parametrize("measure", ["cosine", "agreement"])
def test_enough_draws_are_those_of_the_exact_ratio(
    measured: tuple[NoisyLinear, GradientResult], target: float, measure: Measure
) -> None:
    model, found = measured
    goal = target if measure == "cosine" else 0.5 + target / 2.5
    exact = enough_draws(model.snr, target if measure == "cosine" else cosine_of_agreement(goal))
    answer = found.enough(goal, measure)
    assert answer.expected == pytest.approx(exact, rel=0.1, abs=1)
    assert answer.median is not None
    assert answer.median.value == pytest.approx(exact, rel=0.1, abs=1)
    assert answer.low is not None
    assert answer.high is not None
    assert answer.low <= answer.expected <= answer.high
    if exact <= 16:
        assert answer.measured is not None
        assert exact / 2 <= answer.measured <= 2 * exact + 1


@pytest.mark.parametrize(("snr", "target", "draws"), [(0.5, 0.9, 9), (1.0, 0.8, 2), (100, 0.9, 1)])
def test_enough_draws_is_the_smallest(snr: float, target: float, draws: int) -> None:
    assert enough_draws(snr, target) == draws
    assert expected_cosine(snr, draws) >= target
    assert draws == 1 or expected_cosine(snr, draws - 1) < target


@pytest.mark.parametrize("cosine", [-1.0, -0.3, 0.0, 0.42, 0.9, 1.0])
def test_agreement_of_signs_is_the_orthant_probability(cosine: float) -> None:
    assert cosine_of_agreement(sign_agreement(cosine)) == pytest.approx(cosine, abs=1e-12)
    generator = np.random.Generator(np.random.Philox(3))
    a, b = generator.standard_normal((2, 400_000))
    c = cosine * a + math.sqrt(1 - cosine**2) * b
    share, p = float((np.sign(a) == np.sign(c)).mean()), sign_agreement(cosine)
    assert abs(share - p) <= Z * math.sqrt(p * (1 - p) / 400_000) + 1e-12


def test_a_gradient_that_ignores_the_randomness_has_no_ratio() -> None:
    found = _measure(NoisyLinear(std=0.0), 3, draws=4, reference=4)
    assert (found.constant, found.zero, found.unresolved) == (3, 0, 0)
    assert found.snrs == {}
    assert found.snr() is found.median_snr() is None
    for point in found.curve():
        assert point.cosine is not None
        assert point.cosine.value == pytest.approx(1.0, abs=1e-12)
        assert point.expected_cosine == 1.0
        assert point.agreement is not None
        assert point.agreement.value == pytest.approx(1.0)
    answer = found.enough(0.9)
    assert (answer.expected, answer.low, answer.high, answer.measured) == (1, 1, 1, 1)


def test_rounding_is_no_noise() -> None:
    assert Moments(draws=8, mean_square=2.0, square_mean=2.0 - 1e-13).is_constant
    assert not Moments(draws=8, mean_square=2.0, square_mean=2.0 - 1e-10).is_constant


def test_images_without_a_gradient_are_counted_and_not_averaged() -> None:
    model = NoisyLinear(std=0.5, silent=(1, 3))
    found = _measure(model, 6, draws=8, reference=8)
    alone = _measure(NoisyLinear(std=0.5), 6, draws=8, reference=8)
    assert (found.zero, found.constant, found.unresolved) == (2, 0, 0)
    assert sorted(found.snrs) == [0, 2, 4, 5]
    kept = [image for image in alone.images if image.sample not in (1, 3)]
    for point in found.curve():
        assert point.cosine is not None
        assert point.cosine.n == 4
        values = [min(image.cosine[point.draws], 1.0) for image in kept]
        assert point.cosine.value == pytest.approx(np.mean(values), rel=1e-12)
    answer = found.enough(0.5)
    assert answer.median is not None
    assert answer.median.n == 4


def test_single_draws_without_a_gradient_count_in_the_mean_but_have_no_direction() -> None:
    class Sometimes(NoisyLinear):
        """Silent in every other configuration."""

        def __call__(self, images: Tensor) -> Tensor:
            return super().__call__(images) * float(int(self.xi.path[-1]) % 2)

    found = _measure(Sometimes(std=0.0), 1, draws=4, reference=4)
    (image,) = found.images
    w = float(_weights().square().sum())
    assert image.moments.mean_square == pytest.approx(w / 2)
    assert image.moments.signal == pytest.approx(w * (0.25 - 0.25 / 7))
    assert image.single[1] == pytest.approx(1.0)
    assert image.cosine[4] == pytest.approx(0.5 * math.sqrt(w) / math.sqrt(image.moments.signal))


def test_pure_noise_is_never_called_resolved_for_free() -> None:
    model = NoisyLinear(std=1.0, weight=torch.zeros(SHAPE, dtype=torch.float64))
    found = _measure(model, 200, draws=8, reference=8)
    # ||mean||^2 D / s^2 is chi-square: 4 times its expected noise needs a ratio of 5.
    assert found.unresolved == 200
    assert _within(list(found.snrs.values()), 0.0)
    answer = found.enough(0.9)
    assert (answer.expected, answer.measured) == (None, None)
    assert answer.median is not None
    assert answer.median.value == math.inf
    assert all(point.cosine is None and point.expected_cosine is None for point in found.curve())


def test_draws_are_gradients_under_folds_of_the_configuration() -> None:
    images, labels, ids = load_images("digits", n=3)
    defense = load_defense("onestep-edm", "digits")
    found = gradient_noise(defense, images, labels, ids=ids, draws=2, reference=2)
    gradients = []
    for draw in range(4):
        points = images.clone().requires_grad_()
        view = defense.at(ids=ids, xi=RandomnessConfig(0).fold("gradient", draw))
        loss = LOSSES["ce"](view(points), labels, False).sum()
        gradients.append(torch.autograd.grad(loss, points)[0].double().flatten(1))
    every = torch.stack(gradients)
    held_out, mean = every[:2].mean(0), every[2:].mean(0)
    for k, image in enumerate(found.images):
        assert image.moments.mean_square == pytest.approx(float(every[:, k].square().sum(1).mean()))
        assert image.moments.square_mean == pytest.approx(float(every[:, k].mean(0).square().sum()))
        a, b = held_out[k], mean[k]
        if image.moments.is_resolved:
            length = math.sqrt(image.moments.signal)
            assert image.cosine[2] == pytest.approx(float(a @ b / b.norm()) / length, rel=1e-6)
        units = every[:2, k] / every[:2, k].norm(dim=1, keepdim=True)
        assert image.single[2] == pytest.approx(float((units @ b).mean() / b.norm()), rel=1e-6)


def test_batches_and_order_change_nothing() -> None:
    images, labels, ids = load_images("digits", n=7)
    defense = load_defense("cm", "digits", tile=32)
    forth, back = torch.arange(7), torch.arange(6, -1, -1)
    results = [
        gradient_noise(defense, images[order], labels[order], ids=ids[order], draws=2, reference=2,
                       batch_size=size)
        for size, order in ((1, forth), (3, back), (7, forth))
    ]  # fmt: skip
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("number", [1, 3, 0, -4, 2.0, True, 2**21])
@pytest.mark.parametrize("name", ["draws", "reference"])
def test_numbers_of_draws_are_powers_of_two(name: str, number: Any) -> None:
    with pytest.raises(BadInput, match=r"is no power of two from 2 on|is not a whole number"):
        DrawSettings(**{name: number})


def test_what_cannot_be_measured_is_refused() -> None:
    images, labels = torch.full((2, *SHAPE), 0.5), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(BadInput, match="has no randomness that can be set"):
        gradient_noise(lambda x: x, images, labels)
    with pytest.raises(BadInput, match="appears twice"):
        gradient_noise(NoisyLinear(std=1.0), images, labels, ids=[4, 4])
    with pytest.raises(BadInput, match="holds no image"):
        gradient_noise(NoisyLinear(std=1.0), images, labels, batch_size=0)
    found = _measure(NoisyLinear(std=1.0), 2, 2, 2)
    for target in (0.0, 1.0, math.nan):
        with pytest.raises(BadInput, match=r"is not above 0 and below 1|is not finite"):
            found.enough(target)
    with pytest.raises(BadInput, match="is reached by chance"):
        found.enough(0.4, "agreement")
    with pytest.raises(BadInput, match="measure 'angle' is not known"):
        found.enough(0.4, "angle")  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="draws 1 is not a whole number of 2 or more"):
        Moments(draws=1, mean_square=1.0, square_mean=1.0)
    with pytest.raises(BadInput, match="has no images"):
        GradientResult(())
    with pytest.raises(BadInput, match="is no positive number"):
        enough_draws(-0.1, 0.9)
    with pytest.raises(BadInput, match="has no cosine"):
        expected_cosine(-0.1, 1)


@pytest.mark.parametrize(("n", "low", "high"), [(6, 1, 6), (10, 2, 9), (20, 6, 15), (50, 18, 33)])
def test_intervals_of_the_median_are_the_tabulated_ranks(n: int, low: int, high: int) -> None:
    found = quantile([float(k) for k in range(n, 0, -1)])
    assert (found.low, found.high, found.n) == (low, high, n)
    assert quantile([1.0, 2.0, 3.0]).low is None


def test_intervals_of_a_quantile_cover_it() -> None:
    generator = np.random.Generator(np.random.Philox(11))
    q, runs = 0.9, 1000
    hits = 0
    for sample in generator.exponential(size=(runs, 60)):
        found = quantile(list(sample), q)
        low = -math.inf if found.low is None else found.low
        high = math.inf if found.high is None else found.high
        hits += low <= -math.log(1 - q) <= high
    assert hits >= 0.95 * runs - Z * math.sqrt(0.95 * 0.05 * runs)
    assert hits < runs
