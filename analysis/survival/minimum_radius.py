"""The smallest perturbation that fools a classifier, image by image: bisection over an attack.

For the image x with label y, r* = min { ||e|| : the class of x + e is not y, x + e in [0, 1] }. No
attack finds r* itself; it leaves an interval [lower, upper]:

* A perturbation that was found and fools the model is a proof: r* is at most its norm as realised,
  `upper`, whatever else the attack did.
* An attack that fails at a radius proves nothing. `lower` is the largest radius below `upper` at
  which it failed: where the search looked and did not find. The true r* may be smaller.

A misclassified image has r* = 0 exactly. An image that is not fooled at the end of the bracket is
right-censored: upper is None and lower the end.

Two searches. ``plain`` attacks every radius afresh, as a robustness run with that radius does, so
the share of images with r* above a radius predicts what such a run reports; this is the paper's
binary search. ``tight`` also uses what was found: every success is pulled back along its segment to
the image by forward passes, and starts the next attack, so upper ends are smaller.

Source: [Wei2025], sections 5.2 and 5.3 (bracket and bisections are not stated there).
"""

import inspect
import math
from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from annotated_types import Ge, Le
from torch import Tensor

from advpure.attacks.balls import distances
from advpure.attacks.oracle import Batch, Model, Oracle, check_batch
from advpure.attacks.outcome import AttackResult
from advpure.attacks.registry import find
from advpure.attacks.settings import AttackSettings, Passes
from advpure.base.errors import BadInput
from advpure.base.validation import validate
from advpure.core.randomness import Ids
from advpure.core.tiling import tiled

Search = Literal["plain", "tight"]
Bisections = Annotated[int, Ge(0), Le(30)]
"""Halvings of a bracket; 30 of them are finer than float32."""
_ROUNDING = 1e-5  # realised norms may exceed the radius by the rounding of a pixel
_SEGMENT_STEPS = 8  # forward passes on the segment: 1/256 of its length


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """How to narrow a bracket.

    Attributes:
        bisections: Halvings of the bracket; intervals end at most end / 2^bisections wide.
        search: ``tight``: go on from what was found; ``plain``: attack every radius afresh.
    """

    bisections: Bisections = 10
    search: Search = "tight"


@dataclass(frozen=True, kw_only=True)
class RadiusSettings(SearchSettings):
    """How to search.

    Attributes:
        attack: Name of a registered attack.
        settings: Its settings; their radius is the end of the bracket, and their norm the norm. A
            step size that is set belongs to the end, and shrinks with the radius.

    Raises:
        BadInput: for a search that is not known, fresh randomness, or a number of bisections
            outside 0 .. 30.
    """

    attack: str
    settings: AttackSettings

    def __post_init__(self) -> None:
        """Check the choices."""
        validate(self)
        if self.settings.randomness != "fixed":
            raise BadInput(
                f"attack {self.attack!r} with randomness 'fresh'",
                "has no minimum perturbation: whether an image is fooled changes from draw to draw",
                "use randomness fixed",
            )

    @property
    def top(self) -> float:
        """The end of the bracket, [0, 1] units."""
        return self.settings.eps

    @property
    def resolution(self) -> float:
        """The widest interval that the search leaves, [0, 1] units."""
        return self.top * 0.5**self.bisections

    @property
    def most_attacks(self) -> int:
        """Bound the attacks on one image; the tight search may have to go back below a failure."""
        return 1 + self.bisections * (2 if self.search == "tight" else 1)

    @property
    def most_passes(self) -> Passes:
        """Bound the passes on one image from above."""
        attacks, each = self.most_attacks, self.settings.most_passes
        segment = _SEGMENT_STEPS if self.search == "tight" else 0
        return Passes(1 + attacks * (each.forwards + segment), attacks * each.backwards)


class RadiusRow(NamedTuple):
    """What is known of one image's r*, in [0, 1] units.

    Attributes:
        id: Sample id.
        lower: Largest radius below `upper` at which the attack failed; 0 if there is none.
        upper: Realised norm of the smallest perturbation found; 0 for a misclassified image, None
            where none was found within the bracket.
        attacks: Attacks made.
        misses: Attacks that failed at a radius of `upper` or more, where a perturbation exists:
            proof of a weak attack.
        forwards: Forward passes through the model.
        backwards: Backward passes.
        zero_gradient: The first gradient was exactly zero, so the attack was blind.
    """

    id: int
    lower: float
    upper: float | None
    attacks: int
    misses: int
    forwards: int
    backwards: int
    zero_gradient: bool


