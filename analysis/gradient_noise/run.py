"""One run of the gradient study: by name, resumable, reported from its records."""

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch

from advpure.analysis.gradient_noise.draws import (
    GRADIENT_BLOCKS,
    GRADIENT_DRAWS,
    GRADIENT_MEANS,
    Draws,
    DrawSettings,
    batch_images,
    gradient_progress,
)
from advpure.analysis.gradient_noise.result import (
    Enough,
    GradientResult,
    ImageGradients,
    curve_json,
    image_gradients,
)
from advpure.analysis.report import RunReport
from advpure.analysis.robustness.protocol import sampled
from advpure.analysis.runs import Verb
from advpure.analysis.subject import JudgedSubject
from advpure.attacks.losses import LossName
from advpure.attacks.oracle import Batch, Oracle, check_batch
from advpure.attacks.projected import first_iterates
from advpure.attacks.settings import GradientSettings
from advpure.base.errors import BadInput
from advpure.base.kinds import Seed, Strength
from advpure.base.units import Norm, parse_eps
from advpure.core.defense import Defense
from advpure.core.randomness import RandomnessConfig
from advpure.data import Images, dataset_info
from advpure.loading import describe
from advpure.runs.cost import Cost, estimate
from advpure.runs.records import RecordStore, default_run_folder
from advpure.statistics.quantiles import Quantile

Point = Literal["clean", "start"]
_RARE = 0.2  # share of all squared norms in one gradient, from which the closed form is doubtful
TABLES = (GRADIENT_DRAWS, GRADIENT_BLOCKS, GRADIENT_MEANS)


@dataclass(frozen=True, kw_only=True)
class GradientStudy(JudgedSubject):
    """Everything that a gradient study depends on, beside its subject.

    Attributes:
        seed: Base seed of the defense's randomness.
        draws: Largest number of draws that is averaged, a power of two.
        reference: Draws of the held-out mean, a power of two.
        loss: Loss of the attack: ``ce``, ``margin`` or ``dlr``.
        point: Where gradients are taken: at the ``clean`` images, or at the random ``start`` of an
            attack, uniform in the ball.
        eps: Radius of that ball in [0, 1] units; None for the data set's.
        norm: Its norm; None for the data set's.
    """

    seed: Seed = 0
    draws: Draws = 64
    reference: Draws = 64
    loss: LossName = "ce"
    point: Point = "clean"
    eps: Strength | None = None
    norm: Norm | None = None


@dataclass(frozen=True, kw_only=True)
class GradientReport(RunReport):
    """The result of a study, computed from its records.

    Attributes:
        result: Signal, noise and curves of the images that are finished.
    """

    result: GradientResult

    def to_json(self, target: float = 0.9, agreement: float = 0.85) -> dict[str, Any]:
        """Return one JSON object; `rows` holds one flat row for each number of draws.

        Args:
            target: The cosine that is enough.
            agreement: The share of equal signs that is enough.
        """
        result, snr, median = self.result, self.result.snr(), self.result.median_snr()
        answers = (result.enough(target), result.enough(agreement, "agreement"))
        largest = result.largest()
        return {
            "n": len(result.images),
            "snr": snr and snr.value,
            "snr_interval": snr and snr.interval and list(snr.interval),
            "snr_median": median and median.value,
            "snr_median_interval": median and [median.low, median.high],
            "snr_n": snr.n if snr else 0,
            "largest_share": largest and largest.value,
            "zero_gradient": result.zero,
            "constant": result.constant,
            "unresolved": result.unresolved,
            "enough": [_enough_json(answer) for answer in answers],
            "rows": [curve_json(point) for point in result.curve()],
            "images": [
                {
                    "sample": image.sample, "snr": image.moments.snr,
                    "signal": image.moments.signal, "variance": image.moments.variance,
                    "resolved": image.moments.is_resolved,
                }
                for image in result.images
            ],
            **self.origin(),
        }  # fmt: skip


def _enough_json(answer: Enough) -> dict[str, Any]:
    """Return an answer as a flat row; more draws than can be told are None."""
    found = answer._asdict()
    for name in ("median", "most"):
        each: Quantile | None = getattr(answer, name)
        found[name] = _finite(each and each.value)
        found[f"{name}_interval"] = each and [_finite(each.low), _finite(each.high)]
    return found


def _finite(value: float | None) -> float | None:
    return None if value is None or value == float("inf") else value


@dataclass(frozen=True)
class PreparedGradients:
    """A study that is checked and loaded, and has computed nothing yet."""

    defense: Defense
    images: Images
    draws: DrawSettings
    start: GradientSettings | None
    settings: dict[str, Any]
    context: dict[str, Any] = field(repr=False)


def prepare_gradients(study: GradientStudy) -> PreparedGradients:
    """Check and load everything that a study needs.

    Raises:
        BadInput: for the first setting that cannot be used.
    """
    draws = DrawSettings(draws=study.draws, reference=study.reference, loss=study.loss)
    start = _start(study)
    defense = study.load_defense(RandomnessConfig(study.seed, study.scheme))
    images = study.load_images()
    described = describe(defense)
    settings = {
        **study.identity("gradients", images),
        "defense": described,
        "randomness": {"seed": study.seed, "scheme": study.scheme},
        **asdict(draws),
        "point": study.point,
        "threat_model": start and {"norm": start.norm, "eps": start.eps},
    }
    context = study.context(defense, described)
    return PreparedGradients(defense, images, draws, start, settings, context)


