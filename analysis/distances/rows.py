"""What a distances run records, batch by batch: states, metrics of pairs, features of sets."""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from advpure.analysis.distances.prepare import PreparedDistances
from advpure.analysis.distances.result import CLEAN, FEATURES, PAIRS, STATES, STEPS
from advpure.analysis.distances.trajectory import Walk, walk
from advpure.analysis.metrics.choice import METRICS
from advpure.analysis.perturbed import Perturber
from advpure.analysis.target import as_target, batch_rows
from advpure.core.defense import Defense
from advpure.core.purifier import Purifier
from advpure.core.tiling import tiled
from advpure.data import Images
from advpure.runs.records import RecordStore
from advpure.runs.schema import Row


class Batch(NamedTuple):
    """Images that lack a perturbation.

    Attributes:
        perturber: The perturbation.
        images: Images, labels, ids.
        clean: The purified images without a perturbation; None where no metric asks for them.
    """

    perturber: Perturber
    images: Images
    clean: Tensor | None


def batches_left(
    prepared: PreparedDistances, done: set[tuple[str, int]], batch_size: int | None
) -> Iterator[Batch]:
    """Walk over the images, and over the perturbations that each of them lacks.

    The images themselves are purified once for all perturbations, where a metric asks for it.
    """
    for rows in _chunks(list(range(len(prepared.images.ids))), prepared.model, batch_size):
        images = Images(*(part[rows] for part in prepared.images))
        ids, clean = images.ids.tolist(), None
        for perturber in prepared.perturbers:
            todo = [k for k, i in enumerate(ids) if (perturber.label, i) not in done]
            if not todo:
                continue
            if prepared.chosen.responses and clean is None:
                clean = _walk(prepared, images, images.images).purified
            yield Batch(
                perturber, Images(*(part[todo] for part in images)),
                None if clean is None else clean[todo],
            )  # fmt: skip


def _walk(prepared: PreparedDistances, batch: Images, moved: Tensor) -> Walk:
    tile = prepared.model.tile
    return walk(prepared.purifier, batch.images, moved, batch.ids, prepared.xi, tile)


def _chunks(rows: list[int], model: Defense | Purifier, batch_size: int | None) -> Iterator[Tensor]:
    step = batch_rows(as_target(model), batch_size)
    for start in range(0, len(rows), step):
        yield torch.tensor(rows[start : start + step], dtype=torch.int64, device="cpu")


def record_steps(store: RecordStore, purifier: Purifier) -> None:
    """Store what the steps of the chain are."""
    store.append(
        STEPS.table,
        [
            {"step": k, "name": step.name, "phase": step.phase, "time": step.time}
            for k, step in enumerate(purifier.chain, 1)
        ],
    )


def record_clean(store: RecordStore, prepared: PreparedDistances, batch_size: int | None) -> None:
    """Store the features of the clean images."""
    if not prepared.chosen.networks:
        return
    listed = prepared.images.ids.tolist()
    done = store.done(FEATURES.table, "perturbation", "sample")
    todo = [k for k, i in enumerate(listed) if (CLEAN, i) not in done]
    for rows in _chunks(todo, prepared.model, batch_size):
        ids = prepared.images.ids[rows].tolist()
        store.append(
            FEATURES.table,
            _features(prepared, CLEAN, CLEAN, prepared.images.images[rows], ids),
        )


def record_batch(store: RecordStore, prepared: PreparedDistances, left: Batch) -> None:
    """Perturb, purify and measure one batch, and store all of it or nothing."""
    perturber, batch, clean = left
    label, ids = perturber.label, batch.ids.tolist()
    defense = prepared.model if isinstance(prepared.model, Defense) else None
    moved = perturber.make(batch.images, batch.labels, batch.ids, defense, prepared.xi)
    tile, found = prepared.model.tile, _walk(prepared, batch, moved)
    states = [
        {"perturbation": label, "sample": i, "step": step, "l2": far, "linf": peak}
        for i, lengths, peaks in zip(ids, found.l2.tolist(), found.linf.tolist(), strict=True)
        for step, (far, peak) in enumerate(zip(lengths, peaks, strict=True))
    ]
    pairs = []
    for metric, pair in prepared.chosen.pairs.items():
        before, after = (pair_values(pair, x, batch.images, tile) for x in (moved, found.purified))
        pairs += [
            {"perturbation": label, "metric": metric, "sample": i, "before": b, "after": a}
            for i, b, a in zip(ids, before, after, strict=True)
        ]
    for metric, response in prepared.chosen.responses.items():
        assert clean is not None
        rates = response(found.purified - clean, moved - batch.images).tolist()
        pairs += [
            {"perturbation": label, "metric": metric, "sample": i, "before": 1.0, "after": rate}
            for i, rate in zip(ids, rates, strict=True)
            if not math.isnan(rate)
        ]
    features = [
        row
        for stage, x in (("before", moved), ("after", found.purified))
        for row in _features(prepared, label, stage, x, ids)
    ]
    with store.batch():
        store.append(STATES.table, states)
        store.append(PAIRS.table, pairs)
        store.append(FEATURES.table, features)


def pair_values(
    pair: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor, tile: int | None
) -> list[float]:
    """Return a metric of pairs of images [B, C, H, W], in the compute tile; no gradient flows."""
    with torch.no_grad():  # a measurement, not a gradient
        values: list[float] = tiled(pair, tile)(x, y).double().cpu().tolist()
    return values


def _features(
    prepared: PreparedDistances, label: str, stage: str, images: Tensor, ids: list[int]
) -> list[Row]:
    wanted = {METRICS[metric].features for metric in prepared.chosen.metrics}
    return [
        {
            "features": name, "perturbation": label, "stage": stage, "sample": i,
            "vector": vector.astype("<f4").tobytes(),
        }
        for network in prepared.chosen.networks.values()
        for name, vectors in network(images).items()
        if name in wanted
        for i, vector in zip(ids, vectors, strict=True)
    ]  # fmt: skip
