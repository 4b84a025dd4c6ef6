"""How robust is a defense? Clean images, noise in the ball, an attack, all recorded."""

import dataclasses
import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, cast

from torch import Tensor

from advpure.analysis.robustness.attack_choice import (
    attack_settings,
    refuse_idle_average,
    refuse_idle_randomness,
    refuse_two_gradients,
)
from advpure.analysis.robustness.protocol import (
    ADVERSARIAL,
    ATTACKS,
    CLAIMS,
    CLEAN,
    DECISIONS,
    NOISE,
    RUNGS,
    Attack,
    Decisions,
    StageSummary,
    evaluate,
    finished,
    latest,
    sampled,
    summarize,
)
from advpure.analysis.robustness.settings import RobustnessSettings
from advpure.analysis.robustness.timed import (
    Deadline,
    RungCount,
    bound_words,
    climb_rungs,
    depth_of,
    is_decided,
    rung_counts,
)
from advpure.analysis.robustness.wording import (
    Claim,
    attack_notes,
    attack_text,
    few_draws_note,
    idle_note,
    library_notes,
    randomness_text,
    strength_text,
)
from advpure.analysis.study import Columns, DefenseStudy, LoadedModel, Report, Session
from advpure.analysis.until import OTHER, Adaptive, Standing, standing_of, stopping
from advpure.attacks import transfer, uniform_noise
from advpure.attacks.crossing import refuse_own_source
from advpure.attacks.engines.contract import is_engine
from advpure.attacks.noise import NoiseSettings
from advpure.attacks.outcome import AttackResult
from advpure.attacks.registry import find
from advpure.attacks.settings import AttackSettings
from advpure.attacks.standard import MEMBERS, StandardSettings
from advpure.base.display import Display, Table, percent_interval
from advpure.base.errors import BadInput
from advpure.base.flags import Beside, Flag
from advpure.base.units import Norm
from advpure.core.defense import Defense
from advpure.core.randomness import RandomnessConfig
from advpure.loading import describe
from advpure.runs.cost import Cost, estimate
from advpure.runs.records import RecordStore
from advpure.runs.schema import Schema
from advpure.statistics.estimates import Estimate
from advpure.statistics.rates import Rate, mean_interval, wilson

CLOCK: Callable[[], float] = time.monotonic
"""What a budget of time is measured by."""
_RATES = ("one_shot", "mean", "worst", "majority")


