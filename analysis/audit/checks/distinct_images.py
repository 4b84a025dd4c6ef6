"""No image counts twice.

Copies of an image, as from padding the last batch or from a data set that was joined with itself,
count as cases of their own and make intervals too narrow; easy ones among them flatter the
defense. Among the images that probes are made on, those whose distance is a tenth of what lies
between two images usually are copies as well, with noise of their own; so are those that differ by
less than five grey levels, also where one is turned over or moved by a pixel. (No two of the
digits' test images are nearer than a sixth.)
It misses copies in other colours or sizes.

What to do: remove copies; `--subset` chooses images by id.
"""

from collections import Counter
from collections.abc import Iterator

import torch
from torch import Tensor

from advpure.analysis.audit.check import (
    ONE,
    Check,
    Finding,
    Measured,
    Settings,
    Value,
    failed,
    open_question,
    passed,
    share,
)
from advpure.analysis.audit.evaluation import Evaluation

_LEVELS, _TENTH = 5 / 255, 0.1
_SMALL = 6
"""Pixels a side below which what is left within the edge says little."""


def _measure(evaluation: Evaluation) -> Iterator[Value]:
    digests = evaluation.recorded.digests
    yield Value("images", ONE, float(len(digests)))
    yield Value("copies", ONE, float(sum(n - 1 for n in Counter(digests.values()).values())))
    if evaluation.images is not None and len(evaluation.images.ids) > 2:
        images = evaluation.images.images.double()
        same = torch.cdist(images.flatten(1), images.flatten(1), p=float("inf"))
        itself = 2 * torch.eye(len(images)).to(same)
        apart = [same, *(_between(images, each) for each in _turned(images))]
        bound = min(_LEVELS, _TENTH * float((same + itself).median()))
        nearest = torch.stack([each + itself for each in apart]).amin((0, 2))
        far = torch.cdist(images.flatten(1), images.flatten(1)) + itself * len(images[0].flatten())
        noisy = far.amin(0) < _TENTH * far.median()
        yield Value("close", ONE, float(((nearest < bound) | noisy).sum()))
        yield Value("probed", ONE, float(len(images)))


def _turned(images: Tensor) -> Iterator[Tensor]:
    """Yield images [B, C, H, W] turned over and moved by a pixel, without those at the edge."""
    if min(images.shape[-2:]) < _SMALL:
        return
    yield images.flip(-1)
    yield images.flip(-2)
    for by, axis in ((1, -1), (-1, -1), (1, -2), (-1, -2)):
        yield images.roll(by, axis)


def _between(images: Tensor, others: Tensor) -> Tensor:
    """Return the largest difference of a pixel away from the edge, [B, B]."""
    return torch.cdist(_inner(images), _inner(others), p=float("inf"))


def _inner(images: Tensor) -> Tensor:
    return images[..., 1:-1, 1:-1].flatten(1)


def _judge(numbers: Measured, settings: Settings) -> Finding:
    copies, n = numbers.one("copies"), int(numbers.one("images"))
    if not copies and numbers.has("close") and numbers.one("close"):
        close, probed = numbers.one("close"), int(numbers.one("probed"))
        return failed(share(close, probed, "images are nearly copies of others"), close, n=probed)
    if not n:
        return open_question("the records keep no digest of the images")
    told = f"{copies:.0f} of {n} images are copies of others"
    return failed(told, copies, n=n) if copies else passed(told, copies, n=n)


CHECK = Check(
    name="distinct-images",
    about="no image counts twice",
    source="[Carlini2019]",
    threshold="any copy; of probed images, any within a tenth* of the usual distance, l2, or of a "
    "pixel and 5 grey levels*",
    measure=_measure,
    judge=_judge,
    settle="take the copies out, or choose other images with --subset",
)
