"""Which randomness each pass of an attack sees, and that no sample depends on its batch."""

from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from advpure.attacks import (
    AttackResult,
    apgd,
    apgd_targeted,
    bpda,
    bpda_eot,
    low_frequency,
    pgd,
    pgd_eot,
    rays,
    square,
    standard,
    transfer,
    uniform_noise,
)
from advpure.attacks.losses import cross_entropy
from advpure.attacks.oracle import Oracle, check_batch
from advpure.attacks.settings import GradientSettings
from advpure.base.errors import BadInput
from advpure.core.defense import Defense
from advpure.core.denoisers import Denoiser, Prediction
from advpure.core.gradients import GradientMode
from advpure.core.randomness import RandomnessConfig
from advpure.loading import load_defense

EPS = 0.06


def _filled(module: nn.Module, scale: float) -> nn.Module:
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
    return module.eval()


class _Smoother(Denoiser):
    """A small network that pulls towards a smooth image."""

    def __init__(self) -> None:
        super().__init__()
        self.network = _filled(nn.Conv2d(1, 1, 3, padding=1), 0.2)

    def predict(self, x: Tensor, sigma: float | Tensor) -> Prediction:
        return Prediction(torch.tanh(0.6 * x + self.network(x)))


def _classifier() -> nn.Module:
    return _filled(
        nn.Sequential(
            nn.Conv2d(1, 6, 3), nn.SiLU(), nn.Conv2d(6, 6, 3), nn.SiLU(),
            nn.Flatten(), nn.Linear(96, 4),
        ),
        0.5,
    )  # fmt: skip


def _defense(
    tile: int = 8, seed: int = 0, gradient: GradientMode | None = None, **options: Any
) -> Defense:
    return load_defense(
        "ddpm", t=3, denoiser=_Smoother(), classifier=_classifier(), tile=tile,
        xi=RandomnessConfig(seed), gradient=gradient, **options,
    )  # fmt: skip


def _images(count: int) -> Tensor:
    return torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(3))


def _labels(defense: Defense, images: Tensor) -> Tensor:
    with torch.no_grad():
        return defense.at(ids=torch.arange(len(images)))(images).argmax(dim=1)


ATTACKS: dict[str, tuple[Callable[..., AttackResult], dict[str, Any]]] = {
    "pgd": (pgd, {"steps": 6}),
    "pgd-l2": (pgd, {"steps": 6, "norm": "l2", "eps": 0.4, "iterate": "best", "loss": "dlr"}),
    "apgd": (apgd, {"steps": 8, "loss": "margin"}),
    "apgd-l2": (apgd, {"steps": 8, "norm": "l2", "eps": 0.4}),
    "fixed-eot": (pgd, {"steps": 4, "eot": 2}),
    "pgd-eot": (pgd_eot, {"steps": 3, "eot": 2}),
    "logits-eot": (pgd_eot, {"steps": 3, "eot": 2, "eot_mode": "logits"}),
    "bpda": (bpda, {"steps": 6, "step_size": 0.02}),
    "pgd-restarts": (pgd, {"steps": 4, "restarts": 3}),
    "restarts-eot": (pgd_eot, {"steps": 2, "eot": 2, "restarts": 2}),
    "apgd-targeted": (apgd_targeted, {"steps": 5, "targets": 3}),
    "square": (square, {"queries": 16, "proposals": 3}),
    "square-l2": (square, {"queries": 8, "norm": "l2", "eps": 0.4}),
    "square-fresh": (square, {"queries": 12, "proposals": 3, "randomness": "fresh"}),
    "rays": (rays, {"queries": 20, "eps": 0.3}),
    "low-frequency": (low_frequency, {"steps": 6, "eps": 0.1}),
    "standard": (standard, {"budget": 60, "eps": 0.03}),
    "standard-fresh": (standard, {"budget": 90, "eot": 2, "randomness": "fresh"}),
    "noise": (uniform_noise, {"draws": 5}),
    "noise-l2": (uniform_noise, {"norm": "l2", "eps": 0.4}),
}


