"""How much perturbation does each image survive? `points` says what is attacked, and where."""

import dataclasses
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from advpure.analysis.robustness.attack_choice import (
    attack_settings,
    refuse_idle_average,
    refuse_two_gradients,
)
from advpure.analysis.robustness.wording import attack_text, strength_text
from advpure.analysis.study import Columns, DefenseStudy, LoadedModel, Report, Session, chunks
from advpure.analysis.subject import Attacked
from advpure.analysis.survival.cross_check import (
    CROSS_CHECK_SCHEMA,
    CrossCheck,
    check_engines,
    compare,
    minimum_norms,
)
from advpure.analysis.survival.fit import SURVIVAL_SCHEMA, SurvivalResult
from advpure.analysis.survival.minimum_radius import RadiusSettings, SearchSettings, minimum_radii
from advpure.analysis.survival.points import (
    Box,
    Point,
    Points,
    anchor_points,
    clean_points,
    search_free,
)
from advpure.attacks.outcome import ZeroGradientWarning
from advpure.attacks.registry import find, settings_type
from advpure.base.display import Display, Table, percent_interval
from advpure.base.errors import BadInput
from advpure.base.flags import Beside, Flag
from advpure.base.kinds import Strength
from advpure.base.text import several
from advpure.base.units import Norm, parse_eps
from advpure.base.validation import fields_of
from advpure.core.defense import Defense
from advpure.core.randomness import RandomnessConfig
from advpure.data import Images, dataset_info
from advpure.loading import describe, load_defense
from advpure.runs.cost import Cost, estimate
from advpure.runs.records import RecordStore
from advpure.runs.schema import Schema

_STEPS = 40
_FIX = "give the end of the bracket with --top, such as 16/255"
_WIDEST_L2 = 4.0  # what a radius may be without another meaning, see advpure.base.units
_PARTS = 8  # S is reported at eighths of the bracket


@dataclass(frozen=True, kw_only=True)
class SurvivalReport(Report):
    """The result of a run, computed from its records.

    Attributes:
        result: Rows, survival function and fit.
        radii: Where survival is reported, [0, 1] units.
        checks: Comparisons with other attacks.
    """

    result: SurvivalResult
    radii: tuple[float, ...]
    checks: tuple[CrossCheck, ...]

    @property
    def top(self) -> float:
        """The end of the bracket, [0, 1] units."""
        return float(self.settings["threat_model"]["top"])

    def tree(self) -> dict[str, Any]:
        """Return accuracy, median, fit, S(eps), and the interval of every image."""
        return {
            **self.result.tree(self.radii),
            "top": self.top,
            "rows": [row._asdict() for row in self.result.rows],
            "cross_check": [check.tree() for check in self.checks],
        }

    def display(self) -> Display:
        """Return survival, measured and fitted, and the fit."""
        s, result = self.settings, self.result
        median, fit = result.median, result.fit
        ends = "" if median.low is None else f" [{_size(median.low)}, {_size(median.high)}]"
        headline = (
            f"{s['dataset']}, {named(s)}, {s['threat_model']['norm']}, attack {attack_text(s)}"
            f"{search_randomness(s)}, {s['search']['search']} search up to {self.top:.4g}: median "
            f"smallest perturbation {_size(median.value)}{ends} over {result.n} images, accuracy "
            f"{percent_interval(result.accuracy)} %"
        )
        rows = [
            [
                f"{eps:.5f} ({255 * eps:.3g}/255)",
                percent_interval(result.at(eps)) if result.is_known(eps) else "unknown",
                "" if fit is None else percent_interval(fit.at(eps)),
            ]
            for eps in self.radii
        ]
        lines = [
            "no fit: too few images are fooled within the bracket"
            if fit is None
            else f"zero-inflated Gaussian: plateau {fit.plateau:.3f}, mean {fit.mean:.4g} "
            f"[{fit.mean_interval.low:.4g}, {fit.mean_interval.high:.4g}], std {fit.std:.3g} "
            f"[{fit.std_interval.low:.3g}, {fit.std_interval.high:.3g}], largest gap to the steps "
            f"{result.gap:.3f}",
            *(str(check) for check in self.checks),
        ]
        return Display(headline, (Table(("epsilon", "survival, %", "fitted, %"), rows), *lines))


