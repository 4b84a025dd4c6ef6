"""What a distances run records, batch by batch: states, metrics of pairs, features of sets."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from advpure.analysis.distances.result import CLEAN, FEATURES, PAIRS, STATES, STEPS
from advpure.analysis.distances.trajectory import Trajectory, measure_trajectory
from advpure.analysis.metrics.choice import METRICS, Chosen
from advpure.analysis.perturbed import Perturber
from advpure.analysis.study import LoadedModel
from advpure.analysis.target import as_target, batch_rows
from advpure.core.defense import Defense
from advpure.core.purifier import Purifier
from advpure.core.tiling import tiled
from advpure.data import Images
from advpure.runs.records import RecordStore
from advpure.runs.schema import Row


@dataclass(frozen=True, kw_only=True)
class LoadedDistances(LoadedModel):
    """A run that is checked and loaded; the model is a purifier where there is no classifier.

    Attributes:
        perturbers: The perturbations.
        chosen: The metrics.
    """

    perturbers: tuple[Perturber, ...]
    chosen: Chosen


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
    loaded: LoadedDistances, done: set[tuple[str, int]], batch_size: int | None
) -> Iterator[Batch]:
    """Iterate over the images, and over the perturbations that each of them lacks.

    The images themselves are purified once for all perturbations, where a metric asks for it.
    """
    for rows in _chunks(list(range(len(loaded.images.ids))), loaded.model, batch_size):
        images = Images(*(part[rows] for part in loaded.images))
        ids, clean = images.ids.tolist(), None
        for perturber in loaded.perturbers:
            todo = [k for k, i in enumerate(ids) if (perturber.label, i) not in done]
            if not todo:
                continue
            if loaded.chosen.responses and clean is None:
                clean = _trajectory(loaded, images, images.images).purified
            chosen = Images(*(part[todo] for part in images))
            yield Batch(perturber, chosen, None if clean is None else clean[todo])


def _trajectory(loaded: LoadedDistances, batch: Images, moved: Tensor) -> Trajectory:
    tile = loaded.model.tile
    return measure_trajectory(loaded.purifier, batch.images, moved, batch.ids, loaded.xi, tile)


def _chunks(rows: list[int], model: Defense | Purifier, batch_size: int | None) -> Iterator[Tensor]:
    step = batch_rows(as_target(model), batch_size)
    for start in range(0, len(rows), step):
        yield torch.tensor(rows[start : start + step], dtype=torch.int64, device="cpu")


def record_steps(store: RecordStore, purifier: Purifier) -> None:
    """Store what the steps of the chain are, once."""
    if store.count(STEPS.table) == len(purifier.chain):
        return
    store.append(
        STEPS.table,
        [
            {"step": k, "name": step.name, "phase": step.phase, "time": step.time}
            for k, step in enumerate(purifier.chain, 1)
        ],
    )


def record_clean(store: RecordStore, loaded: LoadedDistances, batch_size: int | None) -> None:
    """Store the features of the clean images."""
    if not loaded.chosen.networks:
        return
    listed = loaded.images.ids.tolist()
    done = store.done(FEATURES.table, "perturbation", "sample")
    todo = [k for k, i in enumerate(listed) if (CLEAN, i) not in done]
    for rows in _chunks(todo, loaded.model, batch_size):
        ids = loaded.images.ids[rows].tolist()
        store.append(
            FEATURES.table, _features(loaded, CLEAN, CLEAN, loaded.images.images[rows], ids)
        )


def record_batch(store: RecordStore, loaded: LoadedDistances, left: Batch) -> None:
    """Perturb, purify and measure one batch, and store all of it or nothing."""
    perturber, batch, clean = left
    label, ids = perturber.label, batch.ids.tolist()
    defense = loaded.model if isinstance(loaded.model, Defense) else None
    moved = perturber.make(batch.images, batch.labels, batch.ids, defense, loaded.xi)
    tile, trajectory = loaded.model.tile, _trajectory(loaded, batch, moved)
    states = [
        {"perturbation": label, "sample": i, "step": step, "l2": far, "linf": peak}
        for i, lengths, peaks in zip(
            ids, trajectory.l2.tolist(), trajectory.linf.tolist(), strict=True
        )
        for step, (far, peak) in enumerate(zip(lengths, peaks, strict=True))
    ]
    pairs = []
    for metric, pair in loaded.chosen.pairs.items():
        before, after = (
            pair_values(pair, x, batch.images, tile) for x in (moved, trajectory.purified)
        )
        pairs += [
            {"perturbation": label, "metric": metric, "sample": i, "before": b, "after": a}
            for i, b, a in zip(ids, before, after, strict=True)
        ]
    for metric, response in loaded.chosen.responses.items():
        assert clean is not None
        rates = response(trajectory.purified - clean, moved - batch.images).tolist()
        pairs += [
            {"perturbation": label, "metric": metric, "sample": i, "before": 1.0, "after": rate}
            for i, rate in zip(ids, rates, strict=True)
            if not math.isnan(rate)
        ]
    features = [
        row
        for stage, x in (("before", moved), ("after", trajectory.purified))
        for row in _features(loaded, label, stage, x, ids)
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
    loaded: LoadedDistances, label: str, stage: str, images: Tensor, ids: list[int]
) -> list[Row]:
    wanted = {METRICS[metric].features for metric in loaded.chosen.metrics}
    return [
        {
            "features": name,
            "perturbation": label,
            "stage": stage,
            "sample": i,
            "vector": vector.astype("<f4").tobytes(),
        }
        for network in loaded.chosen.networks.values()
        for name, vectors in network(images).items()
        if name in wanted
        for i, vector in zip(ids, vectors, strict=True)
    ]
