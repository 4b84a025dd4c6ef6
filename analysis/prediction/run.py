"""One recorded prediction: compression, survival and attack of several purifiers, image by image.

A prediction stands on other runs: the compression rate of every purifier (`cr`), the survival of
the classifier at clean images and at each purifier's anchor points (`survival`), and the attack
with fixed randomness (`attack`). They are runs of their own, named by their settings, in the folder
where the prediction is; what is there already is used, what is missing is measured. The prediction
keeps one row for every purifier, strength and image.

The attack that finds r* is by default the one that is measured, attacked afresh at every radius
(``plain``): then predicted and measured accuracies differ by the theory alone, not by the attack.
"""

import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from advpure.analysis.prediction.parts import (
    PREDICTION_SCHEMA,
    join,
    read_radii,
    read_rates,
    read_verdicts,
)
from advpure.analysis.prediction.plan import (
    Part,
    Point,
    PreparedPrediction,
    grid,
    prepare_prediction,
)
from advpure.analysis.prediction.report import PredictionReport, report_prediction
from advpure.analysis.prediction.settings import PredictionRun
from advpure.analysis.runs import RUNS, Verb
from advpure.analysis.survival.study import Survival
from advpure.runs.cost import Cost
from advpure.runs.records import RecordStore, collect_context, default_run_folder
from advpure.runs.schema import Row


def estimate_prediction(prepared: PreparedPrediction) -> Cost:
    """Add up the estimates of all parts, as if none were measured already."""
    found = []
    for part in prepared.parts:
        estimate = RUNS.get(part.verb).estimate
        assert estimate is not None
        found.append(estimate(part.load()))
    return Cost(
        prepared.count, sum(e.evaluations for e in found), sum(e.backwards for e in found),
        sum(e.seconds for e in found), max(e.peak_memory for e in found),
    )  # fmt: skip


def measure_prediction(
    run: PredictionRun,
    *,
    out: str | Path | None = None,
    batch_size: int | None = None,
    reuse: Iterable[str | Path] = (),
    progress: Callable[[int], None] = lambda done: None,
) -> PredictionReport:
    """Predict and measure, resuming a run that was interrupted, and using runs that are there.

    Args:
        run: Everything that the result depends on.
        out: Run folder; by default one named after the settings, under ``runs``. The runs that it
            stands on are, and come, beside it.
        batch_size: Rows in memory at once; a matter of memory only.
        reuse: Folders of runs to use where they have the settings that are asked for.
        progress: Called with the number of images measured, in every part anew.

    Returns:
        The report. Its records are in the run folder.

    Raises:
        BadInput: for settings that cannot be used, or a run folder of other settings.
        StorageFull: when the disk is full; what was stored is kept.
    """
    prepared = prepare_prediction(run)
    folder = Path(out) if out else default_run_folder("runs", "predict", prepared.settings)
    known, start, table = _known(reuse), time.perf_counter(), PREDICTION_SCHEMA.table
    with RecordStore.open(
        folder, schemas=(PREDICTION_SCHEMA,), settings=prepared.settings,
        context=collect_context(device=run.device),
    ) as store:  # fmt: skip
        done = {k for (k,) in store.done(table, "point")}
        session = _Session(run, prepared, folder.parent, known, batch_size, progress)
        session.finished.update(part.id for k in done for part in prepared.points[k].parts)
        for k, point in enumerate(prepared.points):
            if k not in done:
                store.append(table, _rows(session, point, k))
        store.finish()
        report = report_prediction(store, time.perf_counter() - start)
    if len(done) == len(prepared.points):
        return report.already_complete()
    return report


@dataclass
class _Session:
    """What one call needs to find or measure a part, and which are finished."""

    run: PredictionRun
    prepared: PreparedPrediction
    root: Path
    known: dict[str, Path]
    batch_size: int | None
    progress: Callable[[int], None]
    finished: set[str] = field(default_factory=set)

    def folder(self, part: Part) -> Path:
        """Return the folder of a part, measured completely."""
        place = self.known.get(part.id, self.root / f"{part.verb}-{part.id}")
        if part.id not in self.finished:
            verb, before = RUNS.get(part.verb), len(self.finished) * self.prepared.count
            whole = verb.total(part.run) if verb.total else 1
            verb.measure(
                part.run, out=place, batch_size=self.batch_size,
                progress=lambda done: self.progress(before + self.prepared.count * done // whole),
            )  # fmt: skip
            self.finished.add(part.id)
            self.progress(len(self.finished) * self.prepared.count)
        return place


def _rows(session: _Session, point: Point, k: int) -> list[Row]:
    """Measure what is missing of one point, and return its records."""
    prepared = session.prepared
    parts = (prepared.clean, *point.parts)
    with ExitStack() as stack:
        clean, rates, anchor, attack = (
            stack.enter_context(RecordStore.read(place))
            for place in [session.folder(part) for part in parts]
        )
        return join(
            read_rates(rates, prepared.cr_eps, prepared.seed), read_radii(clean),
            read_radii(anchor), read_verdicts(attack), k,
        )  # fmt: skip


def _known(folders: Iterable[str | Path]) -> dict[str, Path]:
    """Return run folders by the name of their run; of two of one name the first."""
    found: dict[str, Path] = {}
    for folder in folders:
        with RecordStore.read(folder) as store:
            found.setdefault(store.run, Path(folder))
    return found


def _count(run: PredictionRun) -> int:
    images = Survival(dataset=run.dataset, subset=run.subset, n=run.n).load_images()
    return len(images.ids) * (1 + 3 * len(grid(run)))


VERB = Verb(
    PredictionRun,
    measure_prediction,
    total=_count,
    prepare=prepare_prediction,
    estimate=estimate_prediction,
    report=report_prediction,
)
