"""Collect the counts of a run: from the base classifier round by round, or from other runs.

Rows depend on neither the procedure nor its alpha, N or noise levels. So the same counts are read
at another alpha, by another procedure or with fewer samples
(`advpure.analysis.certification.sources`), and a run takes over what other folders have counted:
the shards of other machines, or a run with fewer samples, fewer images or other noise levels.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from advpure.analysis.certification.counting import COUNTS, Counted, Unit, count_classes, to_text
from advpure.analysis.certification.curves import PLANNED, plan_of, procedure_json
from advpure.analysis.certification.loading import LoadedCertification, counts_identity
from advpure.analysis.certification.noise import stage_xi
from advpure.analysis.certification.procedures import (
    Cascade,
    Fixed,
    Predict,
    Procedure,
    Sequential,
)
from advpure.analysis.certification.tallies import Tallies
from advpure.base.errors import BadInput
from advpure.runs.records import RecordStore

_TILES = 4
_BYTES = 2**20  # of noisy images: what is around a call of a small network costs less in bulk


def take_over(store: RecordStore, loaded: LoadedCertification, folder: Path) -> None:
    """Copy the counts of another run that this one asks for.

    Raises:
        BadInput: for counts of another defense, data set, seed or block, or none at all.
        RecordConflict: where this run has other counts already.
    """
    procedure, ids = loaded.procedure, set(loaded.images.ids.tolist())
    with RecordStore.read(folder) as other:
        theirs = other.settings
        if theirs.get("verb") != "certify":
            raise BadInput(f"run {folder}", "holds no certification counts", "name one of certify")
        identity = counts_identity(theirs)
        for key, value in counts_identity(loaded.settings).items():
            if identity[key] != value:
                rule = f"have another {key} ({identity[key]!s:.60})"
                raise BadInput(f"counts of {folder}", rule, "leave them out")
        taken = 0
        for sample in sorted(ids & {sample for (sample,) in other.done(COUNTS.table, "sample")}):
            rows = other.rows(COUNTS.table, {"sample": sample})
            wanted = [row for row in rows if row["sigma"] in procedure.sigmas]
            wanted = [row for row in wanted if row["block"] < procedure.blocks]
            store.append(COUNTS.table, wanted)
            taken += len(wanted)
        if not taken:
            rule = "are of none of these images, noise levels and blocks"
            raise BadInput(f"counts of {folder}", rule, "leave them out")


def looked_note(procedure: Procedure, folder: Path) -> str | None:
    """Return a warning where what must be chosen without looking was perhaps chosen after it."""
    with RecordStore.read(folder) as other:
        before = other.settings["procedure"]
    if isinstance(procedure, Sequential):
        same = plan_of(before) == plan_of(procedure_json(procedure))
        return None if same else f"the counts of {folder} were read otherwise before: {PLANNED}"
    looked = before["name"] in (Fixed.name, Cascade.name, Sequential.name)
    looked = looked and before["samples"] < procedure.samples
    if not looked or not isinstance(procedure, Fixed | Cascade):
        return None
    return (
        f"the counts of {folder} were read with {before['samples']:,} samples before: the "
        "guarantee holds for a number of samples that was chosen without looking; the procedure "
        "anytime needs no such care"
    )


def collect(
    loaded: LoadedCertification,
    store: RecordStore,
    *,
    part: tuple[int, int],
    batch_size: int | None,
    progress: Callable[[int], None],
    enough: Callable[[], bool] | None = None,
) -> None:
    """Count what the images need, round by round.

    Args:
        loaded: The run.
        store: Its records, to which rows are added.
        part: The shard (i, k), i from 0.
        batch_size: Noise samples in memory at once; None for `samples_at_once`.
        progress: Called with the number of samples that are classified.
        enough: Whether the images that are done suffice. It is asked between groups of images,
            which then come one after the other; None for all images together.

    Raises:
        BadInput: for a batch size below 1, or a classifier of other classes.
    """
    if batch_size is not None and batch_size < 1:
        raise BadInput(f"batch size {batch_size}", "holds no sample", "use 1 or more")
    images, procedure = loaded.clean, loaded.procedure
    tallies = Tallies().read([store])
    done = _samples_done(tallies, procedure.sigmas, list(images))
    progress(done)
    own = _share(procedure, list(images), part)
    mine = list(images) if own is not None else list(images)[part[0] :: part[1]]
    group = len(mine) if enough is None else max(samples_at_once(loaded) // procedure.samples, 1)
    for start in range(0, len(mine), group):
        if enough is not None and enough():
            return
        pending = mine[start : start + group]
        done = _collect_group(loaded, store, tallies, pending, own, batch_size, progress, done)


def _collect_group(
    loaded: LoadedCertification,
    store: RecordStore,
    tallies: Tallies,
    pending: Sequence[int],
    own: set[tuple[int, float, str, int]] | None,
    batch_size: int | None,
    progress: Callable[[int], None],
    done: int,
) -> int:
    """Count what some images need; return the samples that are classified by then."""
    images, procedure = loaded.clean, loaded.procedure
    labels = dict(zip(images, loaded.images.labels.tolist(), strict=True))
    while pending:
        wanted = {i: procedure.needs(i, tallies.of(i, procedure.sigmas)) for i in pending}
        units = [unit for each in wanted.values() for unit in each]
        pending = [i for i in pending if wanted[i]] if own is None else []
        if own is not None:
            units = [unit for unit in units if unit.key in own]
        for counted in _count(loaded, units, batch_size):
            rows = [_row(each, labels[each.unit.sample], procedure.answers) for each in counted]
            store.append(COUNTS.table, rows)
            for row in rows:
                tallies.add(row)
            done += sum(each.unit.samples for each in counted)
            progress(done)
    return done


def check_part(procedure: Procedure, images: int, part: tuple[int, int]) -> None:
    """Refuse more shards than a run has parts: some of them would hold nothing.

    Args:
        procedure: What is asked of the images.
        images: Their number.
        part: The shard (i, k), i from 0.

    Raises:
        BadInput: naming the most shards that the run has.
    """
    most, what = images, f"{images} images"
    if isinstance(procedure, Fixed | Predict):
        most *= len(procedure.needs(0, {}))
        what = f"{most} blocks of samples of {what}"
    if part[1] > most:
        shard = f"shard {part[0] + 1}/{part[1]}"
        raise BadInput(shard, f"is of more parts than {what}", f"use at most {most} shards")


def samples_at_once(loaded: LoadedCertification) -> int:
    """Return how many noise samples are held at once: 4 tiles, or more that fill a mebibyte."""
    tile, row = loaded.defense.tile or 32, loaded.images.images[0].nbytes
    return tile * max(_TILES, _BYTES // (row * tile))


def _share(
    procedure: Procedure, ids: Sequence[int], part: tuple[int, int]
) -> set[tuple[int, float, str, int]] | None:
    """Return the units of a shard where all are known beforehand; else whole images are shared.

    `check_part` counts them.
    """
    if not isinstance(procedure, Fixed | Predict):
        return None
    units = [unit for i in ids for unit in procedure.needs(i, {})]
    return {unit.key for unit in units[part[0] :: part[1]]}


def _count(
    loaded: LoadedCertification, units: Sequence[Unit], batch_size: int | None
) -> Iterator[list[Counted]]:
    """Count units, those of one noise level and stage together, in whole tiles."""
    images, tile = loaded.clean, loaded.defense.tile or 32
    batch = -(-(batch_size or samples_at_once(loaded)) // tile) * tile
    groups: dict[tuple[float, str], list[Unit]] = {}
    for unit in units:
        groups.setdefault((unit.sigma, unit.stage), []).append(unit)
    for (sigma, stage), members in groups.items():
        batches = count_classes(
            members,
            images,
            loaded.classify(sigma, stage),
            stage_xi(loaded.xi, stage),
            batch=batch,
            grid=loaded.grid,
            device=loaded.device,
        )
        yield from (counted for counted in batches if counted)


def _row(counted: Counted, label: int, classes: int) -> dict[str, Any]:
    unit, last = counted.unit, max(counted.counts)
    if last >= classes:
        raise BadInput(
            f"class {last}, which the classifier answers,",
            f"is none of {classes}: a class that abstains has no certificate",
            f"use a classifier of {classes} classes; certification abstains by itself",
        )
    return {
        "sample": unit.sample,
        "sigma": unit.sigma,
        "stage": unit.stage,
        "block": unit.block,
        "label": label,
        "samples": unit.samples,
        "counts": to_text(counted.counts),
    }


def _samples_done(tallies: Tallies, sigmas: Sequence[float], ids: Sequence[int]) -> int:
    """Return the number of samples that are classified already."""
    counts = [
        part
        for i in ids
        for tally in tallies.of(i, sigmas).values()
        for part in (*tally.blocks.values(), tally.selection or {})
    ]
    return sum(sum(part.values()) for part in counts)