def minimum_radii(
    model: Model,
    images: Tensor,
    labels: Tensor,
    settings: RadiusSettings,
    *,
    ids: Ids | None = None,
) -> list[RadiusRow]:
    """Search the smallest perturbation that fools a model, for every image.

    Args:
        model: Images [B, C, H, W] in [0, 1] to logits; a `Defense` with fixed randomness, or any
            deterministic callable.
        images: [B, C, H, W], floating point in [0, 1].
        labels: True classes [B].
        settings: How to search.
        ids: Data-set indices [B]; None means those that the model is bound to, else 0 .. B-1.

    Returns:
        One row per image, in order. A row has the same bits in every batch if the model has a
        `tile`. Cost: see `RadiusSettings.most_passes`; images that are decided leave the batch.

    Raises:
        BadInput: for settings, images, labels or outputs that cannot be used.

    Example:
        >>> from advpure.attacks import PGDSettings
        >>> towards_white = lambda x: torch.stack([x.sum((1, 2, 3)), 1.2 + 0 * x[:, 0, 0, 0]], 1)
        >>> gray = torch.full((1, 1, 1, 2), 0.5, dtype=torch.float64)
        >>> chosen = RadiusSettings(attack="pgd", settings=PGDSettings(eps=0.4))
        >>> [row] = minimum_radii(towards_white, gray, torch.tensor([1]), chosen)
        >>> row.lower <= 0.1 <= row.upper <= 0.1 + chosen.resolution
        True
    """
    batch = check_batch(model, images, labels, ids, settings.settings)
    state = _Bracket(batch, settings)
    oracle = Oracle(model, settings.settings)
    wrong = oracle.judge(batch.images, batch.labels, batch.ids, step=0).success.cpu().numpy()
    state.forwards += 1
    state.upper[wrong] = 0.0
    for _ in range(settings.most_attacks):
        rows = state.open_rows()
        if not len(rows):
            break
        state.narrow(oracle, rows)
    return state.rows()