@dataclass(frozen=True, kw_only=True)
class RobustnessReport(Report):
    """The result of a run, computed from its records.

    Attributes:
        n: Number of images.
        stages: ``clean``, ``noise`` and ``adversarial`` accuracies.
        blind: Images whose first gradient was exactly zero.
        lost: Images that an earlier iterate fooled and the returned one does not.
        members: Of an ensemble, how many images each member fooled.
        left: Images that the attack did not fool in its own test.
        right: Of every stage the decisions of each image, whether they are right.
        standing: Of a run with a goal, where it stands; then all numbers are those of its images.
        claims: Of an attack of another library what that says of each image; else empty.
        audit: What the checks that cost nothing say, in a line.
        rungs: Of an attack within an amount of time, how far its images came.
    """

    n: int
    stages: dict[str, StageSummary]
    blind: int
    lost: int
    members: Mapping[str, int]
    left: int
    right: Mapping[str, Mapping[int, tuple[bool, ...]]]
    standing: Standing | None = None
    claims: Mapping[int, Claim] = field(default_factory=dict)
    audit: str = ""
    rungs: tuple[RungCount, ...] = ()

    @property
    def bound(self) -> str:
        """That time ended the attack before it had attacked all that was left, or nothing."""
        words = next(bound_words(self.rungs), "")
        return f" (bounded by its budget of time: {words})" if words else ""

    @property
    def headline_rate(self) -> str:
        """Which accuracy to quote: the one decision if fixed, the mean over draws if not."""
        return "one_shot" if self.settings["decisions"]["randomness"] == "fixed" else "mean"

    def headline(self, stage: str) -> Rate:
        """Return the accuracy to quote."""
        rate: Rate = getattr(self.stages[stage], self.headline_rate)
        return rate

    def estimate(self, stage: str, rate: str, **more: Any) -> Estimate:
        """Return an accuracy of a stage with the images behind it; a majority has none."""
        shares = {
            "one_shot": lambda right: float(right[0]),
            "mean": lambda right: sum(right) / len(right),
            "worst": lambda right: float(all(right)),
        }
        by_image = None
        if rate in shares:
            by_image = {i: shares[rate](right) for i, right in self.right[stage].items()}
        accuracy: Rate = getattr(self.stages[stage], rate)
        more = {"anytime": self.standing is not None, **more}
        return Estimate.of(accuracy, by_image, **more)

    def tree(self) -> dict[str, Any]:
        """Return the accuracies; the interval on top is that of the robust accuracy."""
        clean, noise, robust = (
            self.estimate(stage, self.headline_rate, style="alone")
            for stage in (CLEAN, NOISE, ADVERSARIAL)
        )
        assert robust.interval is not None
        return {
            "clean_accuracy": clean,
            "noise_accuracy": noise,
            "robust_accuracy": robust,
            "n": self.n,
            "interval": list(robust.interval),
            "stages": {
                stage: {rate: self.estimate(stage, rate) for rate in _RATES}
                for stage in self.stages
            },
            "zero_gradient": self.blind,
            "silent_success": self.lost,
            **({"fooled_by": dict(self.members)} if self.members else {}),
            **({"until": self.standing.tree()} if self.standing else {}),
            **({"library": self.library()} if self.claims else {}),
            **({"rungs": [dataclasses.asdict(each) for each in self.rungs]} if self.rungs else {}),
        }

    def library(self) -> dict[str, Any]:
        """Return what another library says: its accuracy, and by how much ours is above that."""
        kept = {i: float(not claim.fooled) for i, claim in self.claims.items()}
        ours = self.estimate(ADVERSARIAL, self.headline_rate).images() or {}
        above = {i: ours[i] - kept[i] for i in kept.keys() & ours.keys()}
        return {
            "says": Estimate.of(wilson(round(sum(kept.values())), len(kept)), kept),
            "difference": Estimate.of(mean_interval(list(above.values()), within=(-1, 1)), above),
            "outside": sum(claim.is_moved for claim in self.claims.values()),
            "ended_by_budget": sum(claim.ended for claim in self.claims.values()),
        }

    def display(self) -> Display:
        """Return the accuracies of the three stages."""
        s = self.settings
        model, draws = s["threat_model"], s["decisions"]["draws"]
        headline = (
            f"{s['dataset']}, {model['norm']} {model['eps']:.4g}, defense "
            f"{strength_text(s['defense'])}, attack {attack_text(s)}, {randomness_text(s)}: "
            f"robust accuracy {percent_interval(self.headline(ADVERSARIAL))} % on {self.n} images"
            f"{self.bound}"
        )
        if self.standing is not None:
            headline += f" ({self.standing.words})"
        columns = {
            "one_shot": "accuracy %" if draws == 1 else "one-shot %",
            "mean": "mean over draws %",
            "worst": f"worst of {draws} %",
            "majority": "majority vote %",
        }
        names = _RATES[:1] if draws == 1 else _RATES
        rows = [
            [
                stage,
                *(percent_interval(getattr(self.stages[stage], name)) for name in names),
                str(self.n),
            ]
            for stage in (CLEAN, NOISE, ADVERSARIAL)
        ]
        parts: list[Table | str] = [Table(("images", *(columns[n] for n in names), "n"), rows)]
        if self.members:
            by = [[name, str(count)] for name, count in self.members.items()]
            parts.append(Table(("fooled by", "images"), by))
        if self.rungs:
            heads = ("evaluations at most", "attacked", "of", "fooled")
            counts = ((e.budget, e.attacked, e.of, e.fooled) for e in self.rungs)
            parts.append(Table(heads, [[str(each) for each in row] for row in counts]))
        if self.claims:
            told = self.library()
            values = [percent_interval(told[key]) for key in ("says", "difference")]
            heads = (s["attack"]["library"], "says %", "decided here minus that %", "n")
            parts.append(Table(heads, [["adversarial", *values, str(len(self.claims))]]))
        if self.audit:
            parts.append(self.audit)
        return Display(headline, tuple(parts))


@dataclass(frozen=True, kw_only=True)
class LoadedRobustness(LoadedModel):
    """A run that is checked and loaded.

    Attributes:
        attacks: The stages beside clean images.
        attack_settings: The resolved settings of the attack.
        decisions: The protocol.
        others: Of a run that is to be better than another, what that has of each image.
        depth: Rungs of an attack within an amount of time, at most; None for all.
        is_timed: Whether the clock may end it.
    """

    attacks: Mapping[str, Attack]
    attack_settings: AttackSettings
    decisions: Decisions
    others: Mapping[int, float] | None = None
    depth: int | None = None
    is_timed: bool = True


