"""A radius for each row: every row is attacked as it would be alone with that radius."""

from collections.abc import Callable

import pytest
import torch

from advpure.attacks import AttackResult, apgd, bpda, pgd
from advpure.base.errors import BadInput
from advpure.base.units import Norm
from advpure.core.defense import Defense
from advpure.core.randomness import RandomnessConfig
from advpure.data import Images, load_images
from advpure.loading import load_defense

RADII = {"linf": [0.05, 0.1, 0.2], "l2": [0.2, 0.5, 1.0]}
COLUMNS = ("images", "success", "loss", "iterations", "forwards", "linf", "l2")


@pytest.fixture(scope="module")
def defense() -> Defense:
    return load_defense("onestep-edm", "digits", sigma=0.1, xi=RandomnessConfig(0))


@pytest.fixture(scope="module")
def images() -> Images:
    return load_images("digits", n=6)


@pytest.mark.parametrize("attack", [pgd, apgd, bpda])
@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("start", ["drawn", "given"])
def test_a_row_is_attacked_as_alone_with_its_radius(
    attack: Callable[..., AttackResult], norm: Norm, start: str, defense: Defense, images: Images
) -> None:
    x, y, ids = images
    radii = torch.tensor(RADII[norm] * 2, dtype=torch.float64)
    moved = (x + 0.3 * (0.5 - x)) if start == "given" else None
    common = {"norm": norm, "steps": 4, "stop": "never", "start": moved}
    together = attack(defense, x, y, eps=max(RADII[norm]), ids=ids, radii=radii, **common)
    for eps in RADII[norm]:
        alone = attack(defense, x, y, eps=eps, ids=ids, **common)
        rows = radii == eps
        for column in COLUMNS:
            assert torch.equal(getattr(together, column)[rows], getattr(alone, column)[rows])
    size = together.linf if norm == "linf" else together.l2
    assert bool((size <= radii + 1e-6).all())
    assert bool((size >= 0.9 * radii).any())


@pytest.mark.parametrize(
    ("radii", "words"),
    [
        ([0.1], "do not match 6 images"),
        ([0.1] * 5 + [0.3], "radius 0.3 is not in"),
        ([0.1] * 5 + [0.0], "radius 0 is not in"),
        ([0.1] * 5 + [float("nan")], "radius nan is not in"),
    ],
)
def test_radii_outside_the_ball_are_refused(
    radii: list[float], words: str, defense: Defense, images: Images
) -> None:
    x, y, ids = images
    with pytest.raises(BadInput, match=words):
        pgd(defense, x, y, eps=0.2, ids=ids, radii=torch.tensor(radii), steps=1)


def test_a_step_of_a_given_size_shrinks_with_the_radius(defense: Defense, images: Images) -> None:
    x, y, ids = images
    radii = torch.tensor([0.05, 0.1, 0.2] * 2, dtype=torch.float64)
    found = pgd(
        defense, x, y, eps=0.2, radii=radii, ids=ids, steps=1, step_size=0.02, stop="never",
        random_start=False,
    ).linf  # fmt: skip
    assert found.tolist() == pytest.approx((radii / 10).tolist(), abs=1e-6)
