"""Accuracy and compression over the whole range of time steps (seed 003, figure S6).

For every t the compression rate and one decision on clean images and on noise in the ball, all
under one fixed configuration, and, where it is asked for, on images attacked under that same
configuration. Each is a run of `advpure cr` or `advpure attack` in a folder within the run folder,
resumable by itself; what the curve needs is copied into the records.
"""

import functools
import time
from collections.abc import Callable, Mapping, Sequence, Sized
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from advpure.analysis.compression.result import COMPRESSION_SCHEMA
from advpure.analysis.compression.study import Compression
from advpure.analysis.fixed_randomness.layout import of_subject
from advpure.analysis.robustness.protocol import CLEAN, DECISIONS
from advpure.analysis.robustness.study import ADVERSARIAL, NOISE, LoadedRobustness, Robustness
from advpure.analysis.runs import Verb
from advpure.analysis.study import cost_of
from advpure.analysis.subject import JudgedSubject, Subject
from advpure.analysis.timesteps.report import (
    TIMES,
    TimestepReport,
    report_timesteps,
)
from advpure.base.errors import BadInput
from advpure.base.idle import refuse_idle
from advpure.base.kinds import Natural, Seed, Strength
from advpure.base.text import read_natural, several
from advpure.base.units import Norm
from advpure.loading import make_recipe
from advpure.options import purifier_options
from advpure.runs.cost import Cost
from advpure.runs.records import RecordStore, default_run_folder
from advpure.statistics.repeated import means_by_image

TIME_STEPS = (1, 2, 5, 10, 20, 50, 100, 150, 200, 300, 500, 750, 1000)
_UNATTACKED = "uniform-noise"
_COMPRESSION = ("eps", "distribution", "perturbations", "clip", "dtype")
_read_time = functools.partial(read_natural, what="time step")
_CALIBRATED = 10  # network evaluations of the chain that is timed for an estimate


@dataclass(frozen=True, kw_only=True)
class TimestepStudy(JudgedSubject):
    """Everything that a curve over time steps depends on, beside its subject.

    Attributes:
        times: Time steps t; the subject's own t and sigma stay unset.
        attack_times: Those of them at which images are attacked, with gradients.
        attack: Name of the attack.
        attack_options: Its own settings.
        eps: Radius of attack and noise in [0, 1] units; None for the data set's.
        norm: Its norm; None for the data set's.
        cr_eps: Strength of the perturbations of the compression rate, in [0, 1] units.
        perturbations: Perturbations per image and time step.
        seed: Base seed of the one configuration.
    """

    times: Sequence[int] = TIME_STEPS
    attack_times: Sequence[int] = ()
    attack: str = "pgd"
    attack_options: Mapping[str, Any] = field(default_factory=dict)
    eps: Strength | None = None
    norm: Norm | None = None
    cr_eps: Strength = "8/255"
    perturbations: Natural = 10
    seed: Seed = 0

    def __post_init__(self) -> None:
        """Check every field, and store the times as tuples."""
        super().__post_init__()
        times = several(self.times, _read_time, "times", "use 1,10,100")
        attacked = self.attack_times
        if not isinstance(attacked, Sized) or len(attacked):
            attacked = several(attacked, _read_time, "attack times", "use 1,10,100")
        if not len(attacked):
            names = ("attack", "attack_options", "gradient")
            fix = "add attack times, or leave it out"
            refuse_idle(self, names, "means nothing without attack times", fix)
        object.__setattr__(self, "times", times)
        object.__setattr__(self, "attack_times", tuple(attacked))

    def compression(self, t: int) -> Compression:
        """Return the settings of the compression run at one time step."""
        shared = {each.name: getattr(self, each.name) for each in fields(Subject)} | {"t": t}
        return Compression(
            **shared, eps=self.cr_eps, perturbations=self.perturbations, seeds=self.seed
        )

    def robustness(self, t: int) -> Robustness:
        """Return the settings of the robustness run at one time step."""
        attacked = t in self.attack_times
        settings = of_subject(
            self, attack=self.attack if attacked else _UNATTACKED,
            attack_options=self.attack_options if attacked else {},
            eps=self.eps, norm=self.norm, randomness="fixed", seed=self.seed,
        )  # fmt: skip
        return replace(settings, t=t)


@dataclass(frozen=True)
class PreparedTimesteps:
    """A curve that is checked, with the networks loaded, and has computed nothing yet.

    Attributes:
        study: Its settings.
        first: The robustness run at the first time step.
        evaluations: Network evaluations of one purification at each time step.
        settings: Everything that identifies the run, JSON values.
    """

    study: TimestepStudy
    first: LoadedRobustness
    evaluations: dict[int, int]
    settings: dict[str, Any]

    @property
    def total(self) -> int:
        """Units of work: an image at a time step, for each of its two runs."""
        return 2 * len(self.first.images.ids) * len(self.study.times)


def prepare_timesteps(study: TimestepStudy) -> PreparedTimesteps:
    """Check every time step and load what they need.

    Raises:
        BadInput: for the first setting that cannot be used.
    """
    _check(study)
    start = study.times[0]
    first = Robustness.load(study.robustness(start))
    attack = (
        Robustness.load(study.robustness(study.attack_times[0])) if study.attack_times else None
    )
    compression = Compression.load(study.compression(start)).settings
    denoiser = first.defense.purifier.denoiser
    evaluations = {}
    for t in study.times:
        options = purifier_options(study.defense, study.options, t=t)
        evaluations[t] = make_recipe(study.defense, options).chain(denoiser).evaluations
    settings = {
        **study.identity("timesteps", first.images),
        "defense": {k: v for k, v in first.settings["defense"].items() if k != "t"},
        "threat_model": first.settings["threat_model"],
        "attack": attack and attack.settings["attack"],
        "randomness": first.settings["randomness"],
        "times": list(study.times),
        "attack_times": list(study.attack_times),
        "compression": {name: compression[name] for name in _COMPRESSION},
    }
    return PreparedTimesteps(study, first, evaluations, settings)