@dataclass(frozen=True, kw_only=True)
class Robustness(Adaptive, RobustnessSettings, DefenseStudy[RobustnessReport]):
    """Attack a defense; print clean, noise-only and robust accuracy with 95 % intervals.

    Records go into a run folder; the same command goes on where an interrupted run stopped.

    Example: advpure attack --defense ddpm --t 100 --fix-random --eps 0.1 -n 50

    Attributes:
        keep_images: Keep clean, attacked and purified images, and draw RUN/images.png.
    """

    verb: ClassVar[str] = "attack"
    keyed: ClassVar[frozenset[str]] = frozenset({"seed", "scheme"})
    doing: ClassVar[str] = "attacking"
    shorter: ClassVar[str] = '-n, --until "width 10", --budget 500 or --draws'
    tables: ClassVar[tuple[Schema, ...]] = (DECISIONS, ATTACKS)
    columns: ClassVar[Columns] = {
        "clean": {"at": "clean_accuracy", "unit": "percent"},
        "robust": {"at": "robust_accuracy", "unit": "percent"},
    }

    keep_images: Annotated[bool, Flag("--save-images"), Beside()] = False

    def load(self) -> LoadedRobustness:
        """Load the defense and its images, and resolve threat model, attack and protocol."""
        norm, eps = self.threat_model()
        fixed = self.randomness == "fixed"
        xi = self.xi
        defense = self.load_defense(xi)
        if fixed:
            defense.check_controlled()
        draws = self.draws or (1 if fixed or not defense.is_random else 10)
        decisions = Decisions(randomness=self.randomness, draws=draws)
        if not defense.is_random:
            refuse_idle_randomness(defense.purifier.name, draws, self.source_seed)
        found = self.load_images()
        name = self.attack_name
        run = find(name)
        chosen = attack_settings(
            name,
            self.all_attack_options,
            eps=eps,
            norm=norm,
            randomness=self.randomness,
            is_random=defense.is_random,
        )
        refuse_two_gradients(name, chosen, self.gradient)
        rungs = self._rungs(chosen)
        refuse_idle_average(name, chosen, self.all_attack_options, defense)
        resolved = {
            "threat_model": {"norm": norm, "eps": eps},
            "defense": describe(defense),
            "attack": {"name": name, **dataclasses.asdict(chosen)},
            "protocol": self.protocol,
            "is_random": defense.is_random,
            "source_seed": self.source_seed,
            "decisions": dataclasses.asdict(decisions),
            "randomness": {"seed": self.seed, "scheme": self.scheme},
            **({RUNGS: list(rungs)} if rungs else {}),
        }
        others = self.reference(found, self.identity("attack", found) | resolved)
        images = self.in_order(found, others)
        identity = {**self.identity("attack", images), **resolved, **self.asked(others)}
        return LoadedRobustness(
            settings=identity,
            context=self.context(defense, identity["defense"]),
            samples=images.ids.tolist(),
            model=defense,
            images=images,
            xi=xi,
            attacks=self._attacks(run, chosen, eps, norm),
            attack_settings=chosen,
            decisions=decisions,
            others=others,
        )

    def _rungs(self, chosen: AttackSettings) -> tuple[int, ...]:
        """Return the budgets of a standard attack within an amount of time, else nothing."""
        if self.seconds is None:
            return ()
        if self.until is not None:
            rule = f"does not go with until {self.until!r}, which attacks image by image"
            raise BadInput(f"budget {self.budget}", rule, "give evaluations, or leave out one")
        return chosen.rungs if isinstance(chosen, StandardSettings) else ()

    def as_recorded(
        self, loaded: LoadedModel, store: RecordStore, sample: int | None
    ) -> LoadedRobustness:
        """Return what attacks an image as far as records say, whatever the clock says."""
        assert isinstance(loaded, LoadedRobustness)
        return dataclasses.replace(loaded, depth=depth_of(store, sample), is_timed=False)

    def is_whole(self, loaded: LoadedModel, store: RecordStore) -> bool:
        """Return whether every image is decided, where time may end the attack before."""
        return self.seconds is None or is_decided(store, loaded.images)

    @classmethod
    def outcomes(cls, store: RecordStore) -> dict[int, float]:
        """Return of every image that is done the share of decisions that the attack leaves right.

        That is the first decision where randomness is fixed.
        """
        done = finished(store, [NOISE, ADVERSARIAL])
        right: dict[int, list[bool]] = {}
        for row in store.rows(DECISIONS.table, {"stage": ADVERSARIAL}):
            if row["sample"] in done:
                right.setdefault(row["sample"], []).append(row["correct"])
        fixed = store.settings["decisions"]["randomness"] == "fixed"
        return {i: float(each[0]) if fixed else sum(each) / len(each) for i, each in right.items()}

    def stopping(self, loaded: LoadedModel, store: RecordStore) -> Callable[[], bool]:
        """Return whether the goal is reached."""
        assert isinstance(loaded, LoadedRobustness)
        return stopping(store, lambda: self.outcomes(store), loaded.others)

    def layouts(self, loaded: LoadedModel) -> tuple[Schema, ...]:
        """Return the tables, with those of a run to be beaten and of what another library says."""
        assert isinstance(loaded, LoadedRobustness)
        other = () if loaded.others is None else (OTHER,)
        return (*self.tables, *other, *((CLAIMS,) if is_engine(self.attack_name) else ()))

    def _attacks(
        self, run: Any, chosen: AttackSettings, eps: float, norm: Norm
    ) -> Mapping[str, Attack]:
        """Return the attack, and uniform noise in the same ball."""
        source = self._source()
        noise = NoiseSettings(eps=eps, norm=norm, randomness=self.randomness)

        def attack(model: Defense, x: Tensor, y: Tensor, ids: Tensor) -> AttackResult:
            if source is not None:
                return transfer(run, model, x, y, chosen, source_xi=source, ids=ids)
            result: AttackResult = run(model, x, y, chosen, ids=ids)
            return result

        def baseline(model: Defense, x: Tensor, y: Tensor, ids: Tensor) -> AttackResult:
            return uniform_noise(model, x, y, noise, ids=ids)

        return {NOISE: baseline, ADVERSARIAL: attack}

    def _source(self) -> RandomnessConfig | None:
        """Return the randomness under which a transferred attack is crafted."""
        if self.source_seed is None:
            return None
        if self.randomness != "fixed":
            raise BadInput("a source seed", "needs fixed randomness", "use --fix-random")
        source = RandomnessConfig(self.source_seed, self.scheme)
        refuse_own_source(source, self.xi)
        return source

    def describe(self, model: Any, images: Any, xi: RandomnessConfig) -> dict[str, Any]:
        """Return nothing: `load` resolves all at once."""
        return {}

    def cost(self, loaded: LoadedModel) -> Cost:
        """Estimate the cost of attack and decisions."""
        assert isinstance(loaded, LoadedRobustness)
        passes, draws = loaded.attack_settings.most_passes, loaded.decisions.draws
        cost = estimate(
            loaded.defense.at(xi=sampled(loaded.xi)),
            loaded.images.images[:8],
            len(loaded.images.ids),
            passes.forwards + 3 * draws + 1,
            passes.backwards,
        )
        return dataclasses.replace(cost, seconds=min(cost.seconds, self.seconds or math.inf))

    def measure(self, session: Session[LoadedModel]) -> None:
        """Decide clean images, noise and attacked images, batch by batch."""
        loaded, batch_size = session.loaded, session.batch_size
        assert isinstance(loaded, LoadedRobustness)
        tiles, enough = 8 if self.until is None else 2, session.enough
        if self.seconds is not None:
            tiles, limit = 1, self.seconds if loaded.is_timed else math.inf
            enough = Deadline(limit, clock=CLOCK)
        if batch_size is None:
            batch_size = tiles * (loaded.model.tile or 32)
        with _told_in_notes():
            if RUNGS in loaded.settings:
                climb_rungs(
                    loaded.defense,
                    loaded.images,
                    cast(StandardSettings, loaded.attack_settings),
                    loaded.attacks[NOISE],
                    loaded.decisions,
                    session.store,
                    batch_size=batch_size,
                    over=enough,
                    depth=loaded.depth,
                    keep_images=self.keep_images,
                    progress=session.progress,
                )
                return
            evaluate(
                loaded.defense,
                loaded.images,
                loaded.attacks,
                loaded.decisions,
                session.store,
                batch_size=batch_size,
                keep_images=self.keep_images,
                progress=session.progress,
                enough=enough,
            )

    @classmethod
    def report(cls, store: RecordStore) -> RobustnessReport:
        """Compute the report of a run from its records alone."""
        standing = standing_of(store, cls.outcomes(store))
        used = None if standing is None else set(standing.used)
        right: dict[str, dict[int, tuple[bool, ...]]] = {}
        for row in latest(store, DECISIONS.table):
            if used is not None and row["sample"] not in used:
                continue
            images = right.setdefault(row["stage"], {})
            images[row["sample"]] = (*images.get(row["sample"], ()), row["correct"])
        rows = [
            row
            for row in latest(store, ATTACKS.table, ADVERSARIAL)
            if used is None or row["sample"] in used
        ]
        members: dict[str, int] = {}
        for row in rows:
            if row["member"] and row["fooled"]:
                members[row["member"]] = members.get(row["member"], 0) + 1
        report = RobustnessReport(
            run=store.folder,
            settings=store.settings,
            n=len(rows),
            stages=_stages(store, standing),
            blind=sum(row["zero_gradient"] for row in rows),
            lost=sum(row["lost"] for row in rows),
            members=dict(sorted(members.items(), key=lambda item: MEMBERS.index(item[0]))),
            left=sum(not row["fooled"] for row in rows),
            right=right,
            standing=standing,
            claims=_claims(store),
            audit=_audited(store),
            rungs=rung_counts(store),
        )
        return report.with_notes(*_notes(report))

    @classmethod
    def draw(cls, store: RecordStore, path: Path) -> Path:
        """Draw the margins of the decisions."""
        from advpure.analysis.robustness.figure import robustness_figure

        return robustness_figure(store, path)

    def pictures(
        self, report: RobustnessReport, loaded: LoadedModel, plot: Path | None
    ) -> dict[str, Any]:
        """Draw the margins, and the images where they are kept."""
        drawn = super().pictures(report, loaded, plot)
        if self.keep_images:
            from advpure.analysis.robustness.figure import attacked_images

            with RecordStore.read(report.run) as store:
                drawn["images"] = str(attacked_images(store))
        return drawn


