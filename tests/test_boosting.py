"""Boosting: steps against their derivations, the printed signs, exact gradients, one row alone."""

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn import functional as F

from advpure.base.errors import BadInput
from advpure.boosting.booster import Booster
from advpure.boosting.objective import boosting_loss
from advpure.boosting.refine import Refinement
from advpure.boosting.settings import BoostSettings, schedules
from advpure.core.chain import Noise
from advpure.core.randomness import RandomnessConfig
from advpure.core.steady import trust
from advpure.data import load_images
from advpure.loading import load_booster, load_classifier, load_defense, load_purifier
from advpure.networks.joint import JointClassifier
from advpure.sweeps.published import published

SIDE = 3


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class _Linear(nn.Module):
    """f(x) = W x + b on images [B, 1, 3, 3], float64."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        draw = generator(1)
        self.weight = torch.randn(classes, SIDE**2, generator=draw, dtype=torch.float64)
        self.bias = torch.randn(classes, generator=draw, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight.T + self.bias


class _Curved(nn.Module):
    """A smooth model of two layers on images [B, 1, 3, 3], float64."""

    def __init__(self) -> None:
        super().__init__()
        draw = generator(2)
        self.first = 2 * torch.randn(5, SIDE**2, generator=draw, dtype=torch.float64)
        self.second = torch.randn(3, 5, generator=draw, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return (x.flatten(1) @ self.first.T).tanh() @ self.second.T


class _Bowl(nn.Module):
    """f_0(x) = -a |x - 1/2|^2 / 2, and nothing else."""

    def __init__(self, a: float) -> None:
        super().__init__()
        self.a = a

    def forward(self, x: Tensor) -> Tensor:
        return -self.a / 2 * (x - 0.5).square().sum((1, 2, 3))[:, None]


def images(count: int = 4, seed: int = 0) -> Tensor:
    inner = torch.rand(count, 1, SIDE, SIDE, generator=generator(seed), dtype=torch.float64)
    return 0.4 + 0.2 * inner


@pytest.mark.parametrize("loss", ["ce", "bce", "difference", "reference"])
def test_one_step_on_a_linear_model_equals_its_derivation(loss: Any) -> None:
    model, l0, size = _Linear(), 1.3, 0.01
    x, classes = images(), torch.tensor([0, 1, 2, 0])
    f = x.flatten(1) @ model.weight.T + model.bias
    entropy = (f.softmax(1) - F.one_hot(classes, 3)) @ model.weight
    own = f.gather(1, classes[:, None])
    binary = torch.sigmoid(own) * model.weight[classes]
    gradient = {
        "ce": entropy,
        "bce": -binary,
        "difference": entropy - binary,
        "reference": entropy + (F.softplus(own) - l0) * binary,
    }[loss]
    settings = BoostSettings(loss=loss, steps=1, step_size=size, stop=False)
    got = Booster(JointClassifier(model, l0), settings).boost(x, classes)
    arrow = (gradient / gradient.norm(dim=1, keepdim=True)).reshape(x.shape)
    assert torch.allclose(got.images, x - size * arrow, atol=1e-14)
    assert got.taken.tolist() == [1] * 4


def test_a_step_in_the_other_norm_is_the_sign_and_its_ball_a_cube() -> None:
    model, x, classes = _Linear(), images(), torch.tensor([0, 1, 2, 0])
    shared: dict[str, Any] = {"loss": "bce", "norm": "linf", "step_size": 0.01, "stop": False}
    sign = model.weight[classes].sign().reshape(x.shape)
    one = Booster(model, BoostSettings(**shared, steps=1)).boost(x, classes).images
    assert torch.allclose(one, x + 0.01 * sign, atol=1e-14)
    held = Booster(model, BoostSettings(**shared, steps=9, eps=0.03)).boost(x, classes).images
    assert torch.allclose(held, x + 0.03 * sign, atol=1e-14)


def test_between_two_gaussians_the_best_discriminator_moves_generated_images_straight() -> None:
    """Log N(x; m, s^2) / N(x; n, s^2) is linear: each step goes along m - n, for every image."""
    real, made = (torch.full((SIDE**2,), level, dtype=torch.float64) for level in (0.6, 0.4))

    class Ratio(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            rows = x.flatten(1)
            gaps = [(rows - mean).square().sum(1) / (2 * 0.05**2) for mean in (made, real)]
            return (gaps[0] - gaps[1])[:, None]

    settings = BoostSettings(loss="bce", steps=5, step_size=0.06, stop=False)
    x = images(50)
    moved = Booster(Ratio(), settings).boost(x).images
    expected = 5 * 0.06 / SIDE  # each of the nine pixels
    assert torch.allclose(moved - x, torch.full_like(x, expected), atol=1e-12)


def test_equation_12_settles_at_l0_and_as_printed_runs_away() -> None:
    class One(nn.Module):
        """A single class of logit 20 (mean - 1/2): l_CE is 0, l_BCE alone decides."""

        def forward(self, x: Tensor) -> Tensor:
            return 20 * (x.mean((1, 2, 3)) - 0.5)[:, None]

    l0 = 1.5
    x = torch.tensor([0.45, 0.56], dtype=torch.float64).reshape(2, 1, 1, 1).expand(2, 1, 3, 3)

    def gap(y: Tensor) -> Tensor:
        return (F.softplus(One()(y)[:, 0]) - l0).abs()

    shared: dict[str, Any] = {"steps": 250, "step_size": 4e-3, "stop": False, "direction": "raw"}
    meant = Booster(JointClassifier(One(), l0), BoostSettings(**shared)).boost(x).images
    assert gap(meant).max() < 1e-6
    levels: list[Tensor] = []
    printed = Booster(JointClassifier(One(), l0), BoostSettings(**shared, printed=True))
    printed.boost(x, seen=lambda k, y: levels.append(gap(y)))
    assert levels[-1].min() > 1  # from 0.06 above and 1.19 below
    assert all(bool((b >= a - 1e-12).all()) for a, b in pairwise(levels))


def test_the_minimum_of_equation_12_is_at_l0() -> None:
    logits = torch.linspace(-4, 6, 20_001, dtype=torch.float64)[:, None]
    classes = torch.zeros(len(logits), dtype=torch.int64)
    meant = boosting_loss(logits, classes, BoostSettings(), 1.2)
    printed = boosting_loss(logits, classes, BoostSettings(printed=True), 1.2)
    best = logits[meant.argmin(), 0]
    assert abs(F.softplus(best).item() - 1.2) < 1e-3
    assert printed.argmax() == meant.argmin()
    assert printed.argmin() == len(logits) - 1


def test_sgld_on_a_quadratic_has_the_stationary_spread_of_its_recursion() -> None:
    """X <- x - t a (x - 1/2) + s z settles at variance s^2 / (1 - (1 - t a)^2), independent."""
    a, size, noise, steps = 4.0, 0.05, 0.01, 60
    settings = BoostSettings(
        method="sgld", direction="raw", steps=steps, step_size=size, noise=noise
    )
    x = torch.full((400, 1, SIDE, SIDE), 0.5, dtype=torch.float64)
    moved = Booster(_Bowl(a), settings).boost(x, xi=RandomnessConfig(3)).images - 0.5
    keep = 1 - size * a
    variance = noise**2 * (1 - keep ** (2 * steps)) / (1 - keep**2)
    n = moved.numel()
    ratio = float(moved.square().sum()) / variance
    low, high = stats.chi2.ppf([5e-6, 1 - 5e-6], n)
    assert low < ratio < high
    away = BoostSettings(
        method="sgld", direction="raw", steps=20, step_size=size, noise=noise, printed=True
    )
    spread = Booster(_Bowl(a), away).boost(x, xi=RandomnessConfig(3)).images - 0.5
    assert float(spread.var()) > 10 * variance


def test_a_real_enough_image_is_left_alone_and_others_until_they_are() -> None:
    model = JointClassifier(_Linear(1), l0=0.28)
    x = images(30)
    settings = BoostSettings(steps=12, step_size=0.05)
    level = F.softplus(model(x)[:, 0])
    assert 0 < int((level >= 0.28).sum()) < 30
    got = Booster(model, settings).boost(x)
    after = F.softplus(model(got.images)[:, 0])
    assert torch.equal(got.images[level >= 0.28], x[level >= 0.28])
    assert (got.taken == 0).tolist() == (level >= 0.28).tolist()
    stopped = got.taken < 12
    assert bool((after[stopped] >= 0.28).all())
    rows = Booster(model, settings).boost(x, tile=4)
    assert torch.equal(rows.taken, got.taken)


def test_the_ball_holds_and_lies_where_it_is_asked_for() -> None:
    x, shared = images(6), {"loss": "ce", "steps": 9, "step_size": 0.05, "eps": 0.1}
    reach = {}
    for centre in ("image", "first"):
        settings = BoostSettings(**shared, centre=centre)  # type: ignore[arg-type]
        moved = Booster(_Curved(), settings).boost(x, torch.tensor([0, 1, 2, 0, 1, 2])).images
        reach[centre] = (moved - x).flatten(1).norm(dim=1)
    assert bool((reach["image"] <= 0.1 + 1e-12).all())
    assert float(reach["first"].max()) > 0.1
    assert bool((reach["first"] <= 0.15 + 1e-12).all())
    alone = BoostSettings.classifier_alone(3.0, labelled=False)
    assert (alone.count, alone.size, alone.eps, alone.loss) == (30, 0.1, 3.0, "ce")


HOWS: dict[str, dict[str, Any]] = {
    "reference": {"steps": 3, "step_size": 0.03, "stop": False},
    "stopping": {"steps": 4, "step_size": 0.03},
    "ball": {"loss": "ce", "steps": 5, "step_size": 0.04, "eps": 0.06},
    "first": {"loss": "difference", "steps": 5, "step_size": 0.04, "eps": 0.06, "centre": "first"},
    "cube": {"loss": "ce", "steps": 4, "step_size": 0.01, "eps": 0.025, "norm": "linf"},
    "raw": {"loss": "bce", "steps": 3, "step_size": 0.01, "direction": "raw"},
    "sgld": {"method": "sgld", "steps": 3, "step_size": 0.02, "noise": 0.01},
}


@pytest.mark.parametrize("how", HOWS)
def test_the_gradient_through_a_boost_is_exact(how: str) -> None:
    model = JointClassifier(_Curved(), l0=1.1)
    booster = Booster(model, BoostSettings(**HOWS[how]))
    step = booster.step()
    assert step.images is not None
    keys = tuple((RandomnessConfig(0), i) for i in range(2))
    x = images(2, seed=5).requires_grad_()
    replayed = step.images(x, keys)
    weights = torch.randn(x.shape, generator=generator(7), dtype=torch.float64)
    (gradient,) = torch.autograd.grad(replayed, x, weights)

    def value(y: Tensor) -> Tensor:
        with torch.no_grad():
            return (step.images(y, keys) * weights).sum()  # type: ignore[misc]

    arrow = torch.randn(x.shape, generator=generator(8), dtype=torch.float64)
    h = 1e-6
    slope = (value(x + h * arrow) - value(x - h * arrow)) / (2 * h)
    assert float((gradient * arrow).sum()) == pytest.approx(float(slope), rel=1e-6)
    assert torch.equal(replayed.detach(), step.images(x.detach(), keys))
    refinement: Refinement = booster._refinement(keys)
    unrolled = refinement._walk(x, None, graph=True).images
    (plain,) = torch.autograd.grad(unrolled, x, weights)
    assert torch.allclose(plain, gradient, rtol=1e-12, atol=1e-15)


@pytest.mark.slow
@pytest.mark.parametrize("how", HOWS)
def test_the_forward_mode_derivative_is_that_of_the_backward_pass(how: str) -> None:
    booster = Booster(JointClassifier(_Curved(), l0=1.1), BoostSettings(**HOWS[how]))
    step = booster.step()
    assert step.images is not None
    keys = tuple((RandomnessConfig(0), i) for i in range(2))
    x = images(2, seed=5).requires_grad_()
    weights, arrow = (
        torch.randn(x.shape, generator=generator(k), dtype=torch.float64) for k in (7, 8)
    )
    (gradient,) = torch.autograd.grad(step.images(x, keys), x, weights)
    slope = (gradient * arrow).sum()
    with torch.no_grad(), forward_ad.dual_level():
        dual = step.images(forward_ad.make_dual(x.detach(), arrow), keys)  # type: ignore[no-untyped-call]
        pushed = forward_ad.unpack_dual(dual).tangent
        assert float((pushed * weights).sum()) == pytest.approx(float(slope), rel=1e-9)


def standin(l0: float | None = 6.0) -> JointClassifier:
    """The digits classifier, which was not trained to discriminate, with some l0."""
    return trust(JointClassifier(load_classifier("digits"), l0).eval(), (1, 8, 8))


def test_no_bit_depends_on_the_batch() -> None:
    x, _, ids = load_images("digits", n=5)
    for how in ({"steps": 3}, {"method": "sgld", "steps": 3}):
        purifier = load_purifier(
            "cm", "digits", xi=RandomnessConfig(0), boost=standin(), boost_options=how
        )
        whole = purifier.at(ids=ids)(x)
        alone = [purifier.at(ids=[i])(x[k : k + 1]) for k, i in enumerate(ids.tolist())]
        assert torch.equal(whole, torch.cat(alone))
        booster = load_booster(standin(), "digits", how)
        given = booster.boost(x, ids=ids, tile=64)
        assert torch.equal(given.images[4:5], booster.boost(x[4:5], ids=ids[4:5], tile=64).images)


def test_a_boosted_chain_is_attacked_like_any_other() -> None:
    x, labels, ids = load_images("digits", n=3)
    defense = load_defense(
        "cm", "digits", xi=RandomnessConfig(0), boost=standin(), boost_options={"steps": "2"}
    ).at(ids=ids)
    assert defense.purifier.chain.evaluations == 3
    assert [step.name for step in defense.purifier.chain] == ["smooth", "denoise", "boost"]
    point = x.clone().requires_grad_()
    logits = defense(point)
    (gradient,) = torch.autograd.grad(F.cross_entropy(logits, labels), point)
    assert bool((gradient.flatten(1).norm(dim=1) > 0).all())
    assert torch.equal(logits.detach(), defense(x))
    states = defense.purifier.chain.states(2 * x - 1, Noise(RandomnessConfig(0), ids))
    assert [step.name for step, _ in states][-1] == "boost"


def test_a_boosted_purifier_survives_copying() -> None:
    import copy

    x, _, ids = load_images("digits", n=2)
    purifier = load_purifier("cm", "digits", boost=standin(), boost_options={"steps": 1})
    twin = copy.deepcopy(purifier)
    xi = RandomnessConfig(0)
    assert torch.equal(twin.at(ids=ids, xi=xi)(x), purifier.at(ids=ids, xi=xi)(x))
    assert twin.refiner is not purifier.refiner


def test_the_published_steps_are_those_of_their_table() -> None:
    printed = {
        row["generator"]: (row["boost_steps"], row["step_size"])
        for row in published("002").tables["T5"].rows
    }
    assert len(printed) == 7
    assert {name: (s["steps"], s["step_size"]) for name, s in schedules().items()} == printed
    digits = load_booster(standin(), "digits").settings
    assert (digits["schedule"], digits["steps"]) == ("ct-1", 35)
    assert digits["step_size"] == pytest.approx(0.1 * math.sqrt(64 / 12_288))
    assert (
        "schedule" not in load_booster(standin(), "digits", {"steps": 1, "step_size": 1}).settings
    )
    settings = BoostSettings(generator="cd-2", step_size=0.5)
    assert (settings.count, settings.size) == (7, 0.5)
    assert BoostSettings().stops
    assert not BoostSettings(loss="ce").stops


def test_a_level_that_no_file_has_is_measured_over_training_images() -> None:
    how = {"l0": "measured", "steps": "1"}
    booster = load_booster("digits-classifier", "digits", how)
    images, labels, _ = load_images("digits", subset="train/every-2nd")
    with torch.no_grad():
        level = load_classifier("digits")(images).gather(1, labels[:, None]).double()
    assert booster.l0 == pytest.approx(float(torch.log1p(level.exp()).mean()), rel=1e-5)
    assert booster.settings["l0_measured_over"] == "train/every-2"
    own = load_booster(standin(None), "digits", how)
    assert own.l0 == pytest.approx(booster.l0, rel=1e-6)
    unused = load_booster("digits-classifier", "digits", {**how, "loss": "ce"})
    assert unused.l0 is None
    assert "l0_measured_over" not in unused.settings
    with pytest.raises(BadInput, match="l0 measured takes images of a data set"):
        Booster(standin(None), BoostSettings(l0="measured"))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"steps": 0}, "steps 0 is not a whole number from 1 to 10000"),
        ({"generator": "cd-3"}, "did you mean cd-2?"),
        ({"generator": "cd-1", "steps": 3, "step_size": 0.1}, "says nothing beside steps"),
        ({"method": "sgld", "eps": 1.0}, "eps 1.0 means nothing to sgld"),
        ({"noise": 0.5}, "noise 0.5 means nothing to pgd"),
        ({"loss": "ce", "printed": True}, "printed means nothing to loss ce"),
        ({"centre": "first"}, "means nothing without a ball"),
        ({"norm": "l1"}, "norm l1 is not covered"),
        ({"norm": "linf", "method": "sgld"}, "norm 'linf' means nothing to sgld"),
        ({"norm": "linf", "direction": "raw"}, "means nothing to raw steps without a ball"),
        ({"l0": "known"}, "l0 'known'"),
        ({"l0": -1.0}, "l0 -1 is not 0 or more"),
        ({"loss": "kl"}, "loss 'kl' is not known"),
        ({"step_size": math.nan}, "step size nan is not finite"),
    ],
)
def test_settings_that_cannot_be_are_refused_in_one_line(given: Any, words: str) -> None:
    with pytest.raises(BadInput) as caught:
        BoostSettings(**given)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_models_and_images_that_do_not_fit_are_refused_in_one_line() -> None:
    x = load_images("digits", n=2).images
    booster = load_booster(standin(), "digits", {"steps": 1})
    with pytest.raises(BadInput, match="class 10 is outside the 10 classes"):
        booster.boost(x, torch.tensor([0, 10]))
    with pytest.raises(BadInput, match="do not fit networks that take"):
        booster.boost(torch.zeros(1, 1, 16, 16))
    with pytest.raises(BadInput, match="a model without l0"):
        load_booster(standin(None), "digits")
    with pytest.raises(BadInput, match="a model without l0"):
        load_booster("digits-classifier", "digits", {"loss": "ce", "stop": "true"})
    with pytest.raises(BadInput, match="has no shipped network digits-nothing"):
        load_booster("nothing", "digits")
    with pytest.raises(BadInput, match="is no classifier"):
        load_booster("digits-cm", "digits")
    with pytest.raises(BadInput, match="does not fit"):
        load_booster("digits-classifier", "cifar10", {"loss": "ce"})
    with pytest.raises(BadInput, match="boost options mean nothing without a booster"):
        load_purifier("cm", "digits", boost_options={"steps": 1})
    assert load_booster("classifier", "digits", {"loss": "ce"}).settings["name"] == (
        "digits-classifier"
    )
