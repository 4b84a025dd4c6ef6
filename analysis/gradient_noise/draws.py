"""Gradients of a random defense under many configurations, reduced as they come.

Draw j uses the configuration fold("gradient", j). The first `reference` draws give the held-out
mean; the others, in blocks of 1, 2, 4, ... draws, are compared with it. A block and the held-out
mean are independent, so the inner product of the two means is an unbiased ||mu||^2.

Nothing grows with the number of draws but the rows: gradients are added up in chunks of at most 16
draws, and of every chunk only the sum is kept, as two float32 that add up to a float64. A run that
is interrupted loses at most one chunk of one batch of images.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from annotated_types import Ge, Le
from torch import Tensor

from advpure.analysis.robustness.protocol import sampled
from advpure.attacks.losses import LossName
from advpure.attacks.oracle import Batch, Oracle
from advpure.attacks.settings import GradientSettings
from advpure.base.errors import BadInput
from advpure.base.validation import validate
from advpure.core.randomness import RandomnessConfig
from advpure.core.tiling import check_batch_size
from advpure.runs.schema import Count, Row, Schema

Vector = npt.NDArray[np.float64]
Draws = Annotated[int, Ge(2), Le(2**20)]
"""Draws of a gradient."""
_CHUNK = 16
_TILES = 8  # in memory at once

GRADIENT_DRAWS = Schema(
    "gradient_draws",
    keys={"sample": Count, "draw": Count},
    values={"loss": float, "norm": float, "correct": bool},
)
"""Loss, Euclidean norm of its gradient and decision of every draw."""

GRADIENT_BLOCKS = Schema(
    "gradient_blocks",
    keys={"sample": Count, "size": Count, "block": Count},
    values={
        "norm": float,
        "dot": float,
        "sign_dot": float,
        "agreement": float,
        "single": float | None,
    },
)
"""Of the mean b of a block and the held-out mean r: ||b||, b . r, sign(b) . r, the share of pixels
with one sign, and the mean cosine of b with the single gradients behind r, of which a zero gradient
counts 0; absent where b is zero."""

GRADIENT_MEANS = Schema(
    "gradient_means",
    keys={"sample": Count},
    values={"norm": float, "held_out_norm": float, "held_out_l1": float},
)
"""Euclidean norms of the mean of all draws and of the held-out mean, and the latter's l1 norm."""


@dataclass(frozen=True, kw_only=True)
class DrawSettings:
    """Which gradients to take.

    Attributes:
        draws: Most draws that are averaged, a power of two.
        reference: Draws of the held-out mean, a power of two.
        loss: Loss whose gradient is taken: ``ce``, ``margin`` or ``dlr``.

    Raises:
        BadInput: for numbers that are no powers of two, or an unknown loss.

    Example:
        >>> DrawSettings(draws=8).sizes
        (1, 2, 4, 8)
    """

    draws: Draws = 64
    reference: Draws = 64
    loss: LossName = "ce"

    def __post_init__(self) -> None:
        """Check the numbers and the name."""
        validate(self)
        for name in ("draws", "reference"):
            value = getattr(self, name)
            if value & (value - 1):
                raise BadInput(f"{name} {value}", "is no power of two from 2 on", "use 64")

    @property
    def sizes(self) -> tuple[int, ...]:
        """The block sizes: 1, 2, 4, ..., draws."""
        return tuple(2**k for k in range(self.draws.bit_length()))

    @property
    def gradients(self) -> int:
        """Gradients per image, of the blocks and of the held-out mean."""
        return self.draws + self.reference

    @property
    def chunk(self) -> int:
        """Draws that are added up before anything is stored."""
        return min(_CHUNK, self.draws, self.reference)


def batch_images(batch_size: int | None, tile: int | None) -> int:
    """Return how many images to compute at once: 8 tiles by default.

    Raises:
        BadInput: for a batch size that holds no image.
    """
    return check_batch_size(batch_size) or _TILES * (tile or 32)


class Progress(NamedTuple):
    """The rows of one chunk of draws of some images, and the sums to keep, by name."""

    draws: list[Row]
    blocks: list[Row]
    means: list[Row]
    sums: dict[str, Tensor]


def gradient_progress(
    model: Any,
    batch: Batch,
    settings: DrawSettings,
    xi: RandomnessConfig,
    *,
    rows: int,
    finished: Mapping[int, int],
    kept: Callable[[str], Tensor],
) -> Iterator[Progress]:
    """Take the gradients that are missing, chunk by chunk.

    Args:
        model: A `Defense`, or any model with `at(ids=, xi=)`; its gradient mode is kept.
        batch: Checked images, labels, ids.
        settings: Which gradients.
        xi: The configuration whose folds are the draws.
        rows: Images at once.
        finished: Number of stored draws by sample id, whole chunks; absent ids have none.
        kept: Returns what an earlier `Progress.sums` held under a name.

    Yields:
        What the caller has to store before it asks for more.

    Raises:
        BadInput: for logits or gradients that cannot be used.
    """
    chunk, xi = settings.chunk, sampled(xi)
    oracle_settings = GradientSettings(eps=1.0, steps=1, loss=settings.loss)
    listed: list[int] = batch.ids.tolist()
    for start in range(0, len(listed), rows):
        whole = range(start, min(start + rows, len(listed)))
        for first in range(0, settings.gradients, chunk):
            todo = [k for k in whole if finished.get(listed[k], 0) <= first]
            if not todo:
                continue
            part = Batch(*(tensor[todo] for tensor in batch))
            samples = part.ids.tolist()
            held_out = first >= settings.reference
            tallies = [
                _Tally(i, first, settings, _held_out(i, settings, kept) if held_out else None)
                for i in samples
            ]
            for draw in range(first, first + chunk):
                oracle = Oracle(model.at(xi=xi.fold("gradient", draw)), oracle_settings)
                slope = oracle.slope(*part, step=0)
                gradients = slope.gradient.detach().cpu().double().flatten(1).numpy()
                for tally, gradient, loss, fooled in zip(
                    tallies, gradients, slope.loss.tolist(), slope.success.tolist(), strict=True
                ):
                    tally.add(draw, gradient, loss, not fooled)
            for tally in tallies:
                tally.finish(first + chunk, kept)
            yield Progress(
                [row for tally in tallies for row in tally.draws],
                [row for tally in tallies for row in tally.blocks],
                [row for tally in tallies for row in tally.means],
                {name: value for tally in tallies for name, value in tally.sums.items()},
            )


