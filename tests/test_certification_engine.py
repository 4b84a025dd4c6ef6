"""Counting under noise: analytic classifiers, keyed noise, and chains without their own noise."""

import math
from collections import Counter
from typing import Any

import pytest
import torch
from scipy import stats
from scipy.special import ndtr
from torch import Tensor, nn

from advpure.analysis.certification.base_classifier import (
    base_classifier,
    chain_on_noisy,
    check_covered,
)
from advpure.analysis.certification.counting import (
    ESTIMATION,
    Unit,
    count_classes,
    from_text,
    to_text,
)
from advpure.analysis.certification.noise import (
    CHUNK,
    SampleNoise,
    chunk_noise,
    sample_rows,
    stage_xi,
)
from advpure.analysis.certification.radius import radius_of
from advpure.analysis.certification.two_stage import certify
from advpure.base.errors import BadInput
from advpure.core.analytic import GaussianDenoiser
from advpure.core.chain import Chain
from advpure.core.defense import Defense, Policy
from advpure.core.denoisers import EDMDenoiser
from advpure.core.purifier import Purifier
from advpure.core.randomness import RandomnessConfig
from advpure.loading import load_purifier

TINY = 1e-5
SHAPE = (1, 2, 4)
XI = RandomnessConfig(5, "counter")


class Linear(nn.Module):
    """Class 1 where w . x + b > 0, class 0 elsewhere; its distance to the boundary is known."""

    def __init__(self, direction: Tensor, offset: float) -> None:
        """Keep the weights w and the offset b."""
        super().__init__()
        self.direction, self.offset = direction, offset

    def forward(self, images: Tensor) -> Tensor:
        """Return -score and score."""
        score = (images.flatten(1) * self.direction).sum(1) + self.offset
        return torch.stack([-score, score], dim=1)


def direction() -> Tensor:
    return torch.linspace(-1.0, 1.5, math.prod(SHAPE))


def image() -> Tensor:
    return torch.linspace(0.2, 0.8, math.prod(SHAPE)).reshape(SHAPE)


def undefended(classifier: nn.Module, tile: int | None = 16) -> Defense:
    return Defense(Purifier("none", Chain()), classifier, xi=XI, tile=tile)


