"""``certified-accuracy``: what runs and logs of certificates say, at any radius.

Runs are read again from their counts: at another alpha, by another procedure, with fewer samples.
Logs hold what their program decided; with the number of samples behind them they are read as if
fewer had been drawn, or at another alpha (`advpure.analysis.certification.emulation`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from advpure.analysis.certification.accuracy import CertifiedImages, compare
from advpure.analysis.certification.emulation import emulate
from advpure.analysis.certification.procedures import ProcedureName
from advpure.analysis.certification.radius import ALPHA, check_alpha, read_radii
from advpure.analysis.certification.settings import RADII
from advpure.analysis.certification.sources import (
    Sources,
    read_sources,
    threshold_notes,
    untested_notes,
)
from advpure.analysis.certification.summary import (
    accuracies,
    at_any_sigma,
    in_words,
    of_curve,
    table,
)
from advpure.base.display import Display, Table
from advpure.base.errors import BadInput
from advpure.base.flags import Flag, Positional, Repeats
from advpure.base.kinds import Natural
from advpure.base.units import parse_sigma
from advpure.base.validation import validate
from advpure.statistics.estimates import Estimate, plain
from advpure.statistics.rates import Difference


@dataclass(frozen=True, kw_only=True)
class CertificateTable:
    """Certified accuracies of several sets of certificates.

    Attributes:
        curves: The certificates.
        radii: [0, 1] units, increasing.
        joint: Of each run whose certificates hold for all noise levels at once, its name and them.
        differences: Pairs of names, the radius, and the paired difference; None if not asked for.
        notes: What a careful reader should know, in sentences.
    """

    curves: Sequence[CertifiedImages]
    radii: tuple[float, ...]
    joint: Mapping[str, Sequence[CertifiedImages]]
    differences: Sequence[tuple[str, str, float, Difference]] | None
    notes: tuple[str, ...]

    def tree(self) -> dict[str, Any]:
        """Return the accuracies by radius, the curves and their differences."""
        asked: dict[str, Any] = {}
        if self.differences is not None:
            asked["differences"] = [
                Estimate.of(
                    difference,
                    extra={
                        "first": first,
                        "second": second,
                        "radius": radius,
                        "p_value": difference.p_value,
                    },
                )
                for first, second, radius, difference in self.differences
            ]
        return {
            **accuracies(self.curves, self.radii),
            "curves": [of_curve(curve) for curve in self.curves],
            "any_sigma": {
                name: at_any_sigma(group, self.radii) for name, group in self.joint.items()
            },
            "notes": list(self.notes),
            **asked,
        }

    def to_json(self) -> dict[str, Any]:
        """Return one JSON object."""
        values: dict[str, Any] = plain(self.tree())
        return values

    def display(self) -> Display:
        """Return certified accuracies, a column a set, and the differences that were asked for."""
        tables = table(self.curves, self.radii, joint=self.joint)
        if self.differences is not None:
            columns = ("difference, paired", "radius", "points", "95 %", "p", "images")
            rows = [
                [
                    f"{first} - {second}",
                    f"{radius:g}",
                    f"{100 * d.value:+.1f}",
                    f"[{100 * d.low:+.1f}, {100 * d.high:+.1f}]",
                    f"{d.p_value:.2g}",
                    str(d.n),
                ]
                for first, second, radius, d in self.differences
            ]
            tables = (*tables, Table(columns, rows))
        return Display(in_words(self.curves, self.radii), tables)


@dataclass(frozen=True, kw_only=True)
class CertifiedAccuracy:
    """Print certified accuracy at any radius, per sigma and best over sigma (an oracle).

    Example: advpure certified-accuracy sigma_0.25.tsv sigma_0.50.tsv --radii 0,0.25,0.5 --json

    Attributes:
        sources: Run folders of certify, their shards, and certification logs.
        radii: Radii in [0, 1] units. Default: the run's; 0,0.25,0.5,0.75,1 for logs.
        alpha: Read runs, or logs (needs --log-samples), at this alpha, above 0, at most 1/2.
        procedure: Read runs by another procedure.
        samples: Read runs with this many samples.
        joint: Read runs with alpha for all sigmas together.
        sigma: Noise levels of the logs, in order. Default: what their paths say.
        emulate: Read logs as if made with this many samples; needs --log-samples.
        log_samples: Samples that the logs were made with, e.g. 100000.
        log_alpha: Alpha that the logs were made with, above 0, at most 1/2, which no log says.
            Without it nothing is said of wrong certificates, and --emulate assumes 0.001.
        compare: The first against each other, paired by image.
    """

    sources: Annotated[tuple[str, ...], Positional(), Repeats()] = ()
    radii: str | float | Sequence[str | float] | None = None
    alpha: float | None = None
    procedure: Annotated[ProcedureName | None, Flag("--procedure", "-p")] = None
    samples: Annotated[Natural | None, Flag("--samples", "-N")] = None
    joint: bool = False
    sigma: str | None = None
    emulate: Natural | None = None
    log_samples: Natural | None = None
    log_alpha: float | None = None
    compare: bool = False

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            BadInput: for no sources, or a value out of range.
        """
        validate(self)
        if not self.sources:
            raise BadInput("no source", "is given", "name run folders of certify, or logs")
        for level in (self.alpha, self.log_alpha):
            if level is not None:
                check_alpha(level)

    def evaluate(self) -> CertificateTable:
        """Read the sources.

        Raises:
            BadInput: for a source that cannot be read, or settings that mean nothing to it.
        """
        asked = None if self.radii is None else read_radii(self.radii)
        changes = {
            "alpha": self.alpha,
            "procedure": self.procedure,
            "samples": self.samples,
            "radii": asked,
            "joint": self.joint or None,
        }
        levels = () if self.sigma is None else self.sigma.split(",")
        sources = read_sources(
            self.sources,
            sigmas=[parse_sigma(each.strip()) for each in levels],
            log_alpha=self.log_alpha,
            **{name: value for name, value in changes.items() if value is not None},
        )
        self._refuse_idle(sources)
        radii = asked or sources.radii or read_radii(RADII)
        curves, notes = list(sources.curves), list(sources.notes)
        notes += threshold_notes([each for each in curves if each.name in sources.logs], radii)
        notes += untested_notes(curves, radii)
        if self._emulates(sources):
            curves = [
                self._emulated(curve) if curve.name in sources.logs else curve for curve in curves
            ]
            if self.log_alpha is None:
                notes.append(f"alpha {ALPHA:g} of the logs is assumed; --log-alpha says another")
            notes += [new.notes[-1] for new in curves if new not in sources.curves]
        if self.compare and len(curves) < 2:
            raise BadInput("one set of certificates", "compares with nothing", "name two")
        differences = [
            (curves[0].name, other.name, radius, difference)
            for other in curves[1:]
            if self.compare
            for radius, difference in compare(curves[0], other, radii)
        ]
        by_name = {curve.name: curve for curve in curves}
        return CertificateTable(
            curves=curves,
            radii=radii,
            joint={name: [by_name[each] for each in members] for name, members in sources.joint},
            differences=differences if self.compare else None,
            notes=tuple(notes),
        )

    def _emulates(self, sources: Sources) -> bool:
        """Return whether logs are read otherwise than they were made."""
        return self.emulate is not None or (self.alpha is not None and bool(sources.logs))

    def _refuse_idle(self, sources: Sources) -> None:
        """Refuse what is for runs beside logs alone, and what is for logs beside runs alone."""
        if len(sources.logs) == len(sources.curves):
            of_runs = {"procedure": self.procedure, "samples": self.samples, "joint": self.joint}
            for name, value in of_runs.items():
                if value:
                    fix = "leave it out, or see --emulate"
                    raise BadInput(f"--{name}", "is for runs, and these are logs", fix)
        if not sources.logs and self.log_alpha is not None:
            subject = f"--log-alpha {self.log_alpha:g}"
            raise BadInput(subject, "is for logs, and these are runs", "leave it out")
        if not self._emulates(sources):
            if self.log_samples is not None:
                rule = "changes nothing without --emulate, or --alpha for logs"
                fix = "add one of them, or leave it out"
                raise BadInput(f"--log-samples {self.log_samples}", rule, fix)
            return
        why = "--emulate" if self.emulate is not None else f"alpha {self.alpha:g} for logs"
        if not sources.logs:
            raise BadInput(why, "is for logs", "read a run with fewer samples by --samples")
        if self.log_samples is None:
            raise BadInput(why, "needs the samples of the logs", "add --log-samples 100000")

    def _emulated(self, curve: CertifiedImages) -> CertifiedImages:
        """Return the certificates of a log as if made otherwise."""
        assert self.log_samples is not None
        return emulate(
            curve,
            samples=self.log_samples,
            to=self.log_samples if self.emulate is None else self.emulate,
            alpha=ALPHA if self.log_alpha is None else self.log_alpha,
            to_alpha=self.alpha,
        )