class _HeldOut(NamedTuple):
    """The held-out draws of one image: mean gradient, its signs, mean of the unit gradients."""

    mean: Vector
    sign: Vector
    direction: Vector


def _held_out(i: int, settings: DrawSettings, kept: Callable[[str], Tensor]) -> _HeldOut:
    starts = range(0, settings.reference, settings.chunk)
    mean, direction = (
        np.sum([_read(kept(name(i, s))) for s in starts], axis=0) / settings.reference
        for name in (_sum_name, _unit_name)
    )
    return _HeldOut(mean, np.sign(mean), direction)


class _Tally:
    """The sums and rows of one image within one chunk of draws."""

    def __init__(self, i: int, first: int, settings: DrawSettings, held: _HeldOut | None) -> None:
        self.sample, self.first, self.settings, self.held = i, first, settings, held
        self.draws: list[Row] = []
        self.blocks: list[Row] = []
        self.means: list[Row] = []
        self.sums: dict[str, Tensor] = {}
        self._open: dict[int, Vector] = {}
        self._unit: Vector | None = None

    def add(self, draw: int, gradient: Vector, loss: float, correct: bool) -> None:
        """Add one gradient [d]; blocks that it completes are compared with the held-out mean."""
        norm = _norm(gradient)
        row = {"sample": self.sample, "draw": draw, "loss": loss, "norm": norm, "correct": correct}
        self.draws.append(row)
        if self.held is None:
            unit = gradient / norm if norm else np.zeros_like(gradient)
            self._unit = unit if self._unit is None else self._unit + unit
        # A binary counter: a block of any size is closed by the draw that completes it.
        size, total = 1, gradient
        self._compare(draw, size, total)
        while size in self._open:
            total, size = self._open.pop(size) + total, 2 * size
            self._compare(draw, size, total)
        self._open[size] = total

    def finish(self, done: int, kept: Callable[[str], Tensor]) -> None:
        """Put away the chunk's sums, and compare the larger blocks that it completes."""
        (total,) = self._open.values()
        self.sums[_sum_name(self.sample, self.first)] = _write(total)
        if self._unit is not None:
            self.sums[_unit_name(self.sample, self.first)] = _write(self._unit)
        chunk, queried = self.settings.chunk, done - self.settings.reference
        size = 2 * chunk
        while self.held is not None and queried % size == 0 and size <= self.settings.draws:
            starts = range(done - size, done, chunk)
            self._compare(done - 1, size, self._sum(starts, kept))
            size *= 2
        if done == self.settings.gradients:
            self._conclude(kept)

    def _sum(self, starts: range, kept: Callable[[str], Tensor]) -> Vector:
        total: Vector = np.sum([self._chunk_sum(start, kept) for start in starts], axis=0)
        return total

    def _chunk_sum(self, start: int, kept: Callable[[str], Tensor]) -> Vector:
        name = _sum_name(self.sample, start)
        return _read(self.sums[name] if name in self.sums else kept(name))

    def _compare(self, last: int, size: int, total: Vector) -> None:
        held = self.held
        if held is None:
            return
        mean = total / size
        norm, signs = _norm(mean), np.sign(mean)
        self.blocks.append(
            {
                "sample": self.sample,
                "size": size,
                "block": (last + 1 - self.settings.reference) // size - 1,
                "norm": norm,
                "dot": float((mean * held.mean).sum()),
                "sign_dot": float((signs * held.mean).sum()),
                "agreement": float((signs == held.sign).mean()),
                "single": float((mean * held.direction).sum()) / norm if norm else None,
            }
        )

    def _conclude(self, kept: Callable[[str], Tensor]) -> None:
        assert self.held is not None
        total = self._sum(range(0, self.settings.gradients, self.settings.chunk), kept)
        self.means.append(
            {
                "sample": self.sample,
                "norm": _norm(total / self.settings.gradients),
                "held_out_norm": _norm(self.held.mean),
                "held_out_l1": float(np.abs(self.held.mean).sum()),
            }
        )


def _norm(vector: Vector) -> float:
    return float(np.sqrt(np.square(vector).sum()))


def _sum_name(sample: int, start: int) -> str:
    return f"gradients/{sample}/{start}"


def _unit_name(sample: int, start: int) -> str:
    return f"directions/{sample}/{start}"


def _write(vector: Vector) -> Tensor:
    """Split a float64 vector [d] into the float32 part and the rest, [2, d]."""
    whole = torch.from_numpy(vector)
    high = whole.float()
    return torch.stack([high, (whole - high.double()).float()])


def _read(parts: Tensor) -> Vector:
    """Join what `_write` split, to 48 bits."""
    vector: Vector = (parts[0].double() + parts[1].double()).numpy()
    return vector