def _start(study: GradientStudy) -> GradientSettings | None:
    """Return the ball of the random start, None where gradients are taken at the images."""
    if study.point == "clean":
        for name in ("eps", "norm"):
            if getattr(study, name) is not None:
                raise BadInput(
                    f"{name} {getattr(study, name)}",
                    "means nothing to gradients at clean images",
                    f"use point start, or leave {name} out",
                )
        return None
    info = dataset_info(study.dataset)
    norm = study.norm or info.norm
    if study.eps is None and norm != info.norm:
        raise BadInput(
            f"norm {norm}", f"has no default radius on {study.dataset}", "give an epsilon"
        )
    eps = info.eps if study.eps is None else parse_eps(study.eps, norm)
    return GradientSettings(eps=eps, norm=norm, steps=1)


def estimate_gradients(prepared: PreparedGradients) -> Cost:
    """Estimate the cost of a study: counted evaluations, calibrated seconds and memory."""
    passes = prepared.draws.total
    view = prepared.defense.at(xi=sampled(prepared.defense.xi or RandomnessConfig(0)))
    count = len(prepared.images.ids)
    return estimate(view, prepared.images.images[:8], count, passes, passes)


def measure_gradients(
    study: GradientStudy,
    *,
    out: str | Path | None = None,
    batch_size: int | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> GradientReport:
    """Measure signal and noise of a defense's gradient, resuming a run that was interrupted.

    Args:
        study: Everything that the result depends on.
        out: Run folder; by default one named after the settings, under ``runs``.
        batch_size: Images in memory at once, a matter of memory only; 8 tiles by default.
        progress: Called with the number of finished gradients.

    Returns:
        The report. Its records are in the run folder.

    Raises:
        BadInput: for settings that cannot be used, or a run folder of other settings.
        StorageFull: when the disk is full; what was stored is kept.
    """
    prepared = prepare_gradients(study)
    folder = Path(out) if out else default_run_folder("runs", "gradients", prepared.settings)
    begin = time.perf_counter()
    with RecordStore.open(
        folder,
        schemas=TABLES,
        settings=prepared.settings,
        context=prepared.context,
        samples=prepared.images.ids.tolist(),
    ) as store:
        finished: dict[int, int] = {}
        for sample, _ in store.done(GRADIENT_DRAWS.table):
            finished[sample] = finished.get(sample, 0) + 1
        before = count = sum(finished.values())
        progress(count)
        defense, images = prepared.defense, prepared.images
        batch = _points(defense, check_batch(defense, *images[:2], images.ids), prepared.start)
        for each in gradient_progress(
            defense, batch, prepared.draws, defense.xi or RandomnessConfig(study.seed),
            rows=batch_images(batch_size, defense.tile), finished=finished, kept=store.get_blob,
        ):  # fmt: skip
            with store.batch():
                for name, tensor in each.sums.items():
                    store.put_blob(name, tensor)
                store.append(GRADIENT_DRAWS.table, each.draws)
                store.append(GRADIENT_BLOCKS.table, each.blocks)
                store.append(GRADIENT_MEANS.table, each.means)
            count += len(each.draws)
            progress(count)
        store.finish()
        report = report_gradients(store, time.perf_counter() - begin)
        if count == before:
            report = report.already_complete()
        return report


def report_gradients(store: RecordStore, seconds: float = 0.0) -> GradientReport:
    """Compute the report of a study from its records alone, one image in memory at a time."""
    result = GradientResult(tuple(_finished(store)))
    report = GradientReport(
        run=store.folder, settings=store.settings, result=result, seconds=seconds
    )
    return replace(report, notes=tuple(_notes(report)))


def _finished(store: RecordStore) -> Iterator[ImageGradients]:
    for (sample,) in sorted(store.done(GRADIENT_MEANS.table)):
        rows = [store.rows(table.table, {"sample": sample}) for table in TABLES]
        yield image_gradients(sample, rows[0], rows[1], rows[2][0])


def _points(defense: Defense, batch: Batch, start: GradientSettings | None) -> Batch:
    """Return the points at which gradients are taken."""
    if start is None:
        return batch
    everything = torch.arange(len(batch.images), dtype=torch.int64, device="cpu")
    moved = first_iterates(Oracle(defense, start), batch, None, everything)
    return batch._replace(images=moved)


def _notes(report: GradientReport) -> Iterator[str]:
    result, n = report.result, len(report.result.images)
    draws = report.settings["draws"] + report.settings["reference"]
    if result.zero:
        yield (
            f"the gradient of {result.zero} of {n} images was exactly zero in all {draws} draws: "
            "an attack is blind there, which is no robustness; they are left out of every mean"
        )
    if result.constant:
        yield (
            f"the gradient of {result.constant} of {n} images does not depend on the randomness: "
            "it has no signal-to-noise ratio, and one draw is enough"
        )
    if result.unresolved:
        yield (
            f"the mean gradient of {result.unresolved} of {n} images is lost in the noise of "
            f"{draws} draws: they have no cosine, are left out of the curves, and count as needing "
            "more draws than any number"
        )
    largest = result.largest()
    if largest is not None and largest.value > _RARE:
        yield (
            f"a single gradient holds {100 * largest.value:.0f} % of the squared norms of {draws} "
            "draws (median over images): with such rare large gradients trust the measured curve, "
            "not the closed form, or try loss margin"
        )
    asked = report.settings["n"]
    if n < asked:
        yield f"{n} of {asked} images are done; the same command goes on"


VERB = Verb(
    GradientStudy,
    measure_gradients,
    total=lambda study: len(study.load_images().ids) * (study.draws + study.reference),
    prepare=prepare_gradients,
    estimate=estimate_gradients,
    report=report_gradients,
)
