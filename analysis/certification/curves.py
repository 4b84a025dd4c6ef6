"""From counts to certificates: the curves of a run, and the procedure that its settings name."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from advpure.analysis.certification.accuracy import CertifiedImages
from advpure.analysis.certification.composed import check_composed
from advpure.analysis.certification.prior import read_prior
from advpure.analysis.certification.procedures import (
    Anytime,
    Cascade,
    Procedure,
    Sequential,
    find_procedure,
)
from advpure.analysis.certification.tallies import Tallies
from advpure.analysis.certification.two_stage import Certificate

PLANNED = (
    "certificates of sequential hold for radii, N, alpha, blocks and prior that were chosen before "
    "the counts were looked at; anytime needs no such care"
)


@dataclass(frozen=True)
class Curve:
    """The certificates of one smoothed classifier in a run.

    Attributes:
        images: The certificates.
        samples: Noise samples that were classified for them, all images together.
    """

    images: CertifiedImages
    samples: int

    @property
    def samples_per_image(self) -> float:
        """Noise samples per image."""
        return self.samples / len(self.images)


def make_curves(
    name: str,
    procedure: Procedure,
    tallies: Tallies,
    asked: Procedure | None = None,
    any_count: bool = False,
) -> tuple[Curve, ...]:
    """Certify the images whose counts suffice, per noise level.

    Args:
        name: What made the counts, see `naming`.
        procedure: What is asked of them.
        tallies: The counts.
        asked: The procedure of the run, if its images stopped by that: where they did, `procedure`
            takes the samples that there are.
        any_count: Whether they stopped by a rule that is not known any more.
    """
    by_level: dict[float | None, list[tuple[int, int, Certificate]]] = {}
    for sample in tallies.samples():
        own = tallies.of(sample, procedure.sigmas)
        before = asked.certificates(own, partial=any_count) if asked is not None else []
        stopped = {each.sigma for each in before}
        whole = procedure.certificates(own)
        partial = [each for each in procedure.certificates(own, partial=True) if each[0] in stopped]
        label = next((tally.label for tally in own.values()), 0)
        first, second = whole, partial
        if isinstance(asked, Anytime) and (any_count or asked != procedure):
            first, second = partial, whole
        levels = {sigma for sigma, _ in first}
        for sigma, certificate in [*first, *(each for each in second if each.sigma not in levels)]:
            by_level.setdefault(sigma, []).append((sample, label, certificate))
    cascade = f"cascade {','.join(f'{sigma:g}' for sigma in procedure.sigmas)}"
    return tuple(
        _curve(f"{name} {cascade if sigma is None else f'{sigma:g}'}", sigma, rows, procedure)
        for sigma, rows in sorted(by_level.items(), key=lambda pair: pair[0] or 0.0)
    )


def _curve(
    name: str,
    sigma: float | None,
    rows: Sequence[tuple[int, int, Certificate]],
    procedure: Procedure,
) -> Curve:
    ids, labels, certificates = zip(*rows, strict=True)
    images = CertifiedImages(
        name=name,
        sigma=sigma,
        alpha=procedure.share,
        ids=np.array(ids, dtype=np.int64),
        labels=np.array(labels, dtype=np.int64),
        predictions=np.array([each.prediction for each in certificates], dtype=np.int64),
        radii=np.array([each.radius for each in certificates]),
        tested=procedure.radii if isinstance(procedure, Sequential) else None,
    )
    return Curve(images, sum(each.samples for each in certificates))


def easy_first(procedure: Procedure, tallies: Tallies, done: int) -> str:
    """Return what the images that are done have in common, where their counts decided it.

    Args:
        procedure: That of the run.
        tallies: Its counts.
        done: Number of images that are decided.
    """
    if not isinstance(procedure, Anytime | Cascade) or len(tallies.samples()) <= done:
        return ""
    return ", those that took few samples, so the accuracy of all will differ"


def plan_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a planned test fixes beforehand, of a run's settings or of its JSON values."""
    fixed = ("name", "radii", "samples", "block", "alpha", "joint", "prior")
    plan: dict[str, Any] = json.loads(json.dumps({name: settings.get(name) for name in fixed}))
    return plan


def procedure_json(procedure: Procedure) -> dict[str, Any]:
    """Return a procedure as JSON values, for the settings of a run."""
    fields = dataclasses.asdict(procedure)
    if procedure.prior is None:
        del fields["prior"]
    return {"name": procedure.name, **fields}


def procedure_of(
    settings: Mapping[str, Any], procedure: str | None = None, **changes: Any
) -> Procedure:
    """Return the procedure of a run's settings.

    Args:
        settings: The run's.
        procedure: Name of another procedure.
        changes: Fields of the procedure to replace.

    Raises:
        BadInput: for changes that are out of range.
    """
    stored = {**settings["procedure"], **changes}
    own = stored.pop("name")
    name = own if procedure is None else procedure
    if name != own:
        stops, stopped = (issubclass(find_procedure(each), Anytime) for each in (name, own))
        if not stops:
            stored["prior"] = None
        elif not stopped:
            stored["prior"] = read_prior(None, settings["dataset"], stored["sigmas"])
    fix = "name another procedure: this run has none; certify --core NAME makes one that has"
    check_composed(settings, name, fix)
    return find_procedure(name)(
        **{**stored, "sigmas": tuple(stored["sigmas"]), "radii": tuple(stored["radii"])}
    )
