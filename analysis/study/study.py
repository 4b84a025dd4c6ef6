"""A study: a question as a declaration, with one loop for all of them."""

import importlib
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

from advpure.analysis.study.loaded import Loaded, Shard
from advpure.analysis.study.report import Columns, Report
from advpure.analysis.study.session import Progress, Session, never, silent
from advpure.base.errors import BadInput
from advpure.base.validation import instance
from advpure.data import Images
from advpure.options import read_options
from advpure.plots.figures import check_ending, histogram
from advpure.runs.cost import Cost
from advpure.runs.header import canonical_json, image_digests
from advpure.runs.records import ALREADY_COMPLETE, RecordStore, default_run_folder
from advpure.runs.schema import Schema
from advpure.statistics.estimates import find

L = TypeVar("L", bound=Loaded)
R = TypeVar("R", bound=Report)
GOES_ON = "the same command goes on"
"""What a note of an unfinished run says; of a shard that is done it would be wrong."""
_MERGE = (
    "shard {0} of {1} is done: `advpure merge RUN RUN ...` of all {1} folders makes the whole run"
)


class Study(ABC, Generic[L, R]):
    """A question. A subclass is a frozen, keyword-only dataclass of the question's settings.

    Its docstring is the help of its verb. Fields marked `Beside` say what to show or to keep; no
    record depends on them.

    Class attributes:
        verb: Its name on the command line, of its run folders and in `advpure.studies`.
        doing: What a progress bar says.
        tables: Layouts of its records, the main one first.
        columns: What a sweep shows of it, and its figure draws: name to path and unit, see
            `advpure.sweeps.columns`.
        figure: The function that draws a run, ``module:name``, which takes its records and a path.
        joint_figure: The function that draws several runs, which takes their reports and a path.
        of_defense: Whether its cost counts a classifier and backward passes.
        shorter: Options that make a long run shorter, in words.
        of_the_images: Settings that say which images a run has, beside which one image computed
            alone has the same settings.
    """

    verb: ClassVar[str]
    doing: ClassVar[str] = "measuring"
    tables: ClassVar[tuple[Schema, ...]]
    columns: ClassVar[Columns] = {}
    figure: ClassVar[str] = ""
    joint_figure: ClassVar[str] = ""
    of_defense: ClassVar[bool] = False
    shorter: ClassVar[str] = "-n"
    of_the_images: ClassVar[tuple[str, ...]] = ("n", "subset", "until")

    @abstractmethod
    def load(self) -> L:
        """Check every setting, and load networks and images.

        Raises:
            BadInput: for the first setting that cannot be used.
        """

    @abstractmethod
    def total(self, loaded: L) -> int:
        """Return the number of units of work, for progress."""

    @abstractmethod
    def cost(self, loaded: L) -> Cost:
        """Estimate the most that a run costs: counted evaluations, calibrated seconds, memory."""

    @abstractmethod
    def measure(self, session: Session[L]) -> None:
        """Compute what the records lack, and add it to them unit by unit."""

    @classmethod
    @abstractmethod
    def report(cls, store: RecordStore) -> R:
        """Compute the report of a run from its records alone; no network is loaded."""

    @classmethod
    def draw(cls, store: RecordStore, path: Path) -> Path:
        """Draw the study's figure of a run from its records alone.

        That is its `figure`, else its `joint_figure` of one run, else the distribution over images
        of the means among its `columns`.

        Raises:
            BadInput: for a run without records, or another ending than .png, .svg and .pdf.
            StorageFull: when there is no room.
        """
        if cls.figure:
            return _drawing(cls.figure)(store, path)
        report = cls.report(store)
        if cls.joint_figure:
            return cls.draw_together([report], path)
        estimates = {name: find(report.tree(), at["at"]) for name, at in cls.columns.items()}
        groups = {name: list(each.images().values()) for name, each in estimates.items()}
        label = ", ".join(groups)
        return histogram(groups, path, xlabel=label, title=report.display().headline)

    @classmethod
    def draw_together(cls, reports: Sequence[R], path: Path) -> Path:
        """Draw several runs in one figure.

        Raises:
            BadInput: where the study has no such figure.
        """
        if cls.joint_figure:
            return _drawing(cls.joint_figure)(reports, path)
        raise BadInput(f"verb {cls.verb}", "has no figure of several runs", "draw another figure")

    @classmethod
    def records(cls, folder: str | Path) -> RecordStore:
        """Open the records of a run of this study, for reading.

        Raises:
            BadInput: for a folder that holds no run, or one of another study.
        """
        store = RecordStore.read(folder)
        if store.settings.get("verb") != cls.verb:
            store.close()
            raise BadInput(str(folder), f"holds no {cls.verb} run", f"name one of {cls.verb}")
        return store

    @property
    def recalls(self) -> bool:
        """Whether the settings ask what records that are there say: then nothing is computed."""
        return False

    def recall(self) -> R:
        """Return the report of records that are there, where the settings ask for that.

        Raises:
            BadInput: from a study that always computes.
        """
        raise BadInput(f"verb {self.verb}", "recalls no records", "run it")

    def share(self, loaded: L, shard: Shard) -> L:
        """Return what one of k machines computes: (i, k) is the i-th of k parts, i from 1.

        Raises:
            BadInput: from a study whose work is not that of single images.
        """
        rule = f"means nothing to {self.verb}, whose work is not split by images"
        raise BadInput(f"shard {shard[0]}/{shard[1]}", rule, "leave it out")

    @classmethod
    def missing(cls, store: RecordStore) -> str:
        """Return what the records of all shards together lack, in words; empty for nothing.

        Shards made by `share` say themselves whether they are complete.
        """
        return ""

    def is_whole(self, loaded: L, store: RecordStore) -> bool:
        """Return whether nothing is missing after `measure`."""
        return True

    def as_recorded(self, loaded: L, store: RecordStore, sample: int | None) -> L:
        """Return what computes an image again as it was computed, and no further."""
        return loaded

    def before(self, loaded: L) -> tuple[str, ...]:
        """Return what a user should know before anything is computed, in sentences."""
        return ()

    def stopping(self, loaded: L, store: RecordStore) -> Callable[[], bool]:
        """Return what says, asked between batches, whether the records answer the question."""
        return never

    def layouts(self, loaded: L) -> tuple[Schema, ...]:
        """Return the layouts of the records of a run, the main one first."""
        return self.tables

    def idle(self, loaded: L) -> tuple[str, ...]:
        """Return what was set although nothing depends on it, in sentences."""
        return ()

    def after(self, report: R, loaded: L) -> R:
        """Add to a report what `Beside` settings ask for and no record depends on."""
        return report

    def check_pictures(self, plot: Path | None) -> None:
        """Refuse pictures that cannot be drawn, before anything is loaded.

        Raises:
            BadInput: for a file of another ending, settings of a picture that is not asked for, or
                one file for two pictures.
        """
        grid = vars(self).get("grid")
        for picture in (plot, grid):
            if picture is not None:
                check_ending(picture)
        if grid is not None and plot is not None and plot.resolve() == Path(grid).resolve():
            raise BadInput(f"--grid {grid}", "is the file of --plot", "name another")

    def pictures(self, report: R, loaded: L, plot: Path | None) -> dict[str, Any]:
        """Draw what was asked for; return the files by the name that JSON has for them."""
        if plot is None:
            return {}
        with RecordStore.read(report.run) as store:
            self.draw(store, plot)
        return {"plot": str(plot)}

    def open(self, loaded: L, folder: Path) -> RecordStore:
        """Open the records of a run, to begin it or go on with it; see `RecordStore.open`."""
        return RecordStore.open(
            folder,
            schemas=self.layouts(loaded),
            settings=loaded.settings,
            context={**loaded.context, **self.origin(loaded), **_part(loaded)},
            samples=loaded.samples,
        )

    def folder(self, loaded: L) -> Path:
        """Return the run folder where none is named: one named after the settings, under ``runs``.

        That of a shard says which it is.
        """
        whole = default_run_folder("runs", self.verb, loaded.settings)
        if loaded.shard is None:
            return whole
        i, k = loaded.shard
        return whole.with_name(f"{whole.name}.{i}-of-{k}")

    def origin(self, loaded: L) -> dict[str, Any]:
        """Return what lets a session be computed again: `study`, its fields, and `images`.

        The fields are None where one is an object that no name stands for; of every image there
        is a digest, see `image_digests`.
        """
        images = getattr(loaded, "images", None)
        try:
            own = json.loads(canonical_json(_plain_fields(self)))
        except BadInput:
            own = None
        return {
            "study": own,
            "images": image_digests(*images) if isinstance(images, Images) else {},
        }

    @classmethod
    def recorded(cls, store: RecordStore) -> Self:
        """Return the study that began a run, made from the fields that its records keep.

        Raises:
            BadInput: where they keep none, or ones that this version cannot use.
        """
        own = store.context.get("study")
        if own is None:
            rule = "does not say of which settings its study was made"
            raise BadInput(str(store.folder), rule, "run it again, by names and files")
        return read_options(cls, own, cls.verb)

    def run(
        self,
        *,
        out: str | Path | None = None,
        batch_size: int | None = None,
        progress: Progress = silent,
        loaded: L | None = None,
        shard: Shard | None = None,
    ) -> R:
        """Measure, going on with a run that was interrupted, and report.

        Args:
            out: Run folder; by default one named after the settings, under ``runs``.
            batch_size: Rows in memory at once, 1 or more; a matter of memory only.
            progress: Called with the number of finished units.
            loaded: What `load` returned, where that was called before.
            shard: (i, k) for the i-th of k parts, i from 1: every k-th image, into a run folder of
                its own. `advpure.report.merge` makes the whole run of all k.

        Returns:
            The report. Its records are in the run folder.

        Raises:
            BadInput: for settings that cannot be used, or a run folder of other settings.
            StorageFull: when the disk is full; what was stored is kept.
        """
        instance(out, (str, Path, type(None)), "out", "name a folder")
        if self.recalls:
            for name, value in (("out", out), ("batch size", batch_size), ("shard", shard)):
                if value is not None:
                    rule = "says nothing about runs that are there"
                    raise BadInput(f"{name} {value}", rule, "leave it out")
            return self.recall()
        loaded = self.load() if loaded is None else loaded
        if shard is not None:
            loaded = self.share(loaded, shard)
        folder = self.folder(loaded) if out is None else Path(out)
        start = time.perf_counter()
        with self.open(loaded, folder) as store:
            before, finished = store.batches, store.finished
            enough = self.stopping(loaded, store)
            self.measure(Session(loaded, store, batch_size, progress, enough))
            if whole := self.is_whole(loaded, store):
                store.finish()
            report = replace(self.report(store), seconds=time.perf_counter() - start)
            if store.batches == before and (finished or not whole):
                report = report.with_notes(ALREADY_COMPLETE)
        if loaded.shard is not None:
            notes = tuple(text for text in report.notes if GOES_ON not in text)
            report = replace(report, notes=notes).with_notes(_MERGE.format(*loaded.shard))
        return self.after(report, loaded).with_notes(*self.idle(loaded))


def _part(loaded: Loaded) -> dict[str, Any]:
    """Return what a context says of a shard."""
    return {} if loaded.shard is None else {"shard": list(loaded.shard)}


def _plain_fields(settings: Any) -> dict[str, Any]:
    """Return the fields of a settings object; objects in them are not copied, as not all can be."""
    held = ((each.name, getattr(settings, each.name)) for each in fields(settings))
    return {
        name: _plain_fields(value) if is_dataclass(value) and not isinstance(value, type) else value
        for name, value in held
    }


def _drawing(target: str) -> Callable[[Any, Path], Path]:
    """Import the function behind ``module:name``; figures are imported when one is drawn."""
    module, _, name = target.partition(":")
    drawing: Callable[[Any, Path], Path] = getattr(importlib.import_module(module), name)
    return drawing


def cost_of(study: Study[Any, Any], shard: Shard | None = None) -> Cost:
    """Estimate the cost of a study that is not loaded yet, or of one of its parts."""
    loaded = study.load()
    return study.cost(loaded if shard is None else study.share(loaded, shard))
