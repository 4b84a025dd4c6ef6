"""What answers equal calls differently, or learns while it is measured, is refused everywhere."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from advpure.analysis import (
    compression_rate,
    estimate_divergence,
    expected_compression_rate,
    gradient_noise,
    infinitesimal_compression_rate,
    measure,
    signal_to_noise,
    step_compression,
)
from advpure.analysis.survival.minimum_radius import RadiusSettings, minimum_radii
from advpure.attacks import PGDSettings, apgd, bpda, pgd, pgd_eot, transfer, uniform_noise
from advpure.base.errors import BadInput
from advpure.core.defense import Defense
from advpure.core.denoisers import EDMDenoiser
from advpure.core.randomness import RandomnessConfig
from advpure.core.steady import check_steady
from advpure.data import load_images
from advpure.loading import load_classifier, load_defense, load_purifier

IMAGES, LABELS, IDS = load_images("digits", n=16)
EPS = "8/255"


def _layers() -> nn.Sequential:
    """Make the layers of the issue, in training mode."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.BatchNorm2d(1))


def _state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


class _Hidden:
    """A callable object that is no module and holds one."""

    def __init__(self, network: nn.Module) -> None:
        self._inner = {"deep": [network]}

    def __call__(self, x: Tensor) -> Tensor:
        result: Tensor = self._inner["deep"][0](x)
        return result


HIDDEN: dict[str, Callable[[nn.Module], Any]] = {
    "itself": lambda network: network,
    "lambda": lambda network: lambda x: network(x),
    "object": _Hidden,
    "wrapper": lambda network: nn.Sequential(nn.Identity(), network),
    "method": lambda network: network.forward,
}


@pytest.mark.parametrize("where", HIDDEN)
def test_layers_in_training_mode_are_refused_and_stay_as_they_were(where: str) -> None:
    network = _layers()
    before = _state(network)
    with pytest.raises(BadInput, match=r"(training mode|statistics of the batch) .*model\.eval"):
        expected_compression_rate(HIDDEN[where](network), IMAGES, eps=EPS)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert network.training
    rate = expected_compression_rate(HIDDEN[where](network.eval()), IMAGES, eps=EPS)
    assert rate.pooled[0].mean == pytest.approx(0.4735, abs=5e-5)


def test_a_mode_that_changes_after_the_first_question_is_noticed() -> None:
    network = _layers().eval()
    hidden = _Hidden(network)
    expected_compression_rate(hidden, IMAGES, perturbations=1)
    network.train()
    with pytest.raises(BadInput, match="training mode"):
        expected_compression_rate(hidden, IMAGES, perturbations=1)


class _Learner(nn.Module):
    """A normalisation of somebody's own, which keeps a running mean."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("average", torch.full((1,), 0.25))

    average: Tensor

    def forward(self, x: Tensor) -> Tensor:
        self.average.mul_(0.9).add_(0.1 * x.mean())
        return x / 2


def test_running_statistics_that_move_are_refused_and_put_back() -> None:
    network = _Learner()
    with pytest.raises(BadInput, match=r"changes its buffers \(average\) learns while"):
        compression_rate(lambda x: network(x), IMAGES, torch.full_like(IMAGES, 0.1))
    assert network.average.item() == 0.25


def test_functional_batch_statistics_are_refused_before_they_move() -> None:
    mean, variance = torch.zeros(1), torch.ones(1)

    def model(x: Tensor) -> Tensor:
        return functional.batch_norm(x, mean, variance, training=True)

    with pytest.raises(BadInput, match="normalises by the statistics of the batch mixes samples"):
        expected_compression_rate(model, IMAGES)
    assert (mean.item(), variance.item()) == (0.0, 1.0)
    untracked = nn.BatchNorm2d(1, track_running_stats=False).eval()
    with pytest.raises(BadInput, match="normalises by the statistics of the batch"):
        expected_compression_rate(untracked, IMAGES)


class _Dropping(nn.Module):
    """Functional dropout, which no mode switches off, in front of a network."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, *rest: Tensor) -> Tensor:
        result: Tensor = self.network(functional.dropout(x, 0.2), *rest)
        return result


class _Driven:
    """A random map with `at`, which ignores what it is told."""

    xi = ids = tile = None

    def at(self, **_: object) -> "_Driven":
        return self

    def __call__(self, x: Tensor) -> Tensor:
        return functional.dropout(x, 0.2)


