"""One self-contained page about runs: readable without a network, and on paper."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from jinja2 import Environment, FileSystemLoader, StrictUndefined

import advpure
from advpure.base.errors import BadInput
from advpure.base.flags import Flag, Positional, Repeats
from advpure.base.imports import untrusted
from advpure.base.kinds import Whole
from advpure.base.storage import atomic_path
from advpure.base.validation import validate
from advpure.report.content import curves, folder_name, section
from advpure.report.leaderboard import boards
from advpure.report.runs import Run, run_folders

_HERE = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class Reporting:
    """Write one page about runs: verdict, settings, figures, images, cost, hashes, the command.

    The page is one file that fetches nothing: it can be sent, printed and kept. It is made from
    records alone. Images are shown of attack runs that kept them (--save-images).

    Example: advpure report runs/attack-0123456789ab --to report.html

    Attributes:
        runs: Run folders, or folders of sweeps, which stand for their runs.
        to: The page, a .html file.
        layout: ``runs``, one after another, or ``leaderboard``: a table, best first.
        images: Images shown of each run, at most; 0 for none.
        title: Title of the page. Default: what the runs are about.
    """

    runs: Annotated[tuple[str | Path, ...], Positional(), Repeats()] = ()
    to: str | Path = "report.html"
    layout: Annotated[Literal["runs", "leaderboard"], Flag("--as")] = "runs"
    images: Whole = 24
    title: str | None = None

    def __post_init__(self) -> None:
        """Check every field before anything is read."""
        validate(self)
        if not self.runs:
            raise BadInput("no run", "is nothing to report", "name run folders")
        if Path(self.to).suffix.lower() != ".html":
            raise BadInput(f"--to {self.to}", "is no page", "end it in .html")

    def write(self) -> Path:
        """Write the page, whole or not at all; the same runs give the same file.

        Returns:
            The file.

        Raises:
            BadInput: for a folder that holds no run, or one that the layout has no place for.
            StorageFull: when there is no room.
        """
        runs = [Run.read(folder) for folder in run_folders(self.runs)]
        if not runs:
            raise BadInput(", ".join(map(str, self.runs)), "has no run yet", "run its sweep first")
        text = render(runs, layout=self.layout, images=self.images, title=self.title)
        target = Path(self.to)
        with atomic_path(target) as scratch:
            scratch.write_text(text, encoding="utf-8")
        return target


def render(
    runs: Sequence[Run],
    *,
    layout: Literal["runs", "leaderboard"],
    images: int,
    title: str | None = None,
) -> str:
    """Return the page as text; see `Reporting`."""
    with untrusted():
        return _render(runs, layout, images, title)


def _render(runs: Sequence[Run], layout: str, images: int, title: str | None) -> str:
    keys = [f"{folder_name(run.folder)}-{place}" for place, run in enumerate(runs, 1)]
    told: dict[str, Any] = {"boards": (), "sections": (), "curves": list(curves(runs))}
    if layout == "leaderboard":
        told["boards"] = boards(runs)
    else:
        told["sections"] = [section(r, key, images) for r, key in zip(runs, keys, strict=True)]
    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html").render(
        title=title or _title(runs, layout),
        style=(_HERE / "style.css").read_text(encoding="utf-8"),
        version=advpure.__version__,
        **told,
    )


def _title(runs: Sequence[Run], layout: str) -> str:
    sets = ", ".join(dict.fromkeys(str(run.settings.get("dataset", run.verb)) for run in runs))
    if layout == "leaderboard":
        return f"Leaderboard: {sets}"
    verbs = ", ".join(dict.fromkeys(run.verb for run in runs))
    return f"{verbs} on {sets}"
