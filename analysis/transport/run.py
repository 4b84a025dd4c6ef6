"""One recorded run of a purifier's transport: by name, resumable, reported from its records.

Source: seed 000, definition 3.2, theorem 3.3, figures 2, 4 and 5.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from advpure.analysis.report import RunReport
from advpure.analysis.runs import Verb
from advpure.analysis.transport.result import (
    PICTURES,
    SCHEMAS,
    TRANSPORT,
    LevelSummary,
    TransportResult,
    level_json,
)
from advpure.analysis.transport.rows import Purified, purified_batches
from advpure.analysis.transport.settings import (
    PreparedTransport,
    TransportRun,
    prepare_transport,
)
from advpure.core.defense import Defense
from advpure.runs.cost import Cost, estimate
from advpure.runs.records import RecordStore, default_run_folder
from advpure.runs.schema import Row

__all__ = [
    "VERB",
    "PreparedTransport",
    "TransportReport",
    "TransportRun",
    "estimate_transport",
    "measure_transport",
    "prepare_transport",
    "report_transport",
]


@dataclass(frozen=True, kw_only=True)
class TransportReport(RunReport):
    """The result of a run, computed from its records.

    Attributes:
        levels: Transport, bound and accuracy, noise level by noise level.
    """

    levels: tuple[LevelSummary, ...]

    @property
    def markov_holds(self) -> bool:
        """Whether the bound of theorem 3.3 holds at every level and radius; it must."""
        return all(each.holds for level in self.levels for each in level.markov)

    def to_json(self) -> dict[str, Any]:
        """Return one JSON object; `rows` has one object a noise level."""
        return {
            "rows": [level_json(level) for level in self.levels],
            "markov_holds": self.markov_holds,
            "draws": self.settings["draws"],
            **self.origin(),
        }


def estimate_transport(prepared: PreparedTransport) -> Cost:
    """Estimate the cost of a run: counted evaluations, calibrated seconds and memory."""
    model, rows = prepared.model, len(prepared.images.ids) * prepared.draws
    judged = isinstance(model, Defense)
    device = next((each.device for each in model.parameters()), torch.device("cpu"))
    view = model.at(xi=prepared.xi)
    one = estimate(view, prepared.images.images[:8].to(device), rows, 1, 0)
    total = sum(rows * (chain.evaluations + judged) for chain in prepared.chains.values())
    each = model.evaluations if isinstance(model, Defense) else model.chain.evaluations
    seconds = one.seconds * total / (rows * max(each, 1))
    return replace(one, images=len(prepared.images.ids), evaluations=total, seconds=seconds)


def measure_transport(
    run: TransportRun,
    *,
    out: str | Path | None = None,
    batch_size: int | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> TransportReport:
    """Measure the transport of a purifier, resuming a run that was interrupted.

    Args:
        run: Everything that the result depends on.
        out: Run folder; by default one named after the settings, under ``runs``.
        batch_size: Noisy images in memory at once; a matter of memory only.
        progress: Called with the number of finished purifications.

    Returns:
        The report. Its records are in the run folder.

    Raises:
        BadInput: for settings that cannot be used, or a run folder of other settings.
        StorageFull: when the disk is full; what was stored is kept.

    Example:
        >>> import tempfile
        >>> run = TransportRun(defense="none", dataset="digits", n=8, sigmas="0.25,0.5")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     report = measure_transport(run, out=folder)
        >>> [round(level.transport.value / level.sigma) for level in report.levels]
        [8, 8]
    """
    prepared = prepare_transport(run)
    folder = Path(out) if out else default_run_folder("runs", "transport", prepared.settings)
    context = run.context(prepared.model, prepared.settings["defense"], purified_batches)
    model, start = prepared.model, time.perf_counter()
    classifier = model.classifier if isinstance(model, Defense) else None
    shown = set(prepared.images.ids.tolist()[: prepared.pictures])
    with RecordStore.open(
        folder,
        schemas=SCHEMAS,
        settings=prepared.settings,
        context=context,
        samples=prepared.images.ids.tolist(),
    ) as store:
        done: set[tuple[float, int, int]] = store.done(TRANSPORT.table)
        count = len(done)
        progress(count)
        for batch in purified_batches(
            prepared.chains, prepared.images, draws=prepared.draws, xi=prepared.xi,
            classifier=classifier, tile=model.tile, batch_size=batch_size, device=run.device,
            skip=done,
        ):  # fmt: skip
            with store.batch():
                store.append(TRANSPORT.table, _rows(batch, prepared))
                store.append(PICTURES.table, _pictures(batch, prepared, shown))
            count += len(batch.rows)
            progress(count)
        store.finish()
        report = report_transport(store, time.perf_counter() - start)
    if len(done) == prepared.total:
        return report.already_complete()
    return report


def report_transport(store: RecordStore, seconds: float = 0.0) -> TransportReport:
    """Compute the report of a run from its records alone."""
    result = TransportResult(store.rows(TRANSPORT.table), store.settings["multiples"])
    levels = tuple(result.summary(sigma) for sigma in result.sigmas)
    notes = []
    wanted, least = len(store.settings["sigmas"]), min(level.transport.n for level in levels)
    if len(levels) < wanted or least < store.settings["n"]:
        notes.append("not all images and levels are done; the same command goes on")
    return TransportReport(
        run=store.folder, settings=store.settings, levels=levels, seconds=seconds,
        notes=tuple(notes),
    )  # fmt: skip


def _rows(batch: Purified, prepared: PreparedTransport) -> list[Row]:
    labels = prepared.images.labels[batch.places].tolist()
    classes = [None] * len(labels) if batch.classes is None else batch.classes.tolist()
    return [
        {
            "sigma": batch.sigma, "sample": i, "draw": k, "distance": away, "label": label,
            "predicted": found,
        }
        for (i, k), away, label, found in zip(
            batch.rows.tolist(), batch.distances.tolist(), labels, classes, strict=True
        )
    ]  # fmt: skip


def _pictures(batch: Purified, prepared: PreparedTransport, shown: set[int]) -> list[Row]:
    found = []
    for row, (i, k) in enumerate(batch.rows.tolist()):
        if k == 0 and i in shown:
            clean = prepared.images.images[batch.places[row]]
            found.append(
                {
                    "sigma": batch.sigma, "sample": i, "clean": _stored(clean),
                    "noisy": _stored(batch.noisy[row]), "purified": _stored(batch.purified[row]),
                    "shape": "x".join(map(str, clean.shape)),
                }
            )  # fmt: skip
    return found


def _stored(image: Tensor) -> bytes:
    data: bytes = image.detach().cpu().float().contiguous().numpy().astype("<f4").tobytes()
    return data


VERB = Verb(
    TransportRun,
    measure_transport,
    total=lambda run: len(run.load_images().ids) * run.draws * len(run.levels()),
    prepare=prepare_transport,
    estimate=estimate_transport,
    report=report_transport,
)
