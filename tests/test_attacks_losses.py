"""Losses against numbers worked out by hand, and the laws that name them."""

import math

import pytest
import torch

from advpure.attacks.losses import LOSSES, cross_entropy, dlr, margin, succeeds
from advpure.base.errors import BadInput

LOGITS = torch.tensor([[4.0, 1.0, 2.0, 0.0], [0.5, 3.0, -1.0, 2.0]], dtype=torch.float64)
LABELS = torch.tensor([0, 3])


def test_values_by_hand() -> None:
    ce = [math.log(sum(math.exp(z - 4) for z in (4, 1, 2, 0)))]
    ce += [math.log(sum(math.exp(z - 2) for z in (0.5, 3, -1, 2)))]
    assert cross_entropy(LOGITS, LABELS, False).tolist() == pytest.approx(ce)
    assert margin(LOGITS, LABELS, False).tolist() == [-2.0, 1.0]
    assert margin(LOGITS, LABELS, True).tolist() == [2.0, -1.0]
    assert dlr(LOGITS, LABELS, False).tolist() == pytest.approx([-2 / 3, 1 / 2.5])
    # pi_1 - (pi_3 + pi_4) / 2: 4 - 0.5 and 3 - (0.5 - 1) / 2.
    assert dlr(LOGITS, LABELS, True).tolist() == pytest.approx([2 / 3.5, -1 / 3.25])


def test_the_sign_of_the_margin_is_success() -> None:
    logits = torch.randn(200, 5, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(200) % 5
    for targeted in (False, True):
        won = succeeds(logits, labels, targeted)
        assert torch.equal(margin(logits, labels, targeted) > 0, won)
        assert 0 < int(won.sum()) < 200


def test_dlr_ignores_shift_and_scale() -> None:
    for targeted in (False, True):
        moved = dlr(LOGITS * 7 - 3, LABELS, targeted)
        assert torch.allclose(moved, dlr(LOGITS, LABELS, targeted), atol=1e-10)


@pytest.mark.parametrize("name", sorted(LOSSES))
@pytest.mark.parametrize("targeted", [False, True])
def test_a_row_has_no_neighbours(name: str, targeted: bool) -> None:
    both = LOSSES[name](LOGITS, LABELS, targeted)
    assert torch.equal(both[1:], LOSSES[name](LOGITS[1:], LABELS[1:], targeted))


@pytest.mark.parametrize(("classes", "targeted"), [(2, False), (3, True)])
def test_dlr_needs_enough_classes(classes: int, targeted: bool) -> None:
    with pytest.raises(BadInput, match="use ce or margin"):
        dlr(torch.zeros(1, classes), torch.tensor([0]), targeted)
