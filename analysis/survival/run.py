"""One recorded run of minimum perturbations: by name, resumable, reported from its records.

What is attacked, and where, is one of three things:

* no purifier: the classifier g at clean images;
* a purifier f under fixed randomness, at clean images: the whole defense g(f(x));
* a purifier, at its anchor points f(x0): the classifier g alone, at purified clean images with the
  true labels. They are keyed by image, purifier and randomness like every purification.

A purifier's output may leave [0, 1] a little. With ``box`` unit, anchor points are clipped to it
and perturbed ones stay inside, as images do; with ``free`` both may lie anywhere in [-1, 2], like
what the classifier meets behind a purifier.

Source: seed 003, section 5 and appendix B; spec 8.6 (how anchor points meet the box is not stated).
"""

import dataclasses
import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from advpure.analysis.robustness.attack_choice import attack_settings, refuse_two_gradients
from advpure.analysis.runs import Verb
from advpure.analysis.subject import JudgedSubject
from advpure.analysis.survival.cross_check import CROSS_CHECK_SCHEMA, check_engines, minimum_norms
from advpure.analysis.survival.fit import SURVIVAL_SCHEMA
from advpure.analysis.survival.minimum_radius import (
    Bisections,
    RadiusRow,
    RadiusSettings,
    Search,
    at_radius,
    minimum_radii,
)
from advpure.analysis.survival.report import SurvivalReport, report_survival
from advpure.analysis.target import as_target
from advpure.attacks.outcome import ZeroGradientWarning
from advpure.attacks.registry import find, settings_type
from advpure.attacks.settings import AttackSettings
from advpure.base.errors import BadInput
from advpure.base.kinds import Seed, Strength
from advpure.base.units import Norm, parse_eps
from advpure.core.defense import Defense
from advpure.core.randomness import RandomnessConfig
from advpure.core.tiling import check_batch_size
from advpure.data import Images, dataset_info
from advpure.loading import describe, load_defense
from advpure.runs.cost import Cost, estimate
from advpure.runs.records import RecordStore, default_run_folder

Point = Literal["clean", "anchor"]
Box = Literal["unit", "free"]
_FREE = (-1.0, 2.0)
_STEPS = 40
_WIDEST_L2 = 4.0  # what a radius may be without another reading, see advpure.base.units


@dataclass(frozen=True, kw_only=True)
class SurvivalRun(JudgedSubject):
    """Everything that a survival run depends on, beside its subject; randomness is fixed.

    Attributes:
        defense: Name of the purifier; ``none`` for the classifier alone.
        at: ``clean``: attack the defense at clean images. ``anchor``: attack the classifier alone
            at the purified clean images.
        norm: ``linf`` or ``l2``; None for the data set's.
        top: End of the bracket in [0, 1] units, or text such as ``16/255``; None for twice the
            data set's radius, in l2 for the l2 norm of uniform noise of that size.
        attack: Name of the attack.
        attack_options: The attack's own settings; 40 steps where they do not say and it has steps.
            A step size belongs to the end of the bracket, and shrinks with the radius.
        bisections: Halvings of the bracket.
        search: ``tight`` or ``plain``, see `advpure.analysis.survival.minimum_radius`.
        box: ``unit`` or ``free``, see the module.
        seed: Base seed of the purifier's randomness.
    """

    defense: str = "none"
    at: Point = "clean"
    norm: Norm | None = None
    top: Strength | None = None
    attack: str = "apgd"
    attack_options: Mapping[str, Any] = field(default_factory=dict)
    bisections: Bisections = 10
    search: Search = "tight"
    box: Box = "unit"
    seed: Seed = 0


@dataclass(frozen=True)
class PreparedSurvival:
    """A run that is checked and loaded, and has computed nothing yet.

    Attributes:
        defense: The defense as named.
        model: What is attacked: the defense, or the classifier alone.
        images: Clean images, labels, ids.
        at: Where.
        box: The box.
        search: How to search, in [0, 1] units.
        xi: Randomness of the purifier.
        settings: Everything that identifies the run, JSON values.
    """

    defense: Defense
    model: Defense
    images: Images
    at: Point
    box: Box
    search: RadiusSettings
    xi: RandomnessConfig
    settings: dict[str, Any]


