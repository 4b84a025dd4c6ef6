"""One recorded run of distances: how far images are from their originals, step by step and as sets.

For every perturbation and image the records hold the l2 and l-inf distance to the clean image
before the chain and after every step (seed 003, figure 1c, tables 1 and S7 to S9), the metrics of
pairs (SSIM, LPIPS), and the features over which sets are compared before and after purification
(tables S10 and S11).
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from advpure.analysis.distances_report import DistancesReport, report_distances
from advpure.analysis.distances_result import CLEAN, FEATURES, PAIRS, SCHEMAS, STATES, STEPS
from advpure.analysis.perceptual.choice import METRICS, Chosen, load_metrics
from advpure.analysis.perceptual.networks import Surroundings
from advpure.analysis.perturbed import Perturber, parse_perturbations, perturbers
from advpure.analysis.runs import Verb
from advpure.analysis.subject import JudgedSubject
from advpure.analysis.target import as_target, batch_rows
from advpure.analysis.trajectory import walk
from advpure.attacks.settings import choose
from advpure.data import Images, dataset_info
from advpure.defense import Defense
from advpure.errors import BadInput
from advpure.estimate import Estimate, estimate
from advpure.loading import describe
from advpure.purifier import Purifier
from advpure.randomness import RandomnessConfig
from advpure.records import ALREADY_COMPLETE, RecordStore, default_run_folder
from advpure.schema import Row
from advpure.tiling import tiled


@dataclass(frozen=True, kw_only=True)
class DistancesRun(JudgedSubject):
    """Everything that a distances run depends on, beside its subject.

    Attributes:
        perturb: Perturbations, a list or text joined by commas: ``none``, ``uniform:8/255``,
            ``gaussian:8/255``, ``sign:8/255``, ``attack:pgd``, ``attack:bpda:4/255``.
        metrics: Metrics before and after purification, likewise; "all" those that can be had.
        norm: Norm of attacks; None for the data set's.
        attack_options: Settings of the attacks; each takes those that it knows, `pgd.steps` is
            one of `pgd` alone.
        clip: Clip random perturbations to [0, 1].
        seed: Base seed of the purifier's noise and of random perturbations.
    """

    perturb: str | tuple[str, ...] | list[str] = "uniform:8/255"
    metrics: str | tuple[str, ...] | list[str] = "all"
    norm: str | None = None
    attack_options: dict[str, Any] = field(default_factory=dict)
    clip: bool = False
    seed: int = 0


@dataclass(frozen=True)
class PreparedDistances:
    """A run that is checked and loaded, and has computed nothing yet.

    Attributes:
        model: The defense, or the purifier alone where the data set has no classifier.
        images: Images, labels, ids.
        perturbers: The perturbations.
        chosen: The metrics.
        xi: Randomness.
        settings: Everything that identifies the run, JSON values.
    """

    model: Defense | Purifier
    images: Images
    perturbers: tuple[Perturber, ...]
    chosen: Chosen
    xi: RandomnessConfig
    settings: dict[str, Any]

    @property
    def purifier(self) -> Purifier:
        """The purifier."""
        return self.model.purifier if isinstance(self.model, Defense) else self.model

    @property
    def total(self) -> int:
        """Purifications of the whole run."""
        return len(self.perturbers) * len(self.images.ids)


def prepare_distances(run: DistancesRun) -> PreparedDistances:
    """Check and load everything that a run needs.

    Raises:
        BadInput: for the first setting that cannot be used.
    """
    info = dataset_info(run.dataset)
    norm = run.norm or info.norm
    choose(norm, ("linf", "l2"), "norm")
    wanted = parse_perturbations(run.perturb, info.eps, norm)  # type: ignore[arg-type]
    open_radius = any(p.kind == "attack" and p.eps == info.eps for p in wanted)
    if norm != info.norm and open_radius:
        rule = f"has no default radius on {run.dataset}"
        raise BadInput(f"norm {norm}", rule, "write attack:pgd:0.5")
    made = perturbers(
        wanted, run.attack_options, norm=norm, seed=run.seed, clip=run.clip  # type: ignore[arg-type]
    )  # fmt: skip
    xi = RandomnessConfig(run.seed, run.scheme)
    model = _load(run, xi, attacked=any(p.run is not None for p in made))
    images = run.load_images()
    judge = model.classifier if isinstance(model, Defense) else None
    described = describe(model) if isinstance(model, Defense) else _alone(model)
    surroundings = Surroundings(
        classifier=judge, identity=described.get("classifier"), tile=model.tile,
        shape=info.shape, device=run.device,
    )  # fmt: skip
    chosen = load_metrics(run.metrics, surroundings)
    settings = {
        **run.identity("distances", images),
        "defense": described,
        "perturbations": [each.describe() for each in made],
        "norm": norm,
        "clip": run.clip,
        **chosen.identity,
        "missing": list(chosen.missing),
        "randomness": {"seed": run.seed, "scheme": run.scheme},
    }
    return PreparedDistances(model, images, made, chosen, xi, settings)


def _load(run: DistancesRun, xi: RandomnessConfig, *, attacked: bool) -> Defense | Purifier:
    """Load purifier and classifier; the purifier alone where there is no classifier to attack."""
    if attacked or run.classifier or dataset_info(run.dataset).classifier:
        return run.load_defense(xi)
    return run.load_purifier(xi, gradient=run.gradient)


def _alone(purifier: Purifier) -> dict[str, Any]:
    return {**purifier.settings, "tile": purifier.tile}


def estimate_distances(prepared: PreparedDistances) -> Estimate:
    """Estimate the cost of a run: counted evaluations, calibrated seconds and memory."""
    passes = [each.passes for each in prepared.perturbers]
    forwards = len(passes) + sum(forward for forward, _ in passes)
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
        _pair_values(pair, x, x, prepared.model.tile)
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
        folder, schemas=SCHEMAS, settings=prepared.settings, context=context
    ) as store:
        done: set[tuple[str, int]] = store.done(STATES.table, "perturbation", "sample")
        count = len(done)
        progress(count)
        _record_steps(store, prepared.purifier)
        _record_clean(store, prepared, batch_size)
        for perturber, batch in _batches(prepared, done, batch_size):
            _record(store, prepared, perturber, batch)
            count += len(batch.ids)
            progress(count)
        report = report_distances(store, time.perf_counter() - start, prepared.chosen.notes)
    if len(done) == prepared.total:
        return replace(report, notes=(*report.notes, ALREADY_COMPLETE))
    return report


def _batches(
    prepared: PreparedDistances, done: set[tuple[str, int]], batch_size: int | None
) -> Iterator[tuple[Perturber, Images]]:
    """Walk over what is left, perturbation by perturbation."""
    for perturber in prepared.perturbers:
        label = perturber.label
        todo = [k for k, i in enumerate(prepared.images.ids.tolist()) if (label, i) not in done]
        for rows in _chunks(todo, prepared.model, batch_size):
            yield perturber, Images(*(part[rows] for part in prepared.images))


def _chunks(rows: list[int], model: Defense | Purifier, batch_size: int | None) -> Iterator[Tensor]:
    step = batch_rows(as_target(model), batch_size)
    for start in range(0, len(rows), step):
        yield torch.tensor(rows[start : start + step])


def _record_steps(store: RecordStore, purifier: Purifier) -> None:
    store.append(
        STEPS.table,
        [
            {"step": k, "name": step.name, "phase": step.phase, "time": step.time}
            for k, step in enumerate(purifier.chain, 1)
        ],
    )


def _record_clean(store: RecordStore, prepared: PreparedDistances, batch_size: int | None) -> None:
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


def _record(
    store: RecordStore, prepared: PreparedDistances, perturber: Perturber, batch: Images
) -> None:
    """Perturb, purify and measure one batch, and store all of it or nothing."""
    label, ids = perturber.label, batch.ids.tolist()
    defense = prepared.model if isinstance(prepared.model, Defense) else None
    moved = perturber.make(batch.images, batch.labels, batch.ids, defense, prepared.xi)
    tile = prepared.model.tile
    found = walk(prepared.purifier, batch.images, moved, batch.ids, prepared.xi, tile)
    states = [
        {"perturbation": label, "sample": i, "step": step, "l2": far, "linf": peak}
        for i, lengths, peaks in zip(ids, found.l2.tolist(), found.linf.tolist(), strict=True)
        for step, (far, peak) in enumerate(zip(lengths, peaks, strict=True))
    ]
    pairs = []
    for metric, pair in prepared.chosen.pairs.items():
        before, after = (_pair_values(pair, x, batch.images, tile) for x in (moved, found.purified))
        pairs += [
            {"perturbation": label, "metric": metric, "sample": i, "before": b, "after": a}
            for i, b, a in zip(ids, before, after, strict=True)
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


def _pair_values(
    pair: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor, tile: int | None
) -> list[float]:
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


def _total(run: DistancesRun) -> int:
    info = dataset_info(run.dataset)
    wanted = parse_perturbations(run.perturb, info.eps, run.norm or info.norm)  # type: ignore[arg-type]
    return len(wanted) * len(run.load_images().ids)


VERB = Verb(
    DistancesRun,
    measure_distances,
    total=_total,
    prepare=prepare_distances,
    estimate=estimate_distances,
    report=report_distances,
)