HEAVY = {"standard", "standard-fresh", "restarts-eot", "pgd-restarts", "rays"}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name in HEAVY)) for name in sorted(ATTACKS)],
)
def test_batch_size_order_and_neighbours_change_no_bit(name: str) -> None:
    attack, settings = ATTACKS[name]
    settings = {"eps": EPS, **settings}
    defense, images = _defense(), _images(64)
    labels, ids = _labels(defense, images), torch.arange(64)
    whole = attack(defense, images, labels, ids=ids, **settings)
    assert 0 < int(whole.success.sum()) < 64
    order = torch.randperm(64, generator=torch.Generator().manual_seed(1))
    runs = [[order], [ids[:7], ids[7:14]], [ids[60:61], ids[63:64]]]
    for parts in runs:
        for rows in parts:
            part = attack(defense, images[rows], labels[rows], ids=rows, **settings)
            for field in ("images", "success", "loss", "iterations", "forwards", "backwards", "l2"):
                assert torch.equal(getattr(part, field), getattr(whole, field)[rows]), field


@pytest.mark.parametrize("name", ["pgd", "apgd", "noise"])
def test_a_model_with_a_tile_sees_nothing_else(name: str) -> None:
    sizes: set[int] = set()

    class Tiled(nn.Module):
        tile = 4

        def forward(self, images: Tensor) -> Tensor:
            sizes.add(len(images))
            score = images.sum(dim=(1, 2, 3))
            return torch.stack([score, score * 0 + 33], dim=1)

    attack, settings = ATTACKS[name]
    labels = (_images(10).sum(dim=(1, 2, 3)) < 33).long()
    result = attack(Tiled(), _images(10), labels, **{"eps": EPS, **settings})
    assert int(result.iterations.min()) > 0
    assert sizes == {4}


def test_success_is_that_of_the_defense_with_its_own_randomness() -> None:
    defense, images = _defense(), _images(16)
    ids = torch.arange(100, 116)
    labels = defense.at(ids=ids)(images).argmax(dim=1)
    result = pgd(defense, images, labels, ids=ids, eps=EPS)
    again = defense.at(ids=ids)(result.images).argmax(dim=1) != labels
    assert torch.equal(result.success, again)
    assert int(again.sum()) > 0
    assert defense.ids is None


def test_a_bound_defense_brings_its_ids() -> None:
    defense, images = _defense(), _images(3)
    labels, ids = torch.zeros(3, dtype=torch.int64), [7, 3, 9]
    given = pgd(defense, images, labels, ids=ids, eps=EPS, steps=2, stop="never")
    bound = pgd(defense.at(ids=ids), images, labels, eps=EPS, steps=2, stop="never")
    assert torch.equal(given.images, bound.images)
    other = pgd(defense, images, labels, eps=EPS, steps=2, stop="never")
    assert not torch.equal(given.images, other.images)
    with pytest.raises(BadInput, match="do not match a batch of 3"):
        pgd(defense.at(ids=[1, 2]), images, labels, eps=EPS)


def test_the_seed_moves_the_start_only() -> None:
    defense, images = _defense(), _images(4)
    labels = _labels(defense, images)
    settings: dict[str, Any] = {"eps": EPS, "steps": 1, "stop": "never"}
    first, again = (pgd(defense, images, labels, seed=1, **settings) for _ in range(2))
    other = pgd(defense, images, labels, seed=2, **settings)
    assert torch.equal(first.images, again.images)
    assert not torch.equal(first.images, other.images)
    settings["random_start"] = False
    pair = [pgd(defense, images, labels, seed=seed, **settings).images for seed in (1, 2)]
    assert torch.equal(*pair)


class _Spy:
    """A defense that notes the randomness of every pass."""

    tile = None

    def __init__(self, xi: RandomnessConfig, log: list[tuple[Any, ...]] | None = None) -> None:
        self.xi, self.log = xi, [] if log is None else log

    def at(self, *, ids: Any = None, xi: Any = None, gradient: Any = None) -> "_Spy":
        return _Spy(xi or self.xi, self.log)

    def __call__(self, images: Tensor) -> Tensor:
        self.log.append(self.xi.path)
        score = images.sum(dim=(1, 2, 3))
        return torch.stack([score, score * 0 - 5], dim=1)


