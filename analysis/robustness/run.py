"""How robust is a defense? One run: clean images, noise in the ball, an attack, all recorded."""

import dataclasses
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from advpure.analysis.report import RunReport
from advpure.analysis.robustness.attack_choice import attack_settings, refuse_two_gradients
from advpure.analysis.robustness.protocol import (
    ATTACKS,
    DECISIONS,
    Attack,
    Decisions,
    Randomness,
    StageSummary,
    evaluate,
    finished,
    sampled,
    summarize,
)
from advpure.analysis.runs import Verb
from advpure.analysis.subject import JudgedSubject
from advpure.attacks import transfer, uniform_noise
from advpure.attacks.noise import NoiseSettings
from advpure.attacks.outcome import AttackResult
from advpure.attacks.registry import find
from advpure.attacks.settings import AttackSettings, Count
from advpure.base.errors import BadInput
from advpure.base.kinds import Strength
from advpure.base.units import parse_eps
from advpure.core.defense import Defense
from advpure.core.randomness import RandomnessConfig
from advpure.data import Images, dataset_info
from advpure.loading import describe
from advpure.runs.cost import Estimate, estimate
from advpure.runs.records import (
    RecordStore,
    default_run_folder,
)
from advpure.statistics.rates import Rate

NOISE, ADVERSARIAL = "noise", "adversarial"


@dataclass(frozen=True, kw_only=True)
class RobustnessSettings(JudgedSubject):
    """Everything that a robustness run depends on, beside its subject.

    Attributes:
        attack: Name of the attack.
        eps: Radius in [0, 1] units, or text such as ``8/255``; None for the data set's.
        norm: ``linf`` or ``l2``; None for the data set's.
        attack_options: The attack's own settings.
        randomness: ``fixed``: attack and decision share xi. ``fresh``: disjoint draws.
        draws: Decisions per image; None for 10 if randomness is fresh and the defense random, for
            1 if not.
        seed: Base seed of the defense's randomness.
        source_seed: Craft under this base seed, decide under `seed` (transfer).
    """

    attack: str = "pgd"
    eps: Strength | None = None
    norm: str | None = None
    attack_options: Mapping[str, Any] = field(default_factory=dict)
    randomness: Randomness = "fixed"
    draws: Count | None = None
    seed: int = 0
    source_seed: int | None = None


@dataclass(frozen=True)
class Prepared:
    """A run that is checked and loaded, and has computed nothing yet.

    Attributes:
        defense: The defense.
        images: Images, labels, ids.
        attacks: The stages beside clean images.
        attack_settings: The resolved settings of the attack.
        context: Where this session computes, for the records.
        decisions: The protocol.
        settings: Everything that identifies the run, JSON values.
    """

    defense: Defense
    images: Images
    attacks: Mapping[str, Attack]
    attack_settings: AttackSettings
    context: Mapping[str, Any]
    decisions: Decisions
    settings: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class RobustnessReport(RunReport):
    """The result of a run, computed from its records.

    Attributes:
        n: Number of images.
        stages: ``clean``, ``noise`` and ``adversarial`` accuracies.
        blind: Images whose first gradient was exactly zero.
    """

    n: int
    stages: dict[str, StageSummary]
    blind: int

    def headline(self, stage: str) -> Rate:
        """Return the accuracy to quote: the one decision if fixed, the mean over draws if not."""
        fixed = self.settings["decisions"]["randomness"] == "fixed"
        return self.stages[stage].one_shot if fixed else self.stages[stage].mean

    def to_json(self) -> dict[str, Any]:
        """Return one JSON object: rates in [0, 1], the 95 % interval of the robust accuracy."""
        robust = self.headline(ADVERSARIAL)
        return {
            "clean_accuracy": self.headline("clean").value,
            "noise_accuracy": self.headline(NOISE).value,
            "robust_accuracy": robust.value,
            "n": self.n,
            "interval": [robust.low, robust.high],
            "stages": {
                stage: {name: getattr(summary, name)._asdict() for name in _RATES}
                for stage, summary in self.stages.items()
            },
            "zero_gradient": self.blind,
            **self.origin(),
        }


_RATES = ("one_shot", "mean", "worst", "majority")


def prepare(settings: RobustnessSettings) -> Prepared:
    """Check and load everything that a run needs.

    Raises:
        BadInput: for the first setting that cannot be used.
    """
    info = dataset_info(settings.dataset)
    norm = settings.norm or info.norm
    if norm not in ("linf", "l2"):
        raise BadInput(f"norm {norm!r}", "is not known", "use linf or l2")
    if settings.eps is None and norm != info.norm:
        raise BadInput(
            f"norm {norm}",
            f"has no default radius on {settings.dataset}",
            "give one with --eps, such as 0.5",
        )
    eps = info.eps if settings.eps is None else parse_eps(settings.eps, norm)  # type: ignore[arg-type]
    fixed = settings.randomness == "fixed"
    if settings.randomness not in ("fixed", "fresh"):
        raise BadInput(f"randomness {settings.randomness!r}", "is not known", "use fixed or fresh")
    xi = RandomnessConfig(settings.seed, settings.scheme)
    defense = settings.load_defense(xi)
    draws = settings.draws
    if draws is None:
        draws = 1 if fixed or not defense.is_random else 10
    decisions = Decisions(randomness=settings.randomness, draws=draws)
    images = settings.load_images()
    run = find(settings.attack)
    chosen = attack_settings(
        settings.attack, settings.attack_options, eps=eps, norm=norm, randomness=settings.randomness
    )
    refuse_two_gradients(settings.attack, chosen, settings.gradient)
    source = None
    if settings.source_seed is not None:
        if not fixed:
            raise BadInput("a source seed", "needs fixed randomness", "use --fix-random")
        source = RandomnessConfig(settings.source_seed, settings.scheme)
        if source == xi:
            raise BadInput(
                f"transfer from seed {settings.source_seed}",
                "is from the seed that decides, so nothing is transferred",
                "choose another --transfer-from, or leave it out",
            )
    noise = NoiseSettings(eps=eps, norm=norm, randomness=settings.randomness)  # type: ignore[arg-type]

    def attack(model: Defense, x: Tensor, y: Tensor, ids: Tensor) -> AttackResult:
        if source is not None:
            return transfer(run, model, x, y, chosen, source_xi=source, ids=ids)
        return run(model, x, y, chosen, ids=ids)

    def baseline(model: Defense, x: Tensor, y: Tensor, ids: Tensor) -> AttackResult:
        return uniform_noise(model, x, y, noise, ids=ids)

    identity = {
        **settings.identity("attack", images),
        "threat_model": {"norm": norm, "eps": eps},
        "defense": describe(defense),
        "attack": {"name": settings.attack, **dataclasses.asdict(chosen)},
        "source_seed": settings.source_seed,
        "decisions": dataclasses.asdict(decisions),
        "randomness": {"seed": settings.seed, "scheme": settings.scheme},
    }
    attacks = {NOISE: baseline, ADVERSARIAL: attack}
    context = settings.context(defense, identity["defense"], run)
    return Prepared(defense, images, attacks, chosen, context, decisions, identity)


