"""How much a representation compresses along the trajectory of an image.

A classifier that receives the noise level has a representation E(x + t z, t) at every node t of its
grid. With u its direction, E / ||E||, one noise z and perturbations eta for all nodes:

    rate(t)     = ||u(x + eta + t z, t) - u(x + t z, t)|| / ||eta||,
    relative(t) = rate(t) / rate(lowest node), image by image,
    distance(t) = 1 - u(x + t z, t) . u(x + t0 z, t0), with t0 the lowest node.

A relative rate below 1 says that noise hides perturbations from the representation; a distance of 0
that the representation is the same along the trajectory, which is what pre-training asks of it.

Source: the compression rate of [Wei2025], equation 7, on the representation of [Lei2025].
"""

from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from advpure.analysis.compression.noising import default_strength
from advpure.analysis.perturbations import Distribution, check_strength, directions
from advpure.analysis.study import Columns, DefenseStudy, LoadedModel, Report, Session
from advpure.base.display import Display, Table, written
from advpure.base.errors import BadInput
from advpure.base.flags import Flag
from advpure.base.kinds import Natural, Several, Strength
from advpure.base.units import parse_eps, to_model
from advpure.core.defense import Defense
from advpure.core.levelled import LevelledClassifier
from advpure.core.randomness import RandomnessConfig
from advpure.core.tiling import tiled
from advpure.data import Images
from advpure.loading import describe
from advpure.runs.cost import Cost
from advpure.runs.records import RecordStore
from advpure.runs.schema import Count, Schema
from advpure.statistics.estimates import Estimate
from advpure.statistics.rates import NOT_NEGATIVE, mean_interval

RATES = Schema(
    "representation_rates", keys={"sample": Count, "node": Count, "draw": Count},
    values={"rate": float},
)  # fmt: skip
PLACES = Schema(
    "representation_places", keys={"sample": Count, "node": Count},
    values={"sigma": float, "distance": float},
)  # fmt: skip
_FIX = "use --defense rrcm, whose classifier receives the noise level"


@dataclass(frozen=True, kw_only=True)
class Level:
    """What was measured at a node of the grid, means over images.

    Attributes:
        sigma: The noise, [0, 1] units.
        rate: Compression rate of the direction, per unit of eta in model units.
        relative: That rate over the one at the lowest node.
        distance: One minus the cosine to the representation at the lowest node.
    """

    sigma: float
    rate: Estimate
    relative: Estimate | None
    distance: Estimate


@dataclass(frozen=True, kw_only=True)
class RepresentationReport(Report):
    """The result of a run, computed from its records.

    Attributes:
        levels: By noise, from the lowest.
    """

    levels: tuple[Level, ...]

    @property
    def own(self) -> Level:
        """The node that the defense is asked at."""
        sigma = float(self.settings["asked_at"])
        return min(self.levels, key=lambda level: abs(level.sigma - sigma))

    def tree(self) -> dict[str, Any]:
        """Return a row for each node, and that of the defense on top."""
        return {**vars(self.own), "rows": [vars(level) for level in self.levels]}

    def display(self) -> Display:
        """Return a table with a row for each node."""
        own = self.own
        headline = (
            f"{self.settings['dataset']}, representation of {own.rate.n} images: under noise "
            f"{own.sigma:.4g} a perturbation moves it {written(own.relative)} times as far as "
            f"without, and it lies {written(own.distance)} from there"
        )
        heads = ("sigma", "rate", "relative", "1 - cosine")
        rows = [
            [f"{each.sigma:.4g}", *map(written, (each.rate, each.relative, each.distance))]
            for each in self.levels
        ]
        return Display(headline, (Table(heads, rows),))