def _paths(attack: Callable[..., AttackResult], **settings: Any) -> list[tuple[Any, ...]]:
    spy, images, labels = _asked_spy()
    attack(spy, images, labels, eps=0.1, **settings)
    return spy.log


def _asked_spy() -> "tuple[_Spy, Tensor, Tensor]":
    """Return a spy that was asked whether it repeats itself, which is asked once, and its input."""
    spy, images, labels = (
        _Spy(RandomnessConfig(0)),
        torch.full((1, 1, 2, 2), 0.5),
        torch.tensor([0]),
    )
    check_batch(spy, images, labels, None)
    assert spy.log == [()] * 2
    spy.log.clear()
    return spy, images, labels


def test_fixed_randomness_is_the_models_own_everywhere() -> None:
    assert _paths(pgd, steps=3) == [()] * 5
    assert _paths(apgd, steps=3) == [()] * 6
    assert _paths(uniform_noise) == [()]


def test_fixed_expectation_uses_the_same_draws_at_every_step() -> None:
    draws = [("eot", 0), ("eot", 1)]
    assert _paths(pgd, steps=2, eot=2, stop="never") == [*draws, *draws, ()]
    # A clean test, then at every step one more pass that decides, then the last test.
    assert _paths(pgd, steps=2, eot=2) == [(), *draws, (), *draws, (), ()]


@pytest.mark.parametrize("stop", ["success", "never"])
def test_fresh_randomness_never_repeats_and_never_meets_the_models_own(stop: str) -> None:
    paths = _paths(pgd_eot, steps=2, eot=2, stop=stop)
    assert paths[:4] == [("attack", k, j) for k in (0, 1) for j in (0, 1)]
    assert len(set(paths)) == len(paths) == 5
    assert all(path[0] == "attack" for path in paths)


def test_counts_are_those_of_the_passes() -> None:
    cases: list[tuple[Callable[..., AttackResult], dict[str, Any]]] = [
        (pgd, {"eot": 3}), (pgd_eot, {"eot": 3}), (apgd, {}),
    ]  # fmt: skip
    for attack, settings in cases:
        spy, images, label = _asked_spy()
        result = attack(spy, images, label, eps=0.1, steps=4, **settings)
        assert result.forwards.item() == len(spy.log)
        assert result.backwards.item() == 4 * settings.get("eot", 1)


def test_fresh_attacks_do_not_stop_on_one_lucky_draw() -> None:
    defense, images = _defense(), _images(8)
    labels = _labels(defense, images)
    result = pgd(defense, images, labels, eps=0.2, steps=12, step_size=0.05, randomness="fresh")
    assert bool(result.success.any())
    assert result.iterations.tolist() == [12] * 8


def _slopes(defense: Defense, images: Tensor, labels: Tensor, mode: str) -> tuple[Tensor, Tensor]:
    """Return the oracle's averaged gradient and the one computed by hand."""
    settings = GradientSettings(eps=EPS, steps=1, eot=4, randomness="fresh", eot_mode=mode)  # type: ignore[arg-type]
    ids = torch.arange(len(images))
    found = Oracle(defense, settings).slope(images, labels, ids, step=5).gradient
    points = images.clone().requires_grad_()
    draws = [
        defense.at(ids=ids, xi=RandomnessConfig(0).fold("attack", 5, j))(points) for j in range(4)
    ]
    if mode == "logits":
        loss = cross_entropy(torch.stack(draws).mean(dim=0), labels, False).sum()
    else:
        loss = torch.stack([cross_entropy(logits, labels, False).sum() for logits in draws]).mean()
    return found, torch.autograd.grad(loss, points)[0]