def estimate_robustness(prepared: Prepared) -> Estimate:
    """Estimate the cost of a run: counted evaluations, calibrated seconds and memory."""
    passes = prepared.attack_settings.most_passes
    decisions = 3 * prepared.decisions.draws + 1
    return estimate(
        prepared.defense.at(xi=sampled(prepared.defense.xi or RandomnessConfig(0))),
        prepared.images.images[:8],
        len(prepared.images.ids),
        passes.forwards + decisions,
        passes.backwards,
    )


def measure_robustness(
    settings: RobustnessSettings,
    *,
    out: str | Path | None = None,
    batch_size: int | None = None,
    keep_images: bool = False,
    progress: Callable[[int], None] = lambda done: None,
) -> RobustnessReport:
    """Attack a defense and report its accuracies, resuming a run that was interrupted.

    Args:
        settings: Everything that the result depends on.
        out: Run folder; by default one named after the settings, under ``runs``.
        batch_size: Images in memory at once, a matter of memory only; 8 tiles by default.
        keep_images: Store attacked images in the run.
        progress: Called with the number of finished images.

    Returns:
        The report. Its records are in the run folder.

    Raises:
        BadInput: for settings that cannot be used, or a run folder of other settings.
        StorageFull: when the disk is full; what was stored is kept.

    Example:
        >>> import tempfile
        >>> settings = RobustnessSettings(
        ...     defense="none", dataset="digits", n=2, attack_options={"steps": 1}
        ... )
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     report = measure_robustness(settings, out=folder)
        >>> report.n, report.headline("clean").value
        (2, 1.0)
    """
    import time

    prepared = prepare(settings)
    folder = Path(out) if out else default_run_folder("runs", "attack", prepared.settings)
    tile, counts = prepared.defense.tile or 32, []

    def watch(done: int) -> None:
        counts.append(done)
        progress(done)

    start = time.perf_counter()
    with (
        warnings.catch_warnings(record=True) as caught,
        open_run(prepared, folder) as store,
    ):
        warnings.simplefilter("always")
        evaluate(
            prepared.defense, prepared.images, prepared.attacks, prepared.decisions, store,
            batch_size=8 * tile if batch_size is None else batch_size,
            keep_images=keep_images, progress=watch,
        )  # fmt: skip
        store.finish()
        report = report_robustness(store, time.perf_counter() - start)
    for other in caught:
        if other.category.__name__ != "ZeroGradientWarning":
            warnings.warn_explicit(other.message, other.category, other.filename, other.lineno)
    if counts[0] == len(prepared.images.ids):
        report = report.already_complete()
    return report


def open_run(prepared: Prepared, folder: Path) -> RecordStore:
    """Open the run's records, to begin it or go on with it."""
    return RecordStore.open(
        folder,
        schemas=(DECISIONS, ATTACKS),
        settings=prepared.settings,
        context=prepared.context,
        samples=prepared.images.ids.tolist(),
    )


def report_robustness(store: RecordStore, seconds: float = 0.0) -> RobustnessReport:
    """Compute the report of a run from its records alone."""
    stages = summarize(store)
    n = len(finished(store, [NOISE, ADVERSARIAL]))
    rows = store.rows(ATTACKS.table, {"stage": ADVERSARIAL})
    blind = sum(row["zero_gradient"] for row in rows)
    report = RobustnessReport(
        run=store.folder, settings=store.settings, n=n, stages=stages, blind=blind, seconds=seconds
    )
    return dataclasses.replace(report, notes=tuple(_notes(report)))


def _notes(report: RobustnessReport) -> list[str]:
    notes = []
    if report.blind:
        notes.append(
            f"{report.blind} of {report.n} images had an exactly zero gradient: the attack was "
            "blind there, which is no robustness; try --loss margin or --gradient bpda"
        )
    robust, noise = report.headline(ADVERSARIAL), report.headline(NOISE)
    if robust.value >= noise.value > 0:
        notes.append(
            "the attack did no better than uniform noise in the ball: suspect the attack, not the "
            "defense"
        )
    asked = report.settings["n"]
    if report.n < asked:
        notes.append(f"{report.n} of {asked} images are done; the same command goes on")
    return notes


VERB = Verb(
    RobustnessSettings,
    measure_robustness,
    total=lambda settings: len(settings.load_images().ids),
    prepare=prepare,
    estimate=estimate_robustness,
    report=report_robustness,
)
