"""One recorded run of distances: how far images are from their originals, step by step and as sets.

For every perturbation and image the records hold the l2 and l-inf distance to the clean image
before the chain and after every step (seed 003, figure 1c, tables 1 and S7 to S9), the metrics of
pairs (SSIM, LPIPS), the compression rate along that very perturbation, and the features over which
sets are compared before and after purification (tables S10 and S11).
"""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from advpure.analysis.distances.prepare import (
    DistancesRun,
    PreparedDistances,
    prepare_distances,
)
from advpure.analysis.distances.report import DistancesReport, report_distances
from advpure.analysis.distances.result import SCHEMAS, STATES
from advpure.analysis.distances.rows import (
    batches_left,
    pair_values,
    record_batch,
    record_clean,
    record_steps,
)
from advpure.analysis.distances.trajectory import walk
from advpure.analysis.perturbed import parse_perturbations
from advpure.analysis.runs import Verb
from advpure.analysis.target import as_target, batch_rows
from advpure.data import dataset_info
from advpure.runs.cost import Cost, estimate
from advpure.runs.records import RecordStore, default_run_folder

__all__ = [
    "VERB",
    "DistancesRun",
    "PreparedDistances",
    "estimate_distances",
    "measure_distances",
    "prepare_distances",
]


def estimate_distances(prepared: PreparedDistances) -> Cost:
    """Estimate the cost of a run: counted evaluations, calibrated seconds and memory."""
    passes = [each.passes for each in prepared.perturbers]
    forwards = len(passes) + sum(forward for forward, _ in passes)
    forwards += bool(prepared.chosen.responses)
    backwards = sum(backward for _, backward in passes)
    n = len(prepared.images.ids)
    view = prepared.model.at(xi=prepared.xi)
    found = estimate(view, prepared.images.images[:8], n, forwards, backwards)
    stages = 2 * len(passes)
    x = prepared.images.images[: min(n, batch_rows(as_target(prepared.model), None))]
    start = time.perf_counter()
    for network in prepared.chosen.networks.values():
        network(x)
    vectors = time.perf_counter() - start
    start = time.perf_counter()
    for pair in prepared.chosen.pairs.values():
        pair_values(pair, x, x, prepared.model.tile)
    pairs = time.perf_counter() - start
    more = ((stages + 1) * vectors + stages * pairs) * n / len(x)
    return replace(found, seconds=found.seconds + more)


def measure_distances(
    run: DistancesRun,
    *,
    out: str | Path | None = None,
    batch_size: int | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> DistancesReport:
    """Measure distances, resuming a run that was interrupted.

    Args:
        run: Everything that the result depends on.
        out: Run folder; by default one named after the settings, under ``runs``.
        batch_size: Images in memory at once; a matter of memory only.
        progress: Called with the number of finished purifications.

    Returns:
        The report. Its records are in the run folder.

    Raises:
        BadInput: for settings that cannot be used, or a run folder of other settings.
        StorageFull: when the disk is full; what was stored is kept.

    Example:
        >>> import tempfile
        >>> run = DistancesRun(dataset="digits", defense="none", n=4, metrics="ssim")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     report = measure_distances(run, out=folder)
        >>> row = report.to_json()["rows"][0]
        >>> row["perturbation"], row["n"], row["l2_initial"] == row["l2_final"]
        ('uniform:8/255', 4, True)
    """
    prepared = prepare_distances(run)
    folder = Path(out) if out else default_run_folder("runs", "distances", prepared.settings)
    attacks = [each.run for each in prepared.perturbers if each.run is not None]
    context = run.context(prepared.model, prepared.settings["defense"], walk, *attacks)
    start = time.perf_counter()
    with RecordStore.open(
        folder,
        schemas=SCHEMAS,
        settings=prepared.settings,
        context=context,
        samples=prepared.images.ids.tolist(),
    ) as store:
        done: set[tuple[str, int]] = store.done(STATES.table, "perturbation", "sample")
        count = len(done)
        progress(count)
        record_steps(store, prepared.purifier)
        record_clean(store, prepared, batch_size)
        for batch in batches_left(prepared, done, batch_size):
            record_batch(store, prepared, batch)
            count += len(batch.images.ids)
            progress(count)
        store.finish()
        report = report_distances(store, time.perf_counter() - start, prepared.chosen.notes)
    if len(done) == prepared.total:
        return report.already_complete()
    return report


def _total(run: DistancesRun) -> int:
    info = dataset_info(run.dataset)
    wanted = parse_perturbations(run.perturb, info.eps, run.norm or info.norm)
    return len(wanted) * len(run.load_images().ids)


VERB = Verb(
    DistancesRun,
    measure_distances,
    total=_total,
    prepare=prepare_distances,
    estimate=estimate_distances,
    report=report_distances,
)
