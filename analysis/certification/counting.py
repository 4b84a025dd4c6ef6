"""Count what a base classifier answers under noise, many images and samples per network call.

A unit of work is a block of samples of one image at one noise level in one stage; its counts are
one row of the records. Units follow each other through a buffer of whole tiles, so no network call
is padded but the last one, and a batch mixes images as it comes.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from advpure.analysis.certification.base_classifier import Classify
from advpure.analysis.certification.grid import GridNoise
from advpure.analysis.certification.noise import SampleNoise
from advpure.base.errors import BadInput
from advpure.base.validation import shown
from advpure.core.randomness import RandomnessConfig
from advpure.runs.schema import Count, Length, Schema

SELECTION, ESTIMATION = "selection", "estimation"

_COUNT = re.compile(r"([0-9]{1,19}):([0-9]{1,19})")

COUNTS = Schema(
    "counts",
    {"sample": Count, "sigma": Length, "stage": str, "block": Count},
    {"label": Count, "samples": Count, "counts": str},
)
"""How often each class was the answer: the counts read ``class:times``, with blanks between."""


class Unit(NamedTuple):
    """A block of noise samples of one image.

    Attributes:
        sample: The image's id.
        sigma: Noise level, [0, 1] units.
        stage: ``selection`` or ``estimation``.
        block: Number of the block.
        first: Number of its first sample.
        samples: How many.
    """

    sample: int
    sigma: float
    stage: str
    block: int
    first: int
    samples: int

    @property
    def key(self) -> tuple[int, float, str, int]:
        """The key of its row."""
        return self[:4]


class Counted(NamedTuple):
    """A unit and its counts per class."""

    unit: Unit
    counts: dict[int, int]


def count_classes(
    units: Iterable[Unit],
    images: Mapping[int, Tensor],
    classify: Classify,
    xi: RandomnessConfig,
    *,
    batch: int,
    grid: int | None = None,
    device: torch.device | None = None,
) -> Iterator[list[Counted]]:
    """Classify the samples of units of one noise level and one stage.

    Args:
        units: Units with the same sigma and stage, in any order.
        images: Clean images by id, [C, H, W] in [0, 1], on the CPU.
        classify: The base classifier.
        xi: The stage's configuration.
        grid: Steps of the grid that the noise lies on; None for normal noise.
        batch: Rows held at once; a multiple of the tile fills every network call.
        device: Where the base classifier computes; None for the CPU.

    Yields:
        After each batch, the units that it finished.
    """
    buffer: Tensor | None = None
    rows, owners = (
        torch.zeros((batch, 2), dtype=torch.int64, device="cpu"),
        torch.zeros(batch, dtype=torch.int64, device="cpu"),
    )
    # The same memory, written without torch's overhead per call, which small networks would feel.
    rows_, owners_ = rows.numpy(), owners.numpy()
    noise = SampleNoise(xi)
    on_grid = None if grid is None else GridNoise(xi, grid)
    waiting: list[Counted] = []
    filled = 0
    for unit in units:
        image = images[unit.sample]
        if buffer is None:
            buffer = torch.empty((batch, *image.shape), dtype=torch.float32, device="cpu")
        waiting.append(Counted(unit, {}))
        at, end = unit.first, unit.first + unit.samples
        while at < end:
            part = min(end - at, batch - filled)
            span = slice(filled, filled + part)
            rows_of_unit = buffer[span]
            if on_grid is not None:
                on_grid.place(rows_of_unit, image, unit.sample, at, unit.sigma)
            else:
                noise.fill(rows_of_unit, unit.sample, at)
                torch.add(image, rows_of_unit, alpha=unit.sigma, out=rows_of_unit)
            rows_[span, 0] = unit.sample
            rows_[span, 1] = np.arange(at, at + part)
            owners_[span] = len(waiting) - 1
            at, filled = at + part, filled + part
            if filled == batch:
                with torch.no_grad():  # counts, not gradients
                    _count(classify(buffer.to(device or "cpu"), rows), owners, waiting)
                keep = 0 if at == end else 1
                yield waiting[: len(waiting) - keep]
                waiting, filled = waiting[len(waiting) - keep :], 0
    if filled and buffer is not None:
        with torch.no_grad():  # counts, not gradients
            _count(
                classify(buffer[:filled].to(device or "cpu"), rows[:filled]),
                owners[:filled],
                waiting,
            )
    if waiting:
        yield waiting


def _count(classes: Tensor, owners: Tensor, waiting: list[Counted]) -> None:
    """Add a batch's answers to the counts of their units."""
    answers = classes.cpu().numpy()
    most = int(answers.max()) + 1
    times = np.bincount(owners.numpy() * most + answers)
    for pair in np.flatnonzero(times).tolist():
        counts = waiting[pair // most].counts
        counts[pair % most] = counts.get(pair % most, 0) + int(times[pair])


def to_text(counts: Mapping[int, int]) -> str:
    """Write counts.

    Example:
        >>> to_text({7: 12, 3: 988})
        '3:988 7:12'
    """
    return " ".join(f"{label}:{count}" for label, count in sorted(counts.items()))


def from_text(text: str) -> dict[int, int]:
    """Read counts.

    Raises:
        BadInput: for a text that is no counts.

    Example:
        >>> from_text("3:988 7:12")
        {3: 988, 7: 12}
    """
    pairs = _COUNT.findall(text)
    counts = {int(label): int(count) for label, count in pairs}
    if to_text(counts) != text:
        raise BadInput(f"counts {shown(text)}", "are none", "delete the run folder, run it again")
    return counts
