"""Composition by selection: analytic truth, coverage at alpha, and recorded runs of it."""

import dataclasses
import math
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import ndtr, ndtri
from torch import Tensor, nn

from advpure.analysis.certification import (
    ABSTAIN,
    Certification,
    ComposedCertificate,
    certify_composition,
    read_sources,
)
from advpure.analysis.certification.base_classifier import base_classifier
from advpure.analysis.certification.composed import Selector, take_apart
from advpure.analysis.certification.counting import (
    COUNTS,
    ESTIMATION,
    Unit,
    count_classes,
    from_text,
)
from advpure.analysis.certification.noise import stage_xi
from advpure.base.errors import BadInput
from advpure.cli import run
from advpure.core.chain import Chain
from advpure.core.defense import Defense
from advpure.core.purifier import Purifier
from advpure.core.randomness import RandomnessConfig
from advpure.runs.records import RecordStore

TINY = 1e-5
SURE = ([0, 100], [0, 10_000])

# --- the procedure --------------------------------------------------------------------------------


def oracle_bound(count: int, samples: int, alpha: float) -> float:
    """The one-sided Clopper-Pearson bound by the binomial test's own inversion."""
    found = stats.binomtest(count, samples).proportion_ci(1 - 2 * alpha, method="exact")
    return float(found.low)


@pytest.mark.parametrize(("chosen", "answered"), [(900, 990), (990, 900), (600, 600)])
def test_the_radius_is_the_smaller_of_both(chosen: int, answered: int) -> None:
    found = certify_composition(
        ([0, 9], {1: answered, 0: 1000 - answered}), ([0, 9], {1: chosen, 0: 1000 - chosen}), 5,
        alpha=0.01, sigma=0.5, selector_sigma=0.25,
    )  # fmt: skip
    own = 0.5 * ndtri(oracle_bound(answered, 1000, 0.01))
    other = 0.25 * ndtri(oracle_bound(chosen, 1000, 0.01))
    assert found.radius <= min(own, other)
    assert found.radius == pytest.approx(min(own, other), rel=1e-9)
    assert found[0::2] == (1, "certified")
    assert found.samples == 1009


@pytest.mark.parametrize(
    ("certified", "selector", "core", "expected"),
    [
        (SURE, ([100], [9_000, 1_000]), 4, (4, 0.0, "core")),
        (SURE, ([100], [5_000, 5_000]), 1, (ABSTAIN, 0.0, None)),  # a test of the branch alone
        (SURE, ([0, 100], [5_000, 5_000]), 1, (1, 0.0, "either")),
        (SURE, ([0, 100], [5_000, 5_000]), 4, (ABSTAIN, 0.0, None)),
        (([0, 100], [5_000, 5_000]), SURE, 1, (ABSTAIN, 0.0, None)),
        (([0, 100], [10_000]), SURE, 0, (ABSTAIN, 0.0, None)),  # the other class than the selected
        (SURE, ([50, 50], [9_000, 1_000]), 4, (4, 0.0, "core")),  # a tie goes to the core
    ],
)
def test_which_branch_answers(
    certified: Any, selector: Any, core: int, expected: tuple[int, float, str | None]
) -> None:
    found = certify_composition(certified, selector, core, sigma=0.25)
    assert found[:3] == expected
    samples = sum(sum(stage) for stage in certified)
    assert found.samples == samples


# Whether f answers the candidate and whether s chooses, in one sample: how much they depend.
COUPLINGS = ("apart", "together", "against")


def joint(p: float, q: float, coupling: str) -> list[float]:
    """Return P(f and s), P(f only), P(s only), P(neither)."""
    both = {"apart": p * q, "together": min(p, q), "against": max(p + q - 1, 0.0)}[coupling]
    return [both, p - both, q - both, max(1 - p - q + both, 0.0)]


@lru_cache(maxsize=100_000)
def cached(answered: int, chosen: int, samples: int, core: int, branch: int) -> ComposedCertificate:
    votes = [100] if branch == 0 else [0, 100]
    return certify_composition(
        ([0, 100], [samples - answered, answered]), (votes, [samples - chosen, chosen]), core,
        alpha=0.05, sigma=1.0,
    )  # fmt: skip


def is_wrong(found: ComposedCertificate, p: float, q: float, core: int) -> bool:
    """Compare with the truth: f is class 1 on the ball of t_C, s chooses on that of t_S."""
    t_c, t_s = float(ndtri(p)), float(ndtri(q))
    if found.prediction == ABSTAIN:
        return False
    if found.radius > 0.0:  # beyond the smaller ball another class may answer
        return found.radius > min(t_c, t_s)
    answer = (1 if p > 0.5 else 0) if q > 0.5 else core
    return found.prediction != answer