def prepare_survival(run: SurvivalRun) -> PreparedSurvival:
    """Check and load everything that a run needs.

    Raises:
        BadInput: for the first setting that cannot be used.
    """
    norm, top = _threat_model(run)
    has_steps = any(each.name == "steps" for each in dataclasses.fields(_kind(run)))
    options = {**({"steps": _STEPS} if has_steps else {}), **run.attack_options}
    chosen = attack_settings(run.attack, options, eps=top, norm=norm, randomness="fixed")
    refuse_two_gradients(run.attack, chosen, run.gradient)
    search = RadiusSettings(
        attack=run.attack, settings=chosen, bisections=run.bisections, search=run.search
    )
    xi = RandomnessConfig(run.seed, run.scheme)
    defense = run.load_defense(xi)
    model = defense
    if run.at == "anchor":
        model = load_defense(
            "none", run.dataset, tile=run.tile, classifier=run.classifier, outputs=run.outputs
        ).to(run.device)  # fmt: skip
    elif run.box == "free" and len(defense.purifier.chain):
        raise BadInput(
            "box free at clean images",
            f"leaves what {run.defense} takes",
            "use box unit, or anchor",
        )
    images = run.load_images()
    randomness = {"seed": run.seed, "scheme": run.scheme} if defense.is_random else None
    settings = {
        **run.identity("survival", images),
        "at": run.at,
        "threat_model": {"norm": norm, "top": top, "box": run.box},
        "search": {"search": run.search, "bisections": run.bisections},
        "attack": {"name": run.attack, **dataclasses.asdict(chosen)},
        "defense": describe(defense),
        "randomness": randomness,
    }
    return PreparedSurvival(defense, model, images, run.at, run.box, search, xi, settings)


def _kind(run: SurvivalRun) -> type[AttackSettings]:
    return settings_type(find(run.attack))


def _threat_model(run: SurvivalRun) -> tuple[Norm, float]:
    info = dataset_info(run.dataset)
    norm = run.norm or info.norm
    if run.top is not None:
        return norm, parse_eps(run.top, norm)
    pixels = math.prod(info.shape)
    if norm == info.norm:
        return norm, 2.0 * info.eps
    # Uniform noise of size e has a root mean square of e / sqrt(3) at every pixel (spec 12-H6).
    factor = math.sqrt(pixels / 3.0)
    top = 2.0 * info.eps * (factor if norm == "l2" else 1.0 / factor)
    return norm, min(top, _WIDEST_L2) if norm == "l2" else top


def estimate_survival(prepared: PreparedSurvival) -> Cost:
    """Estimate the most that a run can cost; images that are decided early take less."""
    passes, images = prepared.search.most_passes, prepared.images
    return estimate(
        prepared.model.at(xi=prepared.xi), images.images[:8], len(images.ids), *passes
    )  # fmt: skip


def measure_survival(
    run: SurvivalRun,
    *,
    out: str | Path | None = None,
    batch_size: int | None = None,
    engines: Sequence[str] = (),
    progress: Callable[[int], None] = lambda done: None,
) -> SurvivalReport:
    """Search every image's smallest perturbation, resuming a run that was interrupted.

    Args:
        run: Everything that the result depends on.
        out: Run folder; by default one named after the settings, under ``runs``.
        batch_size: Images at once, a matter of memory only; one tile by default.
        engines: Other attacks to run on the same images, such as ``fmn``, see
            `advpure.analysis.survival.cross_check`; their records join the run.
        progress: Called with the number of finished images.

    Returns:
        The report. Its records are in the run folder.

    Raises:
        BadInput: for settings that cannot be used, or a run folder of other settings.
        StorageFull: when the disk is full; what was stored is kept.
    """
    prepared = prepare_survival(run)
    check_engines(engines, plain=prepared.box == "unit")
    rows = check_batch_size(batch_size) or prepared.model.tile or 32
    folder = Path(out) if out else default_run_folder("runs", "survival", prepared.settings)
    context = run.context(
        prepared.defense, prepared.settings["defense"], minimum_radii, find(run.attack)
    )
    start = time.perf_counter()
    with RecordStore.open(
        folder,
        schemas=(SURVIVAL_SCHEMA, CROSS_CHECK_SCHEMA),
        settings=prepared.settings,
        context=context,
        samples=prepared.images.ids.tolist(),
    ) as store:
        before = store.count(SURVIVAL_SCHEMA.table) + store.count(CROSS_CHECK_SCHEMA.table)
        done = {i for (i,) in store.done(SURVIVAL_SCHEMA.table)}
        progress(len(done))
        for batch in _batches(prepared.images, done, rows):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ZeroGradientWarning)  # every row says so itself
                found = list(_search(prepared, batch))
            store.append(SURVIVAL_SCHEMA.table, found)
            done.update(batch.ids.tolist())
            progress(len(done))
        for engine in engines:
            seen = {i for name, i in store.done(CROSS_CHECK_SCHEMA.table) if name == engine}
            for batch in _batches(prepared.images, seen, rows):
                store.append(CROSS_CHECK_SCHEMA.table, _other(prepared, batch, engine))
        store.finish()
        report = report_survival(store, time.perf_counter() - start)
        after = store.count(SURVIVAL_SCHEMA.table) + store.count(CROSS_CHECK_SCHEMA.table)
    if after == before:
        return report.already_complete()
    return report


