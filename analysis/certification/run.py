"""``certify``: one recorded run of certificates, by name, resumable, shared between processes.

Its rows are counts, which depend on neither the procedure nor its alpha, N or noise levels. So the
same counts are read at another alpha, by another procedure or with fewer samples
(`advpure.analysis.certification.sources`), and a run takes over what other folders have counted:
the shards of other machines, or a run with fewer samples, fewer images or other noise levels.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from advpure.analysis.certification.counting import (
    COUNTS,
    Counted,
    Unit,
    count_classes,
    to_text,
)
from advpure.analysis.certification.noise import stage_xi
from advpure.analysis.certification.procedures import Cascade, Fixed, Predict, Reading
from advpure.analysis.certification.report import (
    CertificationReport,
    make_report,
    reading_of,
)
from advpure.analysis.certification.settings import (
    CertificationRun,
    PreparedCertification,
    clean_images,
    counts_identity,
    prepare_certification,
)
from advpure.analysis.certification.tallies import Tallies
from advpure.analysis.runs import Verb
from advpure.base.errors import BadInput
from advpure.runs.cost import Cost, estimate
from advpure.runs.records import ALREADY_COMPLETE, RecordStore, default_run_folder

_TILES = 4
_BYTES = 2**20  # of noisy images: what is around a call of a small network costs less in bulk


def estimate_certification(prepared: PreparedCertification) -> Cost:
    """Estimate the cost of a run: counted evaluations (at most), calibrated seconds, memory."""
    n = len(prepared.images.ids)
    rows = n * _samples_per_image(prepared.reading)
    view = prepared.defense.at(xi=prepared.xi)
    one = estimate(view, prepared.images.images[:8].to(_device(prepared)), rows, 1, 0)
    total = sum(rows * count for count in prepared.evaluations.values())
    seconds = one.seconds * total / (rows * prepared.defense.evaluations)
    return replace(one, images=n, evaluations=total, seconds=seconds)


def measure_certification(
    run: CertificationRun,
    *,
    out: str | Path | None = None,
    batch_size: int | None = None,
    progress: Callable[[int], None] = lambda done: None,
    counts: Sequence[str | Path] = (),
) -> CertificationReport:
    """Certify images, resuming a run that was interrupted.

    Args:
        run: Everything that the result depends on.
        out: Run folder; by default one named after the settings, under ``runs``.
        batch_size: Noise samples in memory at once, a matter of memory only; see
            `samples_at_once`.
        progress: Called with the number of samples that are classified.
        counts: Other run folders, whose counts are taken over as far as this run asks for them.

    Returns:
        The report. Its records are in the run folder.

    Raises:
        BadInput: for settings that cannot be used, a run folder of other settings, or counts of
            another defense, data set, seed or block.
        StorageFull: when the disk is full; what was stored is kept.

    Example:
        >>> import tempfile
        >>> run = CertificationRun(
        ...     defense="none", dataset="digits", n=2, sigmas="0.1", samples=100, selection=10
        ... )
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     report = measure_certification(run, out=folder)
        >>> len(report.curves), len(report.curves[0].images)
        (1, 2)
    """
    prepared = prepare_certification(run)
    folder = Path(out) if out else default_run_folder("runs", "certify", prepared.settings)
    context = run.context(
        prepared.defense, prepared.settings["defense"], count_classes, stage_xi, _grow
    )
    start = time.perf_counter()
    with RecordStore.open(
        folder,
        schemas=(COUNTS,),
        settings=prepared.settings,
        context=context,
        samples=prepared.images.ids.tolist(),
    ) as store:
        notes = prepared.reading.notes()
        for other in counts:
            notes += _take_over(store, prepared, Path(other))
        tallies = Tallies().read([store])
        new = sum(_grow(prepared, run.part(), store, tallies, batch_size, progress))
        if _is_complete(prepared, tallies):
            store.finish()
        if not new:
            notes.append(ALREADY_COMPLETE)
        return make_report(
            store.folder, store.settings, prepared.reading, tallies, notes=notes,
            seconds=time.perf_counter() - start,
        )  # fmt: skip


def report_certification(store: RecordStore) -> CertificationReport:
    """Compute the report of a run from its records alone."""
    reading = reading_of(store.settings)
    return make_report(
        store.folder, store.settings, reading, Tallies().read([store]), notes=reading.notes()
    )


def _take_over(store: RecordStore, prepared: PreparedCertification, folder: Path) -> list[str]:
    """Copy the counts of another run that this one asks for; note what that means."""
    reading, ids = prepared.reading, set(prepared.images.ids.tolist())
    with RecordStore.read(folder) as other:
        theirs, ours = other.settings, prepared.settings
        if theirs.get("verb") != "certify":
            raise BadInput(f"run {folder}", "holds no certification counts", "name one of certify")
        for key, value in counts_identity(ours).items():
            if counts_identity(theirs)[key] != value:
                there = counts_identity(theirs)[key]
                raise BadInput(
                    f"counts of {folder}", f"have another {key} ({there!s:.60})", "leave them out"
                )
        for sample in sorted(ids & {sample for (sample,) in other.done(COUNTS.table, "sample")}):
            rows = other.rows(COUNTS.table, {"sample": sample})
            wanted = [row for row in rows if row["sigma"] in reading.sigmas]
            store.append(COUNTS.table, [row for row in wanted if row["block"] < reading.blocks])
        before = theirs["reading"]
    looked = before["procedure"] in ("fixed", "cascade") and before["samples"] < reading.samples
    if looked and isinstance(reading, Fixed | Cascade):
        return [
            f"the counts of {folder} were read with {before['samples']:,} samples before: the "
            "guarantee holds for a number of samples that was chosen without looking; the "
            "procedure anytime needs no such care"
        ]
    return []


def _grow(
    prepared: PreparedCertification,
    part: tuple[int, int],
    store: RecordStore,
    tallies: Tallies,
    batch_size: int | None,
    progress: Callable[[int], None],
) -> Iterator[int]:
    """Count what the images need, round by round, and yield the number of new rows each time."""
    images, reading = clean_images(prepared.images), prepared.reading
    labels = dict(zip(images, prepared.images.labels.tolist(), strict=True))
    tile = prepared.defense.tile or 32
    if batch_size is not None and batch_size < 1:
        raise BadInput(f"batch size {batch_size}", "holds no sample", "use 1 or more")
    batch = -(-(batch_size or samples_at_once(prepared)) // tile) * tile
    done = _samples_done(tallies, reading.sigmas, list(images))
    progress(done)
    mine = _share(reading, list(images), part)
    pending = list(images) if mine is not None else list(images)[part[0] :: part[1]]
    while pending:
        wanted = {i: reading.needs(i, tallies.of(i, reading.sigmas)) for i in pending}
        units = [unit for each in wanted.values() for unit in each]
        pending = [i for i in pending if wanted[i]] if mine is None else []
        if mine is not None:
            units = [unit for unit in units if unit.key in mine]
        for counted in _count(prepared, units, images, batch):
            rows = [_row(each, labels[each.unit.sample], reading.answers) for each in counted]
            store.append(COUNTS.table, rows)
            for row in rows:
                tallies.add(row)
            done += sum(each.unit.samples for each in counted)
            progress(done)
            yield len(rows)


def _is_complete(prepared: PreparedCertification, tallies: Tallies) -> bool:
    """Return whether no image needs more counts, of this shard or of another."""
    reading = prepared.reading
    ids = prepared.images.ids.tolist()
    return not any(reading.needs(i, tallies.of(i, reading.sigmas)) for i in ids)


def samples_at_once(prepared: PreparedCertification) -> int:
    """Return how many noise samples are held at once: 4 tiles, or more that fill a mebibyte."""
    tile, row = prepared.defense.tile or 32, prepared.images.images[0].nbytes
    return tile * max(_TILES, _BYTES // (row * tile))


def _share(
    reading: Reading, ids: Sequence[int], part: tuple[int, int]
) -> set[tuple[int, float, str, int]] | None:
    """Return the units of a shard where all are known beforehand; else whole images are shared."""
    if not isinstance(reading, Fixed | Predict):
        return None
    units = [unit for i in ids for unit in reading.needs(i, {})]
    return {unit.key for unit in units[part[0] :: part[1]]}


def _count(
    prepared: PreparedCertification,
    units: Sequence[Unit],
    images: dict[int, torch.Tensor],
    batch: int,
) -> Iterator[list[Counted]]:
    """Count units, those of one noise level and stage together."""
    groups: dict[tuple[float, str], list[Unit]] = {}
    for unit in units:
        groups.setdefault((unit.sigma, unit.stage), []).append(unit)
    for (sigma, stage), members in groups.items():
        found = count_classes(
            members, images, prepared.classify(sigma, stage), stage_xi(prepared.xi, stage),
            batch=batch, device=_device(prepared),
        )  # fmt: skip
        yield from (counted for counted in found if counted)


def _row(counted: Counted, label: int, classes: int) -> dict[str, Any]:
    unit, last = counted.unit, max(counted.counts)
    if last >= classes:
        raise BadInput(
            f"class {last}, which the classifier answers,",
            f"is none of {classes}: a class that abstains has no certificate",
            f"use a classifier of {classes} classes; certification abstains by itself",
        )
    return {
        "sample": unit.sample, "sigma": unit.sigma, "stage": unit.stage, "block": unit.block,
        "label": label, "samples": unit.samples, "counts": to_text(counted.counts),
    }  # fmt: skip


def _samples_done(tallies: Tallies, sigmas: Sequence[float], ids: Sequence[int]) -> int:
    """Return the number of samples that are classified already."""
    found = 0
    for i in ids:
        for tally in tallies.of(i, sigmas).values():
            parts = [*tally.blocks.values(), tally.selection or {}]
            found += sum(sum(part.values()) for part in parts)
    return found


def _device(prepared: PreparedCertification) -> torch.device:
    weight = next(prepared.defense.parameters(), None)
    return torch.device("cpu") if weight is None else weight.device


def _samples_per_image(reading: Reading) -> int:
    """Return the samples of one image at one noise level, at most."""
    return reading.samples + (0 if isinstance(reading, Predict) else reading.selection)


def _total(run: CertificationRun) -> int:
    reading = run.reading()
    return len(run.load_images().ids) * len(reading.sigmas) * _samples_per_image(reading)


VERB = Verb(
    CertificationRun,
    measure_certification,
    total=_total,
    prepare=prepare_certification,
    estimate=estimate_certification,
    report=report_certification,
)
