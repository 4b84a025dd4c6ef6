"""Smallest perturbations: closed forms of linear models, honest intervals, one row an image."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from advpure.analysis.robustness.attack_choice import attack_settings
from advpure.analysis.survival.cross_check import ENGINES, compare, minimum_norms
from advpure.analysis.survival.minimum_radius import RadiusRow, RadiusSettings, minimum_radii
from advpure.attacks import AttackResult, PGDEOTSettings, PGDSettings, pgd
from advpure.base.errors import BadInput
from advpure.base.units import Norm
from advpure.core.randomness import RandomnessConfig
from advpure.data import load_images
from advpure.loading import load_defense

SHAPE = (1, 4, 4)
EXACT = [("apgd", {}), ("pgd", {"random_start": False})]


class Linear(nn.Module):
    """Logits (w x - b, 0, -9) in float64."""

    def __init__(self) -> None:
        """Draw the weights."""
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        self.weight = torch.randn(SHAPE, generator=generator, dtype=torch.float64)
        self.offset = float(self.weight.sum()) / 2

    def score(self, images: Tensor) -> Tensor:
        """Return w x - b."""
        return (images * self.weight).sum(dim=(1, 2, 3)) - self.offset

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        score = self.score(images)
        return torch.stack([score, torch.zeros_like(score), torch.zeros_like(score) - 9], dim=1)

    def radius(self, images: Tensor, norm: Norm) -> Tensor:
        """Return the distance to the border: |w x - b| over the dual norm."""
        dual = self.weight.abs().sum() if norm == "linf" else self.weight.square().sum().sqrt()
        return self.score(images).abs() / dual


def pictures(count: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return 0.35 + 0.3 * torch.rand(count, *SHAPE, generator=generator, dtype=torch.float64)


def labels(model: Linear, images: Tensor) -> Tensor:
    return (model.score(images) <= 0).long()


def settings(
    attack: str = "apgd", norm: Norm = "linf", top: float = 0.3, search: Any = "tight",
    bisections: int = 7, **options: Any,
) -> RadiusSettings:  # fmt: skip
    options = {"steps": 40, **options} if attack == "apgd" else options
    chosen = attack_settings(attack, options, eps=top, norm=norm, randomness="fixed")
    return RadiusSettings(attack=attack, settings=chosen, search=search, bisections=bisections)


def uppers(rows: list[RadiusRow]) -> list[float]:
    return [math.inf if row.upper is None else row.upper for row in rows]


# --- Closed forms ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("attack", "options"), EXACT)
@pytest.mark.parametrize(("norm", "top"), [("linf", 0.2), ("l2", 0.8)])
@pytest.mark.parametrize("search", ["plain", "tight"])
def test_the_radius_of_a_linear_model_is_found_and_never_undercut(
    attack: str, options: dict[str, Any], norm: Norm, top: float, search: str
) -> None:
    model, images = Linear(), pictures()
    chosen = settings(attack, norm, top, search, **options)
    rows = minimum_radii(model, images, labels(model, images), chosen)
    true = model.radius(images, norm).tolist()
    assert 0.001 < min(true) < max(true) < top
    for row, radius in zip(rows, true, strict=True):
        assert row.upper is not None
        assert radius * (1 - 1e-9) <= row.upper <= radius + chosen.resolution * 1.01
        assert row.lower <= radius * (1 + 1e-9)
        assert row.upper - row.lower <= chosen.resolution * 1.001
        assert row.misses == 0


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_weak_attack_finds_more_but_never_less(norm: Norm) -> None:
    model, images = Linear(), pictures()
    weak = settings("uniform-noise", norm, 0.8, bisections=6)
    rows = minimum_radii(model, images, labels(model, images), weak)
    true = model.radius(images, norm).tolist()
    assert all(upper >= radius for upper, radius in zip(uppers(rows), true, strict=True))
    assert np.mean(np.array(uppers(rows)) > 1.5 * np.array(true)) > 0.5


def test_the_wrong_are_at_zero_and_the_unfooled_are_censored() -> None:
    model, images = Linear(), pictures()
    y = labels(model, images)
    y[0] = 1 - y[0]
    radius = model.radius(images, "linf")
    top = 1.05 * float(radius[1:].median())
    rows = minimum_radii(model, images, y, settings(top=top))
    assert rows[0][1:6] == (0.0, 0.0, 0, 0, 1)
    for row, true in zip(rows[1:], radius[1:].tolist(), strict=True):
        if true > top:
            assert (row.lower, row.upper, row.attacks) == (top, None, 1)
        else:
            assert row.upper is not None
            assert row.upper == pytest.approx(true, abs=1.01 * top / 2**7)
    assert {row.upper is None for row in rows[1:]} == {True, False}


@pytest.mark.parametrize(("a", "b"), [(0.25, 0.3), (0.6, 0.2)])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_an_affine_purifier_divides_the_radius_at_its_anchor_points(
    a: float, b: float, norm: Norm
) -> None:
    model, images = Linear(), pictures()
    anchors = a * images + b
    y = labels(model, anchors)
    top, most = (0.3, 1.0) if norm == "linf" else (0.9, 4.0)
    at_anchors = minimum_radii(model, anchors, y, settings(norm=norm, top=top))
    defended = minimum_radii(
        lambda x: model(a * x + b), images, y, settings(norm=norm, top=min(top / a, most))
    )
    for anchor, whole in zip(at_anchors, defended, strict=True):
        assert anchor.upper is not None
        assert whole.upper is not None
        assert a * whole.upper == pytest.approx(anchor.upper, abs=2 * top / 2**7)


# --- Bookkeeping ----------------------------------------------------------------------------------


def fickle(
    model: Any, images: Tensor, y: Tensor, chosen: PGDSettings, *, ids: Any, radii: Tensor,
    start: Tensor | None = None,
) -> AttackResult:  # fmt: skip
    """Fool at the end of the bracket and below 0.05, and fail between."""
    found = pgd(model, images, y, chosen, ids=ids, radii=radii, random_start=False, stop="never")
    works = (radii == chosen.eps) | (radii < 0.05)
    return dataclasses.replace(found, success=found.success & works)


def test_a_success_below_a_failure_takes_the_lower_end_along(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = Linear()
    images = pictures(1)
    images = images + (0.01 - model.score(images)) * model.weight / model.weight.square().sum()
    monkeypatch.setattr("advpure.analysis.survival.minimum_radius.find", lambda name: fickle)
    chosen = settings("pgd", search="tight", top=0.2, bisections=4)
    [row] = minimum_radii(model, images, torch.tensor([0]), chosen)
    true = float(model.radius(images, "linf"))
    assert true < 0.02
    assert row.upper is not None
    assert true <= row.upper < 0.05  # pulled back on the segment, below the failures
    assert row.lower < row.upper
    plain = dataclasses.replace(chosen, search="plain")
    [row] = minimum_radii(model, images, torch.tensor([0]), plain)
    assert row.upper is not None
    assert row.upper == pytest.approx(
        0.2, abs=1e-6
    )  # the plain search trusts its failures: between them and the end
    assert row.attacks == 5


def test_failures_at_or_above_the_upper_end_are_misses(monkeypatch: pytest.MonkeyPatch) -> None:
    def two_ways(images: Tensor) -> Tensor:  # fooled from 0.15 at one pixel, from 0.03 at another
        far, near = images[:, 0, 0, 0] - 0.65, images[:, 0, 0, 1] - 0.53
        return torch.stack([-torch.maximum(far, near), 0 * far], dim=1)

    def by_radius(
        model: Any, x: Tensor, y: Tensor, given: PGDSettings, *, ids: Any, radii: Tensor
    ) -> AttackResult:
        size = radii.item()
        pixel, works = (0 if size == given.eps else 1), not 0.06 < size < 0.1
        moved = x.clone()
        moved[0, 0, 0, pixel] += size if works else 0.0
        return pgd(model, x, y, given, ids=ids, start=moved, radii=radii, steps=1, step_size=1e-9)

    monkeypatch.setattr("advpure.analysis.survival.minimum_radius.find", lambda name: by_radius)
    gray = torch.full((1, 1, 1, 2), 0.5, dtype=torch.float64)
    chosen = settings("pgd", top=0.2, bisections=10)
    [row] = minimum_radii(two_ways, gray, torch.tensor([0]), chosen)
    assert row.upper is not None  # 0.2, pulled back to 0.15; not at 0.075; at 0.11, back to 0.03
    assert 0.03 <= row.upper <= 0.03 + chosen.resolution * 1.01
    assert row.upper - row.lower <= chosen.resolution * 1.001
    assert row.misses == 1


def test_an_attack_without_radii_of_its_own_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model, images = Linear(), pictures(5)
    y = labels(model, images)
    chosen = settings("pgd", bisections=5, search="plain")
    together = minimum_radii(model, images, y, chosen, ids=[4, 3, 9, 1, 0])

    def bare(model: Any, x: Tensor, y: Tensor, given: PGDSettings, *, ids: Any) -> AttackResult:
        return pgd(model, x, y, given, ids=ids)

    monkeypatch.setattr("advpure.analysis.survival.minimum_radius.find", lambda name: bare)
    assert minimum_radii(model, images, y, chosen, ids=[4, 3, 9, 1, 0]) == together


def test_more_bisections_only_narrow() -> None:
    images, y, ids = load_images("digits", n=6)
    defense = load_defense("none", "digits")
    few, more = (
        minimum_radii(
            defense, images, y, settings("pgd", bisections=k, steps=8, search="plain"), ids=ids
        )
        for k in (1, 3)
    )
    for coarse, fine in zip(few, more, strict=True):
        assert uppers([fine]) <= uppers([coarse])
        assert fine.lower >= coarse.lower


def test_plain_survival_is_what_an_attack_of_that_radius_leaves() -> None:
    images, y, ids = load_images("digits", n=24)
    defense = load_defense("none", "digits")
    chosen = settings("pgd", top=0.16, bisections=1, steps=15, search="plain")
    found = np.array(uppers(minimum_radii(defense, images, y, chosen, ids=ids)))
    for eps in (0.16, 0.08):
        left = ~pgd(defense, images, y, eps=eps, ids=ids, steps=15).success.numpy()
        assert (found > eps).mean() == pytest.approx(left.mean(), abs=1e-12)
    assert 0 < (found > 0.16).sum() < 24


@pytest.mark.parametrize("name", ["none", "onestep-edm"])
def test_a_row_does_not_depend_on_its_batch(name: str) -> None:
    images, y, ids = load_images("digits", n=5)
    defense = load_defense(name, "digits", xi=RandomnessConfig(0))
    chosen = settings("pgd", top=0.3, bisections=2, steps=3)
    together = minimum_radii(defense, images, y, chosen, ids=ids)
    order = torch.tensor([3, 0, 4, 1, 2])
    mixed = minimum_radii(defense, images[order], y[order], chosen, ids=ids[order])
    assert sorted(mixed) == sorted(together)
    for k in (0, 3):
        alone = minimum_radii(defense, images[k : k + 1], y[k : k + 1], chosen, ids=ids[k : k + 1])
        assert alone == together[k : k + 1]


def test_a_blind_attack_is_marked() -> None:
    def flat(images: Tensor) -> Tensor:
        return torch.stack([images.sum((1, 2, 3)).round(), 1.9 + 0 * images[:, 0, 0, 0]], 1)

    with pytest.warns(UserWarning, match="gradient is zero"):
        [row] = minimum_radii(
            flat, torch.full((1, *SHAPE), 0.5), torch.tensor([0]), settings(steps=3, bisections=1)
        )
    assert (row.zero_gradient, row.lower) == (True, 0.3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"search": "deep"}, "search 'deep' is not known"),
        ({"bisections": -1}, "bisections -1"),
        ({"bisections": 2.5}, r"bisections 2\.5"),
        ({"settings": PGDEOTSettings(eps=0.1)}, "randomness 'fresh'"),
    ],
)
def test_what_cannot_be_searched_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        dataclasses.replace(settings(), **change)


def test_the_cost_is_bounded_by_what_is_announced() -> None:
    images, y, ids = load_images("digits", n=6)
    defense = load_defense("none", "digits")
    for search in ("plain", "tight"):
        chosen = settings("pgd", steps=5, bisections=3, search=search)
        for row in minimum_radii(defense, images, y, chosen, ids=ids):
            assert row.forwards <= chosen.most_passes.forwards
            assert 0 < row.backwards <= chosen.most_passes.backwards


# --- Other attacks --------------------------------------------------------------------------------


def test_the_comparison_pairs_images_and_counts_the_rest() -> None:
    ours = [RadiusRow(i, 0.0, u, 1, 0, 1, 1, False) for i, u in enumerate([0.0, 0.1, 0.2, None])]
    theirs = [
        {"engine": "fmn", "id": 0, "upper": 0.0}, {"engine": "fmn", "id": 1, "upper": 0.12},
        {"engine": "fmn", "id": 2, "upper": 0.15}, {"engine": "fmn", "id": 3, "upper": 0.4},
        {"engine": "deepfool", "id": 1, "upper": None},
    ]  # fmt: skip
    found = compare(ours, theirs, "fmn", 0.01)
    assert found.n == 2
    assert found.difference == pytest.approx(0.015)
    assert (found.larger, found.only_ours, found.only_theirs) == (1, 0, 1)
    other = compare(ours, theirs, "deepfool", 0.01)
    assert other[:6] == ("deepfool", 0, None, None, None, None)
    assert other.only_ours == 1


@pytest.mark.slow
@pytest.mark.parametrize(("norm", "top"), [("linf", 0.3), ("l2", 1.4)])
def test_our_radii_are_not_systematically_larger_than_foolbox_finds(norm: Norm, top: float) -> None:
    images, y, ids = load_images("digits", n=48)
    defense = load_defense("none", "digits").bind(ids)
    chosen = settings("apgd", norm, top, steps=40)
    rows = minimum_radii(defense, images, y, chosen)
    for engine in ENGINES:
        found = minimum_norms(defense, images, y, engine, norm)
        records = [
            {"engine": engine, "id": i, "upper": u}
            for i, u in zip(ids.tolist(), found, strict=True)
        ]
        result = compare(rows, records, engine, chosen.resolution)
        assert result.n > 40
        assert result.difference_interval is not None
        assert result.difference_interval.high < 0.0, engine
        assert result.only_theirs == 0
