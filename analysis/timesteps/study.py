"""Accuracy and compression over the whole range of time steps ([Wei2025], figure S6).

For every t the compression rate and one decision on clean images and on noise in the ball, all
under one fixed configuration, and, where it is asked for, on images attacked under that same
configuration. Each is a run of `advpure cr` or `advpure attack` in a folder within the run folder,
resumable by itself; what the curve needs is copied into the records.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Annotated, Any, ClassVar

from advpure.analysis.compression.noising import default_strength
from advpure.analysis.compression.result import COMPRESSION_SCHEMA
from advpure.analysis.compression.study import Compression
from advpure.analysis.robustness.protocol import ADVERSARIAL, CLEAN, DECISIONS, NOISE
from advpure.analysis.robustness.study import Robustness
from advpure.analysis.robustness.wording import attack_text
from advpure.analysis.study import LoadedModel, Report, Session, Shard, Study, cost_of
from advpure.analysis.subject import Attacked, DefenseSubject, Seeded, Subject
from advpure.analysis.timesteps.result import TIMES, Timestep, rises, timestep
from advpure.base.display import Display, Table, ends, number, percent_interval
from advpure.base.errors import BadInput
from advpure.base.flags import Flag
from advpure.base.idle import refuse_idle
from advpure.base.kinds import Natural, Strength
from advpure.base.text import several
from advpure.base.units import parse_eps
from advpure.base.validation import fields_of
from advpure.loading import make_recipe
from advpure.options import purifier_options
from advpure.runs.cost import Cost
from advpure.runs.records import RecordStore
from advpure.runs.schema import Row, Schema
from advpure.statistics.repeated import means_by_image

TIME_STEPS = (1, 2, 5, 10, 20, 50, 100, 150, 200, 300, 500, 750, 1000)
_UNATTACKED = "uniform-noise"
_COMPRESSION = ("eps", "distribution", "perturbations", "clip", "dtype")
_CALIBRATED = 10  # network evaluations of the chain that is timed for an estimate


@dataclass(frozen=True, kw_only=True)
class TimestepReport(Report):
    """The result of a run, computed from its records.

    Attributes:
        steps: The finished time steps, ascending.
    """

    steps: tuple[Timestep, ...]

    def tree(self) -> dict[str, Any]:
        """Return one row a time step."""
        names = ("clean", "noise", "attacked", "cr")
        return {
            "n": self.steps[0].clean.n,
            "rows": [
                {"t": step.t, **{name: step.estimate(name) for name in names}}
                for step in self.steps
            ],
        }

    def display(self) -> Display:
        """Return accuracies and compression rate at every time step."""
        s, steps = self.settings, self.steps
        model = s["threat_model"]
        rates = {step.t: step.cr.value for step in steps if step.cr is not None}
        lowest = min(rates, key=rates.__getitem__, default=0)
        attacked_by = f", attack {attack_text(s)}" if s["attack"] else ""
        headline = (
            f"{s['dataset']}, {model['norm']} {model['eps']:.4g}, defense "
            f"{s['defense']['purifier']}, fixed randomness (seed {s['randomness']['seed']}), t = "
            f"{steps[0].t} to {steps[-1].t}" + attacked_by + ": "
        )
        headline += (
            f"lowest compression rate {rates[lowest]:.4f} at {lowest}"
            if rates
            else "no compression rate"
        )
        rows = [
            [
                str(step.t),
                *(percent_interval(rate) for rate in (step.clean, step.noise, step.attacked)),
                number(step.cr and step.cr.value, ".4f"),
                ends(step.cr, ".4f"),
                str(step.clean.n),
            ]
            for step in steps
        ]
        attacked = f"{s['attack']['name']} %" if s["attack"] else "attacked %"
        heads = ("t", "clean %", "noise %", attacked, "compression rate", "95 % of the mean", "n")
        return Display(headline, (Table(heads, rows),))


@dataclass(frozen=True, kw_only=True)
class LoadedTimesteps(LoadedModel):
    """A curve that is checked, with the networks of its first time step loaded.

    Attributes:
        evaluations: Network evaluations of one purification at each time step.
    """

    evaluations: dict[int, int]


@dataclass(frozen=True, kw_only=True)
class Timesteps(Attacked, Seeded, DefenseSubject, Study[LoadedTimesteps, TimestepReport]):
    """Print accuracy and compression rate at every time step, under one fixed configuration.

    Example: advpure timesteps --defense reverse --attack-times 1,10,100 -n 20 --plot times.png

    Attributes:
        times: Time steps, a list.
        attack_times: Those at which images are attacked, a list. Default: none.
        cr_eps: Strength of the compression rate's perturbations, e.g. 8/255. Default:
            the data set's radius.
        perturbations: Perturbations per image and time step.
    """

    verb: ClassVar[str] = "timesteps"
    doing: ClassVar[str] = "time steps"
    shorter: ClassVar[str] = "-n, --times or --perturbations"
    tables: ClassVar[tuple[Schema, ...]] = (TIMES,)
    figure: ClassVar[str] = "advpure.analysis.timesteps.figure:timesteps_figure"
    of_defense: ClassVar[bool] = True
    unused: ClassVar[Mapping[str, str]] = {"t": "give times", "sigma": "give times"}

    defense: Annotated[str, Flag("--defense", "-d")] = "ddpm"
    times: tuple[Natural, ...] = TIME_STEPS
    attack_times: tuple[Natural, ...] = ()
    cr_eps: Strength | None = None
    perturbations: Natural = 10

    def __post_init__(self) -> None:
        """Check every field, and the times among each other."""
        super().__post_init__()
        strength = default_strength(self.dataset) if self.cr_eps is None else self.cr_eps
        object.__setattr__(self, "cr_eps", parse_eps(strength))
        several(self.times, int, "times", "use 1,10,100")
        for name in self.unused.keys() & self.options.keys():
            rule = "fixes what this verb varies"
            raise BadInput(f"{name} {self.options[name]}", rule, "give times instead")
        if not self.attack_times:
            names = ("attack", "attack_options", "gradient")
            fix = "add attack times, or leave it out"
            refuse_idle(self, names, "means nothing without attack times", fix)
            return
        for t in several(self.attack_times, int, "attack times", "use 1,10,100"):
            if t not in self.times:
                raise BadInput(f"attack time {t}", "is not among the times", "add it to them")

    def compression(self, t: int) -> Compression:
        """Return the compression run at one time step."""
        shared = {**fields_of(Subject, self), "t": t}
        return Compression(
            **shared, eps=self.cr_eps, perturbations=self.perturbations, seeds=self.seed
        )

    def robustness(self, t: int) -> Robustness:
        """Return the robustness run at one time step."""
        shared = {**fields_of(DefenseSubject, self), **fields_of(Attacked, self), "seed": self.seed}
        if t not in self.attack_times:
            shared |= {"attack": _UNATTACKED, "attack_options": {}, "gradient": None}
        return Robustness(**{**shared, "t": t, "randomness": "fixed"})

    def load(self) -> LoadedTimesteps:
        """Check every time step and load what the first needs."""
        first = self.robustness(self.times[0]).load()
        attacked = self.robustness(self.attack_times[0]).load() if self.attack_times else None
        compression = self.compression(self.times[0]).load().settings
        evaluations = {}
        for t in self.times:
            options = purifier_options(self.defense, self.options, t=t)
            chain = first.purifier.laid_out(make_recipe(self.defense, options))
            evaluations[t] = chain.evaluations
        settings = {
            **self.identity(self.verb, first.images),
            "defense": {
                **{k: v for k, v in first.settings["defense"].items() if k != "t"},
                "gradient": (attacked or first).settings["defense"]["gradient"],
            },
            "threat_model": first.settings["threat_model"],
            "attack": attacked and attacked.settings["attack"],
            "randomness": first.settings["randomness"],
            "times": list(self.times),
            "attack_times": list(self.attack_times),
            "compression": {name: compression[name] for name in _COMPRESSION},
        }
        known = {**fields_of(LoadedModel, first), "settings": settings}
        return LoadedTimesteps(**known, evaluations=evaluations)

    def share(self, loaded: LoadedTimesteps, shard: Shard) -> LoadedTimesteps:
        """Return every k-th image, from the i-th; see `LoadedModel.share`."""
        return loaded.share(shard)

    def total(self, loaded: LoadedTimesteps) -> int:
        """Return the units of work: an image at a time step, for each of its two runs."""
        return 2 * len(loaded.images.ids) * len(self.times)

    def cost(self, loaded: LoadedTimesteps) -> Cost:
        """Estimate the cost of a curve from one calibrated time step, by network evaluations.

        The step that is timed is the shortest one with at least 10 evaluations, so that an estimate
        takes seconds where t = 1000 takes minutes.
        """
        cost = loaded.evaluations
        by_cost = sorted(cost, key=cost.__getitem__)
        timed = next((t for t in by_cost if cost[t] >= _CALIBRATED), by_cost[-1])
        plain = replace(self, attack="pgd", attack_options={}, gradient=None, attack_times=())
        shard = loaded.shard
        parts = {False: cost_of(plain.robustness(timed), shard)}
        if self.attack_times:
            attacked = replace(self, attack_times=(timed,))
            parts[True] = cost_of(attacked.robustness(timed), shard)
        rates = cost_of(self.compression(timed), shard)
        evaluations, backwards, seconds = 0.0, 0, 0.0
        for t in self.times:
            part = parts[t in self.attack_times]
            for each, classified in ((part, 1), (rates, 0)):
                scale = (cost[t] + classified) / max(cost[timed] + classified, 1)
                evaluations += each.evaluations * scale
                seconds += each.seconds * scale
                backwards += each.backwards
        peak = max(each.peak_memory for each in (rates, *parts.values()))
        return Cost(len(loaded.images.ids), round(evaluations), backwards, seconds, peak)

    def measure(self, session: Session[LoadedTimesteps]) -> None:
        """Measure time step after time step, each with two runs of its own."""
        n, done = len(session.loaded.images.ids), 0
        for t in self.times:
            session.progress(done)
            if session.store.count(TIMES.table, {"t": t}) < n:
                session.store.append(TIMES.table, self._rows(session, t, done))
            done += 2 * n
        session.progress(done)

    def _rows(self, session: Session[LoadedTimesteps], t: int, done: int) -> list[Row]:
        """Run both verbs at one time step, or go on with them; return what every image came to."""
        progress, n = session.progress, len(session.loaded.images.ids)
        rates, robust = (session.store.folder / f"{name}-{t}" for name in ("cr", "attack"))
        self.compression(t).run(
            out=rates,
            batch_size=session.batch_size,
            progress=lambda count: progress(done + count // self.perturbations),
            shard=session.loaded.shard,
        )
        self.robustness(t).run(
            out=robust,
            batch_size=session.batch_size,
            progress=lambda count: progress(done + n + count),
            shard=session.loaded.shard,
        )
        with RecordStore.read(rates) as own:
            every = own.rows(COMPRESSION_SCHEMA.table)
        by_image = means_by_image((row["id"], row["rate"]) for row in every)
        right: dict[str, dict[int, bool]] = {}
        with RecordStore.read(robust) as own:
            for row in own.rows(DECISIONS.table):
                right.setdefault(row["stage"], {})[row["sample"]] = row["correct"]
        attacked = right[ADVERSARIAL] if t in self.attack_times else {}
        return [
            {
                "t": t,
                "sample": i,
                "clean": right[CLEAN][i],
                "noise": right[NOISE][i],
                "attacked": attacked.get(i),
                "rate": by_image.get(i),
            }
            for i in sorted(right[CLEAN])
        ]

    @classmethod
    def report(cls, store: RecordStore) -> TimestepReport:
        """Compute the report of a run from its records alone.

        Raises:
            BadInput: when no time step is finished yet.
        """
        times = sorted({t for (t,) in store.done(TIMES.table, "t")})
        if not times:
            raise BadInput(f"run {store.folder}", "has finished no time step yet", "run it again")
        steps = tuple(timestep(t, store.rows(TIMES.table, {"t": t})) for t in times)
        report = TimestepReport(run=store.folder, settings=store.settings, steps=steps)
        return report.with_notes(*_notes(report))


def _notes(report: TimestepReport) -> Iterator[str]:
    wanted, done = report.settings["times"], len(report.steps)
    if done < len(wanted):
        yield f"{done} of {len(wanted)} time steps are done; the same command goes on"
    level = 1.0 - 0.05 / max(done - 1, 1)  # at most 1 false note in 20 curves
    rising = [b.t for a, b in pairwise(report.steps) if rises(a, b, level)]
    if rising:
        yield (
            f"the compression rate rises towards t = {', '.join(map(str, rising))}: more steps "
            "compress less there (paired on the same images, 95 % for all steps together)"
        )
