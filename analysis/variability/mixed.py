"""Purify rows that each see a configuration of their own, in full tiles.

A run over many configurations would otherwise fill a tile for each of them, and pay for the
padding.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from advpure.analysis.target import Given, Target, as_target, check_result
from advpure.base.errors import BadInput
from advpure.core.chain import Chain, Noise, RowKeys, Step
from advpure.core.defense import Defense
from advpure.core.purifier import Purifier
from advpure.core.randomness import RandomnessConfig
from advpure.core.tiling import tiled

Configurations = Sequence[RandomnessConfig]
RowRun = Callable[[Tensor, Sequence[int], Configurations], Tensor]


@dataclass(frozen=True)
class MixedNoise(Noise):
    """The noise of a batch whose rows have configurations of their own; `xi` is not used.

    Attributes:
        configurations: One per row.
    """

    configurations: tuple[RandomnessConfig, ...] = ()

    def of(self, step: Step, like: Tensor) -> Any:
        """Return the step's noise for every row: what `Noise` gives under its configuration.

        Neighbours with the same id and configuration share one draw. Draws are not cached: of a
        run's rows, all but those on the border of two tiles meet in one.
        """
        if not step.noisy:
            return None
        if step.keyed:
            return self.keys(step, like.shape[0])
        runs, places = self._runs
        drawn, draw = (
            torch.empty((len(runs), *like.shape[1:]), dtype=torch.float32, device="cpu"),
            self.repetition(step),
        )
        for row, (xi, sample) in zip(drawn.unbind(), runs, strict=True):
            own = xi.fold("stream", step.stream) if step.stream else xi
            own.normal_into(row, sample, step.phase, step.time, draw)
        return drawn.index_select(0, places).to(like)

    def keys(self, step: Step, count: int) -> RowKeys:
        """Return what each row is keyed by: what `Noise` gives under its configuration."""
        assert self.ids is not None
        rows = zip(self.configurations, self.ids.unbind(), strict=True)
        alone = (Noise(xi, i[None], self.draw, self.reverse_draw) for xi, i in rows)
        return tuple(each.keys(step, 1)[0] for each in alone)

    @cached_property
    def _runs(self) -> tuple[list[tuple[RandomnessConfig, int]], Tensor]:
        """Configuration and id of each run of equal rows, and the number of each row's run."""
        assert self.ids is not None
        rows = zip(self.configurations, self.ids.tolist(), strict=True)
        runs = [(key, sum(1 for _ in run)) for key, run in groupby(rows)]
        counts = torch.tensor([count for _, count in runs], dtype=torch.int64, device="cpu")
        return [key for key, _ in runs], torch.arange(
            len(runs), dtype=torch.int64, device="cpu"
        ).repeat_interleave(counts)


def purify_rows(purifier: Given) -> RowRun:
    """Return a function that purifies rows, each with its own sample id and configuration.

    Args:
        purifier: A purifier, a defense (its purifier is run), or a map with `at(ids=, xi=)`, which
            is called once for every run of rows with the same configuration.

    Returns:
        A function of images [B, C, H, W], B ids and B configurations to images. A row has the
        bits that it has alone, for a tiled purifier.

    Raises:
        BadInput: for a callable whose randomness cannot be set.

    Example:
        >>> from advpure.loading import load_purifier
        >>> run = purify_rows(load_purifier("onestep-edm", "digits", tile=0))
        >>> x = torch.full((2, 1, 8, 8), 0.5)
        >>> a, b = run(x, [0, 0], [RandomnessConfig(0), RandomnessConfig(1)])
        >>> bool(torch.equal(a, b))
        False
    """
    target = as_target(purifier)
    if isinstance(purifier, Chain):
        purifier = Purifier("chain", purifier)
    if isinstance(purifier, Purifier | Defense):
        return _in_tiles(purifier, target)
    if not hasattr(purifier, "at"):
        raise BadInput(
            f"a {type(purifier).__name__}",
            "takes no randomness, so configurations cannot be compared",
            "give it at(ids=, xi=), see Purifier.at",
        )

    def run(images: Tensor, ids: Sequence[int], configurations: Configurations) -> Tensor:
        parts = [target(images[a:b], ids[a:b], xi) for xi, a, b in _runs(configurations)]
        return torch.cat(parts)

    return run


def _in_tiles(owner: Purifier | Defense, target: Target) -> RowRun:
    exact = (owner.purifier if isinstance(owner, Defense) else owner).at(gradient="full")

    def run(images: Tensor, ids: Sequence[int], configurations: Configurations) -> Tensor:
        target.check(images, ids, configurations[0] if configurations else None)
        samples = torch.tensor(list(ids), dtype=torch.int64, device="cpu")

        def purify(x: Tensor, rows: Tensor) -> Tensor:
            own = tuple(configurations[row] for row in rows.tolist())
            return exact.purify(x, MixedNoise(None, samples[rows], configurations=own))

        # Tiling pads with the number of a row, and so with its id and its configuration.
        result = tiled(purify, target.tile)(
            images, torch.arange(len(samples), dtype=torch.int64, device="cpu")
        )
        return check_result(result, images, ids)

    return run


def _runs(configurations: Configurations) -> Iterator[tuple[RandomnessConfig, int, int]]:
    """Yield each run of rows with the same configuration as (configuration, first, last + 1)."""
    start = 0
    for xi, rows in groupby(configurations):
        stop = start + sum(1 for _ in rows)
        yield xi, start, stop
        start = stop