def _check(study: TimestepStudy) -> None:
    for name in ("t", "sigma"):
        value = study.options.get(name) if getattr(study, name) is None else getattr(study, name)
        if value is not None:
            raise BadInput(f"{name} {value}", "fixes what this verb varies", "give times instead")
    for t in study.attack_times:
        if t not in study.times:
            raise BadInput(f"attack time {t}", "is not among the times", "add it to them")


def estimate_timesteps(prepared: PreparedTimesteps) -> Cost:
    """Estimate the cost of a curve from one calibrated time step, by network evaluations.

    The step that is timed is the shortest one with at least 10 evaluations, so that an estimate
    takes seconds where t = 1000 takes minutes.
    """
    study, cost = prepared.study, prepared.evaluations
    by_cost = sorted(cost, key=cost.__getitem__)
    timed = next((t for t in by_cost if cost[t] >= _CALIBRATED), by_cost[-1])
    plain = replace(study, attack="pgd", attack_options={}, gradient=None, attack_times=())
    parts = {False: cost_of(plain.robustness(timed))}
    if study.attack_times:
        parts[True] = cost_of(replace(study, attack_times=(timed,)).robustness(timed))
    rates = cost_of(study.compression(timed))
    evaluations, backwards, seconds = 0.0, 0, 0.0
    for t in study.times:
        part = parts[t in study.attack_times]
        for each, classified in ((part, 1), (rates, 0)):
            scale = (cost[t] + classified) / max(cost[timed] + classified, 1)
            evaluations += each.evaluations * scale
            seconds += each.seconds * scale
            backwards += each.backwards
    peak = max(each.peak_memory for each in (rates, *parts.values()))
    return Cost(len(prepared.first.images.ids), round(evaluations), backwards, seconds, peak)


def measure_timesteps(
    study: TimestepStudy,
    *,
    out: str | Path | None = None,
    batch_size: int | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> TimestepReport:
    """Measure accuracy and compression at every time step, resuming a run that was interrupted.

    Args:
        study: Everything that the result depends on.
        out: Run folder; by default one named after the settings, under ``runs``.
        batch_size: Rows in memory at once, a matter of memory only.
        progress: Called with the number of finished units: images of one of the two runs at a t.

    Returns:
        The report. Its records are in the run folder, those of each run in a folder within.

    Raises:
        BadInput: for settings that cannot be used, or a run folder of other settings.
        StorageFull: when the disk is full; what was stored is kept.
    """
    prepared = prepare_timesteps(study)
    folder = Path(out) if out else default_run_folder("runs", "timesteps", prepared.settings)
    first = prepared.first
    begin, n, done, idle = time.perf_counter(), len(first.images.ids), 0, True
    with RecordStore.open(
        folder,
        schemas=(TIMES,),
        settings=prepared.settings,
        context=first.context,
        samples=first.images.ids.tolist(),
    ) as store:
        for t in study.times:
            progress(done)
            if store.count(TIMES.table, {"t": t}) < n:
                idle = False
                _measure(store, study, t, batch_size, progress, done, n)
            done += 2 * n
        progress(done)
        store.finish()
        report = report_timesteps(store, time.perf_counter() - begin)
        return report.already_complete() if idle else report


def _measure(
    store: RecordStore,
    study: TimestepStudy,
    t: int,
    batch_size: int | None,
    progress: Callable[[int], None],
    done: int,
    n: int,
) -> None:
    """Run both verbs at one time step, or go on with them, and copy what every image came to."""

    def compressed(count: int) -> None:
        progress(done + count // study.perturbations)

    def decided(count: int) -> None:
        progress(done + n + count)

    rates, robust = store.folder / f"cr-{t}", store.folder / f"attack-{t}"
    Compression.run(
        study.compression(t), out=rates, batch_size=batch_size, progress=compressed
    )  # fmt: skip
    Robustness.run(study.robustness(t), out=robust, batch_size=batch_size, progress=decided)
    with RecordStore.read(rates) as own:
        found = own.rows(COMPRESSION_SCHEMA.table)
    by_image = means_by_image((row["id"], row["rate"]) for row in found)
    with RecordStore.read(robust) as own:
        right: dict[str, dict[int, bool]] = {}
        for row in own.rows(DECISIONS.table):
            right.setdefault(row["stage"], {})[row["sample"]] = row["correct"]
    attacked = right[ADVERSARIAL] if t in study.attack_times else {}
    store.append(
        TIMES.table,
        [
            {
                "t": t, "sample": i, "clean": right[CLEAN][i], "noise": right[NOISE][i],
                "attacked": attacked.get(i), "rate": by_image.get(i),
            }
            for i in sorted(right[CLEAN])
        ],
    )  # fmt: skip


VERB = Verb(
    TimestepStudy,
    measure_timesteps,
    total=lambda study: 2 * len(study.load_images().ids) * len(study.times),
    prepare=prepare_timesteps,
    estimate=estimate_timesteps,
    report=report_timesteps,
)