def named(settings: dict[str, Any]) -> str:
    """Return what was attacked and where, in words."""
    defense = settings["defense"]
    if defense["purifier"] == "none":
        return "clean images"
    where = "anchor points of " if settings["at"] == "anchor" else "defended by "
    return f"{where}{strength_text(defense)}"


def search_randomness(settings: dict[str, Any]) -> str:
    """Return, after a comma, under which randomness a run searched; nothing where none is drawn."""
    xi = settings.get("randomness")
    return "" if xi is None else f", fixed randomness (seed {xi['seed']})"


def _size(value: float | None) -> str:
    return "beyond the search" if value is None or math.isinf(value) else f"{value:.4g}"


@dataclass(frozen=True, kw_only=True)
class LoadedSurvival(LoadedModel):
    """A run that is checked and loaded.

    Attributes:
        target: What is attacked: the defense, or the classifier alone.
        search: How to search, in [0, 1] units.
        radii: Where survival is to be reported; None for eighths of the bracket.
    """

    target: Defense
    search: RadiusSettings
    radii: tuple[float, ...] | None


@dataclass(frozen=True, kw_only=True)
class Survival(SearchSettings, Attacked, DefenseStudy[SurvivalReport]):
    """Print the share of images that survive a perturbation, and its zero-inflated Gaussian fit.

    Searches each image's smallest perturbation that fools the classifier; records go into a run
    folder, and the same command goes on where an interrupted run stopped.

    Example: advpure survival --dataset digits -n 100 --cross-check fmn --plot survival.png

    Attributes:
        at: ``clean``: the defense at clean images; ``anchor``: the classifier at f(x).
        attack_options: Other setting of the attack, KEY=VALUE; 40 steps where none are given. A
            step size belongs to the end of the bracket, and shrinks with the radius.
        top: End of the search in [0, 1] units, e.g. 16/255. Default: twice the data set's radius,
            in l2 for the norm of uniform noise of that size.
        box: ``unit``: stay in [0, 1]; ``free``: the classifier alone may be asked beyond.
        eps: Where to read survival, a list such as 2/255,4/255.
        cross_check: Attacks of foolbox to compare with, a list of fmn and deepfool.
    """

    verb: ClassVar[str] = "survival"
    keyed: ClassVar[frozenset[str]] = frozenset()
    doing: ClassVar[str] = "searching"
    shorter: ClassVar[str] = "-n, --bisections or --steps"
    tables: ClassVar[tuple[Schema, ...]] = (SURVIVAL_SCHEMA, CROSS_CHECK_SCHEMA)
    joint_figure: ClassVar[str] = "advpure.analysis.survival.figure:draw_survival"
    columns: ClassVar[Columns] = {
        "accuracy": {"at": "accuracy", "unit": "percent"},
        "median radius": {"at": "median"},
    }
    sources: ClassVar[tuple[object, ...]] = (minimum_radii,)

    defense: Annotated[str, Flag("--defense", "-d")] = "none"
    attack: Annotated[str, Flag("--attack", "-a")] = "apgd"
    at: Point = "clean"
    top: Strength | None = None
    box: Box = "unit"
    eps: Annotated[Strength | None, Beside()] = None
    cross_check: Annotated[tuple[str, ...], Beside()] = ()

    def threat_model(self) -> tuple[Norm, float]:
        """Return the norm, and the end of the bracket."""
        info = dataset_info(self.dataset)
        norm = self.norm or info.norm
        if self.top is not None:
            return norm, parse_eps(self.top, norm)
        if norm == info.norm:
            return norm, 2.0 * info.radius(_FIX)
        # Uniform noise of size e has a root mean square of e / sqrt(3) at every pixel.
        factor = math.sqrt(math.prod(info.shape) / 3.0)
        top = 2.0 * info.radius(_FIX) * (factor if norm == "l2" else 1.0 / factor)
        return norm, min(top, _WIDEST_L2) if norm == "l2" else top

    def radius_settings(self) -> RadiusSettings:
        """Resolve how to search; the end of the bracket is the radius of the attack."""
        norm, top = self.threat_model()
        known = dataclasses.fields(settings_type(find(self.attack)))
        steps = {"steps": _STEPS} if any(each.name == "steps" for each in known) else {}
        options = {**steps, **self.attack_options}
        chosen = attack_settings(self.attack, options, eps=top, norm=norm, randomness="fixed")
        refuse_two_gradients(self.attack, chosen, self.gradient)
        return RadiusSettings(
            attack=self.attack, settings=chosen, bisections=self.bisections, search=self.search
        )

    def load(self) -> LoadedSurvival:
        """Load what is attacked, its images, and how to search."""
        search, radii = self.radius_settings(), None
        norm = search.settings.norm
        if self.eps is not None:
            radii = several(
                self.eps, lambda one: parse_eps(one, norm), "epsilons", "write 2/255,4/255"
            )
        check_engines(self.cross_check, plain=self.box == "unit")
        loaded = super().load()
        target = loaded.defense
        if self.at == "anchor":
            target = load_defense(
                "none",
                self.dataset,
                tile=self.tile,
                precision=self.precision,
                **self.judging(),
            ).to(self.device)
        elif self.box == "free" and len(loaded.purifier.chain):
            raise BadInput(
                "box free at clean images",
                f"leaves what {self.defense} takes",
                "use box unit, or anchor",
            )
        refuse_idle_average(self.attack, search.settings, self.attack_options, target)
        known = fields_of(LoadedModel, loaded)
        return LoadedSurvival(**known, target=target, search=search, radii=radii)

    def describe(self, model: Defense, images: Images, xi: RandomnessConfig) -> dict[str, Any]:
        """Return what the rows depend on, as JSON values."""
        norm, top = self.threat_model()
        chosen = self.radius_settings().settings
        return {
            "at": self.at,
            "threat_model": {"norm": norm, "top": top, "box": self.box},
            "search": fields_of(SearchSettings, self),
            "attack": {"name": self.attack, **dataclasses.asdict(chosen)},
            "defense": describe(model),
            "randomness": {"seed": self.seed, "scheme": self.scheme} if model.is_random else None,
        }

    def cost(self, loaded: LoadedModel) -> Cost:
        """Estimate the most that a run can cost; images that are decided early take less."""
        assert isinstance(loaded, LoadedSurvival)
        view, images = loaded.target.at(xi=loaded.xi), loaded.images.images
        return estimate(view, images[:8], len(images), *loaded.search.most_passes)

    def measure(self, session: Session[LoadedModel]) -> None:
        """Search every image's smallest perturbation, then run the other attacks beside it."""
        loaded, store = session.loaded, session.store
        assert isinstance(loaded, LoadedSurvival)
        size = loaded.target.tile or 32
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ZeroGradientWarning)  # every row says so itself
            for batch in session.batches(loaded.images, SURVIVAL_SCHEMA, size):
                store.append(SURVIVAL_SCHEMA.table, list(self._search(loaded, batch)))
        for engine in self.cross_check:
            seen = {i for name, i in store.done(CROSS_CHECK_SCHEMA.table) if name == engine}
            for batch in chunks(loaded.images, session.batch_size or size, seen):
                points = self._points(loaded, batch).points
                model = loaded.target.at(ids=batch.ids, xi=loaded.xi)
                norm = loaded.search.settings.norm
                norms = minimum_norms(model, points, batch.labels, engine, norm)
                others = zip(batch.ids.tolist(), norms, strict=True)
                store.append(
                    CROSS_CHECK_SCHEMA.table,
                    [{"engine": engine, "id": i, "upper": upper} for i, upper in others],
                )

    def _points(self, loaded: LoadedSurvival, batch: Images) -> Points:
        if self.at == "clean":
            return clean_points(batch)
        return anchor_points(loaded.defense, batch, loaded.xi, self.box)

    def _search(self, loaded: LoadedSurvival, batch: Images) -> Iterator[dict[str, Any]]:
        """Search a batch and yield its records."""
        where, search = self._points(loaded, batch), loaded.search
        model = loaded.target.at(ids=batch.ids, xi=loaded.xi)
        if self.box == "unit":
            radii = minimum_radii(model, where.points, batch.labels, search, ids=batch.ids)
        else:
            radii = search_free(model, where.points, batch, search)
        for row, moved, clipped in zip(radii, where.moved, where.clipped, strict=True):
            yield {**row._asdict(), "moved": moved, "clipped": clipped}

    @classmethod
    def report(cls, store: RecordStore) -> SurvivalReport:
        """Compute the report of a run from its records alone.

        Raises:
            BadInput: for a run without a row.
        """
        records, settings = store.rows(SURVIVAL_SCHEMA.table), store.settings
        result = SurvivalResult.from_records(records, settings)
        others = store.rows(CROSS_CHECK_SCHEMA.table)
        top = settings["threat_model"]["top"]
        resolution = top / 2 ** settings["search"]["bisections"]
        checks = tuple(
            compare(result.rows, others, engine, resolution)
            for engine in dict.fromkeys(row["engine"] for row in others)
        )
        clipped = max((row["clipped"] or 0.0 for row in records), default=0.0)
        return SurvivalReport(
            run=store.folder,
            settings=settings,
            result=result,
            radii=tuple(top * k / _PARTS for k in range(_PARTS + 1)),
            checks=checks,
            notes=tuple(_notes(result, settings, resolution, checks, clipped)),
        )

    def after(self, report: SurvivalReport, loaded: LoadedModel) -> SurvivalReport:
        """Read survival where it was asked for."""
        assert isinstance(loaded, LoadedSurvival)
        return dataclasses.replace(report, radii=loaded.radii or report.radii)


