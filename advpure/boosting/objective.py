"""What boosting descends, one value an image.

With f the logits, c the class that is aimed at, l_CE = -log softmax(f)_c and the *generated* form
l_BCE = -log(1 - s(f_c)) = softplus(f_c), which grows as an image looks more real:

    ce          l_CE                              (the classifier's booster)
    bce         -l_BCE
    difference  l_CE - l_BCE                      (equation 11)
    reference   l_CE + (l_BCE - l0)^2 / 2         (equation 12, meant: its minimum is at l0)
    printed     l_CE - (l_BCE - l0)^2 / 2         (equation 12, printed: it runs away from l0)

l0 is the mean of the same form over real images.

Source: [Golan2024], equations 8 and 10 to 13.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from advpure.base.errors import BadInput
from advpure.boosting.settings import BoostSettings
from advpure.networks.joint import generated_losses, logits_of


def boosting_loss(
    logits: Tensor, classes: Tensor, settings: BoostSettings, l0: float | None
) -> Tensor:
    """Return what is descended, [B].

    Args:
        logits: f, [B, K].
        classes: c, int64 [B], of those that the model has.
        settings: Which loss; of sgld minus the logit of the class.
        l0: The level of real images.

    Raises:
        BadInput: for a loss that needs an l0.

    Example:
        >>> settings = BoostSettings(loss="bce")
        >>> boosting_loss(torch.tensor([[0.0, 1.0]]), torch.tensor([0]), settings, None)
        tensor([-0.6931])
    """
    real = logits_of(logits, classes)
    if settings.method == "sgld":
        return real if settings.printed else -real
    if settings.loss == "bce":
        return -generated_losses(real)
    entropy = F.cross_entropy(logits, classes, reduction="none")
    if settings.loss == "ce":
        return entropy
    binary = generated_losses(real)
    if settings.loss == "difference":
        return entropy - binary
    gap = (binary - need_reference(l0)).square() / 2
    return entropy - gap if settings.printed else entropy + gap


def is_real_enough(logits: Tensor, classes: Tensor, l0: float | None) -> Tensor:
    """Return whether l_BCE has reached the level of real images, bool [B]; no gradient flows."""
    with torch.no_grad():  # a decision
        return generated_losses(logits_of(logits, classes)) >= need_reference(l0)


def need_reference(l0: float | None) -> float:
    """Return l0.

    Raises:
        BadInput: where the model has none.
    """
    if l0 is None:
        raise BadInput(
            "a model without l0",
            "does not say how real the images of its class look",
            "use loss ce, bce or difference, give option l0, or a joint model of `advpure train`",
        )
    return l0
