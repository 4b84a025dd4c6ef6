"""A finished run, read once: its settings, its report, and the images behind it."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from advpure.analysis.study import Report, Study
from advpure.base.errors import BadInput
from advpure.base.imports import untrusted
from advpure.runs.records import RecordStore
from advpure.statistics.estimates import Estimate
from advpure.studies import STUDIES
from advpure.sweeps.index import Index

SAMPLE_KEYS = ("sample", "id")
"""Key columns that hold the id of an image."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run of a study.

    Attributes:
        folder: Its folder.
        study: Its kind of study.
        settings: What identifies it.
        sessions: Where it was computed, session by session.
        samples: Ids of the images that have rows, sorted; empty for a run without images.
        finished: Whether nothing is missing.
        report: The report of its records.
    """

    folder: Path
    study: type[Study[Any, Any]]
    settings: Mapping[str, Any]
    sessions: Sequence[Mapping[str, Any]]
    samples: tuple[int, ...]
    finished: bool
    report: Report

    @property
    def verb(self) -> str:
        """The verb."""
        return self.study.verb

    @property
    def context(self) -> Mapping[str, Any]:
        """Where the run began."""
        return self.sessions[0]

    @classmethod
    def read(cls, folder: str | Path) -> "Run":
        """Read a run folder; no network is loaded, and code that it names does not run.

        Raises:
            BadInput: for a folder that holds no run, one without rows, or that of a sweep.
        """
        with RecordStore.read(folder) as store, untrusted():
            study, samples = study_of(store), samples_of(store)
            if not samples and sample_key(store.schemas[0].keys) is not None:
                raise BadInput(str(folder), "has no rows yet", "run its command again")
            return cls(
                folder=Path(folder),
                study=study,
                settings=store.settings,
                sessions=store.sessions,
                samples=tuple(samples),
                finished=store.finished,
                report=study.report(store),
            )


def study_of(store: RecordStore) -> type[Study[Any, Any]]:
    """Return the kind of study that records are of.

    Raises:
        BadInput: for the records of a sweep, or of no study.
    """
    verb = str(store.settings.get("verb"))
    if verb == "sweep":
        raise BadInput(str(store.folder), "is a sweep", "name the folders of its runs")
    if verb not in STUDIES:
        raise BadInput(str(store.folder), "holds no run of a study", "name a run folder")
    return STUDIES.get(verb)


def check_apart(folders: Sequence[str | Path]) -> None:
    """Refuse a folder that is given twice, in whatever way its path is written.

    Raises:
        BadInput: naming it.
    """
    seen: set[str] = set()
    for folder in folders:
        place = os.path.realpath(folder)  # which goes round no loop of links
        if place in seen:
            raise BadInput(f"run {folder}", "is given twice", "name each once")
        seen.add(place)


def run_folders(folders: Sequence[str | Path]) -> Iterator[Path]:
    """Yield the run folders that are meant: a sweep's are those of its points that have records.

    Raises:
        BadInput: for a folder that is given twice.
    """
    check_apart(folders)
    for folder in map(Path, folders):
        with RecordStore.read(folder) as store:
            verb = store.settings.get("verb")
        if verb != "sweep":
            yield folder
            continue
        for entry in Index.read(folder).settings["points"]:
            if (folder.parent / entry["run"] / "records.sqlite").is_file():
                yield folder.parent / entry["run"]


def sample_key(keys: Mapping[str, Any]) -> str | None:
    """Return the key column that holds the id of an image, None where there is none.

    Example:
        >>> sample_key({"sample": int, "draw": int}), sample_key({"step": int})
        ('sample', None)
    """
    return next((name for name in SAMPLE_KEYS if name in keys), None)


def samples_of(store: RecordStore) -> list[int]:
    """Return the ids of the images that have rows in the main table, sorted."""
    main = store.schemas[0]
    key = sample_key(main.keys)
    return [] if key is None else sorted(i for (i,) in store.done(main.table, key))


def flat_estimates(tree: Any, path: str = "") -> Iterator[tuple[str, Estimate]]:
    """Yield every estimate of a report's tree with its path, entries of lists by their place.

    Example:
        >>> [path for path, _ in flat_estimates({"rows": [{"x": Estimate(value=1.0)}]})]
        ['rows.0.x']
    """
    if isinstance(tree, Estimate):
        yield path, tree
    elif isinstance(tree, Mapping):
        for name, leaf in tree.items():
            yield from flat_estimates(leaf, f"{path}.{name}" if path else str(name))
    elif isinstance(tree, Sequence) and not isinstance(tree, str):
        for place, leaf in enumerate(tree):
            yield from flat_estimates(leaf, f"{path}.{place}")