DROPPED: list[Callable[[], object]] = [
    lambda: signal_to_noise(_Driven(), IMAGES, perturbations=2, configurations=2),
    lambda: pgd(_judge, IMAGES, LABELS, eps=0.1),
    lambda: apgd(_judge, IMAGES, LABELS, eps=0.1),
    lambda: uniform_noise(_judge, IMAGES, LABELS, eps=0.1),
    lambda: minimum_radii(
        _judge, IMAGES, LABELS, RadiusSettings(attack="pgd", settings=PGDSettings(eps=0.1))
    ),
    lambda: pgd(_defense(), IMAGES, LABELS, eps=0.1),
    lambda: pgd_eot(_defense(), IMAGES, LABELS, eps=0.1),
    lambda: bpda(_defense(), IMAGES, LABELS, eps=0.1),
    lambda: transfer(
        "pgd", _defense(), IMAGES, LABELS, source_xi=RandomnessConfig(1), eps=0.1
    ),
    lambda: gradient_noise(_defense(), IMAGES, LABELS, draws=2, reference=2),
    lambda: expected_compression_rate(_purifier(), IMAGES),
    lambda: signal_to_noise(_purifier(), IMAGES, perturbations=2, configurations=2),
    lambda: step_compression(_purifier(), IMAGES),
    lambda: measure("distance", _purifier(), load_images("digits", n=2)),
]  # fmt: skip


def _drop(x: Tensor) -> Tensor:
    return functional.dropout(x, 0.2)


def _judge(x: Tensor) -> Tensor:
    result: Tensor = load_classifier("digits")(_drop(x))
    return result


def _defense() -> Defense:
    """Return a defense that was put together by hand; `load_defense` would key the draws."""
    purifier, judge = load_purifier("none", "digits"), _Dropping(load_classifier("digits"))
    return Defense(purifier, judge, xi=RandomnessConfig(0), tile=64)


def _purifier() -> Any:
    network = nn.Conv2d(1, 1, 3, padding=1)
    denoiser = EDMDenoiser(_Dropping(_Conditional(network))).requires_grad_(False)
    return load_purifier("onestep-edm", "digits", xi=RandomnessConfig(0), denoiser=denoiser)


class _Conditional(nn.Module):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, _: Tensor) -> Tensor:
        result: Tensor = self.network(x)
        return result


@pytest.mark.parametrize("call", range(len(DROPPED)))
def test_functional_dropout_is_noticed_everywhere(
    call: int, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match=r"answers to two equal calls differ by .* no function"):
        DROPPED[call]()


KEYED: list[Callable[[], object]] = [
    lambda: compression_rate(_drop, IMAGES, torch.full_like(IMAGES, 0.1)),
    lambda: expected_compression_rate(_drop, IMAGES, perturbations=2).mean,
    lambda: infinitesimal_compression_rate(_drop, IMAGES, probes=1),
    lambda: estimate_divergence(_drop, IMAGES, probes=1),
]


@pytest.mark.parametrize("call", range(len(KEYED)))
def test_draws_of_a_function_are_keyed_and_leave_the_global_generator_alone(call: int) -> None:
    before = torch.get_rng_state()
    first = KEYED[call]()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(call + 5)
    second = KEYED[call]()
    torch.set_rng_state(before)
    assert str(first) == str(second)


def test_what_is_random_by_declaration_still_works() -> None:
    result = pgd(_judge, IMAGES[:2], LABELS[:2], eps=0.1, steps=1, randomness="fresh")
    assert result.backwards.tolist() == [1, 1]
    fresh = RandomnessConfig(0, scope="fresh")
    defense = load_defense("cm", "digits", xi=fresh)
    view = defense.at(ids=IDS[:2])
    first = pgd(view, IMAGES[:2], LABELS[:2], eps=0.1, steps=1, randomness="fresh")
    assert first.success.shape == (2,)
    assert defense._calls == [0]  # no question uses up a call


def test_the_question_is_asked_once_and_draws_nothing_of_the_run() -> None:
    seen: list[int] = []

    def model(x: Tensor) -> Tensor:
        seen.append(len(x))
        return x / 2

    state = torch.get_rng_state()
    for _ in range(3):
        check_steady(model, model, IMAGES)
    assert seen == [2, 2]
    with pytest.raises(BadInput):
        check_steady(_drop, _drop, IMAGES)
    assert torch.equal(state, torch.get_rng_state())


def test_networks_of_this_package_need_no_question_but_evaluation_mode() -> None:
    classifier = load_classifier("digits")
    seen: list[int] = []
    classifier.register_forward_hook(lambda *_: seen.append(1))
    check_steady(classifier, classifier, IMAGES)
    assert not seen
    with pytest.raises(BadInput, match="a model in training mode"):
        check_steady(classifier.train(), classifier, IMAGES)
    assert not seen