TRUTHS = [
    (0.7, 0.7, 5, 1), (0.7, 0.9, 5, 1), (0.9, 0.7, 1, 1), (0.5, 0.8, 1, 1), (0.5, 0.5, 1, 1),
    (0.8, 0.5, 5, 1), (0.5, 0.8, 0, 1), (0.6, 0.55, 1, 0), (0.8, 0.501, 5, 0),
]  # fmt: skip
"""P(f = 1), P(s = 1), the core's class, and the branch that the selection stage proposes."""
QUICKLY = {(*TRUTHS[k], "apart") for k in (0, 8)}


@pytest.mark.parametrize(
    ("p", "q", "core", "branch", "coupling"),
    [
        pytest.param(*case, marks=() if case in QUICKLY else pytest.mark.slow)
        for case in ((*truth, coupling) for truth in TRUTHS for coupling in COUPLINGS)
    ],
)
def test_claims_are_wrong_at_most_as_often_as_alpha(
    p: float, q: float, core: int, branch: int, coupling: str
) -> None:
    generator = np.random.Generator(np.random.PCG64([int(1000 * p), int(1000 * q), core, branch]))
    trials, samples = 10_000, 100
    cells = generator.multinomial(samples, joint(p, q, coupling), size=trials)
    errors = 0
    for both, answered, chosen, _ in cells.tolist():
        found = cached(both + answered, both + chosen, samples, core, branch)
        errors += is_wrong(found, p, q, core)
    assert stats.binomtest(errors, trials, 0.05, alternative="greater").pvalue > TINY
    if (p, q) in ((0.7, 0.9), (0.8, 0.501)):
        # One bound decides, so its exact error rate is known: the test above can fail.
        label = p if branch else 1 - q
        wrong = [
            k for k in range(samples + 1) if oracle_bound(k, samples, 0.05) > (p if branch else 0.5)
        ]
        rate = float(stats.binom.pmf(wrong, samples, label).sum())
        assert stats.binomtest(errors, trials, rate).pvalue > TINY
        assert 0.02 < rate <= 0.05


# --- an analytic classifier through the engine ----------------------------------------------------

SHAPE = (1, 2, 4)
XI = RandomnessConfig(11, "counter")
SIGMA = 0.5


