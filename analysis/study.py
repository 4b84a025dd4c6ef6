"""A study: a question as a declaration, with one loop for all of them.

A study is a frozen dataclass. Its fields are the settings; its methods say what to load, how to
measure, and what the records tell. The rest is here and in `advpure.cli.studies`: the run folder,
resuming, progress, the report of what was computed before, and the command line. A question that is
added is one class and one line in `advpure.studies`; docs/new-study.md walks through one.
"""

import importlib
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar, get_type_hints

import torch

from advpure.analysis.subject import DefenseSubject, Seeded, Subject
from advpure.analysis.target import as_target
from advpure.base.display import Display, as_html, as_text, written
from advpure.base.errors import BadInput
from advpure.base.extras import optional
from advpure.base.flags import is_beside
from advpure.base.idle import changed
from advpure.base.validation import instance
from advpure.core.defense import Defense
from advpure.core.purifier import Purifier
from advpure.core.randomness import RandomnessConfig
from advpure.core.tiling import check_rows
from advpure.data import Images
from advpure.loading import describe
from advpure.options import read_options
from advpure.plots.figures import check_ending, histogram
from advpure.runs.cost import Cost, estimate
from advpure.runs.header import canonical_json, image_digests
from advpure.runs.records import ALREADY_COMPLETE, RecordStore, default_run_folder
from advpure.runs.schema import Schema
from advpure.statistics.estimates import Estimate, by_image_rows, find, flat_rows, plain

Progress = Callable[[int], None]
Shard = tuple[int, int]
"""(i, k): the i-th of k parts of a run, i from 1."""
Columns = Mapping[str, Mapping[str, Any]]
"""Name of a value to its path in the report, `at`, and its `unit`."""


def silent(done: int) -> None:
    """Show no progress."""


def never() -> bool:
    """Return that a run goes on to its end."""
    return False


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """What a study computes with, checked and in memory.

    Attributes:
        settings: Everything that identifies the run, JSON values.
        context: Where this session computes, for the records.
        samples: Ids of the images; None for a run of no images.
        shard: (i, k) where this is the i-th of k parts of a run, i from 1; see `Study.share`.
    """

    settings: dict[str, Any]
    context: Mapping[str, Any]
    samples: Sequence[int] | None = None
    shard: Shard | None = None


@dataclass(frozen=True, kw_only=True)
class LoadedModel(Loaded):
    """A purifier or a defense, and its images.

    Attributes:
        model: What is measured.
        images: Images, labels and ids.
        xi: The randomness that the model is bound to.
    """

    model: Purifier | Defense
    images: Images
    xi: RandomnessConfig

    @property
    def purifier(self) -> Purifier:
        """The purifier, of a defense its own."""
        return self.model.purifier if isinstance(self.model, Defense) else self.model

    @property
    def defense(self) -> Defense:
        """The defense, where that is what was loaded."""
        assert isinstance(self.model, Defense)
        return self.model

    def share(self, shard: "Shard") -> Self:
        """Return the i-th of k parts: every k-th image, from the i-th, under the same settings.

        Args:
            shard: (i, k), i from 1.

        Raises:
            BadInput: when there are fewer images than parts.
        """
        i, k = shard
        if k > (n := len(self.images.ids)):
            raise BadInput(f"shard {i}/{k}", f"has none of {n} images", f"use at most {n} shards")
        images = Images(*(part[i - 1 :: k] for part in self.images))
        return replace(self, images=images, samples=images.ids.tolist(), shard=shard)


L = TypeVar("L", bound=Loaded)
R = TypeVar("R", bound="Report")


@dataclass(frozen=True)
class Session(Generic[L]):
    """One sitting of a run.

    Attributes:
        loaded: What the study loaded.
        store: The records, open.
        batch_size: Rows in memory at once, a matter of memory only; None for the study's choice.
        progress: To be called with the number of finished units of `Study.total`.
        enough: Whether the run may end before its last image, see `Study.stopping`.
    """

    loaded: L
    store: RecordStore
    batch_size: int | None
    progress: Progress
    enough: Callable[[], bool] = never

    def batches(self, images: Images, schema: Schema, size: int) -> Iterator[Images]:
        """Yield the images that have no row yet, and show progress by images.

        Args:
            images: Images, labels and ids.
            schema: The table of the rows; its first key is the id of an image.
            size: Images at once where the session does not say.
        """
        done = {i for (i,) in self.store.done(schema.table, next(iter(schema.keys)))}
        count = len(done.intersection(images.ids.tolist()))
        size = check_rows(size if self.batch_size is None else self.batch_size)
        self.progress(count)
        for batch in chunks(images, size, done):
            if self.enough():
                return
            yield batch
            count += len(batch.ids)
            self.progress(count)


