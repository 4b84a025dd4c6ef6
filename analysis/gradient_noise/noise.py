"""Signal and noise of a random defense's gradient, at given images and without records.

See `advpure.analysis.gradient_noise.moments` for what is measured, and
`advpure.analysis.gradient_noise.study` for the recorded form.
"""

from functools import partial
from typing import Any

from torch import Tensor

from advpure.analysis.gradient_noise.draws import DrawSettings, batch_images, gradient_progress
from advpure.analysis.gradient_noise.result import GradientResult, image_gradients
from advpure.analysis.robustness.protocol import sampled
from advpure.attacks.oracle import check_batch
from advpure.base.errors import BadInput
from advpure.base.validation import resolved
from advpure.core.given import takes_pairs
from advpure.core.randomness import Ids, RandomnessConfig, check_xi
from advpure.runs.schema import Row


@partial(takes_pairs, model="defense")
def gradient_noise(
    defense: Any,
    images: Tensor,
    labels: Tensor,
    settings: DrawSettings | None = None,
    *,
    ids: Ids | None = None,
    xi: RandomnessConfig | None = None,
    batch_size: int | None = None,
    **changes: Any,
) -> GradientResult:
    """Measure signal and noise of a defense's gradient at given images, without records.

    Args:
        defense: A `Defense`, a pair of a purifier and a classifier, or any model of images with
            `at(ids=, xi=)` whose answer is a function of images, ids and xi; its gradient mode is
            kept.
        images: [B, C, H, W] in [0, 1], clean or attacked.
        labels: Classes [B].
        settings: Which gradients; None for the defaults.
        ids: Sample ids [B], all different; None for those the defense is bound to, else 0 .. B-1.
        xi: Configuration whose folds are the draws; None for the defense's own.
        batch_size: Images in memory at once; changes no result of a tiled defense.
        changes: Fields of `DrawSettings` to replace, such as ``draws=16``.

    Returns:
        One entry an image. Cost: draws + reference forward and backward passes an image.

    Raises:
        BadInput: for input, logits or gradients that cannot be used.

    Example:
        >>> from advpure import load_defense, load_images
        >>> images, labels, ids = load_images("digits", n=2)
        >>> defense = load_defense("cm", "digits")
        >>> noise = gradient_noise(defense, images, labels, draws=4, reference=4)
        >>> noise.sizes, len(noise.snrs)
        ((1, 2, 4), 2)
    """
    if not hasattr(defense, "at"):
        raise BadInput(
            f"a {type(defense).__name__}",
            "has no randomness that can be set",
            "pass a Defense, or a model with at(ids=, xi=)",
        )
    chosen = resolved(DrawSettings, settings, changes)
    xi = xi or getattr(defense, "xi", None) or RandomnessConfig(0)
    check_xi(xi)
    first = sampled(xi).fold("gradient", 0)
    batch = check_batch(defense, images, labels, ids, xi=first)
    listed: list[int] = batch.ids.tolist()
    kept: dict[str, Tensor] = {}
    rows: dict[int, tuple[list[Row], list[Row], list[Row]]] = {i: ([], [], []) for i in listed}
    for each in gradient_progress(
        defense,
        batch,
        chosen,
        xi,
        rows=batch_images(batch_size, getattr(defense, "tile", None)),
        finished={},
        kept=kept.__getitem__,
    ):
        kept |= each.sums
        for index, part in enumerate((each.draws, each.blocks, each.means)):
            for row in part:
                rows[row["sample"]][index].append(row)
    return GradientResult(tuple(image_gradients(i, a, b, c[0]) for i, (a, b, c) in rows.items()))
