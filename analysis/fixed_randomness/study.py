"""What does randomness hide? One attack with fixed randomness, with fresh, averaged, transferred.

The runs of `advpure.analysis.fixed_randomness.layout` side by side, each in a folder of its own
within the run folder, resumable by itself; what the tables need of them is copied into the records
of the comparison. Images attacked under one base seed are decided under the others (table S4)
without being attacked again, and their perturbations are correlated (table S5).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from typing import Any, ClassVar

import torch
from torch import Tensor

from advpure.analysis.fixed_randomness.correlation import ADVERSARIAL as BLOB
from advpure.analysis.fixed_randomness.correlation import correlate
from advpure.analysis.fixed_randomness.layout import (
    EOT,
    FRESH,
    fixed_name,
    fixed_randomness_settings,
)
from advpure.analysis.fixed_randomness.result import (
    CORRELATIONS,
    OUTCOMES,
    STAGES,
    TRANSFERS,
    Accuracy,
    RandomnessResult,
    correlation_rows,
    pairs_of_runs,
)
from advpure.analysis.robustness.protocol import ADVERSARIAL, ATTACKS, CLEAN, DECISIONS, NOISE
from advpure.analysis.robustness.study import LoadedRobustness, Robustness
from advpure.analysis.robustness.wording import attack_text, strength_text
from advpure.analysis.study import Columns, Loaded, Report, Session, Shard, Study, chunks
from advpure.analysis.subject import Attacked, DefenseSubject
from advpure.attacks.settings import Count
from advpure.base.display import Display, Table, number, percent_interval, written
from advpure.base.errors import BadInput
from advpure.base.kinds import Whole
from advpure.base.text import read_seed, several
from advpure.base.validation import fields_of
from advpure.core.randomness import RandomnessConfig
from advpure.core.tiling import check_batch_size
from advpure.data import Images
from advpure.runs.cost import Cost
from advpure.runs.records import RecordStore
from advpure.runs.schema import Row, Schema
from advpure.statistics.estimates import Estimate

_STAGE = {CLEAN: "clean", NOISE: "noise", ADVERSARIAL: "attacked"}


@dataclass(frozen=True, kw_only=True)
class RandomnessReport(Report):
    """The result of a comparison, computed from its records.

    Attributes:
        result: Accuracies, differences, correlations.
    """

    result: RandomnessResult

    def tree(self) -> dict[str, Any]:
        """Return the accuracies of every protocol, their differences, and the correlations."""
        result, eot = self.result, self.result.fresh("attacked", EOT)
        transfer = result.transfer()
        fresh = {stage: _estimate(result.fresh(stage)) for stage in STAGES}
        fixed = {stage: _estimate(result.fixed(stage)) for stage in STAGES}
        return {
            "n": len(result.ids),
            "rows": [
                {"randomness": "fresh", **fresh, "attacked_eot": _estimate(eot)},
                {"randomness": "fixed", **fixed, "attacked_eot": None},
            ],
            "transfer": _estimate(transfer),
            "correlations": [
                {
                    "pair": each.pair,
                    "pearson": Estimate.of(each.pearson, each.by_image["pearson"]),
                    "cosine": Estimate.of(each.cosine, each.by_image["cosine"]),
                    "absent": each.absent,
                }
                for each in result.correlated()
            ],
            "differences": [
                Estimate.of(
                    each.decision,
                    each.decisions,
                    extra={
                        "what": f"{each.name} - fixed",
                        "p_value": each.decision.p_value,
                        "method": each.decision.method,
                        "shares": Estimate.of(each.shares, each.gains),
                    },
                )
                for each in result.compared()
            ],
            "zero_gradient": result.blind,
        }

    def display(self) -> Display:
        """Return what fixing the randomness changes, and all that is behind it."""
        s, result = self.settings, self.result
        model, attack = s["threat_model"], s["attack"]["name"]
        first = result.compared()[0].decision
        points = written(first, ".1f", scale=100)
        change = f"fixed randomness lowers measured robustness by {points} points"
        if first.low <= 0:
            change = f"fixed randomness is not shown to lower measured robustness: {points} points"
        headline = (
            f"{s['dataset']}, {model['norm']} {model['eps']:.4g}, defense "
            f"{strength_text(s['defense'])}, attack {attack_text(s)}, base seeds "
            f"{', '.join(map(str, s['seeds']))}: {change} (one decision, paired on {first.n} "
            f"images, p = {first.p_value:.2g})"
        )
        rows = [
            _row(f"fixed, {attack}", [result.fixed(stage) for stage in STAGES]),
            _row(f"fresh, {attack}", [result.fresh(stage) for stage in STAGES]),
        ]
        if EOT in result.parts:
            averaged = [result.fresh(stage, EOT) for stage in STAGES]
            rows.append(_row(f"fresh, {attack}, {s['eot']} draws a gradient", averaged))
        rows.append(_row(f"fixed, {attack} of another seed", [None, None, result.transfer()]))
        heads = ("randomness, attack", "clean %", "noise %", "attacked %", "std over seeds", "n")
        return Display(headline, (Table(heads, rows), self._differences(), self._correlations()))

    def _differences(self) -> Table:
        decision, shares = "points, one decision", "points, all draws"
        rows = [
            [
                each.name,
                written(each.decision, ".1f", scale=100),
                f"{each.decision.p_value:.2g}",
                written(each.shares, ".1f", scale=100),
                str(each.shares.n),
            ]
            for each in self.result.compared()
        ]
        return Table(("minus fixed randomness", decision, "p (McNemar)", shares, "n"), rows)

    def _correlations(self) -> Table:
        heads = ("perturbations", "Pearson", "std over images", "cosine", "n", "unchanged")
        rows = [
            [
                each.pair,
                written(each.pearson, ".4f"),
                number(each.pearson and each.pearson.std, ".4f"),
                written(each.cosine, ".4f"),
                str(each.cosine.n if each.cosine else 0),
                str(each.absent),
            ]
            for each in self.result.correlated()
        ]
        return Table(heads, rows)


def _estimate(accuracy: Accuracy | None) -> Estimate | None:
    """Return an accuracy; its standard deviation is that over base seeds or pairs."""
    if accuracy is None:
        return None
    repeats = {"repeats": accuracy.repeats}
    rate = Estimate.of(accuracy.rate, accuracy.by_image, is_mean=True, extra=repeats)
    return replace(rate, std=accuracy.std)


def _row(name: str, accuracies: Sequence[Accuracy | None]) -> list[str]:
    last = accuracies[-1]
    std = "" if last is None or last.std is None else f"{100 * last.std:.1f} ({last.repeats})"
    cells = [percent_interval(each and each.rate) for each in accuracies]
    return [name, *cells, std, "" if last is None else str(last.rate.n)]


@dataclass(frozen=True, kw_only=True)
class LoadedRandomness(Loaded):
    """A comparison that is checked and loaded.

    Attributes:
        runs: The runs of the comparison by name.
        first: What the first of them loaded.
    """

    runs: dict[str, Robustness]
    first: LoadedRobustness

    @property
    def images(self) -> Images:
        """The images of all runs."""
        return self.first.images


@dataclass(frozen=True, kw_only=True)
class FixedRandomness(Attacked, DefenseSubject, Study[LoadedRandomness, RandomnessReport]):
    """Print accuracy with fixed, fresh, averaged and transferred randomness, and how they differ.

    Example: advpure randomness --defense ddpm --t 100 -n 20 --plot randomness.png

    Attributes:
        attack: pgd, apgd, bpda or another that follows one gradient, without an average.
        attack_options: Other setting of the attack, KEY=VALUE; it takes all its steps by default.
        seeds: Base seeds of the fixed configurations, two or more.
        eot: Draws per gradient of the averaged attack; 0 leaves it out.
        draws: Decisions per image under fresh randomness.
    """

    verb: ClassVar[str] = "randomness"
    doing: ClassVar[str] = "attacking"
    shorter: ClassVar[str] = "-n, fewer --seeds or --steps"
    tables: ClassVar[tuple[Schema, ...]] = (OUTCOMES, TRANSFERS, CORRELATIONS)
    figure: ClassVar[str] = "advpure.analysis.fixed_randomness.figure:randomness_figure"
    of_defense: ClassVar[bool] = True
    columns: ClassVar[Columns] = {
        "fixed": {"at": "rows[randomness=fixed].attacked", "unit": "percent"},
        "fresh": {"at": "rows[randomness=fresh].attacked", "unit": "percent"},
    }

    seeds: Sequence[int] = (0, 1, 2)
    eot: Whole = 15
    draws: Count = 10

    def __post_init__(self) -> None:
        """Check every field, and store the seeds as a tuple."""
        super().__post_init__()
        if self.eot == 1:
            raise BadInput("eot 1", "averages nothing", "use 2 or more, or 0 to leave it out")
        object.__setattr__(self, "seeds", several(self.seeds, read_seed, "seeds", "write 0,1,2"))

    def runs(self) -> dict[str, Robustness]:
        """Return the runs that are compared, by name."""
        shared = {**fields_of(DefenseSubject, self), **fields_of(Attacked, self)}
        base = Robustness(**shared, randomness="fixed")
        return fixed_randomness_settings(
            base, seeds=self.seeds, eot=self.eot or None, draws=self.draws
        )

    def load(self) -> LoadedRandomness:
        """Load the defense and its images, and resolve the attack."""
        runs = self.runs()
        for seed in self.seeds:
            RandomnessConfig(seed, self.scheme)
        first = runs[fixed_name(self.seeds[0])].load()
        if not first.defense.is_random:
            rule = "draws no noise that could be fixed"
            raise BadInput(f"defense {first.defense.purifier.name}", rule, "use a random one")
        own = ("seed", "randomness")
        settings = {
            **self.identity(self.verb, first.images),
            "defense": first.settings["defense"],
            "threat_model": first.settings["threat_model"],
            "attack": {k: v for k, v in first.settings["attack"].items() if k not in own},
            "scheme": self.scheme,
            "seeds": list(self.seeds),
            "eot": self.eot,
            "draws": self.draws,
        }
        return LoadedRandomness(
            settings=settings, context=first.context, samples=first.samples, runs=runs, first=first
        )

    def share(self, loaded: LoadedRandomness, shard: Shard) -> LoadedRandomness:
        """Return every k-th image, from the i-th, of all runs."""
        first = loaded.first.share(shard)
        return replace(loaded, first=first, samples=first.samples, shard=shard)

    def total(self, loaded: LoadedRandomness) -> int:
        """Return the units of work: an image in a run, or under another seed."""
        pairs = len(self.seeds) * (len(self.seeds) - 1)
        return len(loaded.images.ids) * (len(loaded.runs) + pairs)

    def cost(self, loaded: LoadedRandomness) -> Cost:
        """Estimate the cost of a comparison: that of one attack, times the gradients of all."""
        one = loaded.runs[fixed_name(self.seeds[0])].cost(loaded.first)
        times = len(self.seeds) + 1 + self.eot
        return replace(
            one,
            evaluations=one.evaluations * times,
            backwards=one.backwards * times,
            seconds=one.seconds * times,
        )

    def measure(self, session: Session[LoadedRandomness]) -> None:
        """Attack in every run, decide under the other seeds, and correlate."""
        loaded, store, progress = session.loaded, session.store, session.progress
        n, done = len(loaded.images.ids), 0
        size = check_batch_size(session.batch_size) or 8 * (loaded.first.model.tile or 32)
        for name in loaded.runs:
            progress(done)
            if store.count(OUTCOMES.table, {"part": name}) < n:
                store.append(OUTCOMES.table, _outcomes(session, name, done))
            done += n
        for source, target in permutations(self.seeds, 2):
            progress(done)
            if store.count(TRANSFERS.table, {"source": source, "target": target}) < n:
                xi = RandomnessConfig(target, self.scheme)
                for batch in chunks(loaded.images, size):
                    rows = _transferred(store, loaded.first, batch, source, xi)
                    store.append(TRANSFERS.table, rows)
            done += n
        progress(done)
        for first, second in pairs_of_runs(self.seeds, list(loaded.runs)):
            if store.count(CORRELATIONS.table, {"first": first, "second": second}) < n:
                for batch in chunks(loaded.images, size):
                    store.append(CORRELATIONS.table, _correlated(store, batch, first, second))

    @classmethod
    def report(cls, store: RecordStore) -> RandomnessReport:
        """Compute the report of a comparison from its records alone.

        Raises:
            BadInput: when no image has been through all runs yet.
        """
        outcomes, transfers, correlations = (store.rows(table.table) for table in cls.tables)
        result = RandomnessResult(outcomes, transfers, correlations, tuple(store.settings["seeds"]))
        wanted = {fixed_name(seed) for seed in result.seeds} | {FRESH}
        if not result.ids or not wanted <= set(result.parts):
            raise BadInput(f"run {store.folder}", "has finished no image yet", "run it again")
        report = RandomnessReport(run=store.folder, settings=store.settings, result=result)
        return report.with_notes(*_notes(report))


def _outcomes(session: Session[LoadedRandomness], name: str, before: int) -> list[Row]:
    """Attack, or go on with it, and return what every image came to."""
    folder = session.store.folder / name
    replace(session.loaded.runs[name], keep_images=True).run(
        out=folder,
        batch_size=session.batch_size,
        progress=lambda done: session.progress(before + done),
        shard=session.loaded.shard,
    )
    with RecordStore.read(folder) as own:
        decisions = own.rows(DECISIONS.table)
        attacks = own.rows(ATTACKS.table, {"stage": ADVERSARIAL})
    blind = {row["sample"]: row["zero_gradient"] for row in attacks}
    outcomes: dict[int, dict[str, Any]] = {}
    for row in decisions:
        entry = outcomes.setdefault(row["sample"], dict.fromkeys(("draws", *STAGES), 0))
        stage = _STAGE[row["stage"]]
        entry[stage] += row["correct"]
        if row["draw"] == 0:
            entry[f"first_{stage}"] = row["correct"]
        if stage == "clean":
            entry["draws"] += 1
    return [
        {"part": name, "sample": i, "zero_gradient": blind[i], **entry}
        for i, entry in outcomes.items()
    ]


def _attacked(store: RecordStore, name: str, ids: list[int]) -> Tensor:
    with RecordStore.read(store.folder / name) as own:
        return torch.stack([own.get_blob(f"{BLOB}{i}") for i in ids])


def _transferred(
    store: RecordStore, first: LoadedRobustness, batch: Images, source: int, xi: RandomnessConfig
) -> list[Row]:
    """Decide under one seed on images that were attacked under another."""
    ids = batch.ids.tolist()
    images = _attacked(store, fixed_name(source), ids).to(batch.images)
    with torch.no_grad():  # a decision, not a gradient
        predictions = first.defense.at(ids=batch.ids, xi=xi)(images).argmax(1).tolist()
    return [
        {"source": source, "target": xi.seed, "sample": i, "prediction": p, "correct": p == y}
        for i, p, y in zip(ids, predictions, batch.labels.tolist(), strict=True)
    ]


def _correlated(store: RecordStore, batch: Images, first: str, second: str) -> list[Row]:
    ids, clean = batch.ids.tolist(), batch.images.cpu()
    each = correlate(*(_attacked(store, name, ids) - clean for name in (first, second)))
    return correlation_rows(first, second, dict(zip(ids, each, strict=True)))


def _notes(report: RandomnessReport) -> Iterator[str]:
    result, n = report.result, len(report.result.ids)
    if result.blind:
        yield (
            f"{result.blind} of {n} images had an exactly zero gradient in some run: the attack "
            "was blind there, which is no robustness"
        )
    if report.settings["attack"].get("stop") == "success":
        yield (
            "attacks stopped at success: they transfer badly and their perturbations are of unlike "
            "length; leave out the option stop"
        )
    yield from report.to_do(n)
