"""What the reports of recorded runs share: where they come from, and what to know of them."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from advpure.runs.records import ALREADY_COMPLETE


@dataclass(frozen=True, kw_only=True)
class RunReport:
    """The result of a run, computed from its records; every verb adds what it found.

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

    def origin(self) -> dict[str, Any]:
        """Return the JSON values that every report ends with.

        Example:
            >>> list(RunReport(run=Path("runs/cr-1"), settings={}).origin())
            ['notes', 'seconds', 'settings', 'run']
        """
        return {
            "notes": list(self.notes), "seconds": self.seconds, "settings": self.settings,
            "run": str(self.run),
        }  # fmt: skip

    def already_complete(self) -> Self:
        """Return the report with the note that this session computed nothing."""
        return replace(self, notes=(*self.notes, ALREADY_COMPLETE))
