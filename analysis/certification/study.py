"""``certify`` as a study: one run of certificates, by name, resumable, shared between processes."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

from advpure.analysis.certification.accuracy import (
    AtRadius,
    CertifiedImages,
    best_over,
    certified_at,
)
from advpure.analysis.certification.collecting import (
    check_part,
    collect,
    looked_note,
    take_over,
)
from advpure.analysis.certification.counting import COUNTS, count_classes
from advpure.analysis.certification.curves import Curve, easy_first, make_curves, procedure_of
from advpure.analysis.certification.loading import LoadedCertification, load_certification
from advpure.analysis.certification.logs import check_log_path, write_logs
from advpure.analysis.certification.naming import subject
from advpure.analysis.certification.noise import stage_xi
from advpure.analysis.certification.procedures import (
    Anytime,
    Predict,
    Procedure,
    find_procedure,
)
from advpure.analysis.certification.radius import read_radii, read_sigmas
from advpure.analysis.certification.settings import CertificationSettings
from advpure.analysis.certification.summary import (
    accuracies,
    at_any_sigma,
    in_words,
    of_curve,
    table,
)
from advpure.analysis.certification.tallies import Tallies
from advpure.analysis.study import GOES_ON, Columns, Report, Session, Study
from advpure.analysis.until import Adaptive, Goal, Standing, standing_of, stopping
from advpure.base.display import Display
from advpure.base.errors import BadInput
from advpure.base.flags import Beside, Repeats
from advpure.runs.cost import Cost, estimate
from advpure.runs.records import RecordStore
from advpure.runs.schema import Schema


@dataclass(frozen=True, kw_only=True)
class CertificationReport(Report):
    """The result of a run, computed from its counts.

    Attributes:
        procedure: What was asked of the counts.
        curves: Certificates per noise level, increasing; one for a cascade.
        shard: The part that was finished, such as 1/2; None for a whole run.
        standing: Of a run with a goal, where it stands; then all numbers are those of its images.
    """

    procedure: Procedure
    curves: tuple[Curve, ...]
    shard: str | None = None
    standing: Standing | None = None

    @property
    def certificates(self) -> list[CertifiedImages]:
        """The certificates of every curve."""
        return [curve.images for curve in self.curves]

    def best(self) -> list[AtRadius]:
        """Return the highest certified accuracy over noise levels at every radius asked for."""
        return best_over(self.certificates, self.procedure.radii)

    def joint(self) -> list[CertifiedImages]:
        """Return the certificates if those of all noise levels hold at once, else none."""
        return self.certificates if self.procedure.joint else []

    def tree(self) -> dict[str, Any]:
        """Return the accuracies by radius, the curves, and what was asked."""
        radii, classifier = self.procedure.radii, self.settings["defense"].get("classifier") or {}
        seen = {name: classifier[name] for name in ("images_seen",) if name in classifier}
        return {
            **seen,
            **accuracies(self.certificates, radii),
            "curves": [
                {**of_curve(curve.images), "samples_per_image": curve.samples_per_image}
                for curve in self.curves
            ],
            "any_sigma": at_any_sigma(self.joint(), radii),
            "alpha": self.procedure.alpha,
            "samples": self.procedure.samples,
            **({} if self.shard is None else {"shard": self.shard}),
            **({} if self.standing is None else {"until": self.standing.tree()}),
        }

    def display(self) -> Display:
        """Return certified accuracies, a column a noise level."""
        s, procedure = self.settings, self.procedure
        purifier = s["defense"]["purifier"]
        most = "at most " if isinstance(procedure, Anytime) else ""
        headline = (
            f"{s['dataset']}, defense {purifier}, {procedure.name} certificates, alpha "
            f"{procedure.alpha:g}{' for all sigmas together' if procedure.joint else ''}, {most}"
            f"{procedure.samples:,} samples an image, seed {s['randomness']['seed']}: "
            f"{in_words(self.certificates, procedure.radii)}"
        )
        if self.standing is not None:
            headline += f" ({self.standing.words})"
        if self.shard is not None:
            headline = f"shard {self.shard} is done: {headline}"
        group = self.joint()
        tables = table(
            self.certificates,
            procedure.radii,
            used={curve.images.name: curve.samples_per_image for curve in self.curves},
            joint={purifier: group} if group else {},
        )
        return Display(headline, tables)


@dataclass(frozen=True, kw_only=True)
class Certification(
    CertificationSettings, Adaptive, Study[LoadedCertification, CertificationReport]
):
    """Certify the smoothed classifier of a defense by randomized smoothing.

    Within its radius no attack can change the answer. `advpure certified-accuracy` reads the
    records at another alpha or by another procedure.

    Example: advpure certify --defense cm --sigma 0.25,0.5,1.0 -n 100 --procedure anytime

    Attributes:
        until: Stop with the image that makes the 95 % interval of the certified accuracy at a
            radius narrow: "width 10 at 0.25". Images come in a random order; default of n: all.
        counts: Run folder whose counts are taken over, as far as they fit; repeats.
        log: Also write idx label predict radius correct time, a .tsv file a sigma.
    """

    verb: ClassVar[str] = "certify"
    has_radius: ClassVar[bool] = True
    doing: ClassVar[str] = "classifying"
    shorter: ClassVar[str] = "-n, -N or --procedure anytime"
    tables: ClassVar[tuple[Schema, ...]] = (COUNTS,)
    figure: ClassVar[str] = "advpure.analysis.certification.figure:certification_figure"
    columns: ClassVar[Columns] = {
        "certified": {"at": "best.0", "unit": "percent"},
        "average radius": {"at": "curves.0.average_certified_radius", "unit": "radius"},
    }

    counts: Annotated[tuple[str | Path, ...], Repeats(), Beside()] = ()
    log: Annotated[str | None, Beside()] = None

    def __post_init__(self) -> None:
        """Check every field, and where the logs go."""
        super().__post_init__()
        if self.log is not None:
            check_log_path(self.log)
        if self.until is not None:
            self._check_goal(self.until)

    def _check_goal(self, until: str) -> None:
        """Refuse a question that no image answers, and what splits its answer."""
        goal = Goal.read(until)
        if goal.run is not None:
            fix = 'write "width 10 at 0.25", and compare runs by advpure compare'
            raise BadInput(f"until {until!r}", "is not asked of certificates", fix)
        if goal.radius is None:
            fix = f'write "{until.strip()} at 0.25"'
            raise BadInput(f"until {until!r}", "names no radius", fix)
        levels = read_sigmas(self.sigmas)
        if len(levels) > 1 and self.procedure != "cascade":
            rule = f"is of one curve, and there are {len(levels)} noise levels"
            raise BadInput(f"until {until!r}", rule, "give one sigma, or procedure cascade")
        if goal.radius > 0 and self.procedure == "predict":
            rule = "has a radius, which predict certifies none of"
            raise BadInput(f"until {until!r}", rule, "ask at 0, or use another procedure")
        stops = issubclass(find_procedure(self.procedure), Anytime)
        if stops and goal.radius not in read_radii(self.radii):
            rule = f"has a radius that {self.procedure} is not asked for"
            raise BadInput(f"until {until!r}", rule, f"add {goal.radius:g} to the radii")
        if self.shard is not None:
            rule = "does not split a run that stops when it has its answer"
            raise BadInput(f"shard {self.shard}", rule, "leave out one of the two")

    def load(self) -> LoadedCertification:
        """Load the defense at every noise level, the images, and the core of a composition."""
        loaded = load_certification(self, count_classes, stage_xi, collect)
        check_part(loaded.procedure, len(loaded.images.ids), self.part)
        settings = {**loaded.settings, **self.asked(None)}
        return replace(loaded, images=self.in_order(loaded.images, None), settings=settings)

    @classmethod
    def outcomes(cls, store: RecordStore) -> dict[int, float]:
        """Return of every image that is done whether it is certified right at the radius asked."""
        return _outcomes(store, Tallies().read([store]))

    def stopping(self, loaded: LoadedCertification, store: RecordStore) -> Callable[[], bool]:
        """Return whether the goal is reached; every image is read once."""
        known: dict[int, float] = {}

        def outcomes() -> dict[int, float]:
            for sample in loaded.images.ids.tolist():
                if sample in known:
                    continue
                tallies = Tallies()
                for row in store.rows(COUNTS.table, {"sample": sample}):
                    tallies.add(row)
                found = _outcomes(store, tallies)
                if not found:
                    break
                known.update(found)
            return known

        return stopping(store, outcomes, None)

    def is_whole(self, loaded: LoadedCertification, store: RecordStore) -> bool:
        """Return whether all images are certified here; False for a shard."""
        return self.shard is None

    @classmethod
    def missing(cls, store: RecordStore) -> str:
        """Return how many images lack samples; empty for none."""
        curves = cls.report(store).curves
        asked, done = store.settings["n"], min((len(curve.images) for curve in curves), default=0)
        return f"have {done} of {asked} images with all samples" if done < asked else ""

    def before(self, loaded: LoadedCertification) -> tuple[str, ...]:
        """Return what cannot be certified, whatever the images."""
        return tuple(loaded.procedure.notes())

    def total(self, loaded: LoadedCertification) -> int:
        """Return the noise samples of all images and noise levels, at most."""
        procedure = loaded.procedure
        return len(loaded.images.ids) * len(procedure.sigmas) * _samples_per_image(procedure)

    def cost(self, loaded: LoadedCertification) -> Cost:
        """Estimate the cost of all noise samples."""
        n = len(loaded.images.ids)
        rows = n * _samples_per_image(loaded.procedure)
        view = loaded.defense.at(xi=loaded.xi)
        one = estimate(view, loaded.images.images[:8].to(loaded.device), rows, 1, 0)
        total = sum(rows * count for count in loaded.evaluations.values())
        seconds = one.seconds * total / (rows * loaded.defense.evaluations)
        return replace(one, images=n, evaluations=total, seconds=seconds)

    def measure(self, session: Session[LoadedCertification]) -> None:
        """Take over the counts of other runs, and count what is missing."""
        for folder in self.counts:
            take_over(session.store, session.loaded, Path(folder))
        collect(
            session.loaded,
            session.store,
            part=self.part,
            batch_size=session.batch_size,
            progress=session.progress,
            enough=None if self.until is None else session.enough,
        )

    @classmethod
    def report(cls, store: RecordStore) -> CertificationReport:
        """Compute the report of a run from its records alone."""
        procedure, tallies = procedure_of(store.settings), Tallies().read([store])
        standing = (
            standing_of(store, _outcomes(store, tallies)) if store.settings.get("until") else None
        )
        if standing is not None:
            tallies.keep(standing.used)
        curves = make_curves(subject(store.settings), procedure, tallies)
        if standing is not None:
            curves = tuple(
                replace(each, images=replace(each.images, standing=standing)) for each in curves
            )
        notes = procedure.notes()
        asked, done = store.settings["n"], min((len(curve.images) for curve in curves), default=0)
        if done < asked and standing is None:
            notes.append(
                f"{done} of {asked} images are done{easy_first(procedure, tallies, done)}; "
                f"{GOES_ON}, other shards are read together with `advpure "
                "certified-accuracy RUN RUN`"
            )
        return CertificationReport(
            run=store.folder,
            settings=store.settings,
            procedure=procedure,
            curves=curves,
            notes=tuple(notes),
            standing=standing,
        )

    def after(
        self, report: CertificationReport, loaded: LoadedCertification
    ) -> CertificationReport:
        """Add what must be known of counts that were taken over."""
        if self.shard is not None:
            notes = [
                f"shard {self.shard} is done; what stands here is of the images that it alone "
                "decides; read all shards together with `advpure certified-accuracy RUN RUN`",
                *(text for text in report.notes if GOES_ON not in text),
            ]
            report = replace(report, shard=self.shard, notes=tuple(notes))
        warnings = (looked_note(loaded.procedure, Path(folder)) for folder in self.counts)
        return report.with_notes(*filter(None, warnings))

    def pictures(
        self, report: CertificationReport, loaded: LoadedCertification, plot: Path | None
    ) -> dict[str, Any]:
        """Draw the curves and write the logs, where an image is certified."""
        if not report.curves:
            return {}
        drawn = super().pictures(report, loaded, plot)
        if self.log is not None:
            drawn["logs"] = [str(path) for path in write_logs(report.certificates, self.log)]
        return drawn


def _outcomes(store: RecordStore, tallies: Tallies) -> dict[int, float]:
    """Return of the images whose counts suffice whether they are certified at the goal's radius."""
    curves = make_curves("", procedure_of(store.settings), tallies)
    if not curves:
        return {}
    (images,) = (curve.images for curve in curves)
    certified = certified_at(images, store.settings["until"]["radius"])
    return dict(zip(images.ids.tolist(), map(float, certified), strict=True))


def _samples_per_image(procedure: Procedure) -> int:
    """Return the samples of one image at one noise level, at most."""
    return procedure.samples + (0 if isinstance(procedure, Predict) else procedure.selection)
