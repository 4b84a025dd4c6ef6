"""Compression, survival and attack of several purifiers, image by image.

A prediction needs other runs: the compression rate of every purifier (`cr`), the survival of
the classifier at clean images and at each purifier's anchor points (`survival`), and the attack
with fixed randomness (`attack`). They are runs of their own, named by their settings, in the folder
where the prediction is; what is there already is used, what is missing is measured. The prediction
keeps one row for every purifier, strength and image.

The attack that finds r* is by default the one that is measured, attacked afresh at every radius
(``plain``): then predicted and measured accuracies differ by the theory alone, not by the attack.
"""

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, ClassVar

from advpure.analysis.prediction.files import predict_from
from advpure.analysis.prediction.parts import (
    PREDICTION_SCHEMA,
    join,
    read_radii,
    read_rates,
    read_verdicts,
    to_setting,
)
from advpure.analysis.prediction.plan import Part, Plan, Point, plan
from advpure.analysis.prediction.report import PredictionReport, make_report
from advpure.analysis.prediction.settings import PredictionSettings
from advpure.analysis.study import Loaded, Session, Shard, Study, cost_of
from advpure.base.errors import BadInput
from advpure.base.flags import Beside, Positional, Repeats
from advpure.base.idle import refuse_idle
from advpure.base.units import parse_eps
from advpure.runs.cost import Cost
from advpure.runs.records import FILE_NAME, RecordStore, collect_context
from advpure.runs.schema import Row, Schema


@dataclass(frozen=True, kw_only=True)
class LoadedPrediction(Loaded):
    """A prediction that is checked.

    Attributes:
        plan: The runs that it needs.
        count: Images.
    """

    plan: Plan
    count: int


