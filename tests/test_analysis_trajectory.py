"""Distances along a chain: closed forms of noising and of Gaussian purifiers; perturbations."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from advpure.analysis.compression.noising import noised_distance, uniform_noise_norm
from advpure.analysis.distances.trajectory import measure_trajectory
from advpure.analysis.perturbed import Perturbation, parse_perturbations, perturbers
from advpure.base.errors import BadInput
from advpure.core.analytic import GaussianDenoiser
from advpure.core.randomness import RandomnessConfig
from advpure.core.schedules import linear_schedule
from advpure.data import load_images
from advpure.loading import load_defense, load_purifier

Z = 4.42  # two-sided normal quantile of alpha = 1e-5
XI = RandomnessConfig(0)
D = 3072


def made(text: str, images: Tensor, *, seed: int = 0, clip: bool = False) -> Tensor:
    (perturber,) = perturbers(
        parse_perturbations(text, 8 / 255), {}, norm="linf", seed=seed, clip=clip
    )
    ids = torch.arange(len(images))
    return perturber.make(images, torch.zeros(len(images), dtype=torch.int64), ids, None, XI)


def half_rms(n: int) -> Tensor:
    """CIFAR-sized images of 0.25 and 0.75: root mean square 0.5 in model units."""
    generator = torch.Generator().manual_seed(0)
    return 0.25 + 0.5 * torch.randint(0, 2, (n, 3, 32, 32), generator=generator)


@pytest.mark.parametrize("eps", [8, 32, 64, 128])
def test_uniform_perturbations_have_the_norms_of_the_formula(eps: int) -> None:
    images, n = half_rms(40), 40
    delta = (made(f"uniform:{eps}/255", images) - images).double().flatten(1)
    # Squares of uniform noise: mean e^2 / 3, deviation e^2 sqrt(4 / 45), over n d of them.
    squares = delta.square().mean().item() / (eps / 255) ** 2
    assert abs(squares - 1 / 3) < Z * (4 / 45 / (n * D)) ** 0.5
    expected = uniform_noise_norm(eps / 255, D)
    assert delta.norm(dim=1).mean().item() == pytest.approx(expected, rel=2e-3)
    # The largest of d uniform numbers misses e by about e / d.
    assert delta.abs().amax().item() <= eps / 255 * (1 + 1e-6)
    assert delta.abs().amax(dim=1).mean().item() == pytest.approx(eps / 255, rel=2e-3)


# Spec 14.15: the Max column of the published table, from abar_100 and images of rms 0.5.
@pytest.mark.parametrize(("eps", "largest"), [(8, 8.974), (32, 9.7), (64, 11.726), (128, 17.637)])
def test_the_noised_distance_is_the_one_predicted(eps: int, largest: float) -> None:
    abar = float(linear_schedule().abar[99])
    start = uniform_noise_norm(eps / 255, D)
    assert noised_distance(abar, start, D) == pytest.approx(largest, abs=5e-4)
    n = 24
    images = half_rms(n)
    purifier = load_purifier(
        "ddpm", "cifar10", t=100, denoiser=GaussianDenoiser(torch.zeros(3, 32, 32), 0.25), xi=XI
    )
    forward = sum(step.phase == "forward" for step in purifier.chain)
    moved = made(f"uniform:{eps}/255", images)
    cut = load_purifier("none", "cifar10")
    cut.chain = purifier.chain[:forward]
    found = measure_trajectory(cut, images, moved, torch.arange(n), XI)
    rms = found.l2[:, -1].square().mean().sqrt().item()
    # A sum of d independent squares: its root has a relative deviation of at most 1 / sqrt(2 d).
    assert abs(rms / largest - 1) < Z / (2 * D * n) ** 0.5 + 1e-4
    assert torch.allclose(found.l2[:, 0], (moved.double() - images).flatten(1).norm(dim=1))
    assert found.l2.shape == (n, forward + 1)


@pytest.mark.parametrize("text", ["none", "gaussian:64/255"])
def test_a_gaussian_purifier_ends_where_the_closed_form_says(text: str) -> None:
    n, std, sigma = 60, 0.3, 0.2  # data of deviation `std` in model units; sigma in [0, 1] units
    mean = torch.zeros(3, 32, 32)
    images = half_rms(n)
    purifier = load_purifier(
        "onestep-edm", "cifar10", sigma=sigma, denoiser=GaussianDenoiser(mean, std**2),
        time_rule="exact", clip=False,
    )  # fmt: skip
    moved = made(text, images)
    found = measure_trajectory(purifier, images, moved, torch.arange(n), XI)
    share = std**2 / (std**2 + (2 * sigma) ** 2)
    eta = 0.0 if text == "none" else 64 / 255 / 3**0.5
    # x + eta + sigma z, shrunk to `share` around the mean 0.5; |x - 0.5| = 0.25 everywhere.
    square = D * ((1 - share) ** 2 * 0.25**2 + share**2 * (sigma**2 + eta**2))
    rms = found.l2[:, -1].square().mean().sqrt().item()
    assert abs(rms / square**0.5 - 1) < Z / (2 * D * n) ** 0.5
    # On the way: noise alone is added.
    noised = found.l2[:, 1].square().mean().sqrt().item()
    expected = (D * (sigma**2 + eta**2)) ** 0.5
    assert abs(noised / expected - 1) < Z / (2 * D * n) ** 0.5


def test_states_are_those_of_the_trajectory() -> None:
    images, _, ids = load_images("digits", n=5)
    purifier = load_purifier("ddpm", "digits", t=20, xi=XI)
    found = measure_trajectory(purifier, images, images, ids, XI, purifier.tile)
    states = [state for _, state in purifier.bind(ids).trajectory(images)]
    for place, state in enumerate(states, 1):
        delta = (state.double() - images.double()).flatten(1)
        assert torch.allclose(found.l2[:, place], delta.norm(dim=1), rtol=1e-12)
        assert torch.equal(found.linf[:, place], delta.abs().amax(dim=1))
    assert torch.equal(found.purified, states[-1])
    assert torch.equal(found.purified, purifier(images))
    part = measure_trajectory(purifier, images[3:4], images[3:4], ids[3:4], XI, purifier.tile)
    assert torch.equal(part.l2[0], found.l2[3])


def test_a_purified_image_that_is_not_finite_is_refused() -> None:
    images = torch.full((2, 1, 8, 8), 0.5)
    moved = images.clone()
    moved[1, 0, 0, 0] = torch.inf
    with pytest.raises(BadInput, match=r"sample 7 .* is not finite"):
        measure_trajectory(
            load_purifier("none", "digits"), images, moved, torch.tensor([4, 7]), None
        )


def test_random_perturbations_are_keyed_by_seed_and_sample(
    pictures: Callable[..., Tensor],
) -> None:
    images = pictures(4, 1, 8, 8)
    one = made("uniform:16/255", images)
    assert torch.equal(one[2:3], made("uniform:16/255", images)[2:3])
    assert not torch.equal(one, made("uniform:16/255", images, seed=1))
    twice = made("uniform:32/255", images) - images
    assert torch.allclose(twice, 2 * (one - images), atol=1e-6), "the same direction"
    signs = (made("sign:16/255", images) - images).abs()
    assert torch.allclose(signs, torch.full_like(signs, 16 / 255), atol=1e-6)
    white = torch.ones(1, 1, 8, 8)
    assert float(made("uniform:64/255", white, clip=True).max()) == 1.0
    assert float(made("uniform:64/255", white).max()) > 1.0
    assert made("none", images) is images


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("none", ["none"]),
        ("uniform:0.03137254901960784, gaussian:8/255", ["uniform:8/255", "gaussian:8/255"]),
        ("attack:PGD_EOT,attack:bpda:4/255", ["attack:pgd-eot:0.15", "attack:bpda:4/255"]),
        (["sign:0.1"], ["sign:0.1"]),
    ],
)
def test_labels_are_the_same_for_the_same_perturbation(text: Any, labels: list[str]) -> None:
    assert [each.label for each in parse_perturbations(text, 0.15)] == labels


def test_a_label_reads_as_itself() -> None:
    for eps in (1 / 255, 8 / 255, 200 / 255, 0.15, 0.1234567):
        label = Perturbation(kind="uniform", eps=eps).label
        assert parse_perturbations(label, 0.1)[0].eps == eps


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "have an empty entry"),
        ("uniform", "perturbation 'uniform' is not complete; write uniform:8/255"),
        ("uniform:", "is not complete"),
        ("uniform:8/255:1", "is not complete"),
        ("uniform:8", "epsilon 8 is ambiguous"),
        ("none:8/255", "is not complete; write none"),
        ("unifrom:8/255", "did you mean uniform"),
        ("attack", "is not complete; write attack:pgd"),
        ("attack:pdg", "attack 'pdg' is not known"),
        ("attack:pgd:0", "epsilon 0 is not positive"),
        ("none,none", "repeat a value"),
        ("uniform:8/255,uniform:0.03137254901960784", "repeat a value"),
    ],
)
def test_perturbations_that_make_no_sense_are_refused(text: str, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        parse_perturbations(text, 0.15)


def test_attacks_take_the_options_that_they_know_and_all_their_steps() -> None:
    chosen = parse_perturbations("attack:pgd,attack:uniform-noise,none", 0.1)
    pgd, noise, none = perturbers(chosen, {"steps": "3"}, norm="linf", seed=0, clip=False)
    described = pgd.describe()["settings"]
    assert (described["steps"], described["stop"], described["eps"]) == (3, "never", 0.1)
    assert noise.settings is not None
    assert "steps" not in noise.describe()["settings"]
    assert none.passes == (0, 0)
    assert pgd.passes[1] == 3
    with pytest.raises(BadInput, match="attack option 'eps' is known to no attack"):
        perturbers(chosen, {"eps": "1/255"}, norm="linf", seed=0, clip=False)
    with pytest.raises(BadInput, match=r"attack option 'steps' .*add attack:pgd"):
        perturbers(parse_perturbations("none", 0.1), {"steps": 1}, norm="linf", seed=0, clip=False)


def test_an_option_of_one_attack_is_no_option_of_the_others() -> None:
    chosen = parse_perturbations("attack:pgd,attack:bpda-eot", 0.1)

    def eot(options: dict[str, Any]) -> list[int]:
        made = perturbers(chosen, options, norm="linf", seed=0, clip=False)
        return [each.describe()["settings"]["eot"] for each in made]

    assert eot({}) == [1, 15]
    assert eot({"eot": "4"}) == [1, 4], "plain PGD stays plain"
    assert eot({"pgd.eot": 3, "eot": 4}) == [3, 4]
    assert eot({"bpda-eot.eot": 2}) == eot({"bpda_eot.eot": 2}) == [1, 2]
    for wrong in ({"bpda.eot": 2}, {"pgd.": 2}, {"pgd.stepz": 2}):
        with pytest.raises(BadInput, match=r"known to no attack|of pgd is not known"):
            eot(wrong)


def test_an_attack_stays_in_its_ball_and_moves_images_that_are_fooled_already() -> None:
    images, labels, ids = load_images("digits", n=4)
    defense = load_defense("onestep-edm", "digits", xi=XI)
    (pgd,) = perturbers(
        parse_perturbations("attack:pgd:0.1", 0.15), {"steps": 2}, norm="linf", seed=0, clip=False
    )
    wrong = (labels + 1) % 10
    for y in (labels, wrong):
        moved = pgd.make(images, y, ids, defense, XI)
        change = (moved - images).abs().flatten(1).amax(dim=1)
        assert float(change.max()) <= 0.1 + 1e-6
        assert float(change.min()) > 0.05
