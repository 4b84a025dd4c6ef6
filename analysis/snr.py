"""Randomness against input: K perturbed inputs x_k = x0 + eta_k, each under S configurations.

The signal-to-noise ratio of a purifier is the variance of its output over inputs at a fixed
configuration over the variance that its own randomness causes (`variance` has the equations,
`two_way` distances and correlations). In seed 003, figure 2 and tables S12 and S13: 50 images, K =
S = 50, uniform noise of 8/255 and a ratio of 0.006, so fixing the randomness is what makes
robustness visible.

Perturbations are the same under every configuration and those of `cr` with the same seed. Outputs
pass through a file, so memory holds one batch and a few blocks, and a run that was killed goes on
within an image.
"""

from collections import deque
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from advpure.analysis.mixed import RowRun, purify_rows
from advpure.analysis.perturbations import (
    Distribution,
    check_distribution,
    check_strength,
    directions,
)
from advpure.analysis.row_file import RowFile
from advpure.analysis.snr_result import SnrResult, SnrRow
from advpure.analysis.target import ImageMap, as_target, batch_rows, choose_ids, refuse_fresh
from advpure.analysis.two_way import Table, TwoWay, table_statistics
from advpure.defense import Defense
from advpure.errors import BadInput
from advpure.purifier import Purifier
from advpure.randomness import Ids, RandomnessConfig
from advpure.units import check_images, parse_eps

_DRAWN = 64  # perturbations at once


@dataclass(frozen=True, kw_only=True)
class SnrSettings:
    """Which inputs and configurations to compare.

    Args:
        eps: Strength of the perturbations in [0, 1] units, a number or text such as "8/255".
        distribution: ``uniform`` in [-eps, eps], ``gaussian`` of the same root mean square, or
            ``sign``.
        perturbations: K, inputs per image, 2 or more.
        configurations: S, base seeds of the purifier: seed, seed + 1, ...; 2 or more.
        seed: The first base seed, and the seed of the perturbations.
        clip: Clip inputs to [0, 1].

    Raises:
        BadInput: for values that make no sense, naming the rule.

    Example:
        >>> SnrSettings(configurations=3, seed=5).seeds
        range(5, 8)
    """

    eps: str | float = "8/255"
    distribution: Distribution = "uniform"
    perturbations: int = 50
    configurations: int = 50
    seed: int = 0
    clip: bool = False

    def __post_init__(self) -> None:
        """Check, and turn the strength into a number."""
        object.__setattr__(self, "eps", parse_eps(self.eps))
        check_distribution(self.distribution)
        for name in ("perturbations", "configurations"):
            count = getattr(self, name)
            whole = isinstance(count, int) and not isinstance(count, bool)
            if not whole or not 2 <= count < 2**31:
                rule = "is no whole number from 2, and one alone has no variance"
                raise BadInput(f"{count!r} {name}", rule, "use 50")
        for seed in (self.seed, self.seed + self.configurations - 1):
            RandomnessConfig(seed)

    @property
    def strength(self) -> float:
        """The strength as a number."""
        return float(self.eps)

    @property
    def seeds(self) -> range:
        """The base seeds of the configurations."""
        return range(self.seed, self.seed + self.configurations)

    @property
    def cells(self) -> int:
        """Purifications per image."""
        return self.perturbations * self.configurations


def signal_to_noise(
    purifier: Purifier | Defense | ImageMap,
    images: Tensor,
    *,
    eps: str | float = "8/255",
    distribution: Distribution = "uniform",
    perturbations: int = 50,
    configurations: int = 50,
    seed: int | None = None,
    clip: bool = False,
    ids: Ids | None = None,
    xi: RandomnessConfig | None = None,
    batch_size: int | None = None,
) -> SnrResult:
    """Measure how much of a purifier's variability is randomness.

    Args:
        purifier: A purifier, a defense (its purifier is measured) or a map with `at(ids=, xi=)`.
        images: [B, C, H, W] in [0, 1].
        eps: See SnrSettings, as for all up to `clip`.
        distribution: See there.
        perturbations: See there.
        configurations: See there.
        seed: See there; None for the seed of `xi`.
        clip: See there.
        ids: Sample ids [B], all different; None for those the purifier is bound to, else
            0 .. B-1. They key noise and perturbations.
        xi: Scheme of the randomness; its seed is replaced. None for the purifier's own, else
            RandomnessConfig(0).
        batch_size: Rows at once, a matter of memory only; rounded up to whole tiles.

    Returns:
        Rows and summaries. Neither batch size, order nor company of the images changes a row: to
        the last bit for a tiled purifier, to rounding for others. Cost: B K S purifications.

    Raises:
        BadInput: for settings, images or results that cannot be used, or a callable that takes
            no randomness.

    Example:
        >>> from advpure.loading import load_purifier
        >>> x = torch.full((2, 1, 8, 8), 0.5)
        >>> purifier = load_purifier("onestep-edm", "digits")
        >>> found = signal_to_noise(purifier, x, perturbations=4, configurations=4)
        >>> found.n, found.mean("snr_mean_of_ratios").value < 1
        (2, True)
    """
    xi = xi or as_target(purifier).xi or RandomnessConfig(0)
    settings = SnrSettings(
        eps=eps, distribution=distribution, perturbations=perturbations,
        configurations=configurations, seed=xi.seed if seed is None else seed, clip=clip,
    )  # fmt: skip
    found = snr_tables(purifier, images, ids, settings, xi=xi, batch_size=batch_size)
    rows = tuple(SnrRow.of(i, table) for i, table in found)
    return SnrResult(rows, describe_snr(purifier, images, settings, xi))