def counts_of(
    defense: Defense, chain: Chain, sigma: float, samples: int, *, batch: int = 256,
    images: dict[int, Tensor] | None = None, xi: RandomnessConfig = XI,
) -> dict[int, Counter[int]]:  # fmt: skip
    """Count `samples` per image in blocks of 100, through the engine."""
    images = images or {3: image()}
    units = [
        Unit(i, sigma, ESTIMATION, b, 100 * b, 100) for b in range(samples // 100) for i in images
    ]
    found: dict[int, Counter[int]] = {i: Counter() for i in images}
    stage = stage_xi(xi, ESTIMATION)
    classify = base_classifier(defense, chain, stage)
    for finished in count_classes(units, images, classify, stage, batch=batch):
        for unit, counts in finished:
            assert sum(counts.values()) == unit.samples
            found[unit.sample].update(counts)
    return found


# --- analytic classifiers -------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [0.1, 0.5])
@pytest.mark.parametrize("distance", [0.02, 0.3])
def test_linear_classifier_under_noise(distance: float, sigma: float) -> None:
    w, x, samples = direction(), image(), 20_000
    offset = -float((w * x.flatten()).sum()) + distance * float(w.norm())
    counts = counts_of(undefended(Linear(w, offset)), Chain(), sigma, samples)[3]
    p = float(ndtr(distance / sigma))
    assert stats.binomtest(counts[1], samples, p).pvalue > TINY
    certificate = certify([0, 100], counts, alpha=TINY, sigma=sigma)
    assert certificate.radius <= distance
    assert certificate.radius == pytest.approx(distance, abs=0.07 * sigma + 0.2 * distance)
    assert radius_of(p, sigma) == pytest.approx(distance, rel=1e-9)


@pytest.mark.parametrize("name", ["onestep-edm", "onestep-ddpm", "ddim", "pf-ode", "densepure"])
def test_purifiers_of_gaussian_data_are_linear(name: str) -> None:
    """Behind an exact denoiser the decision is linear in the noisy image: its p is known."""
    sigma, samples, w = 0.25, 20_000, direction()
    variance = torch.linspace(0.1, 0.6, math.prod(SHAPE)).reshape(SHAPE)
    denoiser = GaussianDenoiser(torch.zeros(SHAPE), variance)
    options: dict[str, Any] = {
        "ddim": {"stride": 40}, "densepure": {"steps": 1}, "pf-ode": {"nodes": 5},
    }  # fmt: skip
    clip = {"clip_x0": False} if name in ("onestep-ddpm", "densepure") else {}
    purifier = load_purifier(
        name, "digits", sigma=sigma, denoiser=denoiser, tile=256, **options.get(name, {}), **clip
    )
    chain = chain_on_noisy(purifier.chain, sigma)
    assert not any(step.noisy for step in chain)
    # The map of noisy images, from its values at the origin and at unit vectors.
    base = torch.cat([torch.zeros(1, *SHAPE), torch.eye(math.prod(SHAPE)).reshape(-1, *SHAPE)])
    maps = (chain.run(base.double() * 2 - 1, _NO_NOISE) + 1) / 2
    matrix = (maps[1:] - maps[:1]).flatten(1).T
    slope = w.double() @ matrix
    middle = float(w.double() @ maps[0].flatten() + slope @ image().double().flatten())
    distance = 0.2
    offset = -middle + distance * float(slope.norm())
    defense = Defense(purifier, Linear(w, offset), xi=XI, tile=256)
    counts = counts_of(defense, chain, sigma, samples)[3]
    assert stats.binomtest(counts[1], samples, float(ndtr(distance / sigma))).pvalue > TINY


class _NoNoise:
    def of(self, step: object, like: Tensor) -> None:
        return None


_NO_NOISE: Any = _NoNoise()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ddpm", {"stride": 40, "forward": "oneshot"}), ("cm", {"steps": 3}),
        ("densepure", {"steps": 4}),
        ("vpsde", {"dt": 0.05}),
    ],
)  # fmt: skip
def test_random_purifiers_have_the_law_of_the_whole_purifier(
    name: str, options: dict[str, Any]
) -> None:
    """Smoothing noise outside and chain noise per sample: as often class 1 as the plain defense."""
    sigma, samples, w = 0.25, 1000, direction()
    denoiser = GaussianDenoiser(torch.zeros(SHAPE), 0.3)
    purifier = load_purifier(name, "digits", sigma=sigma, denoiser=denoiser, tile=128, **options)
    chain = chain_on_noisy(purifier.chain, sigma)
    assert any(step.noisy for step in chain)
    offset = -float((w * image().flatten()).sum()) + 0.3
    policy = Policy("majority", 3, reverse_only=True) if name == "densepure" else None
    defense = Defense(purifier, Linear(w, offset), xi=XI, policy=policy, tile=128)
    counts = counts_of(defense, chain, sigma, samples)[3]
    many = image().expand(samples, *SHAPE)
    whole = defense.at(ids=torch.arange(samples), xi=RandomnessConfig(77, "counter"))
    with torch.no_grad():
        others = int(whole(many).argmax(1).sum())
    table = [[counts[1], samples - counts[1]], [others, samples - others]]
    assert stats.fisher_exact(table).pvalue > TINY
    assert 0.02 < counts[1] / samples < 0.98
    assert counts_of(defense, chain, sigma, 200, batch=128) == counts_of(
        defense, chain, sigma, 200, batch=256
    )


