"""The report of a certification run: curves, best over sigma, differences; from counts alone."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from advpure.analysis.certification.accuracy import (
    RHO,
    AtRadius,
    CertifiedImages,
    abstention,
    average_certified_radius,
    best_over,
    certified_accuracy,
    truly_certified,
)
from advpure.analysis.certification.composed import check_composed
from advpure.analysis.certification.naming import subject
from advpure.analysis.certification.procedures import (
    Anytime,
    Cascade,
    Reading,
    find_procedure,
)
from advpure.analysis.certification.tallies import Tallies
from advpure.analysis.certification.two_stage import Certificate
from advpure.analysis.report import RunReport
from advpure.statistics.rates import Rate, wilson


@dataclass(frozen=True)
class Curve:
    """The certificates of one smoothed classifier in a run.

    Attributes:
        images: The certificates.
        samples: Noise samples that were classified for them, all images together.
    """

    images: CertifiedImages
    samples: int


@dataclass(frozen=True, kw_only=True)
class CertificationReport(RunReport):
    """The result of a run, computed from its counts.

    Attributes:
        reading: What was asked of the counts.
        curves: Certificates per noise level, increasing; one for a cascade.
    """

    reading: Reading
    curves: tuple[Curve, ...]

    def best(self) -> list[AtRadius]:
        """Return the highest certified accuracy over noise levels at every radius asked for."""
        return best_over([curve.images for curve in self.curves], self.reading.radii)

    def joint(self) -> list[CertifiedImages]:
        """Return the certificates if those of all noise levels hold at once, else none."""
        return [curve.images for curve in self.curves] if self.reading.joint else []

    def to_json(self) -> dict[str, Any]:
        """Return one JSON object; rates in [0, 1]."""
        return {
            **summary_json([curve.images for curve in self.curves], self.reading.radii),
            "curves": [
                {**curve_json(curve.images), "samples_per_image": curve.samples / len(curve.images)}
                for curve in self.curves
            ],
            "any_sigma": any_json(self.joint(), self.reading.radii),
            "alpha": self.reading.alpha,
            "samples": self.reading.samples,
            **self.origin(),
        }


def any_json(
    joint: Sequence[CertifiedImages], radii: Sequence[float]
) -> list[dict[str, Any]] | None:
    """Return `any_of` joint certificates at every radius; None for no certificates."""
    if not joint:
        return None
    return [{"radius": radius, **any_of(joint, radius)._asdict()} for radius in radii]


def any_of(curves: Sequence[CertifiedImages], radius: float) -> Rate:
    """Return the share of images that some of several joint certificates certifies correctly.

    Valid per image for certificates that hold at once (`jointly`); images that not all curves
    hold are left out.
    """
    common = curves[0].ids
    for curve in curves[1:]:
        common = np.intersect1d(common, curve.ids)
    found = np.zeros(len(common), dtype=bool)
    for curve in curves:
        rows = np.searchsorted(curve.ids, common)
        found |= (curve.correct & (curve.radii >= radius))[rows]
    return wilson(int(found.sum()), len(found))


def summary_json(curves: Sequence[CertifiedImages], radii: Sequence[float]) -> dict[str, Any]:
    """Return certified accuracies per curve and radius, and the best over curves.

    Args:
        curves: Certificates; of several, the best is an oracle.
        radii: [0, 1] units.

    Returns:
        JSON values: `certified_accuracy` (radius as text to value, best over curves), `best`
        and `rows` (one entry per curve and radius) with intervals. In both,
        `truly_certified_at_least` is the bound over images that holds with probability
        1 - `bound_fails`, for all radii of a curve at once and after the choice of the best;
        None where alpha is unknown. `clean` is the accuracy at radius 0 of the curve that was
        chosen, abstentions as errors: what published tables print beside the certified accuracy.
    """
    best = best_over(curves, radii) if curves else []
    named, choices = {curve.name: curve for curve in curves}, max(len(curves), 1)
    clean = {name: certified_accuracy(curve)._asdict() for name, curve in named.items()}
    return {
        "certified_accuracy": {_key(each.radius): each.rate.value for each in best},
        "oracle": len(curves) > 1,
        "bound_fails": RHO,
        "best": [
            {"radius": each.radius, **each.rate._asdict(), "name": each.name,
             "sigma": named[each.name].sigma, "clean": clean[each.name],
             "truly_certified_at_least":
             truly_certified(named[each.name], each.radius, choices=choices)}
            for each in best
        ],
        "rows": [
            {"name": curve.name, "sigma": curve.sigma, "radius": radius,
             **certified_accuracy(curve, radius)._asdict(),
             "truly_certified_at_least": truly_certified(curve, radius)}
            for curve in curves
            for radius in radii
        ],
    }  # fmt: skip


def _key(radius: float) -> str:
    """Write a radius as short as it stays exact."""
    short = f"{radius:g}"
    return short if float(short) == radius else repr(radius)


def curve_json(images: CertifiedImages) -> dict[str, Any]:
    """Return what can be said of one set of certificates beside its accuracies."""
    radius = average_certified_radius(images)
    return {
        "name": images.name,
        "sigma": images.sigma,
        "alpha": images.alpha,
        "n": len(images),
        "abstained": abstention(images)._asdict(),
        "average_certified_radius": {
            **radius._asdict(), "interval": list(radius.interval) if radius.interval else None
        },
        "largest_radius": float(images.radii.max()),
    }  # fmt: skip


def make_curves(
    name: str, reading: Reading, tallies: Tallies, asked: Reading | None = None
) -> tuple[Curve, ...]:
    """Certify the images whose counts suffice, per noise level.

    Args:
        name: What made the counts, see `naming`.
        reading: What is asked of them.
        tallies: The counts.
        asked: What the run was asked, if its images stopped by that: where they did, `reading`
            takes the samples that there are.
    """
    found: dict[float | None, list[tuple[int, int, Certificate]]] = {}
    for sample in tallies.samples():
        own = tallies.of(sample, reading.sigmas)
        stopped = {sigma for sigma, _ in asked.certificates(own)} if asked is not None else set()
        whole = reading.certificates(own)
        found_levels = {sigma for sigma, _ in whole}
        rest = [each for each in reading.certificates(own, partial=True) if each.sigma in stopped]
        for sigma, certificate in [*whole, *(r for r in rest if r.sigma not in found_levels)]:
            label = next(iter(own.values())).label
            found.setdefault(sigma, []).append((sample, label, certificate))
    levels = ",".join(f"{sigma:g}" for sigma in reading.sigmas)
    return tuple(
        _curve(
            f"{name} {f'{sigma:g}' if sigma is not None else f'cascade {levels}'}", sigma, rows,
            reading.share,
        )
        for sigma, rows in sorted(found.items(), key=lambda pair: pair[0] or 0.0)
    )  # fmt: skip


def _curve(
    name: str,
    sigma: float | None,
    rows: Sequence[tuple[int, int, Certificate]],
    alpha: float,
) -> Curve:
    ids, labels, certificates = zip(*rows, strict=True)
    images = CertifiedImages(
        name=name, sigma=sigma, alpha=alpha, ids=np.array(ids, dtype=np.int64),
        labels=np.array(labels, dtype=np.int64),
        predictions=np.array([each.prediction for each in certificates], dtype=np.int64),
        radii=np.array([each.radius for each in certificates]),
    )  # fmt: skip
    return Curve(images, sum(each.samples for each in certificates))


def make_report(
    folder: Path,
    settings: dict[str, Any],
    reading: Reading,
    tallies: Tallies,
    *,
    seconds: float = 0.0,
    notes: Sequence[str] = (),
) -> CertificationReport:
    """Compute a report from counts.

    Args:
        folder: The run folder.
        settings: The run's settings.
        reading: What is asked of the counts.
        tallies: The counts.
        seconds: Wall time of the session.
        notes: Sentences to begin with.
    """
    curves = make_curves(subject(settings), reading, tallies)
    asked, done = settings["n"], min((len(curve.images) for curve in curves), default=0)
    more = list(notes)
    if done < asked:
        more.append(
            f"{done} of {asked} images are done{easy_first(reading, tallies, done)}; the same "
            "command goes on, other shards are read together with `advpure certified-accuracy RUN "
            "RUN`"
        )
    return CertificationReport(
        run=folder, settings=settings, reading=reading, curves=curves, seconds=seconds,
        notes=tuple(more),
    )  # fmt: skip


def easy_first(reading: Reading, tallies: Tallies, done: int) -> str:
    """Say what the images that are done have in common, where their counts decided it.

    Args:
        reading: What the run was asked.
        tallies: Its counts.
        done: Number of images that are decided.
    """
    if not isinstance(reading, Anytime | Cascade) or len(tallies.samples()) <= done:
        return ""
    return ", those that took few samples, so the accuracy of all will differ"


def reading_json(reading: Reading) -> dict[str, Any]:
    """Return a reading as JSON values, for the settings of a run."""
    return {"procedure": reading.name, **dataclasses.asdict(reading)}


def reading_of(settings: Mapping[str, Any], **changes: Any) -> Reading:
    """Return the reading of a run's settings, with changes.

    Raises:
        BadInput: for changes that are out of range.
    """
    stored = {**settings["reading"], **changes}
    check_composed(settings, stored["procedure"])
    kind = find_procedure(stored.pop("procedure"))
    return kind(**{**stored, "sigmas": tuple(stored["sigmas"]), "radii": tuple(stored["radii"])})
