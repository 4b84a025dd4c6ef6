"""Minimum-norm attacks of foolbox, beside the bisection: is a found r* needlessly large?

Another algorithm on the same model and images. What it returns is tested again here, and measured
as realised, so a smaller norm proves that the search missed a smaller perturbation; a larger one
says nothing about r*.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from advpure.analysis.survival.minimum_radius import RadiusRow
from advpure.attacks.balls import distances
from advpure.attacks.oracle import Oracle
from advpure.attacks.settings import AttackSettings
from advpure.base.display import written
from advpure.base.errors import BadInput
from advpure.base.registry import Registry
from advpure.base.units import Norm
from advpure.core.defense import Defense
from advpure.core.tiling import tiled
from advpure.runs.schema import Count, Length, Row, Schema
from advpure.statistics.estimates import Estimate
from advpure.statistics.rates import Interval, mean_interval

ENGINES: Registry[Callable[[Norm], Any]] = Registry("minimum-norm attack")

CROSS_CHECK_SCHEMA = Schema(
    "cross_check", keys={"engine": str, "id": Count}, values={"upper": Length | None}
)


def _fmn(norm: Norm) -> Any:
    from foolbox.attacks.fast_minimum_norm import L2FMNAttack, LInfFMNAttack

    return L2FMNAttack() if norm == "l2" else LInfFMNAttack()


def _deepfool(norm: Norm) -> Any:
    from foolbox.attacks.deepfool import L2DeepFoolAttack, LinfDeepFoolAttack

    return L2DeepFoolAttack() if norm == "l2" else LinfDeepFoolAttack()


ENGINES.register("fmn", _fmn, about="fast minimum-norm attack, 100 steps (Pintor et al. 2021)")
ENGINES.register("deepfool", _deepfool, about="DeepFool, 50 steps (Moosavi-Dezfooli et al. 2016)")


class CrossCheck(NamedTuple):
    """Our upper ends beside those of another attack, over images that both fooled.

    Attributes:
        engine: The other attack.
        n: Images that are classified rightly and were fooled by both.
        ours: Mean of our upper ends, None for n = 0.
        theirs: Mean of the others.
        difference: Mean of ours - theirs.
        difference_interval: Its 95 % interval, paired; None for n < 2.
        larger: Images where ours is larger by more than the resolution of our search.
        only_ours: Images that only we fooled.
        only_theirs: Images that only the other attack fooled.
    """

    engine: str
    n: int
    ours: float | None
    theirs: float | None
    difference: float | None
    difference_interval: Interval | None
    larger: int
    only_ours: int
    only_theirs: int

    def __str__(self) -> str:
        """Return the comparison in words."""
        if not self.n:
            return f"{self.engine}: no image was fooled by both"
        return (
            f"{self.engine}: mean {self.theirs:.4g}, ours {self.ours:.4g}, difference "
            f"{written(self.estimate, '+.4g')} over {self.n} images; ours is larger on "
            f"{self.larger}"
        )

    @property
    def estimate(self) -> Estimate | None:
        """The mean of ours - theirs; None for n = 0."""
        if self.difference is None:
            return None
        interval = self.difference_interval
        return Estimate(value=self.difference, n=self.n, interval=interval, style="beside")

    def tree(self) -> dict[str, Any]:
        """Return the values by name."""
        return {**self._asdict(), "difference": self.estimate}


def minimum_norms(
    model: Defense, images: Tensor, labels: Tensor, engine: str, norm: Norm
) -> list[float | None]:
    """Run one of foolbox's attacks.

    Args:
        model: A defense with fixed randomness, bound to the ids of the rows.
        images: [B, C, H, W] in [0, 1].
        labels: True classes [B].
        engine: A name in `ENGINES`.
        norm: Norm to minimise.

    Returns:
        Realised norm of what fools the model, [B]; 0 for a misclassified image, None where the
        attack found nothing.

    Raises:
        BadInput: for an unknown engine.
    """
    from foolbox.criteria import Misclassification
    from foolbox.models.pytorch import PyTorchModel

    attack = ENGINES.get(engine)(norm)
    oracle = Oracle(model, AttackSettings(eps=1.0))  # it only judges here
    ids = torch.as_tensor(model.ids, dtype=torch.int64, device="cpu")
    wrong = oracle.judge(images, labels, ids, step=0).success.cpu()
    norms: list[float | None] = [0.0] * len(images)
    rows = torch.nonzero(~wrong)[:, 0]
    if not len(rows):
        return norms
    view = model.at(ids=ids[rows])
    bounded = PyTorchModel(view, bounds=(0, 1), device=images.device)
    criterion = Misclassification(labels[rows])
    _, points, _ = attack(bounded, images[rows], criterion, epsilons=None)
    fooled = oracle.judge(points, labels[rows], ids[rows], step=1).success.cpu()
    linf, l2 = tiled(distances, oracle.tile)(points.detach().cpu(), images[rows].cpu())
    sizes = (linf if norm == "linf" else l2).tolist()
    for row, size, good in zip(rows.tolist(), sizes, fooled.tolist(), strict=True):
        norms[row] = size if good else None
    return norms


def compare(
    rows: Sequence[RadiusRow], records: Sequence[Row], engine: str, resolution: float
) -> CrossCheck:
    """Compare the upper ends of a search with another attack's on the same images.

    Args:
        rows: Our rows.
        records: Rows of `CROSS_CHECK_SCHEMA`.
        engine: Which attack.
        resolution: Widest interval that our search leaves.
    """
    theirs = {row["id"]: row["upper"] for row in records if row["engine"] == engine}
    pairs = [(row.upper, theirs[row.id]) for row in rows if row.id in theirs and row.upper != 0.0]
    both = np.array([(a, b) for a, b in pairs if a is not None and b is not None]).reshape(-1, 2)
    gaps = both[:, 0] - both[:, 1]
    mean = mean_interval(gaps) if len(gaps) else None
    return CrossCheck(
        engine=engine,
        n=len(gaps),
        ours=_mean(both[:, 0]),
        theirs=_mean(both[:, 1]),
        difference=None if mean is None else mean.value,
        difference_interval=None if mean is None else mean.interval,
        larger=int((gaps > resolution).sum()),
        only_ours=sum(a is not None and b is None for a, b in pairs),
        only_theirs=sum(a is None and b is not None for a, b in pairs),
    )


def check_engines(names: Sequence[str], *, plain: bool) -> None:
    """Refuse unknown engines, and a search that they cannot follow.

    Args:
        names: Engines.
        plain: Whether the search stays within the [0, 1] box, as theirs does.

    Raises:
        BadInput: naming the first.
    """
    for name in names:
        ENGINES.get(name)
    if names and not plain:
        raise BadInput(
            f"cross-check {', '.join(names)}",
            "keeps to [0, 1], the search does not",
            "use box unit",
        )


def _mean(values: Any) -> float | None:
    return float(values.mean()) if len(values) else None