def test_a_model_of_fixed_batch_size_is_padded_to_its_tile() -> None:
    network = load_classifier("digits")

    class Fixed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if len(x) != 4:
                raise RuntimeError("compiled for 4 rows")
            result: Tensor = network(x)
            return result

    with pytest.raises(BadInput, match=r"takes 4 rows and not 2 has a fixed .*model\.tile"):
        pgd(Fixed(), IMAGES[:4], LABELS[:4], eps=0.1)
    with pytest.raises(BadInput, match=r"fails \(compiled for 4 rows\)"):
        pgd(Fixed(), IMAGES[:6], LABELS[:6], eps=0.1)
    tiled = Fixed()
    tiled.tile = 4  # type: ignore[assignment]
    given = {"eps": 0.1, "steps": 2}
    found, wanted = (
        pgd(model, IMAGES[:6], LABELS[:6], **given) for model in (tiled, network)
    )  # fmt: skip
    assert torch.equal(found.success, wanted.success)
    maps = lambda x: tiled(x)[:, :1, None, None].expand_as(x)  # noqa: E731
    maps.tile = 4  # type: ignore[attr-defined]
    assert expected_compression_rate(maps, IMAGES[:6], perturbations=1).pooled[0].n == 6


@pytest.mark.parametrize(("images", "rule"), [
    (torch.zeros(2, 3, 8, 8), r"\(2, 3, 8, 8\) do not fit networks that take \[B, 1, 8, 8\]"),
    (torch.zeros(2, 1, 16, 8), r"\(2, 1, 16, 8\) do not fit networks that take \[B, 1, 8, 8\]"),
    (torch.zeros(2, 1, 8, 8).double(), "float64 for a network of float32 mix two precisions"),
])  # fmt: skip
def test_images_that_do_not_fit_are_refused_in_one_line(images: Tensor, rule: str) -> None:
    defense = load_defense("cm", "digits", xi=RandomnessConfig(0)).bind([0, 1])
    for call in (
        lambda: defense(images), lambda: defense.purifier.at(ids=[0, 1], xi=defense.xi)(images),
        lambda: pgd(defense, images, LABELS[:2], eps=0.1),
        lambda: expected_compression_rate(defense, images),
    ):  # fmt: skip
        with pytest.raises(BadInput, match=rule):
            call()
    with pytest.raises(BadInput, match=r"a model given images .* fails \("):
        pgd(lambda x: nn.Linear(64, 10)(x.flatten(1)), torch.zeros(2, 3, 8, 8), LABELS[:2], eps=0.1)
    wide = load_defense("cm", "digits", xi=RandomnessConfig(0)).double().bind([0, 1])
    assert wide(torch.zeros(2, 1, 8, 8).double()).dtype == torch.float64


@pytest.mark.parametrize("attack", [pgd, uniform_noise])
@pytest.mark.parametrize("edit", [lambda x: x.mul_(0.5), lambda x: x.clamp_(0, 1)])
def test_a_model_that_edits_its_input_is_refused(attack: Any, edit: Any) -> None:
    images, labels, _ = load_images("digits", n=2)
    before = images.clone()
    with pytest.raises(BadInput, match="changes its input in place"):
        attack(lambda x: edit(x).flatten(1)[:, :10], images, labels, eps="8/255")
    assert torch.equal(images, before)


class Tiled(nn.Module):
    """A model of fixed batch size that edits what it is given."""

    tile = 4

    def __init__(self, edit: Callable[[Tensor], object]) -> None:
        """Keep the edit."""
        super().__init__()
        self.edit = edit

    def forward(self, x: Tensor) -> Tensor:
        """Answer with the first ten pixels."""
        self.edit(x)
        return x.flatten(1)[:, :10]


@pytest.mark.parametrize("attack", [pgd, uniform_noise])
@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize(
    "edit", [lambda x: x.clamp_(0, 1), lambda x: x.data.mul_(0.5), lambda x: x.numpy().fill(0.0)]
)
def test_a_model_that_edits_its_padded_tiles_is_refused(
    attack: Any, count: int, edit: Callable[[Tensor], object]
) -> None:
    images, labels, _ = load_images("digits", n=count)
    before = images.clone()
    with pytest.raises(BadInput, match="changes its input in place"):
        attack(Tiled(edit), images, labels, eps="8/255")
    assert torch.equal(images, before)