def test_expectation_is_the_mean_of_gradients_or_the_gradient_of_mean_logits() -> None:
    defense, images = _defense(), _images(8)
    labels = _labels(defense, images)
    by_gradient, mean_of_gradients = _slopes(defense, images, labels, "gradient")
    by_logits, gradient_of_mean = _slopes(defense, images, labels, "logits")
    scale = mean_of_gradients.abs().max()
    assert torch.allclose(by_gradient, mean_of_gradients, atol=float(scale) * 1e-5)
    assert torch.allclose(by_logits, gradient_of_mean, atol=float(scale) * 1e-5)
    # They differ because cross-entropy is not linear in the logits.
    assert (by_gradient - by_logits).abs().max() > 1e-3 * scale


def test_bpda_is_the_classifiers_gradient_at_the_purified_point() -> None:
    defense, images = _defense(tile=4), _images(4)
    labels, ids = _labels(defense, images), torch.arange(4)
    settings = GradientSettings(eps=EPS, steps=1, gradient="bpda")
    found = Oracle(defense, settings).slope(images, labels, ids, step=0).gradient
    purifier = cast(Any, defense.purifier).at(ids=ids, xi=defense.xi)
    purified = purifier(images).detach().requires_grad_()
    loss = cross_entropy(defense.classifier(purified), labels, False).sum()
    (expected,) = torch.autograd.grad(loss, purified)
    assert torch.allclose(found, expected, atol=1e-6)
    exact = Oracle(defense, GradientSettings(eps=EPS, steps=1)).slope(images, labels, ids, 0)
    assert (exact.gradient - expected).abs().max() > 0.01 * expected.abs().max()


def test_variants_are_pgd_with_other_settings() -> None:
    defense, images = _defense(), _images(8)
    labels = _labels(defense, images)
    settings: dict[str, Any] = {"eps": EPS, "steps": 2}
    pairs: list[tuple[Callable[..., AttackResult], dict[str, Any], dict[str, Any]]] = [
        (bpda, {}, {"gradient": "bpda"}),
        (pgd_eot, {}, {"eot": 15, "randomness": "fresh"}),
        (bpda_eot, {"eot": 3}, {"eot": 3, "randomness": "fresh", "gradient": "bpda"}),
    ]
    for attack, own, spelled in pairs:
        one = attack(defense, images, labels, **settings, **own)
        two = pgd(defense, images, labels, **settings, **spelled)
        assert torch.equal(one.images, two.images)
        assert torch.equal(one.forwards, two.forwards)
    assert defense.purifier.gradient == "full"


def test_transfer_reports_under_the_models_own_randomness() -> None:
    defense, images = _defense(seed=0), _images(32)
    ids = torch.arange(32)
    labels, source = _labels(defense, images), RandomnessConfig(1)
    settings: dict[str, Any] = {"eps": EPS, "steps": 10, "step_size": 0.01}
    moved = transfer("pgd", defense, images, labels, source_xi=source, **settings)
    crafted = pgd(defense.at(xi=source), images, labels, stop="never", **settings)
    assert torch.equal(moved.images, crafted.images)
    wrong = defense.at(ids=ids)(moved.images).argmax(dim=1) != labels
    assert torch.equal(moved.success, wrong)
    assert moved.forwards.tolist() == (crafted.forwards + 1).tolist()
    with pytest.raises(BadInput, match="transfer from seed 0 is from the seed that decides"):
        transfer(pgd, defense, images, labels, source_xi=RandomnessConfig(0), **settings)
    with pytest.raises(BadInput, match="needs a model whose randomness can be set"):
        transfer(pgd, lambda x: x[:, 0, 0, :2], images, labels, source_xi=source, eps=EPS)


def test_fixed_attacks_refuse_a_defense_that_draws_anew_at_every_call() -> None:
    defense, images = _defense(), _images(8)
    labels = _labels(defense, images)
    restless = defense.at(xi=RandomnessConfig(0, scope="fresh"))
    with pytest.raises(BadInput, match="contradicts the defense"):
        pgd(restless, images, labels, eps=EPS)
    one, two = (pgd(restless, images, labels, eps=EPS, steps=2, randomness="fresh") for _ in "ab")
    assert torch.equal(one.images, two.images)