@dataclass(frozen=True, kw_only=True)
class Representation(DefenseStudy[RepresentationReport]):
    """Print how much a representation compresses along the trajectory, noise level by level.

    For classifiers that receive the noise level; `cr` and `steps` measure purifiers.

    Example: advpure representation --dataset digits -n 50 --levels 9

    Attributes:
        eps: Strength of the perturbations in [0, 1] units, e.g. 8/255. Default: the data set's
            radius.
        distribution: ``uniform`` in [-eps, eps], ``gaussian`` of the same root mean square, or
            ``sign``.
        perturbations: Perturbations of every image.
        levels: Nodes of the classifier's grid, spread evenly from the lowest to the highest, beside
            the one that the defense is asked at.
    """

    verb: ClassVar[str] = "representation"
    keyed: ClassVar[frozenset[str]] = frozenset({"seed", "scheme"})
    doing: ClassVar[str] = "representing"
    shorter: ClassVar[str] = "-n, --levels or --perturbations"
    tables: ClassVar[tuple[Schema, ...]] = (PLACES, RATES)
    columns: ClassVar[Columns] = {
        "relative rate": {"at": "relative"},
        "1 - cosine": {"at": "distance"},
    }
    sources: ClassVar[tuple[object, ...]] = (directions,)
    unused: ClassVar[dict[str, str]] = {
        "gradient": "leave it out, as nothing is differentiated",
        "policy": "leave it out, as nothing is decided",
    }

    defense: Annotated[str, Flag("--defense", "-d")] = "rrcm"
    eps: Strength | None = None
    distribution: Distribution = "uniform"
    perturbations: Natural = 4
    levels: Several = 9

    def __post_init__(self) -> None:
        """Check every field, and turn the strength into a number."""
        given = default_strength(self.dataset) if self.eps is None else self.eps
        object.__setattr__(self, "eps", parse_eps(given))
        check_strength(self.strength, torch.float32, "use a larger one")
        super().__post_init__()

    @property
    def strength(self) -> float:
        """The strength as a number."""
        assert self.eps is not None
        return float(self.eps)

    def describe(self, model: Any, images: Images, xi: RandomnessConfig) -> dict[str, Any]:
        """Return what identifies the run, with the noise that the defense is asked at.

        Raises:
            BadInput: for a defense without a representation, or fewer nodes than levels.
        """
        classifier = _levelled(model)
        nodes = classifier.levels[classifier.number].nodes
        if self.levels > nodes:
            rule = f"are more than the {nodes} nodes of the classifier"
            raise BadInput(f"levels {self.levels}", rule, f"use 2 to {nodes}")
        return {**super().describe(model, images, xi), "asked_at": classifier.node / 2}

    def cost(self, loaded: LoadedModel) -> Cost:
        """Estimate the cost: the representation counts as an evaluation of the classifier."""
        each = (self.levels + 1) * (1 + self.perturbations)
        one = super().cost(loaded)
        return replace(one, evaluations=one.evaluations * each, seconds=one.seconds * each)

    def measure(self, session: Session[LoadedModel]) -> None:
        """Represent images and their perturbed versions at every level."""
        loaded, each = session.loaded, self.perturbations
        classifier = _levelled(loaded.defense)
        grid = classifier.levels[classifier.number].grid
        spread = np.linspace(len(grid) - 1, 0, self.levels).round().astype(int).tolist()
        own = int(np.abs(grid - classifier.node).argmin())
        nodes = sorted({*spread, own}, reverse=True)
        represent = tiled(classifier.features, loaded.defense.tile)
        for batch in session.batches(loaded.images, PLACES, size=64):
            ids, shape = batch.ids.tolist(), batch.images.shape[1:]
            draws, repeated = [*range(each)] * len(ids), [i for i in ids for _ in range(each)]
            eta = directions(self.distribution, self.seed, repeated, draws, shape)
            eta = (self.strength * eta).to(batch.images).reshape(len(ids), each, *shape)
            clean = batch.images[:, None]
            points = to_model(torch.cat([clean, clean + eta], 1))
            noise = loaded.xi.normal(batch.ids, "forward", 1, shape).to(points)[:, None]
            sizes = (points[:, 1:] - points[:, :1]).double().flatten(2).norm(dim=2)
            lowest: Tensor | None = None
            places, rates = [], []
            for node in nodes:
                t = float(grid[node])
                states = (points + t * noise).flatten(0, 1)
                with torch.no_grad():  # a measurement, no gradient flows
                    out = represent(states, states.new_full((len(states), 1, 1, 1), t))
                u = F.normalize(out.double(), dim=1).reshape(len(ids), 1 + each, -1)
                lowest = u[:, 0] if lowest is None else lowest
                apart = 0.5 * (u[:, 0] - lowest).square().sum(1)
                moved = (u[:, 1:] - u[:, :1]).norm(dim=2) / sizes
                for i, gap, row in zip(ids, apart.tolist(), moved.tolist(), strict=True):
                    key = {"sample": i, "node": node}
                    places.append({**key, "sigma": t / 2, "distance": gap})
                    rates += [{**key, "draw": k, "rate": rate} for k, rate in enumerate(row)]
            with session.store.batch():
                session.store.append(RATES.table, rates)
                session.store.append(PLACES.table, places)

    @classmethod
    def report(cls, store: RecordStore) -> RepresentationReport:
        """Compute the report of a run from its records alone."""
        rates: dict[int, dict[int, list[float]]] = {}
        for row in store.rows(RATES.table):
            rates.setdefault(row["node"], {}).setdefault(row["sample"], []).append(row["rate"])
        sigmas, gaps = {}, dict[int, dict[int, float]]()
        for row in store.rows(PLACES.table):
            sigmas[row["node"]] = row["sigma"]
            gaps.setdefault(row["node"], {})[row["sample"]] = row["distance"]
        means = {
            node: {i: sum(own) / len(own) for i, own in by_image.items()}
            for node, by_image in rates.items()
        }
        lowest = means[max(means)] if means else {}
        levels = []
        for node in sorted(means, reverse=True):
            relative = {i: rate / lowest[i] for i, rate in means[node].items() if lowest[i] > 0}
            levels.append(
                Level(
                    sigma=sigmas[node],
                    rate=_mean(means[node]),
                    relative=_mean(relative) if relative else None,
                    distance=_mean(gaps[node]),
                )
            )
        return RepresentationReport(run=store.folder, settings=store.settings, levels=tuple(levels))


def _levelled(defense: Defense) -> LevelledClassifier:
    """Return the classifier whose representation is measured.

    Raises:
        BadInput: for one that has none.
    """
    classifier = defense.classifier
    if isinstance(classifier, LevelledClassifier) and classifier.has_features:
        return classifier
    name = describe(defense)["purifier"]
    raise BadInput(f"defense {name}", "has no representation of noisy images", _FIX)


def _mean(by_image: dict[int, float]) -> Estimate:
    return Estimate.of(mean_interval(list(by_image.values()), within=NOT_NEGATIVE), by_image)
