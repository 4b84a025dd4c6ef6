"""One recorded run of randomness against input: by name, resumable, reported from its records.

Beside one row an image, the records hold every distance to a centroid, `distances/ID`: vary input,
vary randomness, vary both, [3, S, K]; and the variances of every pixel, `variances/ID`: input and
internal (plain), [2, C, H, W]. What a session leaves of an image waits in the folder `unfinished`.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from advpure.analysis.perturbations import Distribution
from advpure.analysis.report import RunReport
from advpure.analysis.runs import Verb
from advpure.analysis.subject import Subject
from advpure.analysis.variability.cells import rows_path
from advpure.analysis.variability.result import SNR_SCHEMA, SnrResult, SnrRow
from advpure.analysis.variability.settings import SnrSettings
from advpure.analysis.variability.tables import describe_snr, snr_tables
from advpure.analysis.variability.two_way import TwoWay, table_statistics
from advpure.base.kinds import Seed, Several, Strength
from advpure.core.purifier import Purifier
from advpure.core.randomness import RandomnessConfig
from advpure.data import Images
from advpure.runs.cost import Estimate, estimate
from advpure.runs.records import RecordStore, default_run_folder
from advpure.runs.row_file import remove_leftover

UNFINISHED = "unfinished"


@dataclass(frozen=True, kw_only=True)
class SnrRun(Subject):
    """Everything that such a run depends on, beside its subject.

    Attributes:
        eps: Strength of the perturbations, [0, 1] units, such as ``8/255``.
        distribution: ``uniform``, ``gaussian`` or ``sign``.
        perturbations: Perturbed inputs of every image.
        configurations: Base seeds of the purifier's noise: seed, seed + 1, ...
        seed: The first base seed, and the seed of the perturbations.
        clip: Clip perturbed images to [0, 1].
    """

    eps: Strength = "8/255"
    distribution: Distribution = "uniform"
    perturbations: Several = 50
    configurations: Several = 50
    seed: Seed = 0
    clip: bool = False


@dataclass(frozen=True, kw_only=True)
class SnrReport(RunReport):
    """The result of a run, computed from its records.

    Attributes:
        result: Rows and summaries.
    """

    result: SnrResult

    def to_json(self) -> dict[str, Any]:
        """Return one JSON object: every quantity by name, with `_n`, `_std` and `_interval`."""
        return {
            **self.result.to_json(),
            "rows": [row._asdict() for row in self.result.rows],
            **self.origin(),
        }


@dataclass(frozen=True)
class PreparedSnr:
    """A run that is checked and loaded, and has computed nothing yet."""

    purifier: Purifier
    images: Images
    compare: SnrSettings
    xi: RandomnessConfig
    settings: dict[str, Any]

    @property
    def total(self) -> int:
        """Purifications of the whole run."""
        return len(self.images.ids) * self.compare.cells


def prepare_snr(run: SnrRun) -> PreparedSnr:
    """Check and load everything that a run needs.

    Raises:
        BadInput: for the first setting that cannot be used.
    """
    compare = _compared(run)
    xi = RandomnessConfig(compare.seed, run.scheme)
    purifier = run.load_purifier(xi)
    images = run.load_images()
    settings = {
        **run.identity("snr", images),
        **describe_snr(purifier, images.images, compare, xi),
    }
    return PreparedSnr(purifier, images, compare, xi, settings)


def estimate_snr(prepared: PreparedSnr) -> Estimate:
    """Estimate the cost of a run: counted evaluations, calibrated seconds and memory."""
    view, tile = prepared.purifier.at(xi=prepared.xi), prepared.purifier.tile or 1
    padded = -(-prepared.total // tile) * tile
    found = estimate(view, prepared.images.images[:8], padded, 1, 0)
    return replace(found, images=len(prepared.images.ids))


def measure_snr(
    run: SnrRun,
    *,
    out: str | Path | None = None,
    batch_size: int | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> SnrReport:
    """Measure randomness against input, resuming a run that was interrupted, within an image too.

    Args:
        run: Everything that the result depends on.
        out: Run folder; by default one named after the settings, under ``runs``.
        batch_size: Rows in memory at once; a matter of memory only.
        progress: Called with the number of finished purifications.

    Returns:
        The report. Its records are in the run folder.

    Raises:
        BadInput: for settings that cannot be used, or a run folder of other settings.
        StorageFull: when the disk is full; what was stored is kept.
    """
    prepared = prepare_snr(run)
    folder = Path(out) if out else default_run_folder("runs", "snr", prepared.settings)
    context = run.context(prepared.purifier, prepared.settings, snr_tables, table_statistics)
    table, start = SNR_SCHEMA.table, time.perf_counter()
    with RecordStore.open(
        folder,
        schemas=(SNR_SCHEMA,),
        settings=prepared.settings,
        context=context,
        samples=prepared.images.ids.tolist(),
    ) as store:
        done = {i for (i,) in store.done(table)}
        progress(len(done) * prepared.compare.cells)
        unfinished = store.folder / UNFINISHED
        for i in done:  # left by a process that was killed after it had stored the image
            remove_leftover(rows_path(unfinished, i))
        for i, found in snr_tables(
            prepared.purifier, prepared.images.images, prepared.images.ids, prepared.compare,
            xi=prepared.xi, batch_size=batch_size, skip=done, scratch=unfinished,
            progress=progress,
        ):  # fmt: skip
            _record(store, i, found, prepared.images.images.shape[1:])
        with suppress(OSError):  # absent, or another session's images are in it
            unfinished.rmdir()
        store.finish()
        report = report_snr(store, time.perf_counter() - start)
        if len(done) == report.result.n:
            return report.already_complete()
        return report


def report_snr(store: RecordStore, seconds: float = 0.0) -> SnrReport:
    """Compute the report of a run from its records alone."""
    result = SnrResult.from_records(store.rows(SNR_SCHEMA.table), store.settings)
    return SnrReport(
        run=store.folder, settings=store.settings, result=result, seconds=seconds,
        notes=_notes(result),
    )  # fmt: skip


def _record(store: RecordStore, sample: int, found: TwoWay, shape: torch.Size) -> None:
    """Store all of an image, or nothing."""
    cells = found.sums.perturbations * found.sums.configurations
    _, columns, within = found.maps / cells
    with store.batch():
        store.append(SNR_SCHEMA.table, [SnrRow.of(sample, found)._asdict()])
        store.put_blob(f"distances/{sample}", torch.from_numpy(found.distances))
        maps = torch.stack([torch.from_numpy(each).reshape(shape) for each in (within, columns)])
        store.put_blob(f"variances/{sample}", maps.float())


def _notes(result: SnrResult) -> tuple[str, ...]:
    absent = sum(row.plain.snr is None for row in result.rows)
    lost = sum(row.unbiased.snr is None for row in result.rows) - absent
    notes = []
    if absent:
        notes.append(
            f"{absent} of {result.n} images have no internal variance, so no signal-to-noise ratio"
        )
    if lost:
        notes.append(
            f"the unbiased internal variance of {lost} of {result.n} images is not above 0: it is "
            "lost among too few perturbations and configurations, and these images are left out of "
            "the unbiased mean of ratios"
        )
    return tuple(notes)


def _compared(run: SnrRun) -> SnrSettings:
    return SnrSettings(
        eps=run.eps, distribution=run.distribution,
        perturbations=run.perturbations, configurations=run.configurations, seed=run.seed,
        clip=run.clip,
    )  # fmt: skip


def _total(run: SnrRun) -> int:
    return len(run.load_images().ids) * _compared(run).cells


VERB = Verb(
    SnrRun,
    measure_snr,
    total=_total,
    prepare=prepare_snr,
    estimate=estimate_snr,
    report=report_snr,
)