def _notes(
    result: SurvivalResult,
    settings: dict[str, Any],
    resolution: float,
    checks: tuple[CrossCheck, ...],
    clipped: float,
) -> list[str]:
    notes = []
    if result.censored:
        notes.append(
            f"{result.censored} of {result.n} images were not fooled up to the end of the bracket; "
            "survival beyond it is unknown, a larger --top would tell"
        )
    blind = sum(row.zero_gradient for row in result.rows)
    if blind:
        notes.append(
            f"{blind} of {result.n} images had an exactly zero first gradient: the attack was "
            "blind there, which is no robustness; try --loss margin"
        )
    if result.misses:
        notes.append(
            f"{result.misses} attacks failed at a radius where a smaller perturbation exists: the "
            "attack is not exhaustive, and the true radii are smaller still"
        )
    if result.resolution > 2 * resolution:
        notes.append(
            f"the widest interval is {result.resolution:.3g}, not {resolution:.3g}: the attack "
            "found less at larger radii than at smaller ones"
        )
    if result.fit is not None and result.resolution > 2 * result.fit.std:
        notes.append(
            f"radii are known to {result.resolution:.3g} only, and the fit spreads them by "
            f"{result.fit.std:.3g}: it is a guess within the intervals; a larger --bisections "
            "would tell"
        )
    if clipped > 0.05:
        notes.append(
            f"anchor points were clipped to [0, 1] by up to {clipped:.3g}; --box free leaves them"
        )
    notes += [
        f"{check.engine} found smaller perturbations on average: the search is too weak here"
        for check in checks
        if check.difference_interval is not None and check.difference_interval.low > 0.0
    ]
    if result.n < settings["n"]:
        notes.append(f"{result.n} of {settings['n']} images are done; the same command goes on")
    return notes