def _batches(images: Images, done: set[int], rows: int) -> Iterator[Images]:
    todo = [k for k, i in enumerate(images.ids.tolist()) if i not in done]
    for start in range(0, len(todo), rows):
        chosen = torch.tensor(todo[start : start + rows], dtype=torch.int64, device="cpu")
        yield Images(*(part[chosen] for part in images))


@dataclass(frozen=True)
class _Points:
    """Where a batch is attacked: points [B, C, H, W] in the box, and how they came about."""

    points: Tensor
    moved: list[float | None]
    clipped: list[float | None]


def _points(prepared: PreparedSurvival, batch: Images) -> _Points:
    """Return the clean images, or the anchor points: purified under the run's own randomness."""
    if prepared.at == "clean":
        absent: list[float | None] = [None] * len(batch.ids)
        return _Points(batch.images, absent, absent)
    with torch.no_grad():  # where to attack, not a part of the attack
        purified = as_target(prepared.defense)(batch.images, batch.ids.tolist(), prepared.xi)
    low, high = (0.0, 1.0) if prepared.box == "unit" else _FREE
    points = purified.clamp(low, high)
    cut = (purified - points).abs().amax(dim=(1, 2, 3)).tolist()
    far = (points.double() - batch.images.double()).square().sum(dim=(1, 2, 3)).sqrt().tolist()
    return _Points(points, far, cut)


def _search(prepared: PreparedSurvival, batch: Images) -> Iterator[dict[str, Any]]:
    """Search a batch and yield its records."""
    where = _points(prepared, batch)
    model, search, ids = (
        prepared.model.at(ids=batch.ids, xi=prepared.xi),
        prepared.search,
        batch.ids,
    )
    if prepared.box == "unit":
        found = minimum_radii(model, where.points, batch.labels, search, ids=ids)
    else:
        found = _search_free(model, where.points, batch, search)
    for row, moved, clipped in zip(found, where.moved, where.clipped, strict=True):
        yield {**row._asdict(), "moved": moved, "clipped": clipped}


class _Widened:
    """A classifier as seen by an attack whose box [0, 1] stands for [low, high]."""

    def __init__(self, model: Defense) -> None:
        self.tile, self._classifier = model.tile, model.classifier

    def __call__(self, points: Tensor) -> Tensor:
        low, high = _FREE
        logits: Tensor = self._classifier(low + (high - low) * points)
        return logits


def _search_free(
    model: Defense, points: Tensor, batch: Images, search: RadiusSettings
) -> list[RadiusRow]:
    """Search the classifier alone in the free box, by a change of variables."""
    low, high = _FREE
    scale = high - low
    settings = at_radius(search.settings, search.top / scale)
    rows = minimum_radii(
        _Widened(model), (points - low) / scale, batch.labels,
        dataclasses.replace(search, settings=settings), ids=batch.ids,
    )  # fmt: skip
    return [
        row._replace(
            lower=row.lower * scale, upper=None if row.upper is None else row.upper * scale
        )
        for row in rows
    ]


def _other(prepared: PreparedSurvival, batch: Images, engine: str) -> list[dict[str, Any]]:
    """Run another attack on a batch and return its records."""
    where = _points(prepared, batch)
    model = prepared.model.at(ids=batch.ids, xi=prepared.xi)
    norm = prepared.search.settings.norm
    found = minimum_norms(model, where.points, batch.labels, engine, norm)
    return [
        {"engine": engine, "id": i, "upper": upper}
        for i, upper in zip(batch.ids.tolist(), found, strict=True)
    ]


VERB = Verb(
    SurvivalRun,
    measure_survival,
    total=lambda run: len(run.load_images().ids),
    prepare=prepare_survival,
    estimate=estimate_survival,
    report=report_survival,
)