@dataclass
class _Bracket:
    """What is known so far of a batch: arrays [B], one entry an image."""

    batch: Batch
    settings: RadiusSettings
    upper: npt.NDArray[np.float64] = field(init=False)
    failed: list[list[float]] = field(init=False)
    best: Tensor = field(init=False)

    def __post_init__(self) -> None:
        """Know nothing."""
        count = len(self.batch.images)
        self.upper = np.full(count, math.inf)
        self.failed = [[] for _ in range(count)]
        self.best = self.batch.images.clone()
        self.attacks, self.forwards, self.backwards = np.zeros((3, count), dtype=np.int64)
        self.blind = np.zeros(count, dtype=bool)

    def lower(self, row: int) -> float:
        """Return the largest failed radius below the upper end."""
        return max((r for r in self.failed[row] if r < self.upper[row]), default=0.0)

    def open_rows(self) -> Tensor:
        """Return the rows [A] that are neither decided nor censored."""
        end, wanted = self.settings.top, self.settings.resolution * (1 + _ROUNDING)
        wide = [
            end not in self.failed[row] if math.isinf(upper) else upper - self.lower(row) > wanted
            for row, upper in enumerate(self.upper)
        ]
        return torch.nonzero(torch.tensor(wide, dtype=torch.bool, device="cpu"))[:, 0]

    def narrow(self, oracle: Oracle, rows: Tensor) -> None:
        """Attack the rows [A] at the end of the bracket, or in the middle of their interval."""
        listed, norm = rows.tolist(), self.settings.settings.norm
        middle = [(self.lower(row) + self.upper[row]) / 2 for row in listed]
        radii = torch.tensor(
            [min(r, self.settings.top) for r in middle], dtype=torch.float64, device="cpu"
        )
        part = Batch(*(tensor[rows] for tensor in self.batch))
        start = self._start(rows, radii)
        result = _attack(oracle.model, part, self.settings, radii, start)
        fooled = result.success.numpy()
        self.attacks[listed] += 1
        self.forwards[listed] += result.forwards.numpy()
        self.backwards[listed] += result.backwards.numpy()
        first = self.attacks[listed] == 1
        self.blind[listed] |= first & result.zero_gradient.numpy()
        for row, radius, success in zip(listed, radii.tolist(), fooled.tolist(), strict=True):
            if not success:
                self.failed[row].append(radius)
        sizes = (result.linf if norm == "linf" else result.l2).numpy()
        won = np.flatnonzero(fooled)
        if len(won):
            self._keep(oracle, rows[won], result.images[won], sizes[won])

    def _start(self, rows: Tensor, radii: Tensor) -> Tensor | None:
        """Return first iterates [A, C, H, W] that continue what was found, None for the attack's.

        The tight search shrinks the best perturbation to the radius. Before the first success
        there is nothing to continue: all rows of a batch are then at the end of the bracket.
        """
        known = np.isfinite(self.upper[rows.numpy()])
        if self.settings.search == "plain" or not known.all():
            return None
        share = radii / torch.from_numpy(self.upper[rows.numpy()])
        return _along(self.batch.images[rows], self.best[rows], share)

    def _keep(self, oracle: Oracle, rows: Tensor, points: Tensor, sizes: npt.NDArray[Any]) -> None:
        """Lower the upper ends of rows [A] to what was found, and in a tight search below it."""
        if self.settings.search == "tight":
            points, sizes = self._pull_back(oracle, rows, points, sizes)
            self.forwards[rows.numpy()] += _SEGMENT_STEPS
        better = torch.from_numpy(sizes < self.upper[rows.numpy()])
        self.upper[rows[better].numpy()] = sizes[better.numpy()]
        self.best[rows[better]] = points[better]

    def _pull_back(
        self, oracle: Oracle, rows: Tensor, points: Tensor, sizes: npt.NDArray[Any]
    ) -> tuple[Tensor, npt.NDArray[Any]]:
        """Return the nearest points on the segments to the images that were seen to fool."""
        batch, norm = self.batch, self.settings.settings.norm
        centres = batch.images[rows]
        low, high = (
            torch.zeros(len(rows), dtype=torch.float64, device="cpu"),
            torch.ones(len(rows), dtype=torch.float64, device="cpu").double(),
        )
        best, best_sizes = points, sizes
        for step in range(_SEGMENT_STEPS):
            share = (low + high) / 2
            tried = _along(centres, points, share)
            verdict = oracle.judge(tried, batch.labels[rows], batch.ids[rows], step=step)
            fooled = verdict.success.cpu()
            linf, l2 = tiled(distances, oracle.tile)(tried.cpu(), centres.cpu())
            reached = (linf if norm == "linf" else l2).numpy()
            high, low = torch.where(fooled, share, high), torch.where(fooled, low, share)
            best = torch.where(fooled.to(best.device)[:, None, None, None], tried, best)
            best_sizes = np.where(fooled.numpy(), reached, best_sizes)
        return best, best_sizes

    def rows(self) -> list[RadiusRow]:
        """Return the result."""
        return [
            RadiusRow(
                i,
                self.lower(row),
                None if math.isinf(self.upper[row]) else float(self.upper[row]),
                int(self.attacks[row]),
                len([r for r in self.failed[row] if r >= self.upper[row]]),
                int(self.forwards[row]),
                int(self.backwards[row]),
                bool(self.blind[row]),
            )
            for row, i in enumerate(self.batch.ids.tolist())
        ]


def at_radius(settings: AttackSettings, radius: float) -> AttackSettings:
    """Return an attack's settings for another radius; a step size that is set goes along."""
    step = getattr(settings, "step_size", None)
    more: dict[str, Any] = {} if step is None else {"step_size": step * (radius / settings.eps)}
    return replace(settings, eps=radius, **more)


def _along(centres: Tensor, points: Tensor, share: Tensor) -> Tensor:
    """Return the points [A, C, H, W] at a share [A] of the way from centres to points."""
    wide = share.to(centres)[:, None, None, None]
    return (centres + (points - centres) * wide).clamp(0.0, 1.0)


def _attack(
    model: Model, batch: Batch, settings: RadiusSettings, radii: Tensor, start: Tensor | None
) -> AttackResult:
    """Attack every row at its radius: in one call where the attack takes radii, else in several."""
    run = find(settings.attack)
    known = inspect.signature(run).parameters
    given = {} if start is None or "start" not in known else {"start": start}
    if "radii" in known:
        return run(model, *batch[:2], settings.settings, ids=batch.ids, radii=radii, **given)
    groups = []
    for radius in dict.fromkeys(radii.tolist()):
        rows = torch.nonzero(radii == radius)[:, 0]
        images, labels, ids = (tensor[rows] for tensor in batch)
        chosen = at_radius(settings.settings, radius)
        more = {name: tensor[rows] for name, tensor in given.items()}
        groups.append((rows, run(model, images, labels, chosen, ids=ids, **more)))
    order = torch.cat([rows for rows, _ in groups]).argsort()
    columns: dict[str, Any] = {
        each.name: torch.cat([getattr(part, each.name) for _, part in groups])[order]
        for each in fields(AttackResult)
        if each.name not in ("settings", "members", "claims", "undecided")
    }
    return AttackResult(settings=settings.settings, **columns)
