"""Counts per image and noise level, read from the records of one or several run folders."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from advpure.analysis.certification.counting import COUNTS, SELECTION, from_text
from advpure.base.errors import BadInput
from advpure.runs.records import RecordStore
from advpure.runs.schema import Row


@dataclass
class Tally:
    """The counts of one image at one noise level.

    Attributes:
        sample: The image's id.
        sigma: Noise level, [0, 1] units.
        label: Its class.
        selection: Counts of the selection stage, None before it.
        blocks: Counts of the blocks of the estimation stage, by number.
    """

    sample: int
    sigma: float
    label: int
    selection: dict[int, int] | None = None
    blocks: dict[int, dict[int, int]] = field(default_factory=dict)

    def first_blocks(self, most: int) -> list[dict[int, int]]:
        """Return the blocks 0, 1, ... as far as there are no gaps, `most` at most."""
        first: list[dict[int, int]] = []
        while len(first) < most and len(first) in self.blocks:
            first.append(self.blocks[len(first)])
        return first

    def total(self, blocks: int) -> dict[int, int] | None:
        """Return the sum of the first blocks; None unless all of them are there."""
        parts = self.first_blocks(blocks)
        if len(parts) < blocks:
            return None
        whole: Counter[int] = Counter()
        for part in parts:
            whole.update(part)
        return dict(whole)


class Tallies:
    """The tallies of a run's images, to which rows are added.

    Attributes:
        by_key: (image, noise level) to tally.
    """

    def __init__(self) -> None:
        """Begin without counts."""
        self.by_key: dict[tuple[int, float], Tally] = {}

    def add(self, row: Row) -> None:
        """Add a row of the table COUNTS.

        Raises:
            BadInput: when the same block is there with other counts.
        """
        key = (row["sample"], row["sigma"])
        counts, block = from_text(row["counts"]), row["block"]
        counted = sum(counts.values())
        if counted != row["samples"]:
            raise BadInput(
                f"block {block} of image {key[0]} at sigma {key[1]:g}",
                f"counts {counted} of {row['samples']} samples",
                "delete the folder and run it again",
            )
        tally = self.by_key.setdefault(key, Tally(*key, row["label"]))
        if row["stage"] == SELECTION:
            before, tally.selection = tally.selection, counts
        else:
            before = tally.blocks.get(block)
            tally.blocks[block] = counts
        if (before is not None and before != counts) or tally.label != row["label"]:
            raise BadInput(
                f"block {block} of image {key[0]} at sigma {key[1]:g}",
                "is there twice, with other counts",
                "read runs of one program and one machine type",
            )

    def read(self, stores: Iterable[RecordStore]) -> "Tallies":
        """Add all rows of run folders; image by image, to hold few at a time."""
        for store in stores:
            for (sample,) in sorted(store.done(COUNTS.table, "sample")):
                for row in store.rows(COUNTS.table, {"sample": sample}):
                    self.add(row)
        return self

    def keep(self, samples: Iterable[int]) -> None:
        """Forget all images but these."""
        kept = set(samples)
        self.by_key = {key: tally for key, tally in self.by_key.items() if key[0] in kept}

    def sigmas(self) -> tuple[float, ...]:
        """Return the noise levels that have counts, increasing."""
        return tuple(sorted({sigma for _, sigma in self.by_key}))

    def samples(self) -> tuple[int, ...]:
        """Return the images that have counts, increasing."""
        return tuple(sorted({sample for sample, _ in self.by_key}))

    def of(self, sample: int, sigmas: Sequence[float]) -> dict[float, Tally]:
        """Return the tallies of an image at given noise levels, as far as there are any."""
        tallies = {sigma: self.by_key.get((sample, sigma)) for sigma in sigmas}
        return {sigma: tally for sigma, tally in tallies.items() if tally is not None}
