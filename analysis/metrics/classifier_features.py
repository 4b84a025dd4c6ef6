"""The classifier's last features: what enters the linear layer that makes its logits.

Beside them, its class probabilities, over which a score like the inception score can be taken.
"""

from typing import Any

from torch import Tensor, nn

from advpure.analysis.metrics.networks import FeatureNetwork, MetricContext, Vectors
from advpure.base.errors import BadInput

_TILE = 64


def load(context: MetricContext) -> FeatureNetwork:
    """Wrap the classifier.

    Raises:
        BadInput: when there is none.
    """
    classifier = context.classifier
    if classifier is None:
        raise BadInput(
            "features of a classifier", "need one", "pass --classifier FILE (classifier=FILE)"
        )

    def run(images: Tensor) -> Vectors:
        features, logits = last_features(classifier, images)
        return {"classifier": features, "classifier-classes": logits.softmax(1)}

    return FeatureNetwork(
        run=run,
        outputs=("classifier", "classifier-classes"),
        tile=context.tile or _TILE,
        identity=dict(context.identity or {}),
    )


def last_features(classifier: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return the input of the linear layer that was called last, [B, d], and the logits [B, K].

    Raises:
        BadInput: for a classifier whose answer does not come from a linear layer on vectors.

    Example:
        >>> import torch
        >>> network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.Linear(3, 2))
        >>> features, logits = last_features(network, torch.zeros(5, 1, 2, 2))
        >>> features.shape, logits.shape
        (torch.Size([5, 3]), torch.Size([5, 2]))
    """
    seen: list[tuple[Tensor, Tensor]] = []

    def keep(module: nn.Module, given: tuple[Any, ...], made: Tensor) -> None:
        seen[:] = [(given[0], made)]

    linear = [module for module in classifier.modules() if isinstance(module, nn.Linear)]
    hooks = [module.register_forward_hook(keep) for module in linear]
    try:
        logits: Tensor = classifier(images)
    finally:
        for hook in hooks:
            hook.remove()
    if not seen or seen[0][0].ndim != 2 or seen[0][1].shape != logits.shape:
        raise BadInput(
            f"classifier {type(classifier).__name__}",
            "does not end in a linear layer, whose input would be its features",
            "leave out the metrics over classifier features",
        )
    return seen[0][0].to(logits.dtype), logits
