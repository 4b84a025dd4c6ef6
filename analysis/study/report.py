"""The result of a run, computed from its records: estimates, a table, JSON, a page."""

import importlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from advpure.base.display import Display, as_html, as_text, written
from advpure.base.extras import optional
from advpure.statistics.estimates import Estimate, by_image_rows, flat_rows, plain

Columns = Mapping[str, Mapping[str, Any]]
"""Name of a value to its path in the report, `at`, and its `unit`."""
_PRECISION = "every number is about the networks in {0}: a decision or certificate holds for them"


@dataclass(frozen=True, kw_only=True)
class Report(ABC):
    """The result of a run, computed from its records; every study adds what it found.

    Attributes:
        run: The run folder.
        settings: Everything that identifies the run.
        seconds: Wall time of this session.
        notes: What a careful reader should know, in sentences.
    """

    run: Path
    settings: dict[str, Any]
    seconds: float = 0.0
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Say in which precision networks were computed, where it is not float32."""
        defense = self.settings.get("defense")
        precision = defense.get("precision") if isinstance(defense, Mapping) else None
        note = _PRECISION.format(precision)
        if precision is not None and note not in self.notes:
            object.__setattr__(self, "notes", (note, *self.notes))

    @property
    def exit_code(self) -> int:
        """How the command ends: 0, or 1 for a check that failed."""
        return 0

    @abstractmethod
    def tree(self) -> dict[str, Any]:
        """Return the result: names to JSON values, estimates, and mappings and lists of them."""

    def display(self) -> Display:
        """Return what the command line prints; here every estimate on top, in one line."""
        estimates = {k: e for k, e in self.tree().items() if isinstance(e, Estimate)}
        return Display(", ".join(f"{k} {written(e)} (n = {e.n})" for k, e in estimates.items()))

    def to_json(self) -> dict[str, Any]:
        """Return one JSON object: the result, then notes, seconds, settings and run folder."""
        values: dict[str, Any] = plain(self.tree())
        return values | {
            "notes": list(self.notes),
            "seconds": self.seconds,
            "settings": self.settings,
            "run": str(self.run),
        }

    def table(self) -> str:
        """Return what the command line prints as text: the line, the tables, notes, the folder."""
        remarks = (f"note: {each}" for each in self.notes)
        return "\n".join((as_text(self.display()), *remarks, f"records: {self.run}"))

    def to_pandas(self, *, by_image: bool = False) -> Any:
        """Return the numbers as a data frame of pandas.

        Args:
            by_image: The value of each image of each mean over images, instead of the means.

        Returns:
            One row for each number: its name, what tells it apart (such as eps or t), value, n, and
            the ends of its 95 % interval; or name, sample and value.

        Raises:
            MissingExtra: when pandas is not installed.
        """
        with optional("pandas", "pandas"):
            import pandas
        rows = by_image_rows(self.tree()) if by_image else flat_rows(self.tree())
        return pandas.DataFrame(rows)

    def _repr_html_(self) -> str:
        """Return the line, the tables and notes for a notebook."""
        return as_html(self.display(), (*self.notes, f"records: {self.run}"))

    def report(self, path: str | Path, **settings: Any) -> Path:
        """Write one self-contained page about the run.

        Args:
            path: The page, a .html file.
            settings: As of `advpure report`, such as ``title`` and ``images``.

        Returns:
            The file.

        Raises:
            BadInput: for a path of another ending, or settings that cannot be used.
            StorageFull: when there is no room.
        """
        page = importlib.import_module("advpure.report.page")  # which reads reports, so is above
        written: Path = page.Reporting(runs=(self.run,), to=path, **settings).write()
        return written

    def to_do(self, done: int) -> Iterator[str]:
        """Yield a note if fewer than the images of the run are done."""
        if done < self.settings["n"]:
            yield f"{done} of {self.settings['n']} images are done; the same command goes on"

    def with_notes(self, *notes: str) -> Self:
        """Return the report with more notes."""
        return replace(self, notes=(*self.notes, *notes))