@dataclass(frozen=True, kw_only=True)
class PredictedRobustness(PredictionSettings, Study[LoadedPrediction, PredictionReport]):
    """Predict robust accuracy from compression and survival, beside what an attack leaves.

    With run folders alone nothing is computed. With --defense, what is missing is measured; the
    runs that it needs are kept beside it, and used again.

    Example: advpure predict -d ddpm,reverse,ddim --t 10,50,150 --dataset digits -n 50 --eps 0.15

    Attributes:
        runs: Folders of cr, survival and attack runs: to predict from, or to use beside --defense.
    """

    verb: ClassVar[str] = "predict"
    tables: ClassVar[tuple[Schema, ...]] = (PREDICTION_SCHEMA,)
    figure: ClassVar[str] = "advpure.analysis.prediction.figure:prediction_figure"
    of_defense: ClassVar[bool] = True
    of_the_images: ClassVar[tuple[str, ...]] = ("n", "subset", "clean", "points")

    runs: Annotated[tuple[str | Path, ...], Positional(), Repeats(), Beside()] = ()

    def __post_init__(self) -> None:
        """Check every field; refuse those that say nothing about runs that are there."""
        super().__post_init__()
        if self.recalls:
            names = [each.name for each in fields(self)]
            idle = [name for name in names if name not in ("runs", "eps", "norm")]
            fix = "name purifiers with --defense, or leave it out"
            refuse_idle(self, idle, "says nothing about runs that are there", fix)

    @property
    def recalls(self) -> bool:
        """Whether there are runs to predict from, and no purifiers to measure."""
        return bool(self.runs) and self.defense is None

    def recall(self) -> PredictionReport:
        """Predict from the records of earlier runs; see `predict_from`."""
        eps = None if self.eps is None else parse_eps(self.eps, self.norm or "linf")
        return predict_from(self.runs, eps=eps)

    def load(self) -> LoadedPrediction:
        """Check the settings of every run that the prediction needs."""
        runs = plan(self)
        images = self.load_images()
        return LoadedPrediction(
            settings={**self.identity(self.verb, images), **runs.described},
            context=collect_context(device=self.device),
            plan=runs,
            count=len(images.ids),
        )

    def share(self, loaded: LoadedPrediction, shard: Shard) -> LoadedPrediction:
        """Refuse: the runs that a prediction joins are what machines can share.

        Raises:
            BadInput: always.
        """
        i, k = shard
        fix = "shard these runs, merge them, and name their folders"
        raise BadInput(f"shard {i}/{k}", "means nothing to predict, which joins runs", fix)

    def total(self, loaded: LoadedPrediction) -> int:
        """Return the images to measure, in every part anew."""
        return loaded.count * len(loaded.plan.parts)

    def cost(self, loaded: LoadedPrediction) -> Cost:
        """Add up the estimates of all parts, as if none were measured already."""
        costs = [cost_of(part.study) for part in loaded.plan.parts]
        return Cost(
            loaded.count,
            sum(each.evaluations for each in costs),
            sum(each.backwards for each in costs),
            sum(each.seconds for each in costs),
            max(each.peak_memory for each in costs),
        )

    def measure(self, session: Session[LoadedPrediction]) -> None:
        """Measure the runs that are missing, and join them image by image."""
        runs, store = session.loaded.plan, session.store
        done = {k for (k,) in store.done(PREDICTION_SCHEMA.table, "point")}
        finished = {part.id for k in done for part in runs.points[k].parts}
        measured = _Runs(session, _known(self.runs), finished)
        for k, point in enumerate(runs.points):
            if k not in done:
                store.append(PREDICTION_SCHEMA.table, self._rows(measured, runs, point, k))

    def _rows(self, measured: "_Runs", runs: Plan, point: Point, k: int) -> list[Row]:
        """Measure what is missing of one point, and return its records."""
        folders = [measured.folder(part) for part in (runs.clean, *point.parts)]
        with ExitStack() as stack:
            clean, rates, anchor, attack = (
                stack.enter_context(RecordStore.read(folder)) for folder in folders
            )
            return join(
                read_rates(rates, runs.cr_eps, self.seed),
                read_radii(clean),
                read_radii(anchor),
                read_verdicts(attack),
                k,
            )

    @classmethod
    def report(cls, store: RecordStore) -> PredictionReport:
        """Compute the report of a run from its records alone.

        Raises:
            BadInput: for a run without a finished point.
        """
        s, rows = store.settings, store.rows(PREDICTION_SCHEMA.table)
        done = sorted({row["point"] for row in rows}) or [0]
        known = [
            to_setting(
                [row for row in rows if row["point"] == k], {**s["points"][k], "top": s["top"]}
            )
            for k in done
        ]
        missing, points = len(s["points"]) - len(known), len(s["points"])
        notes = [f"{missing} of {points} settings are to do; the same command goes on"]
        eps = s["threat_model"]["eps"]
        return make_report(
            known, eps, run=store.folder, described=s, notes=notes if missing else ()
        )

    def pictures(
        self, report: PredictionReport, loaded: LoadedPrediction, plot: Path | None
    ) -> dict[str, Any]:
        """Draw the run, or what was predicted from others."""
        if plot is None or (report.run / FILE_NAME).is_file():
            return super().pictures(report, loaded, plot)
        from advpure.analysis.prediction.figure import draw_prediction
        from advpure.analysis.survival.study import Survival

        with Survival.records(report.settings["clean"]) as store:
            draw_prediction(report, plot, Survival.report(store).result)
        return {"plot": str(plot)}


@dataclass
class _Runs:
    """The folders of the runs that a prediction needs; they are measured when asked for.

    Attributes:
        session: The session.
        known: Folders to use by the name of their run.
        finished: Names of the runs that are complete.
    """

    session: Session[LoadedPrediction]
    known: Mapping[str, Path]
    finished: set[str] = field(default_factory=set)

    def folder(self, part: Part) -> Path:
        """Return the folder of a part, measured completely."""
        session, count = self.session, self.session.loaded.count
        beside = session.store.folder.parent / f"{part.study.verb}-{part.id}"
        out = self.known.get(part.id, beside)
        if part.id not in self.finished:
            loaded, before = part.study.load(), len(self.finished) * count
            whole = part.study.total(loaded)
            part.study.run(
                out=out,
                batch_size=session.batch_size,
                progress=lambda done: session.progress(before + count * done // whole),
                loaded=loaded,
            )
            self.finished.add(part.id)
            session.progress(len(self.finished) * count)
        return out


def _known(folders: Iterable[str | Path]) -> dict[str, Path]:
    """Return run folders by the name of their run; of two of one name the first."""
    known: dict[str, Path] = {}
    for folder in folders:
        with RecordStore.read(folder) as store:
            known.setdefault(store.run, Path(folder))
    return known
