"""What does randomness hide? One attack with fixed randomness, with fresh, averaged, transferred.

The runs of `advpure.analysis.fixed_randomness.layout` side by side, each in a folder of its own
within the run folder, resumable by itself; what the tables need of them is copied into the records
of the comparison. Images attacked under one base seed are decided under the others (table S4)
without being attacked again, and their perturbations are correlated (table S5).
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import permutations
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from advpure.analysis.fixed_randomness.correlation import ADVERSARIAL as BLOB
from advpure.analysis.fixed_randomness.correlation import correlate
from advpure.analysis.fixed_randomness.layout import (
    fixed_name,
    fixed_randomness_settings,
    of_subject,
    transfer_settings,
)
from advpure.analysis.fixed_randomness.report import TABLES, RandomnessReport, report_randomness
from advpure.analysis.fixed_randomness.result import (
    CORRELATIONS,
    OUTCOMES,
    STAGES,
    TRANSFERS,
    correlation_rows,
    pairs_of_runs,
)
from advpure.analysis.robustness.protocol import ATTACKS, CLEAN, DECISIONS
from advpure.analysis.robustness.study import ADVERSARIAL, NOISE, LoadedRobustness, Robustness
from advpure.analysis.runs import Verb
from advpure.analysis.subject import JudgedSubject
from advpure.attacks.settings import Count
from advpure.base.errors import BadInput
from advpure.base.kinds import Strength, Whole
from advpure.base.text import read_seed, several
from advpure.base.units import Norm
from advpure.core.randomness import RandomnessConfig
from advpure.core.tiling import check_batch_size
from advpure.data import Images
from advpure.runs.cost import Cost
from advpure.runs.records import RecordStore, default_run_folder
from advpure.runs.schema import Row

_STAGE = {CLEAN: "clean", NOISE: "noise", ADVERSARIAL: "attacked"}


@dataclass(frozen=True, kw_only=True)
class RandomnessStudy(JudgedSubject):
    """Everything that a comparison depends on, beside its subject.

    Attributes:
        attack: ``pgd`` (tables S2, S4, S5), ``bpda`` (S3), or another that follows one gradient.
        eps: Radius in [0, 1] units; None for the data set's.
        norm: ``linf`` or ``l2``; None for the data set's.
        attack_options: The attack's own settings; it takes all its steps unless they say otherwise.
        seeds: Base seeds of the fixed configurations, two or more.
        eot: Draws per gradient of the averaged attack; 0 leaves it out.
        draws: Decisions per image under fresh randomness.
    """

    attack: str = "pgd"
    eps: Strength | None = None
    norm: Norm | None = None
    attack_options: Mapping[str, Any] = field(default_factory=dict)
    seeds: Sequence[int] = (0, 1, 2)
    eot: Whole = 15
    draws: Count = 10

    def __post_init__(self) -> None:
        """Check every field, and store the seeds as a tuple."""
        super().__post_init__()
        if self.eot == 1:
            raise BadInput("eot 1", "averages nothing", "use 2 or more, or 0 to leave it out")
        object.__setattr__(self, "seeds", several(self.seeds, read_seed, "seeds", "write 0,1,2"))


@dataclass(frozen=True)
class PreparedRandomness:
    """A comparison that is checked and loaded, and has computed nothing yet."""

    runs: dict[str, Robustness]
    first: LoadedRobustness
    seeds: tuple[int, ...]
    settings: dict[str, Any]

    @property
    def total(self) -> int:
        """Units of work: an image in a run, or under another seed."""
        pairs = len(self.seeds) * (len(self.seeds) - 1)
        return len(self.first.images.ids) * (len(self.runs) + pairs)


def prepare_randomness(study: RandomnessStudy) -> PreparedRandomness:
    """Check and load everything that a comparison needs.

    Raises:
        BadInput: for the first setting that cannot be used.
    """
    base = of_subject(
        study, attack=study.attack, eps=study.eps, norm=study.norm,
        attack_options=study.attack_options,
    )  # fmt: skip
    seeds = tuple(study.seeds)
    runs = fixed_randomness_settings(base, seeds=seeds, eot=study.eot or None, draws=study.draws)
    transfer_settings(base, seeds=seeds)
    for seed in seeds:
        RandomnessConfig(seed, study.scheme)
    first = Robustness.load(runs[fixed_name(seeds[0])])
    if not first.defense.is_random:
        raise BadInput(
            f"defense {study.defense}", "draws no noise that could be fixed", "use a random one"
        )
    attack = {k: v for k, v in first.settings["attack"].items() if k not in ("seed", "randomness")}
    identity = {
        **study.identity("randomness", first.images),
        "defense": first.settings["defense"],
        "threat_model": first.settings["threat_model"],
        "attack": attack,
        "scheme": study.scheme,
        "seeds": list(seeds),
        "eot": study.eot,
        "draws": study.draws,
    }
    return PreparedRandomness(runs, first, seeds, identity)


def estimate_randomness(prepared: PreparedRandomness) -> Cost:
    """Estimate the cost of a comparison: that of one attack, times the gradients of all."""
    one = prepared.runs[fixed_name(prepared.seeds[0])].cost(prepared.first)
    times = len(prepared.seeds) + 1 + prepared.settings["eot"]
    return replace(
        one,
        evaluations=one.evaluations * times,
        backwards=one.backwards * times,
        seconds=one.seconds * times,
    )


def measure_randomness(
    study: RandomnessStudy,
    *,
    out: str | Path | None = None,
    batch_size: int | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> RandomnessReport:
    """Compare fixed with fresh randomness, resuming a comparison that was interrupted.

    Args:
        study: Everything that the result depends on.
        out: Run folder; by default one named after the settings, under ``runs``.
        batch_size: Images in memory at once, a matter of memory only; 8 tiles by default.
        progress: Called with the number of finished units: images of a run or under another seed.

    Returns:
        The report. Its records are in the run folder, those of each attack in a folder within.

    Raises:
        BadInput: for settings that cannot be used, or a run folder of other settings.
        StorageFull: when the disk is full; what was stored is kept.
    """
    prepared = prepare_randomness(study)
    folder = Path(out) if out else default_run_folder("runs", "randomness", prepared.settings)
    begin, n, done = time.perf_counter(), len(prepared.first.images.ids), 0
    batch = check_batch_size(batch_size) or 8 * (prepared.first.defense.tile or 32)
    with RecordStore.open(
        folder,
        schemas=TABLES,
        settings=prepared.settings,
        context=prepared.first.context,
        samples=prepared.first.images.ids.tolist(),
    ) as store:
        idle = True
        for name, settings in prepared.runs.items():
            progress(done)
            if store.count(OUTCOMES.table, {"part": name}) < n:
                idle = False
                _run(store, name, settings, batch_size, _shifted(progress, done))
            done += n
        for source, target in permutations(prepared.seeds, 2):
            progress(done)
            if store.count(TRANSFERS.table, {"source": source, "target": target}) < n:
                idle = False
                _transfer(store, prepared, source, target, batch)
            done += n
        progress(done)
        for first, second in pairs_of_runs(prepared.seeds, list(prepared.runs)):
            if store.count(CORRELATIONS.table, {"first": first, "second": second}) < n:
                idle = False
                _correlate(store, prepared.first.images, first, second, batch)
        store.finish()
        report = report_randomness(store, time.perf_counter() - begin)
        return report.already_complete() if idle else report


def _shifted(progress: Callable[[int], None], before: int) -> Callable[[int], None]:
    return lambda done: progress(before + done)


def _run(
    store: RecordStore,
    name: str,
    settings: Robustness,
    batch_size: int | None,
    progress: Callable[[int], None],
) -> None:
    """Attack, or go on with it, and copy what every image came to."""
    folder = store.folder / name
    replace(settings, keep_images=True).run(out=folder, batch_size=batch_size, progress=progress)
    with RecordStore.read(folder) as own:
        decisions = own.rows(DECISIONS.table)
        blind = {
            row["sample"]: row["zero_gradient"]
            for row in own.rows(ATTACKS.table, {"stage": ADVERSARIAL})
        }
    found: dict[int, dict[str, Any]] = {}
    for row in decisions:
        entry = found.setdefault(row["sample"], dict.fromkeys(("draws", *STAGES), 0))
        stage = _STAGE[row["stage"]]
        entry[stage] += row["correct"]
        if row["draw"] == 0:
            entry[f"first_{stage}"] = row["correct"]
        if stage == "clean":
            entry["draws"] += 1
    store.append(
        OUTCOMES.table,
        [
            {"part": name, "sample": i, "zero_gradient": blind[i], **entry}
            for i, entry in found.items()
        ],
    )


def _attacked(store: RecordStore, name: str, ids: list[int]) -> Tensor:
    with RecordStore.read(store.folder / name) as own:
        return torch.stack([own.get_blob(f"{BLOB}{i}") for i in ids])


def _batches(images: Images, size: int) -> Iterator[Images]:
    for start in range(0, len(images.ids), size):
        yield Images(*(part[start : start + size] for part in images))


def _transfer(
    store: RecordStore, prepared: PreparedRandomness, source: int, target: int, size: int
) -> None:
    """Decide under one seed on images that were attacked under another."""
    own = prepared.first.defense
    scheme = "hash" if own.xi is None else own.xi.scheme
    for batch in _batches(prepared.first.images, size):
        ids = batch.ids.tolist()
        images = _attacked(store, fixed_name(source), ids).to(batch.images)
        view = own.at(ids=batch.ids, xi=RandomnessConfig(target, scheme))
        with torch.no_grad():  # a decision, not a gradient
            said = view(images).argmax(1).tolist()
        rows: list[Row] = [
            {"source": source, "target": target, "sample": i, "prediction": p, "correct": p == y}
            for i, p, y in zip(ids, said, batch.labels.tolist(), strict=True)
        ]
        store.append(TRANSFERS.table, rows)


def _correlate(store: RecordStore, images: Images, first: str, second: str, size: int) -> None:
    for batch in _batches(images, size):
        ids, clean = batch.ids.tolist(), batch.images.cpu()
        found = correlate(*(_attacked(store, name, ids) - clean for name in (first, second)))
        store.append(
            CORRELATIONS.table, correlation_rows(first, second, dict(zip(ids, found, strict=True)))
        )


def _total(study: RandomnessStudy) -> int:
    seeds = len(study.seeds)
    parts = seeds + 1 + bool(study.eot) + seeds * (seeds - 1)
    return len(study.load_images().ids) * parts


VERB = Verb(
    RandomnessStudy,
    measure_randomness,
    total=_total,
    prepare=prepare_randomness,
    estimate=estimate_randomness,
    report=report_randomness,
)