def chunks(images: Images, size: int, done: Container[int] = ()) -> Iterator[Images]:
    """Yield the images whose ids are not among `done`, at most `size` at once, in their order."""
    todo = [k for k, i in enumerate(images.ids.tolist()) if i not in done]
    for start in range(0, len(todo), size):
        rows = torch.tensor(todo[start : start + size], dtype=torch.int64, device="cpu")
        yield Images(*(part[rows] for part in images))


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
            BadInput: for a file of another ending, or settings of a picture that is not asked for.
        """
        if plot is not None:
            check_ending(plot)

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


_PRECISION = "every number is about the networks in {0}: a decision or certificate holds for them"
GOES_ON = "the same command goes on"
"""What a note of an unfinished run says; of a shard that is done it would be wrong."""
_MERGE = (
    "shard {0} of {1} is done: `advpure merge RUN RUN ...` of all {1} folders makes the whole run"
)


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


@dataclass(frozen=True, kw_only=True)
class ModelStudy(Subject, Study[LoadedModel, R]):
    """A study of one purifier on images.

    Class attributes:
        keyed: Which of ``seed`` and ``scheme`` key more than what the model draws, or are told of
            by the report itself.
    """

    keyed: ClassVar[frozenset[str]] = frozenset({"seed"})
    sources: ClassVar[tuple[object, ...]] = ()
    """Functions and classes whose files the records name, beside the purifier's."""
    passes: ClassVar[tuple[int, int]] = (1, 0)
    """Forward and backward passes through the model, per image, for the cost."""

    @property
    @abstractmethod
    def xi(self) -> RandomnessConfig:
        """The randomness that the model is bound to."""

    def describe(self, model: Any, images: Images, xi: RandomnessConfig) -> dict[str, Any]:
        """Return what identifies the run beside verb, images and device, as JSON values.

        By default the model, with the sha256 of its networks, in `defense`; its randomness; and
        the fields that the study declares itself, without those marked `Beside`.
        """
        shared = {each.name for each in fields(DefenseSubject)} | {"seed"}
        hints = get_type_hints(type(self), include_extras=True)
        own = {
            each.name: getattr(self, each.name)
            for each in fields(self)
            if each.name not in shared and not is_beside(hints[each.name])
        }
        return {
            "defense": describe(model) if isinstance(model, Defense) else as_target(model).settings,
            "randomness": {"seed": xi.seed, "scheme": xi.scheme},
            **own,
        }

    def load_model(self, xi: RandomnessConfig) -> Purifier | Defense:
        """Load what is measured."""
        return self.load_purifier(xi)

    def load(self) -> LoadedModel:
        """Load model and images, and resolve the settings."""
        xi = self.xi
        model, images = self.load_model(xi), self.load_images()
        settings = {**self.identity(self.verb, images), **self.describe(model, images, xi)}
        return LoadedModel(
            settings=settings,
            context=self.context(model, settings.get("defense", settings), *self.sources),
            samples=images.ids.tolist(),
            model=model,
            images=images,
            xi=xi,
        )

    def idle(self, loaded: LoadedModel) -> tuple[str, ...]:
        """Return a note where keys of noise are set and no noise is drawn.

        A comparison of many defenses may share them, so the run is not refused.
        """
        names = [name for name in ("seed", "scheme") if hasattr(self, name)]
        set_here = changed(self, [name for name in names if name not in self.keyed])
        if loaded.model.is_random or not set_here:
            return ()
        said = " and ".join(f"{name} {value}" for name, value in set_here.items())
        verb = "change" if len(set_here) > 1 else "changes"
        return (f"{said} {verb} nothing for {loaded.purifier.name}, which draws no noise",)

    def share(self, loaded: LoadedModel, shard: Shard) -> LoadedModel:
        """Return every k-th image, from the i-th; see `LoadedModel.share`."""
        return loaded.share(shard)

    def total(self, loaded: LoadedModel) -> int:
        """Return the number of images."""
        return len(loaded.images.ids)

    def cost(self, loaded: LoadedModel) -> Cost:
        """Estimate the cost of `passes` through the model."""
        view = loaded.model.at(xi=loaded.xi)
        return estimate(view, loaded.images.images[:8], len(loaded.images.ids), *self.passes)


@dataclass(frozen=True, kw_only=True)
class PurifierStudy(Seeded, ModelStudy[R]):
    """A study of one purifier under one configuration of its randomness."""

    @property
    def xi(self) -> RandomnessConfig:
        """The randomness of the seed."""
        return RandomnessConfig(self.seed, self.scheme)


@dataclass(frozen=True, kw_only=True)
class DefenseStudy(DefenseSubject, PurifierStudy[R]):
    """A study of one purifier in front of a classifier, under one configuration."""

    of_defense: ClassVar[bool] = True

    def load_model(self, xi: RandomnessConfig) -> Purifier | Defense:
        """Load the defense; a study that can do without a classifier may load the purifier."""
        return self.load_defense(xi)


def cost_of(study: Study[Any, Any], shard: Shard | None = None) -> Cost:
    """Estimate the cost of a study that is not loaded yet, or of one of its parts."""
    loaded = study.load()
    return study.cost(loaded if shard is None else study.share(loaded, shard))