def snr_tables(
    purifier: Purifier | Defense | ImageMap,
    images: Tensor,
    ids: Ids | None,
    settings: SnrSettings,
    *,
    xi: RandomnessConfig | None = None,
    batch_size: int | None = None,
    skip: Container[int] = (),
    scratch: Path | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> Iterator[tuple[int, TwoWay]]:
    """Measure image by image, leaving out what is done: the resumable form.

    Args:
        purifier: See `signal_to_noise`, as for images, ids, xi and batch_size.
        images: See there.
        ids: See there.
        settings: Which inputs and configurations.
        xi: See there.
        batch_size: See there.
        skip: Sample ids that need no table; a set is fast.
        scratch: Folder where outputs of unfinished images wait for another session, 4 K S d bytes
            an image (8 for float64 images); None for files that vanish. An image's file is deleted
            when the next table is asked for.
        progress: Called with the number of finished purifications of these images, skipped and
            waiting ones included.

    Yields:
        (sample id, statistics) of each image, in the order of the images. Inputs are checked
        before the first.

    Raises:
        BadInput: see there.
        StorageFull: when the outputs find no room.
    """
    check_images(images)
    target = as_target(purifier)
    samples = choose_ids(target, images, ids, unique=True)
    xi = xi or target.xi or RandomnessConfig(0)
    refuse_fresh(xi)
    check_strength(settings.strength, images.dtype, "use float64 images and purifier")
    run, batch = purify_rows(purifier), batch_rows(target, batch_size)
    configurations = [replace(xi, seed=seed) for seed in settings.seeds]
    todo = [(image, i) for image, i in zip(images, samples, strict=True) if i not in skip]
    done = (len(samples) - len(todo)) * settings.cells
    cells = (_Cells(image, i, settings, scratch) for image, i in todo)
    return _stream(run, cells, configurations, batch, lambda more: progress(done + more))


def describe_snr(
    purifier: Purifier | Defense | ImageMap,
    images: Tensor,
    settings: SnrSettings,
    xi: RandomnessConfig,
) -> dict[str, Any]:
    """Return what the rows depend on beside the images, as JSON values."""
    randomness = asdict(replace(xi, seed=0))
    del randomness["seed"]
    return {
        **as_target(purifier).settings,
        **asdict(settings),
        "randomness": {**randomness, "path": list(xi.path)},
        "dtype": str(images.dtype).removeprefix("torch."),
    }


def _stream(
    run: RowRun,
    images: Iterator["_Cells"],
    configurations: Sequence[RandomnessConfig],
    batch: int,
    progress: Callable[[int], None],
) -> Iterator[tuple[int, TwoWay]]:
    """Purify cell after cell; a batch may hold the end of one image and the start of the next."""
    open_images: deque[_Cells] = deque()
    done = 0

    def jobs() -> Iterator[tuple[_Cells, int]]:
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
    run: RowRun,
    part: Sequence[tuple["_Cells", int]],
    configurations: Sequence[RandomnessConfig],
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
        outputs = run(x, [image.sample for image, _ in part], own).flatten(1).cpu().numpy()
    start = 0
    for image, cells in groups:
        image.rows.append(outputs[start : start + len(cells)])
        start += len(cells)


class _Cells:
    """The table of one image on its way to completion, in a file: K inputs, then K S outputs."""

    def __init__(
        self, image: Tensor, sample: int, settings: SnrSettings, scratch: Path | None
    ) -> None:
        self.image, self.sample, self.settings = image.detach(), sample, settings
        self.scratch = scratch

    def prepare(self) -> None:
        """Open the file and draw the inputs that it lacks."""
        s, dtype = self.settings, np.dtype("f8" if self.image.dtype == torch.float64 else "f4")
        path = None if self.scratch is None else self.scratch / f"{self.sample}.rows"
        self.rows = RowFile(path, self.image.numel(), dtype)
        for start in range(self.rows.count, s.perturbations, _DRAWN):
            draws = range(start, min(start + _DRAWN, s.perturbations))
            eta = directions(
                s.distribution, s.seed, [self.sample] * len(draws), draws, self.image.shape
            )
            moved = self.image.cpu() + s.strength * eta.to(self.image.dtype)
            if s.clip:
                moved = moved.clamp(0.0, 1.0)
            self.rows.append(moved.flatten(1).numpy())

    @property
    def finished(self) -> int:
        """Cells that are in the file."""
        return self.rows.count - self.settings.perturbations

    @property
    def is_complete(self) -> bool:
        return self.finished >= self.settings.cells

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
            k, self.settings.configurations,
            lambda a, b: rows.read(a, b).astype(np.float64),
            lambda s, a, b: rows.read((1 + s) * k + a, (1 + s) * k + b).astype(np.float64),
        )  # fmt: skip
        return table_statistics(table, self.image.cpu().double().numpy())

    def close(self, *, remove: bool = False) -> None:
        """Let go of the file, which waits for another session unless it is removed."""
        if hasattr(self, "rows"):
            self.rows.close(remove=remove)
