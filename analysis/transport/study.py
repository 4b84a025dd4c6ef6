"""Transport as a study ([Li2024], definition 3.2, theorem 3.3, figures 2, 4 and 5)."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from advpure.analysis.certification.radius import read_sigmas
from advpure.analysis.study import DefenseStudy, LoadedModel, Report, Session
from advpure.analysis.subject import DefenseSubject
from advpure.analysis.transport.result import PICTURES, TRANSPORT, Level, TransportResult
from advpure.analysis.transport.rows import (
    chains_at,
    picture_rows,
    purified_batches,
    transport_rows,
)
from advpure.base.budget import check_repeats
from advpure.base.display import Display, Table, percent, written
from advpure.base.errors import BadInput
from advpure.base.flags import Beside, Flag, Repeats
from advpure.base.kinds import Natural, Whole
from advpure.base.text import several
from advpure.base.validation import Range, fields_of, number
from advpure.core.defense import Defense
from advpure.core.purifier import Purifier
from advpure.core.randomness import RandomnessConfig, Scheme
from advpure.data import Images, dataset_info
from advpure.loading import describe
from advpure.purifiers import PURIFIERS
from advpure.runs.cost import Cost, estimate
from advpure.runs.records import RecordStore
from advpure.runs.schema import Schema

_MULTIPLES = "write 1,1.5,2"
_TILES = 4  # of the data set's: there are rows enough, and larger calls cost less each
_LEFT_OUT = ("sigma", "t", "evaluations", "gradient")  # sigma takes their place


@dataclass(frozen=True, kw_only=True)
class TransportReport(Report):
    """The result of a run, computed from its records.

    Attributes:
        levels: Transport, bound and accuracy, noise level by noise level.
    """

    levels: tuple[Level, ...]

    @property
    def markov_holds(self) -> bool:
        """Whether the bound of theorem 3.3 holds at every level and radius; it must."""
        return all(each.holds for level in self.levels for each in level.markov)

    def tree(self) -> dict[str, Any]:
        """Return the levels, one row each."""
        return {
            "rows": [
                level._asdict() | {"markov": [each._asdict() for each in level.markov]}
                for level in self.levels
            ],
            "markov_holds": self.markov_holds,
            "draws": self.settings["draws"],
        }

    def display(self) -> Display:
        """Return transport and accuracy of every level, and both sides of the bound."""
        s = self.settings
        headline = (
            f"{s['dataset']}, defense {s['defense']['purifier']}: mean l2 distance from an image "
            f"to its purified noisy version; draws of each: {s['draws']}, seed "
            f"{s['randomness']['seed']}"
        )
        rows, bounds = [], []
        for level in self.levels:
            right = written(level.accuracy, ".1f", scale=100.0)
            rows.append([f"{level.sigma:g}", written(level.transport), right, str(level.n)])
            for each in level.markov:
                sides = (percent(side.value or 0.0) for side in (each.exceeds, each.bound))
                holds = "yes" if each.holds else "NO"
                bounds.append([f"{level.sigma:g}", f"{each.radius:.4g}", *sides, holds])
        return Display(
            headline,
            (
                Table(("sigma", "transport", "right, single draws, %", "n"), rows),
                "Markov: P(distance > r) <= transport / r, for the measured distances",
                Table(("sigma", "r", "share beyond r, %", "bound, %", "holds"), bounds),
            ),
        )


@dataclass(frozen=True, kw_only=True)
class Transport(DefenseStudy[TransportReport]):
    """Print the mean distance from images to their purified noisy versions, and its Markov bound.

    Example: advpure transport --defense cm-ft --sigma 0.25,0.5,1.0 -n 100 --grid purified.png

    Attributes:
        sigmas: Noise in [0, 1] units, above 0, a list such as 0.25,0.5; also the purifier's
            strength.
        draws: Noisy versions of every image at every sigma.
        multiples: Radii of the Markov bound, in multiples of the transport, above 0.
        kept: Purified images to keep for --grid, the first ones.
        seed: Base seed of all noise.
        tile: Images per network call, 1 or more; 0: batches as they come. Default: four times the
            data set's.
        against: Folder of another transport run, to be drawn beside this one; repeats.
        grid: Draw purified images, green border if right and red if wrong: a .png, .svg or .pdf
            file.
        grid_sigma: Noise level of --grid. Default: the smallest.
    """

    verb: ClassVar[str] = "transport"
    keyed: ClassVar[frozenset[str]] = frozenset({"seed", "scheme"})
    doing: ClassVar[str] = "purifying"
    shorter: ClassVar[str] = "-n, --draws or --sigma"
    tables: ClassVar[tuple[Schema, ...]] = (TRANSPORT, PICTURES)
    joint_figure: ClassVar[str] = "advpure.analysis.transport.figure:draw_transport"
    of_defense: ClassVar[bool] = False
    sources: ClassVar[tuple[object, ...]] = (purified_batches,)
    unused: ClassVar[Mapping[str, str]] = {
        "t": "leave it out: sigma is the strength",
        "sigma": "give sigmas",
        "gradient": "leave it out",
        "policy": "leave it out: every draw is an answer of its own",
    }

    sigmas: Annotated[str | float | Sequence[str | float], Flag("--sigma")] = "0.25,0.5,0.75,1.0"
    draws: Natural = 1
    multiples: str | float | Sequence[str | float] = "1,1.25,1.5,2"
    kept: Annotated[Whole, Flag("--pictures")] = 16
    scheme: Scheme = "counter"
    against: Annotated[tuple[str, ...], Repeats(), Beside()] = ()
    grid: Annotated[str | None, Beside()] = None
    grid_sigma: Annotated[float | None, Beside()] = None

    def _multiples(self) -> tuple[float, ...]:
        """Return the multiples, increasing."""

        def read(one: str | float) -> float:
            return number(one, "multiple", Range(above=0), _MULTIPLES)

        return tuple(sorted(several(self.multiples, read, "multiples", _MULTIPLES)))

    def __post_init__(self) -> None:
        """Check every field, and that the lists can be read."""
        super().__post_init__()
        check_repeats(self.draws * len(self.levels), "draws of an image")
        self._multiples()

    @property
    def levels(self) -> tuple[float, ...]:
        """The noise levels, increasing."""
        return read_sigmas(self.sigmas)

    def load_model(self, xi: RandomnessConfig) -> Defense | Purifier:
        """Load the defense, or the purifier alone where the data set has no classifier."""
        info, recipe = dataset_info(self.dataset), PURIFIERS.get(self.defense)
        has_level = "sigma" in {each.name for each in dataclasses.fields(recipe)}
        first = DefenseSubject(
            **fields_of(DefenseSubject, self)
            | {
                "sigma": self.levels[0] if has_level else None,
                "policy": "single",
                "tile": _TILES * info.tile if self.tile is None else self.tile,
            }
        )
        return first.load_defense(xi) if self.has_classifier else first.load_purifier(xi)

    def describe(
        self, model: Defense | Purifier, images: Images, xi: RandomnessConfig
    ) -> dict[str, Any]:
        """Return what the rows depend on, as JSON values."""
        purifier = model.purifier if isinstance(model, Defense) else model
        chains_at(purifier, self.levels)  # refuses what the denoiser does not cover
        described = describe(model) if isinstance(model, Defense) else dict(purifier.settings)
        return {
            "defense": {key: value for key, value in described.items() if key not in _LEFT_OUT},
            "sigmas": list(self.levels),
            "draws": self.draws,
            "multiples": list(self._multiples()),
            "pictures": self.kept,
            "randomness": {"seed": self.seed, "scheme": self.scheme},
        }

    def total(self, loaded: LoadedModel) -> int:
        """Return the number of purifications."""
        return len(self.levels) * len(loaded.images.ids) * self.draws

    def cost(self, loaded: LoadedModel) -> Cost:
        """Estimate the cost of all purifications and decisions."""
        classified, rows = isinstance(loaded.model, Defense), len(loaded.images.ids) * self.draws
        one = estimate(loaded.model.at(xi=loaded.xi), loaded.images.images[:8], rows, 1, 0)
        chains = chains_at(loaded.purifier, self.levels).values()
        total = sum(rows * (chain.evaluations + classified) for chain in chains)
        seconds = one.seconds * total / max(one.evaluations, rows)
        return dataclasses.replace(
            one, images=len(loaded.images.ids), evaluations=total, seconds=seconds
        )

    def measure(self, session: Session[LoadedModel]) -> None:
        """Purify level after level, batch after batch."""
        loaded, store = session.loaded, session.store
        done: set[tuple[float, int, int]] = store.done(TRANSPORT.table)
        shown = set(loaded.images.ids.tolist()[: self.kept])
        count = len(done)
        session.progress(count)
        for batch in purified_batches(
            chains_at(loaded.purifier, self.levels),
            loaded.images,
            draws=self.draws,
            xi=loaded.xi,
            classifier=loaded.model.classifier if isinstance(loaded.model, Defense) else None,
            tile=loaded.model.tile,
            batch_size=session.batch_size,
            skip=done,
        ):
            with store.batch():
                store.append(TRANSPORT.table, transport_rows(batch, loaded.images))
                store.append(PICTURES.table, list(picture_rows(batch, loaded.images, shown)))
            count += len(batch.rows)
            session.progress(count)

    @classmethod
    def report(cls, store: RecordStore) -> TransportReport:
        """Compute the report of a run from its records alone."""
        s = store.settings
        levels = TransportResult(store.rows(TRANSPORT.table), s["multiples"]).levels
        whole = len(levels) == len(s["sigmas"]) and all(level.n >= s["n"] for level in levels)
        notes = () if whole else ("not all images and levels are done; the same command goes on",)
        return TransportReport(run=store.folder, settings=s, levels=levels, notes=notes)

    def check_pictures(self, plot: Path | None) -> None:
        """Refuse pictures that cannot be drawn, before anything is loaded."""
        super().check_pictures(plot)
        if self.grid is not None:
            if self.kept == 0:
                raise BadInput("--grid", "has no picture to draw", "keep some, --pictures 16")
            levels = read_sigmas(self.sigmas)
            if self.grid_sigma is not None and self.grid_sigma not in levels:
                asked = f"--grid-sigma {self.grid_sigma:g}"
                known = ", ".join(f"{each:g}" for each in levels)
                fix = f"levels with pictures: {known}"
                raise BadInput(asked, "is not among the noise levels", fix)
        elif self.grid_sigma is not None:
            asked = f"--grid-sigma {self.grid_sigma:g}"
            raise BadInput(asked, "means nothing without --grid", "add it")
        for k, folder in enumerate(self.against):
            if os.path.realpath(folder) in map(os.path.realpath, self.against[:k]):
                raise BadInput(f"--against {folder}", "is given twice", "name it once")
        if self.against and plot is None and self.grid is None:
            raise BadInput("--against", "means nothing without a picture", "add --plot or --grid")

    def pictures(
        self, report: TransportReport, loaded: LoadedModel, plot: Path | None
    ) -> dict[str, Any]:
        """Draw transport and purified images, of the other runs too."""
        from advpure.analysis.transport.figure import draw_purified, draw_transport, named

        drawn: dict[str, Any] = {}
        with ExitStack() as stack:
            folders: list[str | Path] = [report.run, *self.against] if plot or self.grid else []
            stores = [stack.enter_context(self.records(folder)) for folder in folders]
            if plot is not None:
                drawn["plot"] = str(draw_transport([self.report(each) for each in stores], plot))
            if self.grid is not None:
                path = draw_purified(named(stores), self.grid, sigma=self.grid_sigma)
                drawn["grid"] = str(path)
        return drawn
