"""Tables of purified images on their way to completion: streamed through files, in full batches.

A cell is one input under one configuration. Cells run over inputs within configurations within
images, and go to an image's file in that order, so the file says how far an earlier session came.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from advpure.analysis.perturbations import directions
from advpure.analysis.variability.mixed import RowRun
from advpure.analysis.variability.settings import SnrSettings
from advpure.analysis.variability.two_way import Table, TwoWay, table_statistics
from advpure.core.randomness import RandomnessConfig
from advpure.runs.row_file import RowFile

_DRAWN = 64  # perturbations at once


def rows_path(scratch: Path, sample: int) -> Path:
    """Return the file of an image's cells in a scratch folder."""
    return scratch / f"{sample}.rows"


class Cells:
    """The unfinished table of one image, in a file: K inputs, then K S outputs.

    Args:
        image: The clean image, [C, H, W].
        sample: Its sample id.
        settings: Which inputs and configurations.
        scratch: Folder of the file; None for one that vanishes.
    """

    def __init__(
        self, image: Tensor, sample: int, settings: SnrSettings, scratch: Path | None
    ) -> None:
        """Open nothing yet."""
        self.image, self.sample, self.settings = image.detach(), sample, settings
        self.scratch = scratch
        self.dtype = torch.float64 if image.dtype == torch.float64 else torch.float32

    def prepare(self) -> None:
        """Open the file and draw the inputs that it lacks."""
        s, kind = self.settings, "f8" if self.dtype == torch.float64 else "f4"
        path = None if self.scratch is None else rows_path(self.scratch, self.sample)
        self.rows = RowFile(path, self.image.numel(), kind)
        for start in range(self.rows.count, s.perturbations, _DRAWN):
            draws = range(start, min(start + _DRAWN, s.perturbations))
            eta = directions(
                s.distribution, s.seed, [self.sample] * len(draws), draws, self.image.shape
            )
            moved = self.image.cpu() + s.strength * eta.to(self.image.dtype)
            if s.clip:
                moved = moved.clamp(0.0, 1.0)
            self.add(moved)

    @property
    def finished(self) -> int:
        """Cells that are in the file."""
        return self.rows.count - self.settings.perturbations

    @property
    def is_complete(self) -> bool:
        """Whether every cell is there."""
        return self.finished >= self.settings.cells

    def add(self, images: Tensor) -> None:
        """Append inputs or outputs, [B, C, H, W]."""
        self.rows.append(images.flatten(1).to(self.dtype).cpu().numpy())

    def inputs_of(self, cells: Sequence[int]) -> npt.NDArray[Any]:
        """Return the inputs of consecutive cells, which run over k within s."""
        k, parts, cell, stop = self.settings.perturbations, [], cells[0], cells[-1] + 1
        while cell < stop:
            first = cell % k
            last = min(k, first + stop - cell)
            parts.append(self.rows.read(first, last))
            cell += last - first
        return np.concatenate(parts)

    def statistics(self) -> TwoWay:
        """Measure the whole table."""
        k, rows = self.settings.perturbations, self.rows
        table = Table(
            k,
            self.settings.configurations,
            lambda a, b: rows.read(a, b).astype(np.float64),
            lambda s, a, b: rows.read((1 + s) * k + a, (1 + s) * k + b).astype(np.float64),
        )
        return table_statistics(table, self.image.cpu().double().numpy())

    def close(self, *, remove: bool = False) -> None:
        """Let go of the file, which waits for another session unless it is removed."""
        if hasattr(self, "rows"):
            self.rows.close(remove=remove)


def stream_tables(
    run: RowRun,
    images: Iterator[Cells],
    configurations: Sequence[RandomnessConfig],
    batch: int,
    progress: Callable[[int], None],
) -> Iterator[tuple[int, TwoWay]]:
    """Purify cell after cell; a batch may hold the end of one image and the start of the next.

    Args:
        run: Purifies rows of any ids and configurations.
        images: The tables to complete, in order.
        configurations: The configurations, in order.
        batch: Rows at once.
        progress: Called with the number of cells that are there.

    Yields:
        (sample id, statistics) of each image; its file goes when the next one is asked for.
    """
    open_images: deque[Cells] = deque()
    done = 0

    def jobs() -> Iterator[tuple[Cells, int]]:
        nonlocal done
        for image in images:
            open_images.append(image)
            image.prepare()
            done += image.finished
            for cell in range(image.finished, image.settings.cells):
                yield image, cell

    stream = jobs()
    try:
        while True:
            part = list(islice(stream, batch))
            _purify(run, part, configurations)
            done += len(part)
            progress(done)
            while open_images and open_images[0].is_complete:
                yield open_images[0].sample, open_images[0].statistics()
                open_images.popleft().close(remove=True)
            if not part:
                return
    finally:
        for image in open_images:
            image.close()


def _purify(
    run: RowRun, part: Sequence[tuple[Cells, int]], configurations: Sequence[RandomnessConfig]
) -> None:
    """Purify one batch of cells, the next ones of some images, and store them; no gradient."""
    if not part:
        return
    groups = [
        (image, [cell for _, cell in cells]) for image, cells in groupby(part, key=itemgetter(0))
    ]
    like = groups[0][0].image
    pixels = np.concatenate([image.inputs_of(cells) for image, cells in groups])
    x = torch.from_numpy(pixels).reshape(-1, *like.shape).to(like)
    own = [configurations[cell // image.settings.perturbations] for image, cell in part]
    with torch.no_grad():  # statistics of outputs
        outputs = run(x, [image.sample for image, _ in part], own)
    start = 0
    for image, cells in groups:
        image.add(outputs[start : start + len(cells)])
        start += len(cells)