# --- noise ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["hash", "counter"])
def test_noise_is_standard_normal_and_never_repeats(scheme: Any) -> None:
    xi = RandomnessConfig(1, scheme)
    rows = torch.tensor([[i, k] for i in (0, 7, 10**6) for k in range(0, 3000, 3)])
    noise = sample_rows(stage_xi(xi, "estimation"), rows, "forward", 0, (1, 2, 2)).flatten(1)
    assert len(torch.unique(noise, dim=0)) == len(rows)
    assert stats.kstest(noise.flatten().double().numpy(), "norm").pvalue > TINY
    other = sample_rows(stage_xi(xi, "selection"), rows, "forward", 0, (1, 2, 2)).flatten(1)
    correlation = torch.corrcoef(torch.stack([noise.flatten(), other.flatten()]))[0, 1]
    assert abs(float(correlation)) < 4.5 / math.sqrt(noise.numel())


def test_noise_of_a_sample_depends_on_nothing_else() -> None:
    xi = stage_xi(XI, "estimation")
    chunk = chunk_noise(xi, 4, 2, SHAPE)
    rows = torch.tensor([[4, 2 * CHUNK + 5], [9, 1], [4, 2 * CHUNK + 63], [4, 0]])
    drawn = sample_rows(xi, rows, "forward", 0, SHAPE)
    assert drawn[0].equal(chunk[5])
    assert drawn[2].equal(chunk[63])
    assert not drawn[3].equal(chunk[0])
    assert drawn[[2, 0]].equal(sample_rows(xi, rows[[2, 0]], "forward", 0, SHAPE))


@pytest.mark.parametrize("scheme", ["counter", "hash"])
def test_consecutive_samples_have_the_same_noise(scheme: Any) -> None:
    xi = stage_xi(RandomnessConfig(5, scheme), ESTIMATION)
    stream = SampleNoise(xi)
    for name, first, count in ((3, 0, 150), (3, 150, 20), (3, 170, 1), (4, 60, 70), (3, 128, 64)):
        drawn = torch.empty((count, *SHAPE))
        stream.fill(drawn, name, first)
        rows = torch.tensor([[name, k] for k in range(first, first + count)])
        assert drawn.equal(sample_rows(xi, rows, "forward", 0, SHAPE))


# --- counting -------------------------------------------------------------------------------------


def test_counts_do_not_depend_on_batch_order_or_company() -> None:
    images = {i: torch.roll(image(), i, 2) for i in range(5)}
    defense = undefended(Linear(direction(), -0.7))
    whole = counts_of(defense, Chain(), 0.3, 400, images=images)
    assert len({tuple(sorted(counts.items())) for counts in whole.values()}) == 5
    for batch in (16, 64, 1024):
        assert counts_of(defense, Chain(), 0.3, 400, images=images, batch=batch) == whole
    backwards = dict(reversed(images.items()))
    assert counts_of(defense, Chain(), 0.3, 400, images=backwards, batch=48) == whole
    alone = counts_of(defense, Chain(), 0.3, 400, images={2: images[2]}, batch=112)
    assert alone[2] == whole[2]


def test_counts_are_those_of_a_plain_loop() -> None:
    sigma, x = 0.3, image()
    xi = stage_xi(XI, ESTIMATION)
    expected: Counter[int] = Counter()
    classifier = Linear(direction(), -0.7)
    for k in range(300):
        z = sample_rows(xi, torch.tensor([[3, k]]), "forward", 0, SHAPE)
        expected[int(classifier(x + sigma * z).argmax())] += 1
    assert counts_of(undefended(classifier), Chain(), sigma, 300)[3] == expected


def test_every_network_call_but_the_last_is_full() -> None:
    rows = []

    class Watch(Linear):
        def forward(self, images: Tensor) -> Tensor:
            """Note the size of the call."""
            rows.append(len(images))
            return super().forward(images)

    images = {i: image() for i in range(3)}
    counts_of(undefended(Watch(direction(), 0.0)), Chain(), 0.3, 500, images=images, batch=64)
    assert set(rows) == {16}
    assert len(rows) == math.ceil(1500 / 16)


