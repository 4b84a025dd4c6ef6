"""One recorded run of the compression rate: by name, resumable, reported from its records."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from advpure.analysis.compression.infinitesimal import (
    InfinitesimalResult,
    infinitesimal_compression_rate,
)
from advpure.analysis.compression.rates import (
    CompressionSettings,
    compression_evaluations,
    compression_rows,
    describe_compression,
)
from advpure.analysis.compression.result import (
    COMPRESSION_SCHEMA,
    CompressionKey,
    CompressionResult,
    CompressionSummary,
)
from advpure.analysis.perturbations import Distribution
from advpure.analysis.report import RunReport
from advpure.analysis.runs import Verb
from advpure.analysis.subject import Subject
from advpure.base.kinds import Natural
from advpure.core.purifier import Purifier
from advpure.core.randomness import RandomnessConfig
from advpure.data import Images
from advpure.runs.cost import Estimate, estimate
from advpure.runs.records import (
    RecordStore,
    default_run_folder,
)


@dataclass(frozen=True, kw_only=True)
class CompressionRun(Subject):
    """Everything that a compression run depends on, beside its subject.

    Attributes:
        eps: Strengths of the perturbations, [0, 1] units, such as ``8/255``.
        distribution: ``uniform``, ``gaussian`` or ``sign``.
        perturbations: Perturbations per image, seed and strength.
        seeds: Base seeds of the purifier's noise.
        clip: Clip perturbed images to [0, 1] and use the realised norm.
    """

    eps: str | float | Sequence[str | float] = "8/255"
    distribution: Distribution = "uniform"
    perturbations: Natural = 10
    seeds: int | Sequence[int] = 0
    clip: bool = False


@dataclass(frozen=True, kw_only=True)
class CompressionReport(RunReport):
    """The result of a run, computed from its records.

    Attributes:
        result: Rows and summaries.
    """

    result: CompressionResult

    def to_json(self) -> dict[str, Any]:
        """Return one JSON object; mean, std and n are those of the first strength."""
        rows = [_summary_json(summary) for summary in self.result.pooled]
        return {
            **rows[0],
            "rows": rows,
            "by_seed": [_summary_json(summary) for summary in self.result.summaries],
            **self.origin(),
        }


def _summary_json(summary: CompressionSummary) -> dict[str, Any]:
    found = summary._asdict()
    found["interval"] = list(summary.interval) if summary.interval else None
    return found


@dataclass(frozen=True)
class PreparedCompression:
    """A run that is checked and loaded, and has computed nothing yet."""

    purifier: Purifier
    images: Images
    perturb: CompressionSettings
    xi: RandomnessConfig
    settings: dict[str, Any]


def prepare_compression(run: CompressionRun) -> PreparedCompression:
    """Check and load everything that a run needs.

    Raises:
        BadInput: for the first setting that cannot be used.
    """
    perturb = CompressionSettings(
        eps=run.eps, distribution=run.distribution, perturbations=run.perturbations,
        seeds=run.seeds, clip=run.clip,
    )  # fmt: skip
    xi = RandomnessConfig(perturb.base_seeds[0], run.scheme)
    purifier = run.load_purifier(xi)
    images = run.load_images()
    settings = {
        **run.identity("cr", images),
        **describe_compression(purifier, images.images, perturb, xi),
    }
    return PreparedCompression(purifier, images, perturb, xi, settings)


def estimate_compression(prepared: PreparedCompression) -> Estimate:
    """Estimate the cost of a run: counted evaluations, calibrated seconds and memory."""
    total = compression_evaluations(prepared.purifier, len(prepared.images.ids), prepared.perturb)
    each = max(prepared.purifier.chain.evaluations, 1)
    view = prepared.purifier.at(xi=prepared.xi)
    return estimate(view, prepared.images.images[:8], len(prepared.images.ids),
                    -(-total // (each * len(prepared.images.ids))), 0)  # fmt: skip


def measure_compression(
    run: CompressionRun,
    *,
    out: str | Path | None = None,
    batch_size: int | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> CompressionReport:
    """Measure the expected compression rate, resuming a run that was interrupted.

    Args:
        run: Everything that the result depends on.
        out: Run folder; by default one named after the settings, under ``runs``.
        batch_size: Rows in memory at once; a matter of memory only.
        progress: Called with the number of finished perturbations.

    Returns:
        The report. Its records are in the run folder.

    Raises:
        BadInput: for settings that cannot be used, or a run folder of other settings.
        StorageFull: when the disk is full; what was stored is kept.
    """
    prepared = prepare_compression(run)
    folder = Path(out) if out else default_run_folder("runs", "cr", prepared.settings)
    context = run.context(prepared.purifier, prepared.settings)
    table, start = COMPRESSION_SCHEMA.table, time.perf_counter()
    with RecordStore.open(
        folder,
        schemas=(COMPRESSION_SCHEMA,),
        settings=prepared.settings,
        context=context,
        samples=prepared.images.ids.tolist(),
    ) as store:
        done: set[CompressionKey] = store.done(table)
        before = count = len(done)
        progress(count)
        for batch in compression_rows(
            prepared.purifier, prepared.images.images, prepared.images.ids, prepared.perturb,
            xi=prepared.xi, batch_size=batch_size, skip=done,
        ):  # fmt: skip
            store.append(table, [row._asdict() for row in batch])
            count += len(batch)
            progress(count)
        store.finish()
        report = report_compression(store, time.perf_counter() - start)
        return report.already_complete() if count == before else report


def report_compression(store: RecordStore, seconds: float = 0.0) -> CompressionReport:
    """Compute the report of a run from its records alone."""
    rows = store.rows(COMPRESSION_SCHEMA.table)
    result = CompressionResult.from_records(rows, store.settings)
    return CompressionReport(
        run=store.folder, settings=store.settings, result=result, seconds=seconds
    )


def compression_limit(run: CompressionRun) -> InfinitesimalResult:
    """Measure the limit of vanishing perturbations for the same images and seeds.

    One directional derivative for every image, seed and perturbation; nothing is recorded.
    """
    prepared = prepare_compression(run)
    return infinitesimal_compression_rate(
        prepared.purifier, prepared.images.images, ids=prepared.images.ids, xi=prepared.xi,
        probes=run.perturbations, seeds=run.seeds, distribution=run.distribution,
    )  # fmt: skip


def _total(run: CompressionRun) -> int:
    strengths = 1 if isinstance(run.eps, str | float) else len(run.eps)
    seeds = 1 if isinstance(run.seeds, int) else len(run.seeds)
    return len(run.load_images().ids) * strengths * seeds * run.perturbations


VERB = Verb(
    CompressionRun,
    measure_compression,
    total=_total,
    prepare=prepare_compression,
    estimate=estimate_compression,
    report=report_compression,
)
