"""Boosting as a study: generated images are refined, and compared with real ones as sets."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from advpure.analysis.boosting.result import (
    BOOSTED,
    PAIRS,
    REAL,
    SCHEMAS,
    SET_KINDS,
    VECTORS,
    BoostReport,
    BoostResult,
)
from advpure.analysis.generation.images import (
    AUTO,
    Generated,
    Generator,
    Pixels,
    check_npz,
    digest,
    load_generator,
    read_generated,
    to_bytes,
    write_generated,
)
from advpure.analysis.generation.samplers import STEPS, Sampler
from advpure.analysis.generation.study import shared_ids
from advpure.analysis.metrics.choice import METRICS, Chosen, load_metrics, parse_metrics
from advpure.analysis.metrics.networks import MetricContext
from advpure.analysis.study import Columns, Loaded, Session, Shard, Study
from advpure.analysis.subject import Model, Seeded
from advpure.base.defaults import DEFAULT_DATASET
from advpure.base.devices import check_device
from advpure.base.errors import BadInput
from advpure.base.flags import Beside, Flag, Keys
from advpure.base.idle import refuse_idle
from advpure.base.kinds import Natural, Whole
from advpure.base.validation import validate
from advpure.boosting.booster import Booster
from advpure.core.randomness import RandomnessConfig, Scheme
from advpure.core.tiling import check_rows, tiled
from advpure.data import Images, dataset_info, load_images
from advpure.loading import lineage, load_booster, load_judge
from advpure.loading.weights import shipped
from advpure.networks.joint import debias, realness
from advpure.runs.cost import Cost, peak_memory
from advpure.runs.records import RecordStore, collect_context, source_digests
from advpure.runs.schema import Schema

_N = 400
_DEBIASED = 1000
_SHORT = {"loss": "loss", "method": "method", "schedule": "generator", "steps": "steps"}


@dataclass(frozen=True, kw_only=True)
class LoadedBoost(Loaded):
    """A boost that can begin.

    Attributes:
        booster: The booster, without a debias.
        source: A generator, or images that were given.
        n: Images.
        chosen: The metrics and their networks.
        reference: Real images.
        kept_steps: After which steps features are kept.
        tile: Images that the booster sees at once.
        xi: The randomness.
    """

    booster: Booster
    source: Generator | Generated
    n: int
    chosen: Chosen
    reference: Images
    kept_steps: tuple[int, ...]
    tile: int | None
    xi: RandomnessConfig


@dataclass(frozen=True, kw_only=True)
class Boost(Seeded, Study[LoadedBoost, BoostReport]):
    """Boost generated images by a joint model; print distances to real images before and after.

    Without more, what the data set's consistency model makes in one step is boosted by the shipped
    joint model. The distances are over features of a network that shares neither weights nor start
    with the booster.

    Example: advpure boost --dataset digits -n 400 --plot curve.png --curve 5

    Attributes:
        boost: Booster: joint or robust-l2 of the data set; another shipped name, a file, or
            file.py:NAME.
        boost_options: Setting of the booster, KEY=VALUE, e.g. step_size=0.1.
        dataset: Data set of generator, booster and real images; `advpure data` lists them.
        n: Images. Default: 400, and all of a file.
        images: Generated images of others: an .npz (images, labels; or arr_0, arr_1), or a folder.
        model: Sampler and kind of the generator: ``cm``, ``edm``, ``ddim`` or ``ddpm``.
        model_steps: Its steps. Default: 1 of cm, 18 of edm, 50 of ddim, 1000 of ddpm.
        labels: Classes that are generated: uniform, none, or one. Default: uniform where the
            generator is class-conditional, else none.
        weights: Weights of the generator: a file, a shipped name, or official NAME:FILE.
        aim: Class that an image is boosted towards: the ``label`` that it has, or the most
            ``likely`` one. Default: the label where there is one.
        debias: Take the preference for some classes on generated images from the most likely one.
        truncate: Truncate images to bytes before and after, as is published.
        metrics: List of frechet-classifier, frechet-vgg, fid-768, fid-2048, classifier-score,
            inception-score, precision-recall[-classifier|-vgg]; or all that can be had.
        classifier: Classifier whose features and classes are measured: a file, a shipped name, or
            file.py:NAME. Default: a shipped one that shares no start with the booster.
        reference: Real images: a subset, such as train or train/first-5000.
        curve: Keep distances after every so many steps, too; 0 for the end alone.
        scheme: Noise keys: ``hash`` (the published ones) or ``counter`` (without collisions).
        tile: Images per network call, 1 or more; 0: batches as they come. Default: the data set's.
        device: cpu, cuda, cuda:1 or mps.
        seed: Base seed of all noise.
        grid: Draw images before and after, and their difference: a .png, .svg or .pdf file.
        save: Write the boosted images into an .npz.
        pixels: What that holds: bytes ``rounded``, bytes ``truncated``, or ``float``.
    """

    verb: ClassVar[str] = "boost"
    doing: ClassVar[str] = "boosting"
    tables: ClassVar[tuple[Schema, ...]] = SCHEMAS
    figure: ClassVar[str] = "advpure.analysis.boosting.figure:curve_figure"
    of_the_images: ClassVar[tuple[str, ...]] = ("n",)
    columns: ClassVar[Columns] = {
        "before": {"at": "before"},
        "after": {"at": "after"},
        "difference": {"at": "difference"},
    }

    boost: Annotated[Model, Flag("--boost", "-b")] = "joint"
    boost_options: Annotated[
        Mapping[str, Any],
        Flag("--boost-option"),
        Keys(
            "advpure.boosting.settings:BoostSettings",
            {**_SHORT, "step_size": "step_size", "eps": "eps"},
            owner="booster",
        ),
    ] = field(default_factory=dict)
    dataset: str = DEFAULT_DATASET
    n: Annotated[Natural | None, Flag("--n", "-n")] = None
    images: str | None = None
    model: Sampler = "cm"
    model_steps: Natural | None = None
    labels: str | int = AUTO
    weights: str | None = None
    aim: Literal["label", "likely"] | None = None
    debias: bool = False
    truncate: bool = False
    metrics: str | list[str] = "all"
    classifier: Model | None = None
    reference: str = "train"
    curve: Whole = 0
    scheme: Scheme = "hash"
    tile: int | None = None
    device: str = "cpu"
    grid: Annotated[str | None, Beside()] = None
    save: Annotated[str | None, Beside()] = None
    pixels: Annotated[Pixels, Beside()] = "rounded"

    def __post_init__(self) -> None:
        """Check every field, and refuse what changes nothing beside the others."""
        validate(self)
        if self.images is not None:
            names = ("model", "model_steps", "labels", "weights")
            refuse_idle(self, names, "means nothing to images of a file")
        if self.save is not None:
            check_npz(self.save)
        else:
            refuse_idle(self, ("pixels",), "means nothing without a file", "add --save FILE.npz")
        for metric in parse_metrics(self.metrics) if self.metrics != "all" else ():
            if METRICS[metric].kind not in SET_KINDS:
                known = ", ".join(name for name, m in METRICS.items() if m.kind in SET_KINDS)
                raise BadInput(f"metric {metric}", "is not one of sets", f"known: {known}")

    def load(self) -> LoadedBoost:
        """Load booster, generator or images, real images, and the networks of the metrics."""
        check_device(self.device)
        info = dataset_info(self.dataset)
        booster = load_booster(self.boost, self.dataset, self.boost_options).to(self.device)
        source, described = self._source()
        n = self._count(source)
        labelled = (
            source.classes > 0 if isinstance(source, Generator) else (source.labels is not None)
        )
        aim = self.aim or ("label" if labelled else "likely")
        if aim == "label" and not labelled:
            what = f"images {self.images}" if self.images else f"generator {described['name']}"
            fix = "aim at the most likely class, --aim likely, or give labels"
            raise BadInput(what, "have no labels to aim at" if self.images else _NO_LABELS, fix)
        if aim == "label":
            refuse_idle(self, ("debias",), "means nothing to given classes", "add --aim likely")
        chosen = self._metrics(booster)
        reference = load_images(self.dataset, subset=self.reference)
        count, every = booster.how.count, self.curve
        if every >= count > 0:
            rule = f"keeps nothing before the end, step {count}"
            raise BadInput(f"curve {every}", rule, "use fewer, or leave it out")
        kept = sorted({0, count, *(range(0, count, every) if every else ())})
        tile = self._tile(info.tile)
        settings = {
            "verb": self.verb,
            "dataset": self.dataset,
            "boost": booster.settings,
            "n": n,
            **described_as(self.images, described),
            "aim": aim,
            "debias": self.debias,
            "truncate": self.truncate,
            "reference": {"subset": self.reference, "n": len(reference.ids)},
            **chosen.identity,
            "missing": list(chosen.missing),
            "curve": every,
            "kept_steps": kept,
            "randomness": {"seed": self.seed, "scheme": self.scheme},
            "tile": tile,
            "device": self.device,
        }
        if self.images is None:
            settings |= {"model": self.model, "model_steps": self._model_steps}
        weights = {"boost": booster.settings["sha256"]} if "sha256" in booster.settings else {}
        return LoadedBoost(
            settings=settings,
            context=collect_context(
                device=self.device,
                tile=tile,
                weights=weights,
                sources=source_digests(Booster, load_generator),
            ),
            samples=range(n),
            booster=booster,
            source=source,
            n=n,
            chosen=chosen,
            reference=reference,
            kept_steps=tuple(kept),
            tile=tile,
            xi=RandomnessConfig(self.seed, self.scheme),
        )

    def _source(self) -> tuple[Generator | Generated, dict[str, Any]]:
        """Return the generator or the given images, and what identifies them."""
        if self.images is None:
            generator = load_generator(
                self.model,
                self.dataset,
                labels=self.labels,
                weights=self.weights,
                tile=self.tile,
                device=self.device,
            )
            return generator, {**generator.identity, "labels": generator.labels}
        given, info = read_generated(self.images), dataset_info(self.dataset)
        if tuple(given.images.shape[1:]) != info.shape:
            sides, own = ("x".join(map(str, x)) for x in (given.images.shape[1:], info.shape))
            rule = f"of {sides} do not fit {self.dataset} images of {own}"
            raise BadInput(f"images {self.images}", rule, "resize them, or choose their --dataset")
        if given.labels is not None and int(given.labels.max()) >= len(info.classes):
            rule = f"is outside the {len(info.classes)} classes of {self.dataset}"
            fix = f"use 0 .. {len(info.classes) - 1}"
            raise BadInput(f"class {int(given.labels.max())} of {self.images}", rule, fix)
        return given, {"name": Path(self.images).name, "sha256": digest(given)}

    def _count(self, source: Generator | Generated) -> int:
        if isinstance(source, Generator):
            return self.n or _N
        there = len(source.images)
        if self.n is not None and self.n > there:
            rule = f"does not fit, {self.images} has {there} images"
            raise BadInput(f"n {self.n}", rule, f"use 1 to {there}")
        return self.n or there

    @property
    def _model_steps(self) -> int:
        return self.model_steps or STEPS[self.model]

    def _tile(self, default: int) -> int | None:
        return default if self.tile is None else self.tile or None

    def _metrics(self, booster: Booster) -> Chosen:
        """Load the metrics, over features that owe nothing to the booster."""
        info = dataset_info(self.dataset)
        names = self.metrics
        if names == "all":
            names = [name for name, metric in METRICS.items() if metric.kind in SET_KINDS]
        judge, identity = None, None
        name = self._judge(booster)
        if name is not None:
            judge, identity = load_judge(self.dataset, name)  # type: ignore[arg-type]
            judge = judge.to(self.device)
        context = MetricContext(
            classifier=judge,
            identity=identity,
            tile=info.tile,
            shape=info.shape,
            device=self.device,
        )
        chosen = load_metrics(names, context)
        if not chosen.metrics:
            raise BadInput("metrics", "cannot be had here", "; ".join(chosen.notes) or "name some")
        return chosen

    def _judge(self, booster: Booster) -> Model | None:
        """Return the classifier that measures: one whose weights have no start in common.

        That is the one that was asked for, else the first of the data set's shipped ones.

        Raises:
            BadInput: where the booster is the one that was asked for, or one of them was trained
                from the other or from a third.
        """
        own = {str(booster.settings.get("sha256"))}
        if isinstance(self.boost, str) and "code" not in booster.settings:
            own |= _lineage(booster.settings["name"], self.boost)
        if self.classifier is not None:
            if isinstance(self.classifier, str) and own & _lineage(self.classifier):
                raise BadInput(
                    f"features of {self.classifier}",
                    f"share weights or their start with the booster {booster.settings['name']}",
                    "name another network, --classifier FILE",
                )
            return self.classifier
        info = dataset_info(self.dataset)
        known = shipped("classifier")
        listed = [info.classifier, *(n for n in known if n.startswith(f"{info.networks}-"))]
        return next((n for n in listed if n is not None and not own & _lineage(n)), None)

    def share(self, loaded: LoadedBoost, shard: Shard) -> LoadedBoost:
        """Return every k-th image, from the i-th; every part has the real images too."""
        return replace(loaded, samples=shared_ids(loaded.n, shard), shard=shard)

    def total(self, loaded: LoadedBoost) -> int:
        """Return the number of images."""
        return len(loaded.samples or ())

    def cost(self, loaded: LoadedBoost) -> Cost:
        """Estimate the cost from one tile that is generated, boosted and measured."""
        n = len(loaded.samples or ())
        rows = min(loaded.tile or 32, n)
        start = time.perf_counter()
        images, classes = self._made(loaded, list(range(rows)))
        self._boosted(loaded, loaded.booster, images, classes, list(range(rows)))
        seconds = (time.perf_counter() - start) * n / rows
        start = time.perf_counter()
        for network in loaded.chosen.networks.values():
            network(images)
        taken = (time.perf_counter() - start) / rows
        seconds += taken * (len(loaded.kept_steps) * n + len(loaded.reference.ids))
        count = loaded.booster.how.count
        peak = peak_memory(torch.device(self.device))
        return Cost(n, n * (count + 2), n * count, seconds, peak)

    def measure(self, session: Session[LoadedBoost]) -> None:
        """Measure the real images, then make, boost and measure generated ones."""
        loaded, store = session.loaded, session.store
        _record_real(store, loaded)
        done = {i for (i,) in store.done(BOOSTED.table, "sample")}
        todo = [i for i in loaded.samples or () if i not in done]
        session.progress(len(done))
        if not todo:
            return
        booster = self._debiased(loaded) if self.debias else loaded.booster
        size = 4 * (loaded.tile or 32)
        size = check_rows(size if session.batch_size is None else session.batch_size)
        for start in range(0, len(todo), size):
            ids = todo[start : start + size]
            images, labels = self._made(loaded, ids)
            batch = self._boosted(loaded, booster, images, labels, ids)
            with store.batch():
                for table, rows in batch.items():
                    store.append(table, rows)
            session.progress(len(done) + start + len(ids))

    def _made(self, loaded: LoadedBoost, ids: list[int]) -> tuple[Tensor, Tensor | None]:
        """Return the images of some ids before boosting, and their labels."""
        if isinstance(loaded.source, Generator):
            images, labels = loaded.source.make(ids, self._model_steps, loaded.xi)
        else:
            labels = None if loaded.source.labels is None else loaded.source.labels[ids]
            images = loaded.source.images[ids]
        images = images.to(self.device)
        return _truncated(images) if self.truncate else images, labels

    def _debiased(self, loaded: LoadedBoost) -> Booster:
        """Return the booster with the debias of the first images."""
        ids = list(range(min(_DEBIASED, loaded.n)))
        logits = _logits(loaded, self._made(loaded, ids)[0])
        return load_booster(self.boost, self.dataset, self.boost_options, debias=debias(logits)).to(
            self.device
        )

    def _boosted(
        self,
        loaded: LoadedBoost,
        booster: Booster,
        images: Tensor,
        labels: Tensor | None,
        ids: list[int],
    ) -> dict[str, list[dict[str, Any]]]:
        """Boost a batch and return its rows by table."""
        aim = labels if loaded.settings["aim"] == "label" else None
        along: dict[int, list[Tensor]] = {k: [] for k in loaded.kept_steps[1:-1]}

        def seen(k: int, y: Tensor) -> None:
            if k in along:
                along[k].append(y)

        watch = seen if along else None
        with torch.no_grad():  # images, no gradient flows through a boost here
            refined = booster.boost(
                images, aim, ids=ids, xi=loaded.xi, tile=loaded.tile, seen=watch
            )
        after = _truncated(refined.images) if self.truncate else refined.images
        sets = {0: images, **{k: torch.cat(parts) for k, parts in along.items()}}
        sets[loaded.kept_steps[-1]] = after
        aimed = refined.classes.cpu()
        before_logits, after_logits = (_logits(loaded, x) for x in (images, after))
        columns = {
            "sample": ids,
            "label": [None] * len(ids) if labels is None else labels.tolist(),
            "aimed": aimed.tolist(),
            "predicted": before_logits.argmax(1).tolist(),
            "taken": refined.taken.tolist(),
            "moved": (after - images).flatten(1).double().norm(dim=1).tolist(),
            "real_before": realness(before_logits, aimed).double().tolist(),
            "real_after": realness(after_logits, aimed).double().tolist(),
        }
        pairs = [
            {"sample": i, "before": one, "after": two}
            for i, one, two in zip(ids, _stored(images), _stored(after), strict=True)
        ]
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        vectors = [
            {"features": name, "step": step, "sample": i, "vector": vector}
            for step, x in sets.items()
            for name, listed in _features(loaded.chosen, x)
            for i, vector in zip(ids, listed, strict=True)
        ]
        return {PAIRS.table: pairs, VECTORS.table: vectors, BOOSTED.table: rows}

    @classmethod
    def report(cls, store: RecordStore) -> BoostReport:
        """Compute the report of a run from its records alone."""
        return BoostReport.of(store)

    def after(self, report: BoostReport, loaded: LoadedBoost) -> BoostReport:
        """Say why metrics are missing."""
        notes = [note for note in report.notes if not note.startswith("not measured, their")]
        return replace(report, notes=(*notes, *loaded.chosen.notes))

    def pictures(
        self, report: BoostReport, loaded: LoadedBoost, plot: Path | None
    ) -> dict[str, Any]:
        """Draw the curve and the grid, and write the images, where that was asked for."""
        drawn = super().pictures(report, loaded, plot)
        if self.grid is None and self.save is None:
            return drawn
        from advpure.analysis.boosting.figure import grid_figure

        with RecordStore.read(report.run) as store:
            if self.grid is not None:
                drawn["grid"] = str(grid_figure(store, self.grid))
            if self.save is not None:
                result = BoostResult(store)
                ids = list(result.rows)
                aimed = torch.tensor([result.rows[i]["aimed"] for i in ids], device="cpu")
                boosted = Generated(result.pictures(ids)[1], aimed)
                drawn["saved"] = str(write_generated(self.save, boosted, self.pixels))
        return drawn


_NO_LABELS = "makes images without labels, which are to be aimed at"


def described_as(images: str | None, described: Mapping[str, Any]) -> dict[str, Any]:
    """Return what identifies the source under the name that says what it is."""
    return {"generator" if images is None else "images": dict(described)}


def _lineage(*names: str) -> set[str]:
    """Return the digests of the networks behind names, of those that are files."""
    known: set[str] = set()
    for name in names:
        try:
            known |= lineage(name)
        except BadInput:
            continue
    return known


def _truncated(images: Tensor) -> Tensor:
    return to_bytes(images, "truncated").to(images) / 255.0


def _stored(images: Tensor) -> Iterator[bytes]:
    return (row.tobytes() for row in images.cpu().float().numpy().astype("<f4"))


def _logits(loaded: LoadedBoost, images: Tensor) -> Tensor:
    """Return the joint model's logits on the CPU; no gradient flows."""
    with torch.no_grad():  # a measurement
        logits: Tensor = tiled(loaded.booster.network, loaded.tile)(images)
    return logits.cpu()


def _features(chosen: Chosen, images: Tensor) -> Iterator[tuple[str, list[bytes]]]:
    """Yield the vectors that the metrics ask for, by name."""
    wanted = {METRICS[metric].features for metric in chosen.metrics}
    for network in chosen.networks.values():
        for name, vectors in network(images).items():
            if name in wanted:
                yield name, [row.astype("<f4").tobytes() for row in np.asarray(vectors)]


def _record_real(store: RecordStore, loaded: LoadedBoost) -> None:
    """Store the features of the real images that lack them."""
    done = {place for (place,) in store.done(REAL.table, "place")}
    todo = [k for k in range(len(loaded.reference.ids)) if k not in done]
    size = 8 * (loaded.tile or 32)
    for start in range(0, len(todo), size):
        places = todo[start : start + size]
        images = loaded.reference.images[places].to(loaded.settings["device"])
        labels = loaded.reference.labels[places].tolist()
        store.append(
            REAL.table,
            [
                {"features": name, "place": k, "label": label, "vector": vector}
                for name, vectors in _features(loaded.chosen, images)
                for k, label, vector in zip(places, labels, vectors, strict=True)
            ],
        )