def test_units_of_any_size_come_out_once() -> None:
    xi = stage_xi(XI, ESTIMATION)
    classify = base_classifier(undefended(Linear(direction(), -0.7)), Chain(), xi)
    units = [Unit(3, 0.3, ESTIMATION, 0, 0, 7), Unit(3, 0.3, ESTIMATION, 1, 7, 993)]
    parts = [*count_classes(units, {3: image()}, classify, xi, batch=64)]
    listed = [counted for part in parts for counted in part]
    assert [each.unit for each in listed] == units
    assert [sum(each.counts.values()) for each in listed] == [7, 993]
    together = Counter(listed[0].counts) + Counter(listed[1].counts)
    (whole,) = [
        each
        for part in count_classes(
            [Unit(3, 0.3, ESTIMATION, 0, 0, 1000)], {3: image()}, classify, xi, batch=1008
        )
        for each in part
    ]
    assert together == Counter(whole.counts)
    assert not [*count_classes([], {}, classify, xi, batch=64)]


def test_answers_that_are_no_numbers_are_refused() -> None:
    class Broken(Linear):
        def forward(self, images: Tensor) -> Tensor:
            """Return what is no number."""
            return super().forward(images) * float("nan")

    with pytest.raises(BadInput, match="answer for image 3 is not finite"):
        counts_of(undefended(Broken(direction(), 0.0)), Chain(), 0.3, 100)


def test_policies_vote() -> None:
    """A purifier whose noise flips the class: one draw is a coin, many draws are not."""
    denoiser = GaussianDenoiser(torch.zeros(SHAPE), 0.3)
    purifier = load_purifier("densepure", "digits", sigma=0.5, denoiser=denoiser, steps=2, tile=128)
    chain = chain_on_noisy(purifier.chain, 0.5)
    w = direction()
    offset = -float((w * 0.5).sum()) + 0.05
    found = {}
    for kind, draws in (("single", 1), ("majority", 15), ("eot", 15)):
        policy = Policy(kind, draws, kind == "majority")  # type: ignore[arg-type]
        defense = Defense(purifier, Linear(w, offset), xi=XI, policy=policy, tile=128)
        found[kind] = counts_of(defense, chain, 0.5, 500)[3][1] / 500
    assert found["majority"] > found["single"]
    assert found["eot"] == pytest.approx(found["majority"], abs=0.1)


@pytest.mark.parametrize("counts", [{}, {0: 5}, {3: 988, 7: 12}])
def test_counts_as_text(counts: dict[int, int]) -> None:
    assert from_text(to_text(counts)) == counts


# --- chains ---------------------------------------------------------------------------------------


def test_noise_of_another_strength_is_refused() -> None:
    denoiser = GaussianDenoiser(torch.zeros(SHAPE), 0.3)
    purifier = load_purifier("onestep-edm", "digits", sigma=0.5, denoiser=denoiser)
    with pytest.raises(BadInput, match=r"noise 0.25 is none of the noise levels .* adds 0.5"):
        chain_on_noisy(purifier.chain, 0.25)


def test_chains_without_noise_stay_as_they_are() -> None:
    denoiser = GaussianDenoiser(torch.zeros(SHAPE), 0.3)
    reverse = load_purifier("reverse", "digits", sigma=0.1, denoiser=denoiser).chain
    assert chain_on_noisy(reverse, 0.1) is reverse
    assert len(chain_on_noisy(Chain(), 0.1)) == 0
    ddpm = load_purifier("ddpm", "digits", sigma=0.1, denoiser=denoiser).chain
    rest = chain_on_noisy(ddpm, 0.1)
    assert rest[0].name == "rescale"
    assert rest[0].gain == pytest.approx(1 / math.sqrt(1 + 0.2**2), rel=0.01)
    assert rest.evaluations == ddpm.evaluations


def test_levels_that_a_denoiser_does_not_cover_are_refused() -> None:
    narrow = EDMDenoiser(nn.Identity(), sigma_min=0.1, sigma_max=1.0)
    check_covered(narrow, "narrow", 0.5)
    check_covered(None, "none", 99.0)
    for sigma in (0.04, 0.51):
        with pytest.raises(BadInput, match=r"denoiser narrow covers, 0.05 to 0.5 in \[0, 1\]"):
            check_covered(narrow, "narrow", sigma)
    check_covered(GaussianDenoiser(torch.zeros(SHAPE), 1.0), "exact", 40.0)
