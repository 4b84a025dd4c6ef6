"""What the records of an evaluation say, read once; free checks need no more."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from advpure.analysis.robustness.protocol import (
    ADVERSARIAL,
    ATTACKS,
    CLEAN,
    DECISIONS,
    NOISE,
    latest,
)
from advpure.runs.records import RecordStore
from advpure.runs.schema import Row

COUNTS = "counts"
"""The table of certification counts."""


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """An evaluation's records.

    Attributes:
        verb: ``attack`` or ``certify``.
        settings: What identifies it.
        decisions: Rows of its decisions.
        attacks: Rows of its attacks on images that have decisions, noise included.
        counts: Rows of certification counts.
        digests: Digest of every image, by sample id as text.
    """

    verb: str
    settings: Mapping[str, Any]
    decisions: Sequence[Row] = ()
    attacks: Sequence[Row] = ()
    counts: Sequence[Row] = ()
    digests: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, store: RecordStore) -> "Recorded":
        """Read the records of a run."""
        tables = {schema.table for schema in store.schemas}

        def rows(table: str) -> list[Row]:
            return latest(store, table) if table in tables else []

        return cls(
            verb=str(store.settings.get("verb")),
            settings=store.settings,
            decisions=rows(DECISIONS.table),
            attacks=rows(ATTACKS.table),
            counts=store.rows(COUNTS) if COUNTS in tables else [],
            digests=dict(store.context.get("images") or {}),
        )

    @property
    def samples(self) -> list[int]:
        """The ids of the images that are decided, sorted."""
        return sorted({row["sample"] for row in (*self.decisions, *self.counts)})

    def shares(self, stage: str) -> dict[int, float]:
        """Return the share of right decisions of every image at a stage."""
        right: dict[int, list[bool]] = {}
        for row in self.decisions:
            if row["stage"] == stage:
                right.setdefault(row["sample"], []).append(row["correct"])
        return {i: sum(each) / len(each) for i, each in sorted(right.items())}

    def margins(self, stage: str) -> dict[int, float]:
        """Return the margin of the first decision of every image at a stage."""
        rows = (row for row in self.decisions if row["stage"] == stage and row["draw"] == 0)
        return {row["sample"]: row["margin"] for row in rows}

    def mean_margins(self, stage: str) -> dict[int, float]:
        """Return the mean margin over the decisions of every image at a stage."""
        margins: dict[int, list[float]] = {}
        for row in self.decisions:
            if row["stage"] == stage:
                margins.setdefault(row["sample"], []).append(row["margin"])
        return {i: sum(each) / len(each) for i, each in margins.items()}

    def attacked(self, column: str) -> dict[int, Any]:
        """Return a column of the attack's rows by image."""
        rows = (row for row in self.attacks if row["stage"] == ADVERSARIAL)
        return {row["sample"]: row[column] for row in rows}

    @property
    def follows_gradients(self) -> bool:
        """Whether the attack asked for a gradient of any image."""
        return any(self.attacked("backwards").values())

    @property
    def robust(self) -> dict[int, float]:
        """The share of right decisions of every image under attack."""
        return self.shares(ADVERSARIAL)

    @property
    def clean(self) -> dict[int, float]:
        """The same without an attack."""
        return self.shares(CLEAN)

    @property
    def noisy(self) -> dict[int, float]:
        """The same under noise in the ball."""
        return self.shares(NOISE)
