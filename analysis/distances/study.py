"""Distances as a study: how far are images from their originals, step by step and as sets?

For every perturbation and image the records hold the l2 and l-inf distance to the clean image
before the chain and after every step ([Wei2025], figure 1c, tables 1 and S7 to S9), the metrics of
pairs (SSIM, LPIPS), the compression rate along that very perturbation, and the features over which
sets are compared before and after purification (tables S10 and S11).
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, get_args

from annotated_types import Ge, Le

from advpure.analysis.compression.noising import default_strength
from advpure.analysis.distances.compare import compare_distances
from advpure.analysis.distances.report import DistancesReport
from advpure.analysis.distances.result import SCHEMAS, STATES
from advpure.analysis.distances.rows import (
    LoadedDistances,
    batches_left,
    pair_values,
    record_batch,
    record_clean,
    record_steps,
)
from advpure.analysis.distances.trajectory import measure_trajectory
from advpure.analysis.metrics.choice import METRICS, load_metrics
from advpure.analysis.metrics.networks import MetricContext
from advpure.analysis.perturbations import Distribution
from advpure.analysis.perturbed import Perturber, parse_perturbations, perturbers, write_eps
from advpure.analysis.robustness.attack_choice import refuse_two_gradients
from advpure.analysis.study import Columns, DefenseStudy, LoadedModel, Session
from advpure.analysis.target import as_target, batch_rows
from advpure.base.errors import BadInput
from advpure.base.flags import Beside, Flag
from advpure.base.idle import refuse_idle
from advpure.base.units import Norm
from advpure.core.defense import Defense
from advpure.data import dataset_info
from advpure.loading import describe
from advpure.runs.cost import Cost, estimate
from advpure.runs.records import RecordStore
from advpure.runs.schema import Schema

_IDLE = "means nothing without"


@dataclass(frozen=True, kw_only=True)
class Distances(DefenseStudy[DistancesReport]):
    """Print distances to the clean image along the chain, and metrics before and after it.

    Example: advpure distances --defense ddpm --t 100 --perturb uniform:8/255,attack:pgd -n 50

    Attributes:
        perturb: List of none, uniform:EPS, gaussian:EPS, sign:EPS, attack:NAME or
            attack:NAME:EPS, such as uniform:8/255,uniform:32/255,attack:pgd. Default: uniform
            noise of the data set's radius.
        metrics: List of compression[-linf], ssim, lpips, clip, fid-768, fid-2048,
            frechet-classifier, frechet-vgg, inception-score, classifier-score,
            precision-recall[-classifier|-vgg]; none; or all that can be had.
        norm: Norm of attacks: linf or l2. Default: the data set's.
        attack_options: Setting of the attacks, KEY=VALUE, or of one, e.g. pgd.steps=10; repeats.
        clip: Clip random perturbations to [0, 1].
        seed: Base seed of the purifier's noise and of random perturbations.
        against: Folder of another distances run on the same images: compare, paired.
        resamples: Bootstrap resamples, such as 200, for the Frechet distances of --against; 0 for
            the jackknife, which is quick.
    """

    verb: ClassVar[str] = "distances"
    doing: ClassVar[str] = "purifying"
    tables: ClassVar[tuple[Schema, ...]] = SCHEMAS
    figure: ClassVar[str] = "advpure.analysis.distances.figure:distances_figure"
    columns: ClassVar[Columns] = {
        "l2 before": {"at": "rows.0.l2_initial"},
        "l2 after": {"at": "rows.0.l2_final"},
    }

    perturb: str | list[str] | None = None
    metrics: str | list[str] = "all"
    norm: Norm | None = None
    attack_options: Annotated[Mapping[str, Any], Flag("--attack-option")] = field(
        default_factory=dict
    )
    clip: bool = False
    against: Annotated[str | None, Beside()] = None
    resamples: Annotated[int, Ge(0), Le(10**6), Beside()] = 0

    def __post_init__(self) -> None:
        """Fill in the noise of the data set; check that there is something to resample."""
        if self.perturb is None:
            own = f"uniform:{write_eps(default_strength(self.dataset))}"
            object.__setattr__(self, "perturb", own)
        super().__post_init__()
        if self.against is None and self.resamples:
            rule = "means nothing without another run to compare with"
            fix = "add --against FOLDER, or leave it out"
            raise BadInput(f"resamples {self.resamples}", rule, fix)

    def load(self) -> LoadedDistances:
        """Check perturbations and metrics, and load defense, feature networks and images.

        Without a classifier to attack or to compare by, that is the purifier alone.
        """
        made, info = self._perturbers(), dataset_info(self.dataset)
        if self.against is not None:
            self.records(self.against).close()
        attacks = [each.run for each in made if each.run is not None]
        with_classifier = bool(attacks) or self.has_classifier
        model = self.load_model(self.xi) if with_classifier else self.load_purifier(self.xi)
        classifier = model.classifier if isinstance(model, Defense) else None
        purifier = model.purifier if isinstance(model, Defense) else model
        if isinstance(model, Defense):
            described = describe(model)
        else:
            described = {**model.settings, "tile": model.tile}
        images = self.load_images()
        context = MetricContext(
            classifier=classifier,
            identity=described.get("classifier"),
            tile=model.tile,
            shape=info.shape,
            device=self.device,
        )
        chosen = load_metrics(self.metrics, context)
        if not attacks:
            refuse_idle(self, ("policy",), f"{_IDLE} an attack among the perturbations")
        if not attacks and not any(
            METRICS[name].network == "classifier" for name in chosen.metrics
        ):
            names = ("classifier", "normalize", "classifier_options", "outputs")
            refuse_idle(self, names, f"{_IDLE} an attack or a metric that asks a classifier")
        return LoadedDistances(
            settings={
                **self.identity(self.verb, images),
                "defense": described,
                "perturbations": [each.describe() for each in made],
                "norm": self.norm or info.norm,
                "clip": self.clip,
                **chosen.identity,
                "missing": list(chosen.missing),
                "is_random": purifier.is_random,
                "randomness": {"seed": self.seed, "scheme": self.scheme},
            },
            context=self.context(model, described, measure_trajectory, *attacks),
            samples=images.ids.tolist(),
            model=model,
            images=images,
            xi=self.xi,
            perturbers=made,
            chosen=chosen,
        )

    def _perturbers(self) -> tuple[Perturber, ...]:
        """Return the perturbations, refusing settings that change none of them."""
        info = dataset_info(self.dataset)
        norm = self.norm or info.norm
        known = (
            (info.eps or 0.0) if norm == info.norm else 0.0
        )  # no attack can be told to have radius 0
        assert self.perturb is not None  # filled in
        wanted = parse_perturbations(self.perturb, known, norm)
        if any(p.kind == "attack" and p.eps == 0.0 for p in wanted):
            rule = f"has no default radius on {self.dataset}"
            raise BadInput(f"norm {norm}", rule, "write attack:pgd:0.5")
        if not any(p.kind == "attack" for p in wanted):
            refuse_idle(self, ("norm", "gradient"), f"{_IDLE} an attack among the perturbations")
        if self.clip and not any(p.kind in get_args(Distribution) for p in wanted):
            raise BadInput("clip", "means nothing without random perturbations", "leave it out")
        options = dict(self.attack_options)
        made = perturbers(wanted, options, norm=norm, seed=self.seed, clip=self.clip)
        for each in made:
            refuse_two_gradients(each.perturbation.attack, each.settings, self.gradient)
        return made

    def total(self, loaded: LoadedModel) -> int:
        """Return the number of purifications."""
        assert isinstance(loaded, LoadedDistances)
        return len(loaded.perturbers) * len(loaded.images.ids)

    def cost(self, loaded: LoadedModel) -> Cost:
        """Estimate the cost of perturbations, purifications and metrics."""
        assert isinstance(loaded, LoadedDistances)
        passes = [each.passes for each in loaded.perturbers]
        forwards = len(passes) + sum(forward for forward, _ in passes)
        forwards += bool(loaded.chosen.responses)
        backwards = sum(backward for _, backward in passes)
        model, images, n = loaded.model, loaded.images.images, len(loaded.images.ids)
        cost = estimate(model.at(xi=loaded.xi), images[:8], n, forwards, backwards)
        x = images[: min(n, batch_rows(as_target(model), None))]
        start = time.perf_counter()
        for network in loaded.chosen.networks.values():
            network(x)
        vectors = time.perf_counter() - start
        start = time.perf_counter()
        for pair in loaded.chosen.pairs.values():
            pair_values(pair, x, x, model.tile)
        pairs, stages = time.perf_counter() - start, 2 * len(passes)
        more = ((stages + 1) * vectors + stages * pairs) * n / len(x)
        return replace(cost, seconds=cost.seconds + more)

    def measure(self, session: Session[LoadedModel]) -> None:
        """Perturb, purify and measure batch after batch."""
        loaded, store = session.loaded, session.store
        assert isinstance(loaded, LoadedDistances)
        done: set[tuple[str, int]] = store.done(STATES.table, "perturbation", "sample")
        count = len(done)
        session.progress(count)
        record_steps(store, loaded.purifier)
        record_clean(store, loaded, session.batch_size)
        for batch in batches_left(loaded, done, session.batch_size):
            record_batch(store, loaded, batch)
            count += len(batch.images.ids)
            session.progress(count)

    @classmethod
    def report(cls, store: RecordStore) -> DistancesReport:
        """Compute the report of a run from its records alone.

        Cost: no network; for every Frechet distance a decomposition of min(n, d) rows of d
        features.
        """
        return DistancesReport.of(store)

    def after(self, report: DistancesReport, loaded: LoadedModel) -> DistancesReport:
        """Say why metrics are missing, and compare with another run where that was asked for."""
        assert isinstance(loaded, LoadedDistances)
        report = replace(
            report,
            notes=(*report.notes_beside_missing(), *loaded.chosen.notes),
        )
        if self.against is None:
            return report
        with self.records(report.run) as first, self.records(self.against) as second:
            contrasts = compare_distances(first, second, resamples=self.resamples)
        return replace(report, against=self.against, contrasts=contrasts)
