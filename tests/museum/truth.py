"""The true robustness of a room: in closed form, or by a search that no gradient can mislead.

Where every pixel of what a purifier returns depends on that pixel of the image alone, and the
classifier is linear, the worst image is found pixel by pixel: of many values in the ball the one
whose purified value is the furthest on the wrong side. That is exact up to the step of the values,
whatever the function. So it is, at a corner of the ball, for purifiers that keep the order along
each sign (added noise, the pull towards a prototype, the low-pass filter). The defense then decides
about that one image.
"""

import torch

from advpure.analysis.audit.study import Audit
from museum.cases import Case
from museum.rooms import SIGNS

_VALUES = 401


def true_robustness(case: Case) -> float | None:
    """Return the true robust accuracy of a room in per cent; None where nobody knows it."""
    if case.truth != "pixels":
        return case.truth
    settings = {k: v for k, v in case.settings.items() if k != "passes"}
    loaded = Audit(**settings).load().loaded
    assert loaded is not None
    images, labels, ids = loaded.images
    sides = (2.0 * labels - 1).reshape(-1, 1, 1, 1)
    (view, *_) = loaded.decisions.views(loaded.defense, ids)
    best = torch.full_like(images, float("inf"))
    worst, eps = images.clone(), case.settings["eps"]
    with torch.no_grad():  # values and decisions, no gradient flows
        for offset in torch.linspace(-eps, eps, _VALUES).tolist():
            moved = (images + offset).clamp(0, 1)
            shown = moved if case.settings["classifier"] is None else view.purifier.at(
                ids=ids, xi=view.xi
            )(moved)  # fmt: skip
            value = shown * SIGNS * sides
            worst, best = torch.where(value < best, moved, worst), torch.minimum(best, value)
        right = view(worst).argmax(1) == labels
    return 100 * float(right.double().mean())