class Linear(nn.Module):
    """Class 1 where the signed distance from a plane is positive; the logits are -10 d, 10 d."""

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [B, 2]."""
        distance = 10 * (images.flatten(1) - 0.5).sum(1) / math.sqrt(math.prod(SHAPE))
        return torch.stack([-distance, distance], dim=1)


def entropy_at(distance: float) -> float:
    return float(stats.entropy([ndtr_logistic(20 * distance), ndtr_logistic(-20 * distance)]))


def ndtr_logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_linear_classifier_and_entropy_selector_have_their_true_radius() -> None:
    """The selector chooses where |d| >= h, so every probability is known on the line."""
    h, at, samples = 0.1, 0.4, 20_000
    image = torch.full(SHAPE, 0.5 + at / math.sqrt(math.prod(SHAPE)))
    selector = Selector(threshold=entropy_at(h), classes=2, cores={3: 0})
    defense = Defense(Purifier("none", Chain()), Linear(), xi=XI, tile=64)
    stage = stage_xi(XI, ESTIMATION)
    classify = base_classifier(defense, Chain(), stage, selector.pack)
    unit = Unit(3, SIGMA, ESTIMATION, 0, 0, samples)
    ((counted,),) = (
        found for found in count_classes([unit], {3: image}, classify, stage, batch=512) if found
    )
    parts = take_apart(counted.counts, 2)
    assert parts.core == 0

    def chosen(distance: float) -> float:
        return float(ndtr((distance - h) / SIGMA) + ndtr((-distance - h) / SIGMA))

    p, q = float(ndtr(at / SIGMA)), chosen(at)
    assert stats.binomtest(parts.classes[1], samples, p).pvalue > TINY
    assert stats.binomtest(parts.choices[1], samples, q).pvalue > TINY
    found = certify_composition(
        ([0, 9], parts.classes), ([0, 9], parts.choices), 0, alpha=TINY, sigma=SIGMA
    )
    # The true radius: how far the composition answers 1 on the way to the plane.
    line = np.linspace(0.0, at, 4001)
    answers = [d > 0 and chosen(d) > 0.5 for d in line]
    truth = at - line[max((k for k, ok in enumerate(answers) if not ok), default=0)]
    assert 0 < found.radius <= truth
    assert found.radius == pytest.approx(min(at, SIGMA * float(ndtri(q))), abs=0.03)


def test_a_code_holds_three_answers() -> None:
    selector = Selector(threshold=0.3, classes=10, cores={4: 7, 5: 0})
    logits, noisy = torch.zeros(3, 10), torch.zeros(3, 1, 8, 8)
    logits[0, 2] = 20.0  # certain, chosen
    logits[1, 9] = 1.0  # uncertain
    logits[2, 0] = 20.0
    codes = selector.pack(logits, noisy, torch.tensor([[4, 0], [4, 1], [5, 0]]))
    assert codes.tolist() == [2 + 10 + 140, 9 + 140, 0 + 10]
    assert take_apart({152: 3, 149: 4}, 10) == ({2: 3, 9: 4}, {1: 3, 0: 4}, 7)
    with pytest.raises(BadInput, match="a classifier of 3 classes does not fit 10"):
        selector.pack(logits[:, :3], noisy, torch.tensor([[4, 0], [4, 1], [5, 0]]))
    for counts in ({152: 3, 9: 1}, {2 * 10 * 10: 1}):
        with pytest.raises(BadInput, match="are not one class"):
            take_apart(counts, 10)


class Chooser(nn.Module):
    """A selector that chooses where the mean pixel is above a level."""

    def __init__(self, level: float, answers: int = 2) -> None:
        """Take the level."""
        super().__init__()
        self.level, self.answers = level, answers

    def forward(self, images: Tensor) -> Tensor:
        """Return logits."""
        above = images.flatten(1).mean(1) - self.level
        return torch.stack([-above, above][: self.answers], 1)


def test_a_trained_selector_chooses_by_the_noisy_image() -> None:
    noisy = torch.stack([torch.zeros(SHAPE), torch.ones(SHAPE)])
    rows = torch.tensor([[4, 0], [4, 1]])
    logits = torch.zeros(2, 10)  # as uncertain as can be: the entropy would never choose
    for level, expected in ((0.5, [0, 10]), (-1.0, [10, 10]), (2.0, [0, 0])):
        selector = Selector(threshold=0.0, classes=10, cores={4: 0}, network=Chooser(level))
        assert selector.pack(logits, noisy, rows).tolist() == expected
    for network in (Chooser(0.5, answers=1), Chooser(float("nan"))):
        selector = Selector(threshold=0.0, classes=10, cores={4: 0}, network=network)
        with pytest.raises(BadInput, match="is no choice between two"):
            selector.pack(logits, noisy, rows)


def test_linear_classifier_and_trained_selector_have_their_true_radius() -> None:
    """Both look along the same line, so the composition answers 1 up to the smaller distance."""
    samples, at, h = 20_000, 0.4, 0.15
    root = math.sqrt(math.prod(SHAPE))
    image = torch.full(SHAPE, 0.5 + at / root)
    network = Chooser(0.5 + h / root)  # chooses where the signed distance is above h
    selector = Selector(threshold=0.0, classes=2, cores={3: 0}, network=network)
    defense = Defense(Purifier("none", Chain()), Linear(), xi=XI, tile=64)
    stage = stage_xi(XI, ESTIMATION)
    classify = base_classifier(defense, Chain(), stage, selector.pack)
    unit = Unit(3, SIGMA, ESTIMATION, 0, 0, samples)
    found = count_classes([unit], {3: image}, classify, stage, batch=512)
    (counted,) = (each for part in found for each in part)
    parts = take_apart(counted.counts, 2)
    assert stats.binomtest(parts.choices[1], samples, float(ndtr((at - h) / SIGMA))).pvalue > TINY
    claim = certify_composition(
        ([0, 9], parts.classes), ([0, 9], parts.choices), 0, alpha=TINY, sigma=SIGMA
    )
    assert claim.branch == "certified"
    assert 0 < claim.radius <= at - h
    assert claim.radius == pytest.approx(at - h, abs=0.03)


# --- recorded runs --------------------------------------------------------------------------------

QUICK: dict[str, Any] = {
    "defense": "none", "dataset": "digits", "n": 4, "sigmas": "0.1,0.3", "samples": 200,
    "selection": 20, "block": 100, "radii": "0,0.1,0.25",
}  # fmt: skip
TRAINED = {"select_entropy": 0.5}  # its default, as nothing else goes with a trained selector
CHOSEN: dict[str, Any] = {"core": "digits-classifier", "select_entropy": 0.8}


def test_a_composed_run_has_the_counts_of_the_plain_one_and_certifies_no_more(
    tmp_path: Path,
) -> None:
    plain = Certification(**QUICK).run(out=tmp_path / "plain")
    both = Certification(**QUICK, **CHOSEN).run(out=tmp_path / "both")
    tables = []
    for name in ("plain", "both"):
        with RecordStore.read(tmp_path / name) as store:
            tables.append(store.rows(COUNTS.table))
    for one, two in zip(*tables, strict=True):
        parts = take_apart(from_text(two["counts"]), 10)
        assert parts.classes == from_text(one["counts"])
    for one, two in zip(plain.curves, both.curves, strict=True):
        radii, composed = one.images.radii, two.images.radii
        assert bool((composed <= radii).all())
        claimed = composed > 0
        assert bool(claimed.any()) or one is not plain.curves[0]
        same = two.images.predictions == one.images.predictions
        assert bool(same[claimed].all())
    for k in (1, 2):
        part = Certification(**QUICK, **CHOSEN, shard=f"{k}/2")
        part.run(out=tmp_path / f"part{k}")
    read = read_sources([tmp_path / "part1", tmp_path / "part2"])
    for one, two in zip(read.curves, both.curves, strict=True):
        assert one.radii.tolist() == two.images.radii.tolist()
    looser = read_sources([tmp_path / "both"], alpha=0.1)
    assert bool((looser.curves[0].radii >= both.curves[0].images.radii).all())
    for folder, procedure, message in (
        ("both", "fixed", "cannot read counts beside a core"),
        ("both", "anytime", "cannot read counts beside a core"),
        ("plain", "composed", "needs a core"),
    ):
        with pytest.raises(BadInput, match=message):
            read_sources([tmp_path / folder], procedure=procedure)


@pytest.mark.slow
def test_a_trained_selector_is_read_like_the_entropy(tmp_path: Path) -> None:
    chosen = {**CHOSEN, "select_entropy": 0.5, "selector": "digits-selector-025"}
    run = Certification(**QUICK, **chosen)
    whole = run.run(out=tmp_path / "whole")
    assert whole.settings["defense"]["selector"]["name"] == "digits-selector-025"
    assert "select_entropy" not in whole.settings["defense"]
    plain = Certification(**QUICK).run(out=tmp_path / "plain")
    for one, two in zip(plain.curves, whole.curves, strict=True):
        assert bool((two.images.radii <= one.images.radii).all())
    batches = run.run(out=tmp_path / "batches", batch_size=32)
    for one, two in zip(whole.curves, batches.curves, strict=True):
        assert one.images.radii.tolist() == two.images.radii.tolist()
        assert one.images.predictions.tolist() == two.images.predictions.tolist()
    entropy = tmp_path / "entropy"
    Certification(**QUICK, **CHOSEN).run(out=entropy)
    with pytest.raises(BadInput, match="have another defense"):
        dataclasses.replace(run, counts=(entropy,)).run(out=tmp_path / "other")
    names = [c.name for c in read_sources([tmp_path / "whole", entropy]).curves]
    assert names[0] == "none digits-classifier core digits-classifier digits-selector-025 0.1"
    assert len(set(names)) == 4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {**TRAINED, "selector": "digits-classifier"},
            "network 'digits-classifier' is no selector",
        ),
        ({**TRAINED, "selector": "digits-edm"}, "is no selector"),
        ({"core": "digits-selector-025"}, "is no classifier; pass it as selector"),
        ({"classifier": "digits-selector-025"}, "is no classifier"),
        ({"core": None, "selector": "digits-selector-025", "procedure": "fixed"}, "pass a core"),
        ({"core": None, "select_entropy": 0.5, "procedure": "composed"}, "needs a core"),
        ({"procedure": "anytime", "samples": 640, "block": 64}, "cannot read counts beside a core"),
        ({"select_entropy": 3.0}, r"outside \[0, 2.303\), in nats"),
        ({"select_entropy": float("nan")}, "is not finite"),
        ({"policy": "majority:3"}, "means nothing to none, which draws no noise"),
        ({"core": "digits-edm"}, "is no classifier"),
        ({"core": "cifar10-classifier"}, "does not fit digits images"),
        ({"core": "digits-klassifier"}, "did you mean 'digits-classifier'"),
    ],
)
def test_compositions_without_a_meaning_are_refused(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        Certification(**{**QUICK, **CHOSEN, **change}).run(out=tmp_path)


def test_counts_without_a_meaning_are_refused() -> None:
    for keywords, message in (
        ({"selector": ([0, 0, 3], [5])}, "answer 2 of a selector is no choice"),
        ({"core": -1}, "class -1 of the core is no class"),
        ({"alpha": 1.0}, "outside"),
        ({"selector": ([3], [])}, "hold no sample"),
    ):
        given: dict[str, Any] = {
            "certified": SURE, "selector": SURE, "core": 0, "sigma": 0.25, **keywords,
        }  # fmt: skip
        with pytest.raises(BadInput, match=message):
            certify_composition(**given)


def test_the_command_line_composes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [
        "certify", "--dataset", "digits", "--defense", "none", "-n", "2", "--sigma", "0.1",
        "-N", "100", "--selection", "20", "--core", "digits-classifier", "--radii", "0,0.1",
    ]  # fmt: skip
    assert run(words) == 0
    assert "defense none, composed certificates" in capsys.readouterr().out
    assert run([*words, "--select-entropy", "-1"]) == 2
    assert "entropy -1 is outside [0, 2.303), in nats; use for example 0.5" in (
        capsys.readouterr().err
    )
