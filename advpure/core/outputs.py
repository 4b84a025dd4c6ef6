"""Classifiers that answer with probabilities or with classes, made to answer with logits.

Attacks climb losses of logits. ``probabilities``: the logits are log p, with p clamped to 1e-30 or
more; they differ from the true ones by a constant a row, so cross-entropy and margins are the same
numbers. The cost: where a class has p = 0 or another p = 1 to rounding, the softmax in the
model has lost the gradient and attacks are blind, though the true logits would show a way.
``labels``: the logits of class y are 0 at y and log 1e-30 elsewhere. A class has no gradient at
all: gradient attacks say so (`ZeroGradientWarning`) and find nothing; decisions, noise and
certificates are exact.
"""

from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from advpure.base.errors import BadInput
from advpure.base.validation import check_choice

Outputs = Literal["logits", "probabilities", "labels"]
_LEAST = 1e-30
_SUM = 1e-2


class AsLogits(nn.Module):
    """Turn a classifier's probabilities or classes into logits, see the module.

    Args:
        network: Images [B, C, H, W] in [0, 1] to probabilities [B, K], or to classes [B].
        outputs: ``probabilities`` or ``labels``.
        classes: K, for labels.

    Example:
        >>> sure = nn.Sequential(nn.Flatten(), nn.Softmax(1))
        >>> AsLogits(sure, "probabilities")(torch.tensor([[[[0.0, 0.0]]]])).exp().tolist()
        [[0.5, 0.5]]
    """

    def __init__(
        self,
        network: nn.Module | Callable[[Tensor], Tensor],
        outputs: Outputs,
        classes: int | None = None,
    ) -> None:
        """Wrap the classifier."""
        super().__init__()
        check_choice(outputs, ("probabilities", "labels"), "outputs")
        if outputs == "labels" and classes is None:
            raise BadInput(
                "outputs 'labels'", "do not say how many classes there are", "pass classes"
            )
        self.network: Any = network
        self.outputs, self.classes = outputs, classes

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [B, K].

        Raises:
            BadInput: for answers that are not what they are said to be.
        """
        return self.convert(self.network(images), images)

    def convert(self, answer: Tensor, images: Tensor) -> Tensor:
        """Return logits [B, K] of an answer about images; see `forward`."""
        if self.outputs == "labels":
            answer = self._one_hot(answer, images)
        elif answer.ndim != 2 or not _are_probabilities(answer):
            raise BadInput(
                f"model outputs of shape {tuple(answer.shape)}",
                "are no probabilities (rows [B, K] of 0 or more that sum to 1)",
                "say outputs='logits' (--outputs logits)",
            )
        return answer.clamp(min=_LEAST).log()

    def _one_hot(self, answer: Tensor, images: Tensor) -> Tensor:
        whole = answer.detach().to(torch.int64)
        assert self.classes is not None
        good = answer.shape == (len(images),) and bool((whole == answer).all())
        beyond = whole[(whole < 0) | (whole >= self.classes)] if good else whole[:0]
        if len(beyond):
            rule = f"is outside 0 .. {self.classes - 1}, the classes of the data set"
            raise BadInput(f"class {int(beyond[0])} that the model answers with", rule, "mend it")
        if not good:
            raise BadInput(
                f"model outputs of shape {tuple(answer.shape)}",
                f"are no classes ([B], 0 .. {self.classes - 1})",
                "say outputs='logits' or 'probabilities'",
            )
        return nn.functional.one_hot(whole, self.classes).to(images.dtype)


def _are_probabilities(answer: Tensor) -> bool:
    values = answer.detach()
    return bool(((values >= -_SUM) & (values <= 1 + _SUM)).all()) and bool(
        ((values.sum(1) - 1).abs() < _SUM).all()
    )


def as_logits(network: nn.Module, outputs: Outputs, classes: int | None) -> nn.Module:
    """Return a classifier that answers with logits: the network itself, or wrapped.

    Args:
        network: The classifier.
        outputs: What it answers with.
        classes: Number of classes, for labels.

    Raises:
        BadInput: for an unknown kind of outputs.
    """
    check_choice(outputs, get_args(Outputs), "outputs")
    if outputs == "logits":
        return network
    wrapped = AsLogits(network, outputs, classes)
    wrapped.training = False  # and not .eval(), which would switch the network
    return wrapped
