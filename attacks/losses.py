"""Losses that an attack climbs: one value per sample, larger is closer to success.

With z the logits, y the label and pi_k the k-th largest logit:

* ce: -log softmax(z)_y; targeted: +log softmax(z)_t.
* margin: max_{j != y} z_j - z_y, positive exactly when the sample is misclassified; targeted:
  z_t - max_{j != t} z_j, positive exactly when the target is reached.
* dlr: the margin divided by pi_1 - pi_3, so that it does not change when the logits are shifted or
  scaled; targeted: divided by pi_1 - (pi_3 + pi_4) / 2.

`towards` is what one row climbs when rows of one batch have goals of their own: a class to reach,
at the cost of the true one, z_t - z_y, or one of the untargeted losses.

Source: [Carlini2017] (margin); [Croce2020], equations 6 and 7 (dlr). The targeted
dlr there subtracts the logit of the true class, which a caller that names only targets does not
know; here the largest other logit takes its place, the same number while the true class leads.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from advpure.base.errors import BadInput

LossName = Literal["ce", "margin", "dlr"]
Loss = Callable[[Tensor, Tensor, bool], Tensor]
_TINY = 1e-12


def cross_entropy(logits: Tensor, labels: Tensor, targeted: bool) -> Tensor:
    """Return the cross-entropy [B] of logits [B, classes], negated when targeted."""
    loss = functional.cross_entropy(logits, labels, reduction="none")
    return -loss if targeted else loss


def margin(logits: Tensor, labels: Tensor, targeted: bool) -> Tensor:
    """Return the margin [B] by which the attack has won, in logits.

    Example:
        >>> margin(torch.tensor([[3.0, 1.0]]), torch.tensor([0]), False).item()
        -2.0
    """
    own = logits.gather(1, labels[:, None])[:, 0]
    is_own = functional.one_hot(labels, logits.shape[1]).bool()
    other = logits.masked_fill(is_own, -torch.inf).amax(dim=1)
    return own - other if targeted else other - own


def dlr(logits: Tensor, labels: Tensor, targeted: bool) -> Tensor:
    """Return the difference of logits ratio [B], at most 1 in size.

    Raises:
        BadInput: with fewer than 3 classes, 4 when targeted.
    """
    needed = 4 if targeted else 3
    if logits.shape[1] < needed:
        raise BadInput(
            f"loss dlr with {logits.shape[1]} classes", f"needs {needed}", "use ce or margin"
        )
    top = logits.topk(needed, dim=1).values
    floor = (top[:, 2] + top[:, 3]) / 2 if targeted else top[:, 2]
    return margin(logits, labels, targeted) / (top[:, 0] - floor + _TINY)


CROSS_ENTROPY, MARGIN = -1, -2
"""Goals of a row that names no class to reach: the untargeted loss that it climbs."""


def towards(logits: Tensor, labels: Tensor, goals: Tensor) -> Tensor:
    """Return the loss [B] of rows with goals of their own.

    Args:
        logits: [B, classes].
        labels: True classes [B].
        goals: Of each row the class to reach, or CROSS_ENTROPY or MARGIN; int64 [B].

    Example:
        >>> rows, labels = torch.tensor([[3.0, 1.0, 2.0]]).expand(2, 3), torch.tensor([0, 0])
        >>> towards(rows, labels, torch.tensor([1, MARGIN])).tolist()
        [-2.0, -1.0]
    """
    own = logits.gather(1, labels[:, None])[:, 0]
    reached = logits.gather(1, goals.clamp(min=0)[:, None])[:, 0] - own
    rest = torch.where(
        goals == MARGIN, margin(logits, labels, False), cross_entropy(logits, labels, False)
    )
    return torch.where(goals >= 0, reached, rest)


LOSSES: dict[str, Loss] = {"ce": cross_entropy, "margin": margin, "dlr": dlr}


def succeeds(logits: Tensor, labels: Tensor, targeted: bool) -> Tensor:
    """Say for each sample [B] whether its predicted class is the goal of the attack."""
    hit = logits.argmax(dim=1) == labels
    return hit if targeted else ~hit