def _stages(store: RecordStore, standing: Standing | None) -> dict[str, StageSummary]:
    """Return the accuracies of every stage; of a run with a goal those of the images it used."""
    if standing is None:
        return summarize(store)
    stages = summarize(store, standing.used, standing.estimate)
    fixed = store.settings["decisions"]["randomness"] == "fixed"
    which = "one_shot" if fixed else "mean"
    asked = dataclasses.replace(stages[ADVERSARIAL], **{which: standing.rate})
    return {**stages, ADVERSARIAL: asked}


def _claims(store: RecordStore) -> dict[int, Claim]:
    """Return what another library said of each image, where it was one that attacked."""
    if CLAIMS.table not in {schema.table for schema in store.schemas}:
        return {}
    rows = store.rows(CLAIMS.table, {"stage": ADVERSARIAL})
    return {row["sample"]: Claim(row["fooled"], row["excess"], row["ended"]) for row in rows}


@contextmanager
def _told_in_notes() -> Iterator[None]:
    """Hold back the warnings of zero gradients, of which the report says how many there were."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for other in caught:
        if other.category.__name__ != "ZeroGradientWarning":
            warnings.warn_explicit(other.message, other.category, other.filename, other.lineno)


def _audited(store: RecordStore) -> str:
    """Return the verdicts of the checks that cost nothing, in a line."""
    from advpure.analysis.audit.free import free_findings, in_one_line  # which reads such runs

    return in_one_line(free_findings(store))


def _notes(report: RobustnessReport) -> Iterator[str]:
    if report.blind:
        yield (
            f"{report.blind} of {report.n} images had an exactly zero gradient: the attack was "
            "blind there, which is no robustness; try --loss margin or --gradient bpda"
        )
    yield from attack_notes(report.settings, report.lost, report.left)
    if report.claims:
        ours = report.estimate(ADVERSARIAL, report.headline_rate).images() or {}
        yield from library_notes(report.settings, report.claims, ours)
    yield from few_draws_note(report.settings)
    yield from idle_note(report.settings)
    robust, noise = report.headline(ADVERSARIAL), report.headline(NOISE)
    if robust.value >= noise.value > 0:
        yield (
            "the attack did no better than uniform noise in the ball: suspect the attack, not the "
            "defense"
        )
    if report.bound:
        yield (
            "the budget of time ended the attack, so this is a bound from above that more time may "
            "lower; the same command goes on"
        )
    asked = report.settings["n"]
    if report.n < asked and report.standing is None:
        yield f"{report.n} of {asked} images are done; the same command goes on"
