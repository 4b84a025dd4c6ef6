"""A classifier that is a discriminator too: the logit of an image's class says how real it is.

With f the logits, c the class of an image x and s the logistic function, an image is real with
probability s(f_c(x)); the energy is -f_c(x), the one that the loss uses, and not minus the
log-sum-exp of all logits. The losses of one image are

    l_CE(x, c) = -log softmax(f(x))_c
    l_BCE(x, c) = -log s(f_c(x)) of a real image, -log(1 - s(f_c(x))) of a generated one.

`l0`, the level that boosting steers towards, is the mean over real images of the *generated* form:
what is compared with it is a generated image, and only the same form on both sides can agree. As
printed (equation 13 by way of equation 8), it is the mean of the real form.

Source: [Golan2024], equations 8, 10 and 13.
"""

from typing import Literal, NamedTuple, get_args

from torch import Tensor, nn
from torch.nn import functional as F

from advpure.base.errors import BadInput
from advpure.base.validation import check_choice

Form = Literal["real", "generated"]
"""Which of the two lines of equation 8."""


class JointScores(NamedTuple):
    """What a joint model says about images.

    Attributes:
        logits: [B, K].
        realness: [B], f_c: the logit of the class; larger is more real.
    """

    logits: Tensor
    realness: Tensor


class JointClassifier(nn.Module):
    """A classifier of images in [0, 1] whose logits also say how real they are.

    Any classifier can be wrapped; what makes its logits mean that is the training.

    Args:
        network: Images [B, C, H, W] in [0, 1] to logits [B, K].
        l0: Mean of the generated form of l_BCE over real images, at least 0; None where it is not
            known, as for a classifier that was not trained to discriminate.
    """

    def __init__(self, network: nn.Module, l0: float | None = None) -> None:
        """Wrap the network, in the mode that it has."""
        super().__init__()
        self.network, self.l0 = network, l0
        self.training = network.training

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [B, K] of images [B, C, H, W] in [0, 1]."""
        logits: Tensor = self.network(images)
        return logits

    def scores(self, images: Tensor, classes: Tensor | None = None) -> JointScores:
        """Return logits, and how real the images are as members of their classes.

        Args:
            images: [B, C, H, W] in [0, 1].
            classes: int64 [B]; None for the most likely ones.

        Raises:
            BadInput: for classes that the network does not have.

        Example:
            >>> import torch
            >>> joint = JointClassifier(nn.Flatten())
            >>> joint.scores(torch.tensor([[[[1.0, 3.0]]]])).realness
            tensor([3.])
        """
        logits = self(images)
        return JointScores(logits, realness(logits, classes))


def realness(logits: Tensor, classes: Tensor | None = None) -> Tensor:
    """Return f_c [B], the logit of the class of every image.

    Args:
        logits: [B, K].
        classes: int64 [B]; None for the most likely ones.

    Raises:
        BadInput: for classes that the network does not have.
    """
    if classes is None:
        return logits.amax(dim=1)
    check_classes(classes, logits)
    return logits_of(logits, classes)


def check_classes(classes: Tensor, logits: Tensor) -> None:
    """Refuse classes, int64 [B], that a model with logits [B, K] does not have.

    Raises:
        BadInput: naming the first.
    """
    if len(classes) and not 0 <= int(classes.min()) <= int(classes.max()) < logits.shape[1]:
        outside = classes[(classes < 0) | (classes >= logits.shape[1])][0]
        rule = f"is outside the {logits.shape[1]} classes of the model"
        raise BadInput(f"class {int(outside)}", rule, f"use 0 .. {logits.shape[1] - 1}")


def logits_of(logits: Tensor, classes: Tensor) -> Tensor:
    """Return f_c [B] of logits [B, K] for classes that were checked."""
    return logits.gather(1, classes[:, None]).squeeze(1)


def binary_losses(realness: Tensor, form: Form) -> Tensor:
    """Return l_BCE [B] of images whose realness is f_c [B].

    Args:
        realness: f_c.
        form: ``real``, -log s(f_c), or ``generated``, -log(1 - s(f_c)). Both as softplus, which
            does not overflow.

    Raises:
        BadInput: for another form.

    Example:
        >>> import torch
        >>> binary_losses(torch.tensor([0.0]), "real").item() == torch.tensor(2.0).log().item()
        True
    """
    check_choice(form, get_args(Form), "form")
    return generated_losses(-realness if form == "real" else realness)


def generated_losses(realness: Tensor) -> Tensor:
    """Return softplus(f_c) [B], the generated form; minus f_c gives the real one."""
    return F.softplus(realness)


def debias(logits: Tensor) -> Tensor:
    """Return what to add to logits before the class of an unlabelled generated image is chosen.

    A classifier prefers some classes on generated images; 1 minus the mean logits over some of
    them, [K], takes the preference away: the class is argmax(f(x) + debias).

    Args:
        logits: Answers to generated images, [n, K]; 1,000 in the source.

    Source: the published notebooks of [Ganz2022].

    Example:
        >>> import torch
        >>> debias(torch.tensor([[4.0, 0.0], [2.0, 2.0]])).tolist()
        [-2.0, 0.0]
    """
    return 1.0 - logits.mean(dim=0)
